"""``apns-live bench``: measure the engine, the service and the gateway on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..errors import InvalidInput
from .messages import message_from
from .options import Shared, command
from .output import ExitCode, MissingPart
from .progress import Bar

if TYPE_CHECKING:
    from ..bench.results import Result
    from ..bench.runner import Progress, Setup
    from ..payload import Message

app = typer.Typer(no_args_is_help=True, help="Measure pushes, the service and the gateway here.")

_FORMS = {".json": "all of it", ".csv": "a line for each run", ".png": "a picture"}

Payload = Annotated[
    str | None, typer.Option("--payload", metavar="FILE", help="JSON message, as send --message.")
]
Body = Annotated[int, typer.Option("--body", metavar="BYTES", help="Else: size of the payload.")]
Duration = Annotated[float, typer.Option("--duration", metavar="SECONDS", help="For each run.")]
Count = Annotated[
    int | None, typer.Option("--count", metavar="N", min=1, help="Pushes a run, not seconds.")
]
Connections = Annotated[int, typer.Option("--connections", min=1, help="Connections at most.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Rounds; contenders alternate.")]
SinkKind = Annotated[
    str, typer.Option("--sink", metavar="KIND", help="c, own, or auto: c where it can be built.")
]
UniqueId = Annotated[
    bool, typer.Option("--unique-id", help="The sink answers with apns-unique-id, as sandbox does.")
]
Streams = Annotated[int, typer.Option("--streams", min=1, help="Streams a connection.")]
Window = Annotated[
    int, typer.Option("--window", metavar="BYTES", min=4096, help="Window of a connection.")
]
RoundTrip = Annotated[float, typer.Option("--rtt", metavar="MS", help="Round trip to the sink.")]
Output = Annotated[
    list[str] | None,
    typer.Option("--output", metavar="FILE", help="Write .json, .csv or .png; repeatable."),
]
ThrownAway = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="One that may be thrown away; else SQLite."),
]
Append = Annotated[
    bool, typer.Option("--append", help="Add the runs to a .json that is there, for compare.")
]


@contextmanager
def _shown(shared: Shared, title: str) -> Iterator[Progress]:
    """Show rate and percentiles while something runs."""
    last = ("", 0.0, 0)
    with Bar(title, total=None, shown=shared.screen.shows_progress) as bar:

        def progress(name: str, seconds: float, answered: int, times: dict[str, float]) -> None:
            nonlocal last
            since, before = last[1:] if last[0] == name and last[1] < seconds else (0.0, 0)
            rate = (answered - before) / max(seconds - since, 1e-9)
            last = (name, seconds, answered)
            said = [f"{name}: {answered:,} ({rate:,.0f}/s)"]
            said += [
                f"p{float(key) * 100:g} {times[key] * 1e3:,.1f} ms"
                for key in ("0.5", "0.99")
                if times
            ]
            bar.at(seconds, ", ".join(said))

        yield progress


def _message(payload: str | None, body: int) -> Message:
    from ..bench.runner import message_of

    return message_of(body) if payload is None else message_from({"file": payload})


def _checked(output: list[str] | None) -> list[Path]:
    """Return where to write. Raises before anything is measured for a form that nobody knows."""
    paths = [Path(path) for path in output or []]
    for path in paths:
        if path.suffix not in _FORMS:
            raise InvalidInput(
                f"{path.name!r:.60} has no form that is written here",
                field="output",
                remedy=f"End it with {', '.join(_FORMS)}.",
            )
        if path.suffix == ".png":
            _need("matplotlib")
    return paths


def _need(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingPart("bench", error.name) from None


def _finish(shared: Shared, result: Result, paths: list[Path], append: bool = False) -> ExitCode:
    from ..bench.results import load

    for path in paths:
        if path.suffix == ".json" and append and path.exists():
            before = load(path)
            if before.measure != result.measure:
                raise InvalidInput(
                    f"{path} holds {before.measure}, not {result.measure}", field="output"
                )
            rounds = 1 + max((run.round for run in before.runs), default=-1)
            for run in result.runs:
                run.round += rounds
            result.runs = before.runs + result.runs
    for path in paths:
        if path.suffix == ".png":
            from ..bench.plots import draw

            draw(result, path)
        else:
            path.write_bytes(result.json() if path.suffix == ".json" else result.csv().encode())
    if shared.screen.json_mode:
        import msgspec

        shared.screen.answer(msgspec.to_builtins(result), "")
    else:
        for key, value in (result.conditions | result.settings).items():
            shared.screen.line(f"{key}: {value}")
        shared.screen.table(*result.table())
        for note in result.notes:
            shared.screen.line(note)
    failed = sum(run.failed for run in result.runs)
    return ExitCode.NOT_ACCEPTED if failed else ExitCode.OK


def _setup(
    progress: Progress,
    kind: str,
    rounds: int = 1,
    *,
    streams: int = 1_000,
    window: int = 65_535,
    unique_id: bool = False,
) -> Setup:
    from ..bench.runner import Setup
    from ..bench.sinks import SinkOptions

    if kind not in ("auto", "c", "own"):
        raise InvalidInput(
            f"{kind!r:.40} is not a valid sink", field="sink", remedy="Use auto, c or own."
        )
    options = SinkOptions(kind=kind, streams=streams, window=window, unique_id=unique_id)
    return Setup(sink=options, rounds=rounds, progress=progress)


@app.command("throughput")
@command()
def throughput(
    shared: Shared,
    payload: Payload = None,
    body: Body = 350,
    duration: Duration = 5.0,
    count: Count = None,
    connections: Connections = 1,
    concurrent: Annotated[
        int, typer.Option("--concurrent", min=1, help="Tasks that send at once, for send().")
    ] = 1_000,
    rounds: Rounds = 3,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="NAME",
            help="aioapns, httpx, pyapns, h2load, or one of --senders; repeatable.",
        ),
    ] = None,
    sender: Annotated[
        list[str] | None,
        typer.Option("--sender", metavar="COMMAND", help="A sender of your own; repeatable."),
    ] = None,
    senders: Annotated[
        str | None,
        typer.Option("--senders", metavar="FILE", help="Commands by name, as JSON."),
    ] = None,
    sink: SinkKind = "auto",
    unique_id: UniqueId = False,
    streams: Streams = 1_000,
    window: Window = 65_535,
    output: Output = None,
    append: Append = False,
) -> int:
    """Pushes a second on a bare loopback, beside other senders in the same rounds."""
    from ..bench import measures
    from ..bench.senders import Plan
    from .bench_contenders import contenders_of

    paths = _checked(output)
    others = contenders_of(against or [], sender or [], senders)
    plan = Plan(
        message=_message(payload, body),
        count=count,
        seconds=duration,
        connections=connections,
        concurrent=concurrent,
    )
    with _shown(shared, "throughput") as progress:
        setup = _setup(progress, sink, rounds, streams=streams, window=window, unique_id=unique_id)
        result = measures.throughput(plan, setup, others)
    return _finish(shared, result, paths, append)


@app.command("latency")
@command()
def latency(
    shared: Shared,
    rate: Annotated[
        list[float] | None,
        typer.Option("--rate", metavar="N", min=0.1, help="Pushes a second; repeatable."),
    ] = None,
    payload: Payload = None,
    body: Body = 350,
    duration: Duration = 5.0,
    count: Count = None,
    connections: Connections = 1,
    sink: SinkKind = "auto",
    output: Output = None,
    append: Append = False,
) -> int:
    """How long one push takes at 100, 1,000, 5,000 and 10,000 pushes a second, or at --rate."""
    from ..bench import measures
    from ..bench.senders import Plan

    paths = _checked(output)
    plan = Plan(
        message=_message(payload, body), count=count, seconds=duration, connections=connections
    )
    with _shown(shared, "latency") as progress:
        rates = rate or [100, 1_000, 5_000, 10_000]
        result = measures.latency(plan, rates, _setup(progress, sink))
    return _finish(shared, result, paths, append)


@app.command("distance")
@command()
def distance(
    shared: Shared,
    rtt: RoundTrip = 80.0,
    window: Window = 65_535,
    streams: Streams = 1_000,
    connections: Annotated[
        list[int] | None,
        typer.Option("--connections", min=1, help="Connections at most; 1 and 8; repeatable."),
    ] = None,
    payload: Payload = None,
    body: Body = 350,
    duration: Duration = 10.0,
    count: Count = None,
    sink: SinkKind = "auto",
    output: Output = None,
    append: Append = False,
) -> int:
    """Pushes a second through a delay, beside what such windows can carry."""
    from ..bench import measures
    from ..bench.senders import Plan

    paths = _checked(output)
    plan = Plan(message=_message(payload, body), count=count, seconds=duration)
    with _shown(shared, "distance") as progress:
        setup = _setup(progress, sink, streams=streams, window=window)
        result = measures.distance(plan, rtt / 1e3, connections or [8, 1], setup)
    return _finish(shared, result, paths, append)


@app.command("fan-out")
@command()
def fan_out(
    shared: Shared,
    audience: Annotated[int, typer.Option("--audience", min=1, help="Phones.")] = 100_000,
    updates: Annotated[
        int, typer.Option("--updates", min=1, help="States, one after another.")
    ] = 5,
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=1.0, help="Between two states.")
    ] = 2.0,
    rtt: RoundTrip = 0.0,
    payload: Payload = None,
    body: Body = 350,
    connections: Connections = 8,
    sink: SinkKind = "auto",
    output: Output = None,
    append: Append = False,
) -> int:
    """How long until an audience has a state, and how old states are when they arrive."""
    from ..bench import measures
    from ..bench.senders import Plan
    from ..payload import Update

    paths = _checked(output)
    message = _message(payload, body)
    if not isinstance(message, Update):
        raise InvalidInput("only updates are fanned out here", field="payload")
    plan = Plan(
        message=message, count=audience, updates=updates, every=every, connections=connections
    )
    with _shown(shared, "fan-out") as progress:
        result = measures.fan_out(plan, _setup(progress, sink), rtt / 1e3)
    return _finish(shared, result, paths, append)


@app.command("memory")
@command()
def memory(
    shared: Shared,
    count: Annotated[int, typer.Option("--count", min=10, help="Tokens.")] = 1_000_000,
    payload: Payload = None,
    body: Body = 350,
    rounds: Rounds = 1,
    sink: SinkKind = "auto",
    output: Output = None,
    append: Append = False,
) -> int:
    """Peak memory of one fan-out, and whether its last pushes cost more than the first."""
    from ..bench import measures
    from ..bench.senders import Plan

    paths = _checked(output)
    plan = Plan(message=_message(payload, body), count=count)
    with _shown(shared, "memory") as progress:
        result = measures.memory(plan, _setup(progress, sink, rounds))
    return _finish(shared, result, paths, append)


@app.command("service")
@command()
def service(
    shared: Shared,
    devices: Annotated[int, typer.Option("--devices", min=1, help="Devices.")] = 100_000,
    database: ThrownAway = None,
    rounds: Rounds = 1,
    sink: SinkKind = "auto",
    output: Output = None,
    append: Append = False,
) -> int:
    """Register devices, then start an activity for all of them, every outcome stored."""
    _need("sqlalchemy")
    from ..bench.service import service as measure

    paths = _checked(output)
    with _shown(shared, "service") as progress:
        result = measure(devices, _setup(progress, sink, rounds), database)
    return _finish(shared, result, paths, append)


@app.command("gateway")
@command()
def gateway(
    shared: Shared,
    duration: Duration = 5.0,
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, help="Calls a run, not seconds.")
    ] = None,
    connections: Annotated[int, typer.Option("--connections", min=1, help="Callers.")] = 64,
    phones: Annotated[int, typer.Option("--phones", min=1, help="Phones an activity.")] = 1,
    overload: Annotated[
        int, typer.Option("--overload", metavar="N", min=0, help="At the end: so many callers.")
    ] = 0,
    database: ThrownAway = None,
    rounds: Rounds = 3,
    sink: SinkKind = "auto",
    output: Output = None,
    append: Append = False,
) -> int:
    """Update calls of three APIs and registrations beside an empty route; latency at half load."""
    _need("fastapi")
    from ..bench.gateway import gateway as measure

    paths = _checked(output)
    with _shown(shared, "gateway") as progress:
        result = measure(
            duration,
            _setup(progress, sink, rounds),
            count=count,
            connections=connections,
            phones=phones,
            overload=overload,
            database=database,
        )
    return _finish(shared, result, paths, append)


@app.command("compare")
@command()
def compare(
    shared: Shared,
    files: Annotated[list[str], typer.Argument(metavar="A.json [B.json]", help="Results.")],
) -> int:
    """Compare two results, or the contenders of one, with confidence over their rounds."""
    import dataclasses

    from ..bench.compare import compare as compared
    from ..bench.compare import compare_contenders
    from ..bench.results import load

    if len(files) > 2:
        raise InvalidInput("two results are compared, or one with itself", field="files")
    results = [load(file) for file in files]
    found = compared(*results) if len(results) == 2 else compare_contenders(results[0])
    screen = shared.screen
    if screen.json_mode:
        screen.answer([{**dataclasses.asdict(one), "verdict": one.verdict} for one in found], "")
        return ExitCode.OK
    rows = [
        (
            one.name,
            round(one.before),
            round(one.after),
            f"{one.ratio:.3f}",
            "-" if one.rounds < 2 else f"{one.low:.3f} - {one.high:.3f}",
            one.rounds,
            one.verdict,
        )
        for one in found
    ]
    screen.table(("", "A/s", "B/s", "B / A", "95 % confidence", "rounds", ""), rows)
    if not all(one.alternating for one in found):
        screen.line("The rounds did not alternate: the machine may have changed between them.")
    return ExitCode.OK


@app.command("plan")
@command()
def plan(
    shared: Shared,
    audience: Annotated[float, typer.Option("--audience", min=1, help="Phones.")],
    updates_per_minute: Annotated[
        float, typer.Option("--updates-per-minute", min=0.001, help="States a minute.")
    ] = 1.0,
    within: Annotated[
        float | None,
        typer.Option(
            "--within", metavar="SECONDS", min=0.1, help="For one state; else until the next."
        ),
    ] = None,
    rtt: RoundTrip = 80.0,
    body: Annotated[int, typer.Option("--body", metavar="BYTES", min=1, help="A payload.")] = 350,
    cores: Annotated[int, typer.Option("--cores", min=1, help="Cores of one machine.")] = 8,
    figures: Annotated[
        list[str] | None,
        typer.Option("--figures", metavar="FILE", help="Results of this machine; repeatable."),
    ] = None,
) -> int:
    """Say how many connections, processes and machines an audience needs, and what load the database has."""
    from ..bench import plan as planning
    from ..bench.results import load

    if rtt <= 0:
        raise InvalidInput("a round trip takes time", field="rtt", remedy="Measure it with ping.")
    costs = planning.costs_of([load(file) for file in figures or []])
    if costs is None:
        from ..bench.measures import throughput as measure
        from ..bench.runner import message_of
        from ..bench.senders import Plan

        with _shown(shared, "what a push costs here") as progress:
            needed = Plan(message=message_of(350), seconds=1.0)
            results = [measure(needed, _setup(progress, "auto"))]
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
    if shared.screen.json_mode:
        shared.screen.answer(found, "")
    else:
        shared.screen.table(("", "needed"), [(name, value) for name, value in found.items()])
    return ExitCode.OK
