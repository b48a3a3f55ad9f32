"""The tree of commands. A command's module is loaded with the tree, the engine when a command runs."""

import functools
from importlib.metadata import version
from typing import Annotated, Any

import typer

from . import apps, bench, budget, doctor, fake, fan_out, gateway, send, store, tools

NAME = "apns-live"
_HELP = "Send Live Activity pushes directly to APNs, or to a local APNs for tests."

app = typer.Typer(name=NAME, help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {version('apns-live')}")
        raise typer.Exit


@app.callback(help=_HELP)
def _root(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None: ...


for each in (
    *(fake.demo, send.send, fan_out.fan_out, send.broadcast, tools.lint, doctor.doctor),
    *(tools.explain, fake.fake, gateway.gateway, gateway.worker, tools.completion),
):
    app.command(each.__name__.replace("_", "-"))(each)
for name, group in {
    "bench": bench.app,
    "channels": send.channels,
    "contract": tools.contracts,
    "token": tools.token,
    "budget": budget.app,
    "store": store.app,
    "apps": apps.app,
    "keys": apps.keys,
    "import": store.imports,
    "activities": store.activities,
    "operations": store.operations,
}.items():
    app.add_typer(group, name=name)


@functools.cache
def load() -> Any:
    """Return the command, ready to run. Building it takes a tenth of a second."""
    return typer.main.get_command(app)
