"""``apns-live fake``: a local APNs with phones behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InvalidSetting
from .options import Shared, command, option
from .output import MissingPart, Screen

_PLACE, _DAY, _WHO = "Where", "What kind of day", "Whose"


def _option(text: str, panel: str, metavar: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, metavar=metavar)


@command()
def fake(
    shared: Shared,
    host: Annotated[str, _option("Address to listen on.", _PLACE, "HOST")] = "localhost",
    port: Annotated[int, _option("Port of pushes; 0 takes a free one.", _PLACE, "PORT")] = 0,
    manage_port: Annotated[int, _option("Port of channel management.", _PLACE, "PORT")] = 0,
    inspector_port: Annotated[
        int, _option("Port of the inspector and the control API.", _PLACE, "PORT")
    ] = 0,
    no_inspector: Annotated[bool, option("Leave it out.", "--no-inspector", panel=_PLACE)] = False,
    directory: Annotated[
        Path | None,
        _option(
            "Directory for certificates, key and apns-live.toml; a temporary one if not given.",
            _PLACE,
            "DIR",
            "--dir",
        ),
    ] = None,
    ready_file: Annotated[
        Path | None,
        _option("Gets what is printed, as JSON, once every port listens.", _PLACE, "FILE"),
    ] = None,
    hostname: Annotated[
        list[str] | None,
        _option("Another name in the certificate, such as api.push.apple.com.", _PLACE, "NAME"),
    ] = None,
    token_file: Annotated[
        Path | None,
        _option(
            "File with the token of inspector and control API; needed on any address that is "
            "not this machine's own. [APNS_LIVE_FAKE_TOKEN]",
            _PLACE,
            "FILE",
        ),
    ] = None,
    token: Annotated[
        str | None,
        _option("The token itself; others can see it in the process list.", _PLACE, "TEXT"),
    ] = None,
    scenario: Annotated[
        Path | None, _option("Scenario (TOML): faults, tokens, phones.", _DAY, "FILE")
    ] = None,
    latency: Annotated[
        str | None, _option("Time to answer: 40ms, or 40ms+10ms with a spread.", _DAY, "TIME")
    ] = None,
    seed: Annotated[int | None, _option("Seed of everything drawn.", _DAY, "N")] = None,
    devices: Annotated[
        str | None,
        _option("auto: every well-formed token is a live device; or strict.", _DAY, "auto|strict"),
    ] = None,
    schema: Annotated[
        list[str] | None,
        _option("JSON Schema of the content state of an attributes type.", _DAY, "TYPE=FILE"),
    ] = None,
    contract: Annotated[
        list[Path] | None,
        _option("Swift file of the app, by which its phones decode; repeat.", _DAY, "FILE"),
    ] = None,
    face: Annotated[
        str, _option("wire (our own, fast, every fault) or asgi (hypercorn).", _DAY, "wire|asgi")
    ] = "wire",
    environment: Annotated[
        str | None, _option("Which APNs to play.", _DAY, "development|production")
    ] = None,
    strict: Annotated[
        bool | None,
        option("Refuse what Apple tolerates without saying so.", "--strict/--lenient", panel=_DAY),
    ] = None,
    spelling: Annotated[
        str | None, _option("Reasons as seen or as documented.", _DAY, "wire|documented")
    ] = None,
    cut_streams: Annotated[
        bool | None,
        option(
            "One stream after a refusal, back after a success.",
            "--cut-streams/--no-cut-streams",
            panel=_DAY,
        ),
    ] = None,
    bundle_id: Annotated[
        list[str] | None, _option("Bundle id of an app; may be repeated.", _WHO, "ID")
    ] = None,
    team_id: Annotated[str | None, _option("Team id.", _WHO, "ID")] = None,
    key_id: Annotated[str | None, _option("Key id.", _WHO, "ID")] = None,
    until_stdin_ends: Annotated[
        bool,
        option(
            "Stop when stdin ends too: nothing is left behind by a program that dies.",
            "--until-stdin-ends",
            panel=_PLACE,
        ),
    ] = False,
) -> int:
    """Run a local APNs that behaves like Apple's, until SIGTERM or SIGINT.

    Prints where it is when it is ready; as one JSON line with --json, or where stdout is no terminal.
    """
    try:
        from ..testing.serve import ServeOptions, serve
    except ImportError as error:
        raise MissingPart("fake", error.name) from error
    _choice("--devices", devices, ("auto", "strict"))
    _choice("--face", face, ("wire", "asgi"))
    _choice("--environment", environment, ("development", "production"))
    _choice("--spelling", spelling, ("wire", "documented"))
    for name, number in (("--port", port), ("--manage-port", manage_port)):
        _port(name, number)
    _port("--inspector-port", inspector_port)
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "manage_port": manage_port,
        "inspector_port": None if no_inspector else inspector_port,
        "directory": directory,
        "scenario": scenario,
        "latency": latency,
        "seed": seed,
        "devices": devices,
        "schemas": _schemas(schema or []),
        "contract": tuple(contract or ()),
        "face": face,
        "environment": environment,
        "strict": strict,
        "spelling": spelling,
        "cut_streams": cut_streams,
        "token": _token(token, token_file),
        "hostnames": tuple(hostname or ()),
        "ready_file": ready_file,
    }
    if bundle_id:
        given |= {"bundle_id": bundle_id[0], "bundle_ids": tuple(bundle_id[1:])}
    given |= {name: value for name, value in (("team_id", team_id), ("key_id", key_id)) if value}

    def ready(facts: dict[str, Any]) -> None:
        if directory is not None:
            _write_settings(directory, facts)
        lines = [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items() if value]
        # A pipe or a file is read by a program.
        screen = Screen(json_mode=shared.screen.json_mode or not sys.stdout.isatty())
        screen.answer(facts, "\n".join(lines))

    async def run() -> None:
        stop = asyncio.Event()
        if until_stdin_ends:
            _watch_stdin(stop)
        await serve(ServeOptions(**given), ready=ready, stop=stop)

    try:
        asyncio.run(run())
    except ImportError as error:
        raise MissingPart("fake", error.name) from error
    return 0


def _watch_stdin(stop: asyncio.Event) -> None:
    """Set ``stop`` when stdin ends. A thread, since an event loop cannot watch every kind of file."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 65_536):
                pass
        with contextlib.suppress(RuntimeError):  # the loop is closed: it stopped by itself
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read, name="apns-live-stdin", daemon=True).start()


