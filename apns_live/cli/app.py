"""The tree of commands. A command's module is loaded with it; the engine only when one runs."""

from __future__ import annotations

import functools
from importlib.metadata import version
from typing import Annotated, Any

import typer

from . import (
    activities,
    apps,
    bench,
    broadcast,
    budget,
    channels,
    completion,
    contract,
    demo,
    doctor,
    explain,
    fake,
    fan_out,
    gateway,
    imports,
    keys,
    lint,
    operations,
    send,
    store,
    token,
    worker,
)

NAME = "apns-live"

app = typer.Typer(
    name=NAME,
    help="Send Live Activity pushes directly to APNs, or to a local APNs for tests.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {version('apns-live')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Send Live Activity pushes directly to APNs, or to a local APNs for tests."""


app.command("demo")(demo.demo)
app.command("send")(send.send)
app.command("fan-out")(fan_out.fan_out)
app.command("broadcast")(broadcast.broadcast)
app.command("lint")(lint.lint)
app.command("doctor")(doctor.doctor)
app.command("explain")(explain.explain)
app.command("fake")(fake.fake)
app.command("gateway")(gateway.gateway)
app.command("worker")(worker.worker)
app.command("completion")(completion.completion)
app.add_typer(bench.app, name="bench")
app.add_typer(channels.app, name="channels")
app.add_typer(contract.app, name="contract")
app.add_typer(token.app, name="token")
app.add_typer(budget.app, name="budget")
app.add_typer(store.app, name="store")
app.add_typer(apps.app, name="apps")
app.add_typer(keys.app, name="keys")
app.add_typer(imports.app, name="import")
app.add_typer(activities.app, name="activities")
app.add_typer(operations.app, name="operations")


@functools.cache
def load() -> Any:
    """Return the command, ready to be run. Making it of all functions costs a tenth of a second."""
    return typer.main.get_command(app)
