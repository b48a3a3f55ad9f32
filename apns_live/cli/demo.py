"""``apns-live demo``: an activity from start to end, against a fake APNs in another process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConnectFailed, InvalidSetting
from ..outcome import Verdict
from ..settings import Settings
from .options import Shared, command
from .output import Bar, ExitCode

if TYPE_CHECKING:
    from ..client import Report
    from ..client.histogram import Histogram
    from ..payload import Message

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
    if latency is not None:
        arguments += ["--latency", latency]
    if scenario is not None:
        arguments += ["--scenario", str(scenario)]
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
                raise ConnectFailed(
                    f"the fake APNs did not start: {said.strip() or facts.get('error', 'no word')}"
                )
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
    from ..client.histogram import Histogram
    from ..payload import Alert, End, Start, Update

    messages: dict[str, Message] = {
        "start": Start(
            content_state={"home": 0, "away": 0, "minute": 0},
            attributes_type="MatchAttributes",
            attributes={"home": "Lions", "away": "Bears"},
            alert=Alert(title="Lions - Bears", body="Kick-off"),
        )
    }
    for number in range(1, rounds + 1):
        state = {"home": number // 3, "away": number // 5, "minute": number * 4}
        messages[f"update {number}"] = Update(content_state=state)
    messages["end"] = End(content_state={"home": 6, "away": 4, "minute": 90})
    steps: list[Step] = []
    done = 0
    async with settings.client(max_connections=connections) as client:
        with Bar("demo", total=tokens * len(messages), shown=shows) as bar:
            for name, message in messages.items():
                # Tokens have 80 bytes, as those of real iPhones; start and activity tokens differ.
                kind, times = "00" if name == "start" else "01", Histogram()
                phones = (f"{kind}{number:0158x}" for number in range(tokens))
                async with client.fan_out(message, phones) as run:
                    async for outcome in run:
                        times.add(outcome.round_trip)
                        done += 1
                        if done % _REDRAW == 0:
                            bar.at(done, name)
                    steps.append(Step(name, run.report, times))
    return steps


_COLUMNS = {
    "step": "step",
    "pushes": "pushes",
    "accepted": "accepted",
    "dropped": "dropped",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "rate": "push/s",
    "connections": "links",
}


def _show(shared: Shared, steps: list[Step], tokens: int, rounds: int) -> int:
    updates, total = steps[1:-1], _row("total", steps)
    shown = [_row("start", steps[:1])]
    shown += [_row(f"{len(updates)} updates", updates)] if updates else []
    shown += [_row("end", steps[-1:]), total]
    shared.rows(
        {
            "tokens": tokens,
            "rounds": rounds,
            "steps": [_row(step.name, [step]) for step in steps],
            "total": total,
        },
        list(_COLUMNS.values()),
        [[_shown(name, row[name]) for name in _COLUMNS] for row in shown],
    )
    everything = total["pushes"] == tokens * (rounds + 2) == total["accepted"]
    return ExitCode.OK if everything else ExitCode.NOT_ACCEPTED


def _shown(name: str, value: Any) -> Any:
    if name in ("p50", "p99"):
        return value * 1000
    return int(value) if name == "rate" else value


def _row(name: str, steps: list[Step]) -> dict[str, Any]:
    """Return the figures of some steps together; times are seconds."""
    from ..client.histogram import Histogram

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
        "p50": round(times.percentile(50), 6),
        "p95": round(times.percentile(95), 6),
        "p99": round(times.percentile(99), 6),
        "elapsed": round(elapsed, 3),
        "rate": round(settled / elapsed, 1) if elapsed else 0.0,
        "connections": max(report.connections for report in reports),
    }