def _choice(option: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise InvalidSetting(
            f"{value!r:.40} is not a choice", field=option, remedy=f"Use {' or '.join(choices)}."
        )


def _port(option: str, number: int) -> None:
    if not 0 <= number < 65_536:
        raise InvalidSetting(
            f"{number} is no TCP port", field=option, remedy="Use 0 for a free one, to 65535."
        )


def _schemas(texts: list[str]) -> dict[str, Path]:
    schemas: dict[str, Path] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise InvalidSetting(
                f"{text!r:.60} is not TYPE=FILE",
                field="--schema",
                remedy="Write the attributes type, =, and the file of its JSON Schema.",
            )
        if not Path(file).is_file():
            raise InvalidSetting(f"there is no file {file}", field="--schema")
        schemas[name] = Path(file)
    return schemas


def _token(token: str | None, file: Path | None) -> str | None:
    if token is not None and file is not None:
        raise InvalidSetting(
            "and --token-file are both given", field="--token", remedy="Keep one of them."
        )
    if file is not None:
        text = file.read_text("utf-8").strip()
        if not text:
            raise InvalidSetting(f"{file} is empty", field="--token-file")
        return text
    return token or os.environ.get("APNS_LIVE_FAKE_TOKEN") or None


def _write_settings(directory: Path, facts: dict[str, Any]) -> None:
    """Leave a settings file, so that ``--config DIR/apns-live.toml`` is all a command needs."""
    import json
    from urllib.parse import urlsplit

    endpoint, manage = urlsplit(facts["endpoint"]), urlsplit(facts["manage"])

    def line(name: str, value: object) -> str:
        return f"{name} = {json.dumps(value)}"

    lines = [
        "# Written by apns-live fake: the settings that reach it.",
        *(line(name, str(facts[name])) for name in ("key_id", "team_id", "bundle_id")),
        line("key_file", str(Path(facts["key_file"]).resolve())),
        "",
        "[endpoint]",
        line("host", endpoint.hostname),
        line("port", endpoint.port),
        line("manage_host", manage.hostname),
        line("manage_port", manage.port),
        line("ca_file", str(Path(facts["ca_file"]).resolve())),
    ]
    directory.joinpath("apns-live.toml").write_text("\n".join(lines) + "\n", "utf-8")
