"""``apns-live bench``: measure the engine, the service and the gateway on this machine."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ..errors import InvalidInput
from .messages import message_from
from .options import Shared, bundle, command, group
from .output import ExitCode, progress_shown

if TYPE_CHECKING:
    from ..bench.results import Result
    from ..bench.runner import Progress, Setup
    from ..bench.senders import Plan

app = group("Measure pushes, the service and the gateway on this machine.")

_FORMS = (".json", ".csv", ".png")

_TABLE = """
--payload FILE: JSON message, as for send --message.
--body BYTES: Size of the payload, without --payload.
--duration SECONDS: Length of a run.
--count N [1..]: Length of a run in pushes, instead of --duration.
--connections [1..]: Maximum of connections.
--rounds [1..]: Rounds; the senders alternate.
--sink KIND: Receiver: c, own, or auto (c if it can be built).
--unique-id: The sink answers with apns-unique-id, as the sandbox does.
--streams [1..]: Concurrent streams per connection.
--window BYTES [4096..]: Flow-control window of a connection.
--rtt MS: Round-trip time to the sink.
--database URL: Database for the test data. [a new SQLite file]
--output FILE: Write the result as .json, .csv or .png; repeatable.
--append: Add the runs to an existing .json, for compare.
"""
_PLAN = {"duration": "seconds", **{name: name for name in ("count", "connections", "concurrent")}}
"""Shared option -> the field of a `Plan`."""
_LIMITS = ("streams", "window", "unique_id")


@dataclasses.dataclass(frozen=True, slots=True)
class Bench:
    """The values of a measure's shared options, and the display of its progress."""

    said: Mapping[str, Any]
    progress: Progress

    def plan(self, **more: Any) -> Plan:
        """Return the plan of the senders; ``more`` has further fields of it."""
        from ..bench.runner import message_of
        from ..bench.senders import Plan

        payload = self.said["payload"]
        message = message_from({"file": payload}) if payload else message_of(self.said["body"])
        given = {field: self.said[name] for name, field in _PLAN.items() if name in self.said}
        return Plan(message=message, **{**given, **more})

    def setup(self) -> Setup:
        """Return how the measure runs. Raises `InvalidInput` for an unknown kind of sink."""
        from ..bench.processes import SinkOptions
        from ..bench.runner import Setup

        if (kind := self.said["sink"]) not in ("auto", "c", "own"):
            raise InvalidInput(f"{kind!r:.40} is not a valid sink", "sink", "Use auto, c or own.")
        limits = {name: self.said[name] for name in _LIMITS if name in self.said}
        options = SinkOptions(kind=kind, **limits)
        return Setup(sink=options, rounds=self.said.get("rounds", 1), progress=self.progress)


