"""The measures of the engine: each says which senders run, on which sink, and what is to be read in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..payload import Message
from .distance import carries, relay_alone, relayed
from .machine import conditions, cores
from .results import Result
from .runner import Contender, Load, Progress, run_rounds
from .sinks import Sink, SinkOptions, sink

OURS = (
    Contender("apns_live fan_out", sender="fan_out"),
    Contender("apns_live send()", sender="send"),
)


@contextlib.contextmanager
def measuring(
    measure: str, title: str, load: Load, options: SinkOptions
) -> Iterator[tuple[Result, Sink, int | None]]:
    """Give a result with its conditions, a running sink, and the senders' core."""
    result = Result(measure=measure, title=title, conditions=conditions())
    server_core, sender_core = cores()
    with sink(options, server_core) as running:
        result.settings = {
            "sink": f"{running.name}, {options.streams:,} streams and a window of "
            f"{options.window:,} bytes a connection",
            "senders": f"one process each, {load.connections} connections at most, "
            f"bodies of {load.body_bytes} bytes",
        }
        yield result, running, sender_core


def throughput(
    load: Load,
    others: Sequence[Contender] = (),
    *,
    rounds: int = 3,
    options: SinkOptions | None = None,
    progress: Progress | None = None,
) -> Result:
    """Pushes a second on a bare loopback, beside other senders."""
    title = "Throughput on a bare loopback"
    with measuring("throughput", title, load, options or SinkOptions()) as (result, running, core):
        result.settings["rounds"] = f"{rounds}, alternating; figures are medians"
        result.settings["send()"] = f"{load.concurrent:,} tasks at once"
        run_rounds(
            result,
            [*OURS, *others],
            load,
            running,
            rounds=rounds,
            progress=progress,
            core=core,
        )
    return result


def latency(
    load: Load,
    rates: Sequence[float],
    *,
    options: SinkOptions | None = None,
    progress: Progress | None = None,
) -> Result:
    """How long one push takes at a given load, from when it was due until its outcome."""
    title = "Latency of one push at a given load"
    with measuring("latency", title, load, options or SinkOptions()) as (result, running, core):
        result.settings["pushes"] = (
            "client.send, due at a steady rate; time counts from when each was due; "
            "the sender never sleeps, so that no timer's tick is in the figures"
        )
        for rate in rates:
            contender = Contender(f"{rate:,.0f} pushes/s", sender="paced")
            paced = replace(load, rate=rate)
            run_rounds(result, [contender], paced, running, rounds=1, progress=progress, core=core)
        for run in result.runs:
            run.cpu = 0.0
    return result


def distance(
    load: Load,
    round_trip: float,
    connections: Sequence[int],
    *,
    options: SinkOptions | None = None,
    warm_up: float = 5.0,
    progress: Progress | None = None,
) -> Result:
    """Pushes a second through a delay of ``round_trip`` seconds, after ``warm_up`` seconds."""
    options = options or SinkOptions()
    server_core, _ = cores()
    with measuring("distance", "Throughput at a distance", load, options) as (
        result,
        running,
        core,
    ):
        result.settings["relay"] = (
            f"a process on the sink's core that keeps every byte for {round_trip * 500:g} ms each way"
        )
        result.settings["rate"] = f"of what was answered after the first {warm_up:g} s"
        for most in connections:
            seconds = 2.0 if load.count is None else 0.2
            alone = relay_alone(most, load.body_bytes, round_trip, options, server_core, seconds)
            able = carries(most, load.body_bytes, round_trip, options)
            contender = Contender(f"{most} connections", sender="fan_out")
            each = replace(load, connections=most, seconds=load.seconds + warm_up)
            with relayed(running, round_trip, server_core) as beyond:
                run_rounds(
                    result, [contender], each, beyond, rounds=1, progress=progress, core=core
                )
            run = result.runs[-1]
            begun = [point for point in run.timeline if point[0] >= warm_up]
            if load.count is None and len(begun) > 1:
                (since, before), (until, after) = begun[0], run.timeline[-1]
                steady = (after - before) / max(until - since, 1e-9)
            else:
                steady = run.rate
            run.figures |= {
                "steady/s": steady,
                "can carry/s": able,
                "relay alone/s": alone,
                "share": steady / min(able, alone),
            }
    return result


def fan_out(
    message: Message,
    audience: int,
    updates: int,
    every: float = 1.0,
    *,
    connections: int = 8,
    round_trip: float = 0.0,
    options: SinkOptions | None = None,
    progress: Progress | None = None,
) -> Result:
    """How long until an audience has a state, and how old states are when they arrive."""
    load = Load(
        message=message, count=audience, updates=updates, every=every, connections=connections
    )
    server_core, _ = cores()
    title = f"A state for an audience of {audience:,}"
    with (
        measuring("fan-out", title, load, options or SinkOptions()) as (result, running, core),
        contextlib.ExitStack() as stack,
    ):
        result.settings["updates"] = f"{updates}, one every {every:g} s; the newest state wins"
        result.settings["distance"] = f"{round_trip * 1e3:g} ms there and back"
        beyond = running
        if round_trip:
            beyond = stack.enter_context(relayed(running, round_trip, server_core))
        contender = Contender("live activity", sender="live")
        run_rounds(result, [contender], load, beyond, rounds=1, progress=progress, core=core)
    run = result.runs[-1]
    result.notes.append(
        f"An audience of {audience:,} gets a state in {run.figures['all have it, median s']:.2f} s "
        f"(worst {run.figures['worst s']:.2f} s); a state is {run.quantiles['0.5']:.3f} s old on arrival "
        f"in the median, {run.quantiles['0.99']:.3f} s at the 99th percentile."
    )
    return result


def memory(
    load: Load,
    *,
    rounds: int = 1,
    options: SinkOptions | None = None,
    progress: Progress | None = None,
) -> Result:
    """Many tokens from a generator: peak memory, and whether the last pushes cost more than the first."""
    with measuring("memory", "Many tokens: memory and cost", load, options or SinkOptions()) as (
        result,
        running,
        core,
    ):
        result.settings["tokens"] = f"{load.count:,} from a generator, each outcome read"
        plain = Contender("fan_out", sender="memory")
        traced = Contender("fan_out, allocations traced", sender="traced memory")
        run_rounds(result, [plain], load, running, rounds=rounds, progress=progress, core=core)
        run_rounds(result, [traced], load, running, rounds=1, progress=progress, core=core)
    return result
