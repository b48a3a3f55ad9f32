"""The benchmarks of the engine: their senders, sinks and results."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from .results import Result
from .runner import Contender, Setup, stand
from .senders import Plan
from .sinks import carries, relayed

OURS = (
    Contender("apns_live fan_out", sender="fan_out"),
    Contender("apns_live send()", sender="send"),
)


def throughput(plan: Plan, setup: Setup | None = None, others: Sequence[Contender] = ()) -> Result:
    """Measure pushes a second over loopback, compared with other senders."""
    with stand("throughput", "Throughput on a bare loopback", plan, setup) as place:
        rounds = place.setup.rounds
        place.result.settings["rounds"] = f"{rounds}, alternating; figures are medians"
        place.result.settings["send()"] = f"{plan.concurrent:,} tasks at once"
        place.run([*OURS, *others], plan, rounds)
    return place.result


def latency(plan: Plan, rates: Sequence[float], setup: Setup | None = None) -> Result:
    """Measure the time of one push at a given load, from its due time to its outcome."""
    with stand("latency", "Latency of one push at a given load", plan, setup) as place:
        place.result.settings["pushes"] = (
            "client.send, due at a steady rate; time counts from when each was due; "
            "the sender never sleeps, so that no timer's tick is in the figures"
        )
        for rate in rates:
            contender = Contender(f"{rate:,.0f} pushes/s", sender="paced")
            place.run([contender], replace(plan, rate=rate))
        for run in place.result.runs:
            run.cpu = 0.0
    return place.result


def distance(
    plan: Plan,
    round_trip: float,
    connections: Sequence[int],
    setup: Setup | None = None,
    warm_up: float = 5.0,
) -> Result:
    """Measure pushes a second through a delay of ``round_trip`` seconds.

    Counting begins after ``warm_up`` seconds, or later if the pool needs longer to open all
    connections.
    """
    # Seconds until the pool opens one more connection: spacing, handshakes, and noticing a full one.
    opening = 0.25 + 6 * round_trip
    with stand("distance", "Throughput at a distance", plan, setup) as place:
        place.result.settings |= {
            "relay": f"keeps every byte for {round_trip * 500:g} ms each way; "
            "its CPU is counted with the sink's, whose core it shares",
            "rate": f"steady: of what was answered after {warm_up:g} s and all connections",
        }
        for most in connections:
            begins = max(warm_up, most * opening)
            each = replace(plan, connections=most, seconds=plan.seconds + begins)
            with relayed(place.sink, round_trip, place.server_core) as beyond:
                place.run([Contender(f"{most} connections", sender="fan_out")], each, sink=beyond)
            run = place.result.runs[-1]
            steady, begun = run.rate, [point for point in run.timeline if point[0] >= begins]
            if plan.count is None and len(begun) > 1:
                (since, before), (until, after) = begun[0], run.timeline[-1]
                steady = (after - before) / max(until - since, 1e-9)
            able = carries(most, len(plan.body()), round_trip, place.setup.sink)
            run.figures |= {"steady/s": steady, "can carry/s": able, "share": steady / able}
    return place.result


def fan_out(plan: Plan, setup: Setup | None = None, round_trip: float = 0.0) -> Result:
    """Measure the time until an audience has a state, and the age of states on arrival."""
    title = f"A state for an audience of {plan.count:,}"
    with stand("fan-out", title, plan, setup) as place, contextlib.ExitStack() as stack:
        place.result.settings |= {
            "updates": f"{plan.updates}, one every {plan.every:g} s; the newest state wins",
            "distance": f"{round_trip * 1e3:g} ms there and back",
        }
        beyond = place.sink
        if round_trip:
            beyond = stack.enter_context(relayed(place.sink, round_trip, place.server_core))
        place.run([Contender("live activity", sender="live")], plan, sink=beyond)
    run = place.result.runs[-1]
    place.result.notes.append(
        f"An audience of {plan.count:,} gets a state in {run.figures['all have it, median s']:.2f} s "
        f"(worst {run.figures['worst s']:.2f} s); a state is {run.quantiles['0.5']:.3f} s old on arrival "
        f"in the median, {run.quantiles['0.99']:.3f} s at the 99th percentile."
    )
    return place.result


def memory(plan: Plan, setup: Setup | None = None) -> Result:
    """Measure the peak memory of many generated tokens, and the cost of the first and last pushes."""
    with stand("memory", "Many tokens: memory and cost", plan, setup) as place:
        place.result.settings |= {
            "tokens": f"{plan.count:,} from a generator, each outcome read",
            "growth": "of the peak, after the first fifth",
        }
        place.run([Contender("fan_out", sender="memory")], plan, place.setup.rounds)
    return place.result