def measured(
    name: str, table: str = "", **common: Any
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Make a command of a measure. It gets a `Bench` and its own options, which ``table`` describes.

    ``common`` maps the shared options that it also has to their types or defaults. Every measure has
    --sink, --output and --append.
    """
    common |= {"sink": "auto", "output": list[str], "append": False}

    def wrap(measure: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(measure)
        def run(shared: Shared, **given: Any) -> int:
            paths = [Path(path) for path in shared.others["output"] or []]
            for path in paths:
                if path.suffix not in _FORMS:
                    problem = f"{path.name!r:.60} has no format that is written here"
                    raise InvalidInput(problem, "output", f"End it with {', '.join(_FORMS)}.")
                if path.suffix == ".png":
                    importlib.import_module("matplotlib")
            with _shown(name) as progress:
                result = measure(Bench(shared.others, progress), **given)
            return _finish(shared, result, paths, shared.others["append"])

        app.command(name)(command(table, bundle(_TABLE + table, **common))(run))
        return measure

    return wrap


@measured(
    "throughput",
    """
    --concurrent [1..]: Concurrent calls of send().
    --against NAME: aioapns, httpx, pyapns, h2load, or one of --senders; repeatable.
    --sender COMMAND: Command of another sender; repeatable.
    --senders FILE: JSON file with commands by name.
    """,
    payload=str,
    body=350,
    duration=5.0,
    count=int,
    connections=1,
    concurrent=1_000,
    rounds=3,
    unique_id=False,
    streams=1_000,
    window=65_535,
)
def throughput(
    bench: Bench,
    against: list[str] | None = None,
    sender: list[str] | None = None,
    senders: str | None = None,
) -> Result:
    """Measure pushes a second over loopback, also of other senders in alternating rounds."""
    from ..bench import runner

    others = runner.contenders_of(against or [], sender or [], senders)
    return runner.throughput(bench.plan(), bench.setup(), others)


@measured(
    "latency",
    "--rate N [0.1..]: Pushes a second; repeatable.",
    payload=str,
    body=350,
    duration=5.0,
    count=int,
    connections=1,
)
def latency(bench: Bench, rate: list[float] | None = None) -> Result:
    """Measure the latency of a push at 100, 1,000, 5,000 and 10,000 pushes a second, or at --rate."""
    from ..bench import runner

    return runner.latency(bench.plan(), rate or [100, 1_000, 5_000, 10_000], bench.setup())


@measured(
    "distance",
    "--connections [1..]: Connections at most; 1 and 8; repeatable.",
    rtt=80.0,
    window=65_535,
    streams=1_000,
    payload=str,
    body=350,
    duration=10.0,
    count=int,
)
def distance(bench: Bench, connections: list[int] | None = None) -> Result:
    """Measure pushes a second with an added delay, and compare them with the bound of the windows."""
    from ..bench import runner

    rtt = bench.said["rtt"] / 1e3
    return runner.distance(bench.plan(), rtt, connections or [8, 1], bench.setup())


@measured(
    "fan-out",
    """
    --audience [1..]: Number of phones.
    --updates [1..]: Number of states.
    --every SECONDS [1.0..]: Time between two states.
    """,
    rtt=0.0,
    payload=str,
    body=350,
    connections=8,
)
def fan_out(bench: Bench, audience: int = 100_000, updates: int = 5, every: float = 2.0) -> Result:
    """Measure how long it takes until an audience has a state, and the age of states on arrival."""
    from ..bench import runner
    from ..payload import Update

    plan = bench.plan(count=audience, updates=updates, every=every)
    if not isinstance(plan.message, Update):
        raise InvalidInput("only updates are fanned out here", "payload")
    return runner.fan_out(plan, bench.setup(), bench.said["rtt"] / 1e3)


@measured("memory", "--count [10..]: Tokens.", payload=str, body=350, rounds=1)
def memory(bench: Bench, count: int = 1_000_000) -> Result:
    """Measure the peak memory of one fan-out, and whether its last pushes cost more than the first."""
    from ..bench import runner

    return runner.memory(bench.plan(count=count), bench.setup())


@measured("service", "--devices [1..]: Devices.", database=str, rounds=1)
def service(bench: Bench, devices: int = 100_000) -> Result:
    """Measure registering devices, and a start for all of them with every outcome stored."""
    from ..bench.service import service as measure

    return measure(devices, bench.setup(), bench.said["database"])


@measured(
    "gateway",
    """
    --count N [1..]: Length of a run in calls, instead of --duration.
    --connections [1..]: Number of clients.
    --phones [1..]: Phones per activity.
    --overload N [0..]: Number of clients in a last phase of overload.
    --start N [0..]: Devices on which an activity starts while updates go on at half load.
    """,
    duration=5.0,
    count=int,
    connections=64,
    database=str,
    rounds=3,
)
def gateway(bench: Bench, phones: int = 1, overload: int = 0, start: int = 0) -> Result:
    """Measure calls of three APIs and registrations, compared with an empty route; latency at half load."""
    from ..bench.gateway import gateway as measure

    said = {name: bench.said[name] for name in ("count", "connections", "database")}
    said |= {"phones": phones, "overload": overload, "start": start}
    return measure(bench.said["duration"], bench.setup(), **said)


@app.command("compare")
@command("A.json [B.json]: Results.")
def compare(shared: Shared, files: list[str]) -> None:
    """Compare two results, or the senders of one result, with confidence intervals."""
    from ..bench.results import compare as compared
    from ..bench.results import compare_contenders, load

    if len(files) > 2:
        raise InvalidInput("two results are compared, or one with itself", "files")
    results = [load(file) for file in files]
    found = compared(*results) if len(results) == 2 else compare_contenders(results[0])
    data = [{**dataclasses.asdict(one), "verdict": one.verdict} for one in found]
    rows = []
    for one in found:
        confidence = "-" if one.rounds < 2 else f"{one.low:.3f} - {one.high:.3f}"
        rates = one.name, round(one.before), round(one.after), f"{one.ratio:.3f}"
        rows.append((*rates, confidence, one.rounds, one.verdict))
    shared.rows(data, ("", "A/s", "B/s", "B / A", "95 % confidence", "rounds", ""), rows)
    if not all(one.alternating for one in found):
        shared.line("The rounds did not alternate: the machine may have changed between them.")


@app.command("plan")
@command(
    _TABLE,
    """
    --audience [1..]: Number of phones.
    --updates-per-minute [0.001..]: States a minute.
    --within SECONDS [0.1..]: Time in which a state reaches all phones. [until the next state]
    --body BYTES [1..]: Size of a payload.
    --cores [1..]: Cores of one machine.
    --figures FILE: Results of bench on this machine; repeatable.
    """,
)
def plan(
    shared: Shared,
    audience: float,
    updates_per_minute: float = 1.0,
    within: float | None = None,
    rtt: float = 80.0,
    body: int = 350,
    cores: int = 8,
    figures: list[str] | None = None,
) -> None:
    """Compute the connections, processes, machines and database load that an audience needs."""
    from ..bench import results as planning

    if rtt <= 0:
        raise InvalidInput("a round trip takes time", "rtt", "Measure it with ping.")
    costs = planning.costs_of([planning.load(file) for file in figures or []])
    if costs is None:
        from ..bench.runner import throughput as measure

        with _shown("what a push costs here") as progress:
            bench = Bench({"payload": None, "body": 350, "duration": 1.0, "sink": "auto"}, progress)
            results = [measure(bench.plan(), bench.setup())]
        costs = cast("planning.Costs", planning.costs_of(results))
    needs = planning.Needs(
        audience=int(audience),
        updates_per_minute=updates_per_minute,
        round_trip=rtt / 1e3,
        body=body,
        within=within,
        cores_a_machine=cores,
    )
    found = planning.plan(needs, costs)
    shared.rows(found, ("", "needed"), list(found.items()))


@contextmanager
def _shown(title: str) -> Iterator[Progress]:
    """Show rate and percentiles while something runs."""
    last = ("", 0.0, 0)
    with progress_shown(title, total=None, shown=sys.stderr.isatty()) as show:

        def progress(name: str, seconds: float, answered: int, times: dict[str, float]) -> None:
            nonlocal last
            since, before = last[1:] if last[0] == name and last[1] < seconds else (0.0, 0)
            rate = (answered - before) / max(seconds - since, 1e-9)
            last = (name, seconds, answered)
            said = f"{name}: {answered:,} ({rate:,.0f}/s)"
            if times:
                said += f", p50 {times['0.5'] * 1e3:,.1f} ms, p99 {times['0.99'] * 1e3:,.1f} ms"
            show(seconds, said)

        yield progress


def _finish(shared: Shared, result: Result, paths: list[Path], append: bool) -> ExitCode:
    from ..bench.plots import draw
    from ..bench.results import load

    for path in paths:
        if path.suffix == ".json" and append and path.exists():
            before = load(path)
            if before.measure != result.measure:
                raise InvalidInput(f"{path} holds {before.measure}, not {result.measure}", "output")
            rounds = 1 + max((run.round for run in before.runs), default=-1)
            for run in result.runs:
                run.round += rounds
            result.runs = before.runs + result.runs
    for path in paths:
        if path.suffix == ".png":
            draw(result, path)
        else:
            path.write_bytes(result.json() if path.suffix == ".json" else result.csv().encode())
    shared.answer(msgspec.to_builtins(result))
    for key, value in (result.conditions | result.settings).items():
        shared.line(f"{key}: {value}")
    shared.table(*result.table())
    for note in result.notes:
        shared.line(note)
    return ExitCode.NOT_ACCEPTED if any(run.failed for run in result.runs) else ExitCode.OK
