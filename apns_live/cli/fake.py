"""``apns-live fake``: a local APNs with simulated phones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import InvalidSetting
from .gateway import stopping
from .options import Shared, command
from .output import Screen, spoken


@command(
    """
    Addresses and files:
    --host HOST: Address to listen on.
    --port PORT: Port for pushes; 0 picks a free one.
    --manage-port PORT: Port for channel management.
    --inspector-port PORT: Port of the inspector and the control API.
    --no-inspector: Serve neither the inspector nor the control API.
    --dir DIR: Directory for certificates, key and apns-live.toml. [a temporary one]
    --ready-file FILE: Write the ready line (JSON) to this file when every port listens.
    --hostname NAME: Additional name in the certificate, such as api.push.apple.com.
    --token-file FILE: File with the token for inspector and control API; required unless the address is
        loopback. [APNS_LIVE_FAKE_TOKEN]
    --token TEXT: The token itself; other users can see it in the process list.
    --until-stdin-ends: Also stop when stdin ends, for example because the parent process died.
    Behavior:
    --scenario FILE: Scenario (TOML): faults, tokens, phones.
    --latency TIME: Delay of answers: 40ms, or 40ms+10ms with random spread.
    --seed N: Seed of all random choices.
    --devices auto|strict: auto: every well-formed token is a live device. strict: only issued tokens are.
    --schema TYPE=FILE: JSON Schema of the content state of an attributes type.
    --contract FILE: Swift file of the app; the phones decode like it; repeatable.
    --face wire|asgi: HTTP/2 server: wire (our own, fast, with every fault) or asgi (hypercorn).
    --environment development|production: Environment to simulate.
    --strict/--lenient: Refuse what Apple tolerates but does not document.
    --spelling wire|documented: Spell reasons as seen from APNs, or as Apple documents them.
    --cut-streams/--no-cut-streams: Allow one stream after a refusal, and all after a success.
    App and key:
    --bundle-id ID: Bundle id of an app; repeatable.
    --team-id ID: Team id.
    --key-id ID: Key id.
    """
)
def fake(
    shared: Shared,
    host: str = "localhost",
    port: int = 0,
    manage_port: int = 0,
    inspector_port: int = 0,
    no_inspector: bool = False,
    dir_: Path | None = None,
    ready_file: Path | None = None,
    hostname: list[str] | None = None,
    token_file: Path | None = None,
    token: str | None = None,
    until_stdin_ends: bool = False,
    schema: list[str] | None = None,
    contract: list[Path] | None = None,
    bundle_id: list[str] | None = None,
    scenario: Path | None = None,
    latency: str | None = None,
    seed: int | None = None,
    devices: str | None = None,
    face: str = "wire",
    environment: str | None = None,
    strict: bool | None = None,
    spelling: str | None = None,
    cut_streams: bool | None = None,
    team_id: str | None = None,
    key_id: str | None = None,
) -> None:
    """Run a local APNs that behaves like Apple's, until SIGTERM or SIGINT.

    Prints where it is when it is ready; as one JSON line with --json, or where stdout is not a terminal.
    """
    from ..testing.serve import serve

    ports = {"port": port, "manage_port": manage_port, "inspector_port": inspector_port}
    for name, number in ports.items():
        if not 0 <= number < 65_536:
            raise InvalidSetting(
                f"{number} is not a valid TCP port",
                f"--{name.replace('_', '-')}",
                "Use 0 for a free one, to 65535.",
            )
    named = {"team_id": team_id, "key_id": key_id, "bundle_id": bundle_id[0] if bundle_id else None}
    options: dict[str, Any] = {
        **ports,
        **{name: text for name, text in named.items() if text is not None},
        "host": host,
        "directory": dir_,
        "ready_file": ready_file,
        "hostnames": hostname or (),
        "token": _token(token, token_file),
        "scenario": scenario,
        "latency": latency,
        "seed": seed,
        "devices": devices,
        "schemas": _schemas(schema or []),
        "contract": contract,
        "face": face,
        "environment": environment,
        "strict": strict,
        "spelling": spelling,
        "cut_streams": cut_streams,
        "bundle_ids": (bundle_id or ())[1:],
    }
    if no_inspector:
        options["inspector_port"] = None

    def ready(facts: dict[str, Any]) -> None:
        if dir_ is not None:
            _write_settings(dir_, facts)
        empty = [name for name, value in facts.items() if not value]
        # A program reads a pipe or a file.
        screen = Screen(shared.json_mode or not sys.stdout.isatty())
        screen.answer(facts, *spoken(facts, *empty))

    async def run() -> None:
        async with stopping() as stop:
            if until_stdin_ends:
                _watch_stdin(stop)
            await serve(**options, ready=ready, stop=stop)

    asyncio.run(run())


def _watch_stdin(stop: asyncio.Event) -> None:
    """Set ``stop`` when stdin ends. A thread, since an event loop cannot watch every kind of file."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 65_536):
                pass
        with contextlib.suppress(RuntimeError):  # the loop is closed: the fake has stopped
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read, name="apns-live-stdin", daemon=True).start()


def _schemas(texts: list[str]) -> dict[str, Path]:
    schemas: dict[str, Path] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise InvalidSetting(
                f"{text!r:.60} is not TYPE=FILE",
                "--schema",
                "Write the attributes type, =, and the file of its JSON Schema.",
            )
        if not Path(file).is_file():
            raise InvalidSetting(f"there is no file {file}", "--schema")
        schemas[name] = Path(file)
    return schemas


def _token(token: str | None, file: Path | None) -> str | None:
    if token is not None and file is not None:
        raise InvalidSetting("and --token-file are both given", "--token", "Keep one of them.")
    if file is not None:
        text = file.read_text("utf-8").strip()
        if not text:
            raise InvalidSetting(f"{file} is empty", "--token-file")
        return text
    return token or os.environ.get("APNS_LIVE_FAKE_TOKEN") or None


def _write_settings(directory: Path, facts: dict[str, Any]) -> None:
    """Write a settings file for the fake, for ``--config DIR/apns-live.toml``."""
    endpoint, manage = urlsplit(facts["endpoint"]), urlsplit(facts["manage"])
    values = {
        **{name: str(facts[name]) for name in ("key_id", "team_id", "bundle_id")},
        "key_file": str(Path(facts["key_file"]).resolve()),
        "endpoint.host": endpoint.hostname,
        "endpoint.port": endpoint.port,
        "endpoint.manage_host": manage.hostname,
        "endpoint.manage_port": manage.port,
        "endpoint.ca_file": str(Path(facts["ca_file"]).resolve()),
    }
    lines = ["# Written by apns-live fake: the settings that reach it."]
    lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    directory.joinpath("apns-live.toml").write_text("\n".join(lines) + "\n", "utf-8")
