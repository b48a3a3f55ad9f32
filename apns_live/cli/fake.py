"""``apns-live fake`` and ``apns-live demo``: a local APNs with simulated phones, and a show of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import ConnectFailed, InvalidSetting
from ..outcome import Verdict
from ..settings import Settings
from .gateway import stopping
from .options import Shared, bundle, command
from .output import ExitCode, Screen, progress_shown, spoken

if TYPE_CHECKING:
    from ..client import Report
    from ..client.statistics import Histogram
    from ..payload import Message

_OPTIONS = bundle(
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
    """,
    host="localhost",
    port=0,
    manage_port=0,
    inspector_port=0,
    no_inspector=False,
    dir=Path,
    ready_file=Path,
    hostname=list[str],
    token_file=Path,
    token=str,
    until_stdin_ends=False,
    schema=list[str],
    contract=list[Path],
    bundle_id=list[str],
    scenario=Path,
    latency=str,
    seed=int,
    devices=str,
    face="wire",
    environment=str,
    strict=bool,
    spelling=str,
    cut_streams=bool,
    team_id=str,
    key_id=str,
)


@command(_OPTIONS)
def fake(shared: Shared) -> None:
    """Run a local APNs that behaves like Apple's, until SIGTERM or SIGINT.

    Prints where it is when it is ready; as one JSON line with --json, or where stdout is not a terminal.
    """
    from ..testing.serve import serve

    options = dict(shared.others)
    for name in ("port", "manage_port", "inspector_port"):
        if not 0 <= options[name] < 65_536:
            option, problem = name.replace("_", "-"), f"{options[name]} is not a valid TCP port"
            raise InvalidSetting(problem, f"--{option}", "Use 0 for a free one, to 65535.")
    watches_stdin = options.pop("until_stdin_ends")
    bundle_id, *others = options.pop("bundle_id") or (None,)
    named = {"team_id": options.pop("team_id"), "key_id": options.pop("key_id")}
    options |= {name: text for name, text in {**named, "bundle_id": bundle_id}.items() if text}
    options |= {
        "directory": (directory := options.pop("dir")),
        "hostnames": options.pop("hostname") or (),
        "token": _token(options["token"], options.pop("token_file")),
        "schemas": _schemas(options.pop("schema") or []),
        "bundle_ids": others,
    }
    if options.pop("no_inspector"):
        options["inspector_port"] = None

    def ready(facts: dict[str, Any]) -> None:
        if directory is not None:
            _write_settings(directory, facts)
        empty = [name for name, value in facts.items() if not value]
        # A program reads a pipe or a file.
        screen = Screen(shared.json_mode or not sys.stdout.isatty())
        screen.answer(facts, *spoken(facts, *empty))

    async def run() -> None:
        async with stopping() as stop:
            if watches_stdin:
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
        name, _, file = text.partition("=")
        if not (name and file):
            remedy = "Write the attributes type, =, and the file of its JSON Schema."
            raise InvalidSetting(f"{text!r:.60} is not TYPE=FILE", "--schema", remedy)
        if not Path(file).is_file():
            raise InvalidSetting(f"there is no file {file}", "--schema")
        schemas[name] = Path(file)
    return schemas


def _token(token: str | None, file: Path | None) -> str | None:
    if file is None:
        return token or os.environ.get("APNS_LIVE_FAKE_TOKEN") or None
    if token is not None:
        raise InvalidSetting("and --token-file are both given", "--token", "Keep one of them.")
    if text := file.read_text("utf-8").strip():
        return text
    raise InvalidSetting(f"{file} is empty", "--token-file")


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


# --- the demo

_REDRAW = 200


class Step(NamedTuple):
    """One row of the table: a message that was sent to every phone."""

    name: str
    report: Report
    times: Histogram


@command(
    """
    --tokens N: Number of simulated phones.
    --rounds N: Number of updates.
    --connections N: Maximum of connections.
    --latency TIME: Latency of the fake, such as 40ms.
    --scenario FILE: Scenario of the fake (TOML).
    --progress/--no-progress: Show a progress bar. [on a terminal]
    """
)
def demo(
    shared: Shared,
    tokens: int = 20_000,
    rounds: int = 20,
    connections: int = 8,
    latency: str | None = None,
    scenario: Path | None = None,
    progress: bool | None = None,
) -> int:
    """Start a fake APNs, send an activity to simulated phones, and print the timing.

    Sends a start, updates and an end to every phone, over real HTTP/2 and TLS.
    """
    for name, number, least, most in (
        ("--tokens", tokens, 1, 10_000_000),
        ("--rounds", rounds, 0, 10_000_000),
        ("--connections", connections, 1, 1_000),
    ):
        if not least <= number <= most:
            raise InvalidSetting(f"{number} is out of range", name, f"Give {least} to {most:,}.")
    shows = sys.stderr.isatty() if progress is None else progress
    if not shared.json_mode:
        shared.note(f"starting a fake APNs for {tokens:,} simulated phones")
    with fake_process(latency=latency, scenario=scenario) as settings:
        steps = asyncio.run(_play(settings, tokens, rounds, connections, shows))
    return _show(shared, steps, tokens, rounds)


@contextlib.contextmanager
def fake_process(*, latency: str | None, scenario: Path | None) -> Iterator[Settings]:
    """Run ``apns-live fake`` in a process of its own; yield the settings that reach it."""
    arguments = [sys.executable, "-m", "apns_live.cli", "fake", "--json", "--no-inspector"]
    arguments.append("--until-stdin-ends")  # the fake stops even if this process is killed
    arguments += [] if latency is None else ["--latency", latency]
    arguments += [] if scenario is None else ["--scenario", str(scenario)]
    with (
        tempfile.TemporaryDirectory(prefix="apns-live-demo-") as directory,
        subprocess.Popen(  # noqa: S603 - this very program
            [*arguments, "--dir", directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C reaches only this process, which then stops the fake.
            start_new_session=True,
        ) as process,
    ):
        try:
            line = process.stdout.readline() if process.stdout else b""
            facts = json.loads(line) if line.startswith(b"{") else {}
            if "endpoint" not in facts:
                said = process.stderr.read().decode("utf-8", "replace") if process.stderr else ""
                why = said.strip() or facts.get("error", "no word")
                raise ConnectFailed(f"the fake APNs did not start: {why}")
            yield Settings.load(file=Path(directory) / "apns-live.toml", environ={})
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


async def _play(
    settings: Settings, tokens: int, rounds: int, connections: int, shows: bool
) -> list[Step]:
    from ..client.statistics import Histogram
    from ..payload import Alert, End, Start, Update

    start = Start(
        content_state={"home": 0, "away": 0, "minute": 0},
        attributes_type="MatchAttributes",
        attributes={"home": "Lions", "away": "Bears"},
        alert=Alert(title="Lions - Bears", body="Kick-off"),
    )
    messages: dict[str, Message] = {"start": start}
    for number in range(1, rounds + 1):
        state = {"home": number // 3, "away": number // 5, "minute": number * 4}
        messages[f"update {number}"] = Update(content_state=state)
    messages["end"] = End(content_state={"home": 6, "away": 4, "minute": 90})
    steps: list[Step] = []
    done = 0
    async with settings.client(max_connections=connections) as client:
        with progress_shown("demo", total=tokens * len(messages), shown=shows) as show:
            for name, message in messages.items():
                # Tokens have 80 bytes, as those of real iPhones; start and activity tokens differ.
                kind, times = "00" if name == "start" else "01", Histogram()
                phones = (f"{kind}{number:0158x}" for number in range(tokens))
                async with client.fan_out(message, phones) as run:
                    async for outcome in run:
                        times.add(outcome.round_trip)
                        done += 1
                        if done % _REDRAW == 0:
                            show(done, name)
                    steps.append(Step(name, run.report, times))
    return steps


def _show(shared: Shared, steps: list[Step], tokens: int, rounds: int) -> int:
    updates, total = steps[1:-1], _row("total", steps)
    shown = [_row("start", steps[:1])]
    shown += [_row(f"{len(updates)} updates", updates)] if updates else []
    shown += [_row("end", steps[-1:]), total]
    data = {"tokens": tokens, "rounds": rounds}
    shared.rows(
        data | {"steps": [_row(step.name, [step]) for step in steps], "total": total},
        ("step", "pushes", "accepted", "dropped", "p50 ms", "p99 ms", "push/s", "links"),
        [
            (
                *(row[name] for name in ("step", "pushes", "accepted", "dropped")),
                *(row["p50"] * 1000, row["p99"] * 1000, int(row["rate"]), row["connections"]),
            )
            for row in shown
        ],
    )
    everything = total["pushes"] == tokens * (rounds + 2) == total["accepted"]
    return ExitCode.OK if everything else ExitCode.NOT_ACCEPTED


def _row(name: str, steps: list[Step]) -> dict[str, Any]:
    """Return the figures of some steps together; times are seconds."""
    from ..client.statistics import Histogram

    times = Histogram()
    for step in steps:
        times.merge(step.times)
    reports = [step.report for step in steps]
    settled = sum(report.settled for report in reports)
    accepted = sum(report.accepted for report in reports)
    dropped = sum(report.verdicts.get(Verdict.DROP_TOKEN, 0) for report in reports)
    elapsed = sum(report.elapsed for report in reports)
    return {
        "step": name,
        "pushes": settled,
        "accepted": accepted,
        "dropped": dropped,
        "other": settled - accepted - dropped,
        **{f"p{share}": round(times.percentile(share), 6) for share in (50, 95, 99)},
        "elapsed": round(elapsed, 3),
        "rate": round(settled / elapsed, 1) if elapsed else 0.0,
        "connections": max(report.connections for report in reports),
    }
