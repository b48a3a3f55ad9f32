"""The published pages: measures of ``apns-live bench`` with the settings and bars of this repository.

``python -m benchmarks throughput --senders peers.json`` takes the peers that ``benchmarks.peers`` has
built, and nginx beside the sink in C, so that nobody's figure is one sink's limit alone.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import psutil

from apns_live.bench import runner
from apns_live.bench.gateway import gateway as measure_gateway
from apns_live.bench.processes import Sink, SinkOptions, sink
from apns_live.bench.results import Result, Run, median
from apns_live.bench.runner import Contender, Setup, contenders_of, message_of
from apns_live.bench.senders import Plan
from apns_live.bench.service import service as measure_service
from benchmarks.pages import Bar, finish, options
from tests.servers import nginx

NAMES = {
    "throughput": "pushes a second on a bare loopback, beside other senders, on both sinks",
    "distance": "pushes a second through a delay of 40 ms each way",
    "latency": "how long one push takes at a given load",
    "memory": "a million tokens: memory, and whether pushes grow dearer",
    "service": "a million devices: registering, and a start for all of them",
    "gateway": "calls of three APIs beside an empty route, half load, overload",
}
FAN_OUT, SEND = runner.OURS[0].name, runner.OURS[1].name


def main(name: str, arguments: list[str]) -> int:
    """Run one of `NAMES`."""
    parser = options(name, NAMES[name])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--scale", type=float, default=1.0, help="multiply all counts")
    parser.add_argument("--senders", help="what benchmarks.peers has written")
    parser.add_argument("--against", nargs="*", default=["h2load", "aioapns", "httpx"])
    given = parser.parse_args(arguments)
    plan, setup = Plan(message=message_of(350), seconds=given.seconds), Setup(rounds=given.rounds)
    few = Setup(rounds=min(3, given.rounds))
    bars: list[Bar] = []
    match name:
        case "throughput":
            others = contenders_of(given.against, [], given.senders)
            found = runner.throughput(plan, setup, others)
            bars = _beside(found)
            bars += _with_unique_ids(found, plan, given.rounds)
            with mock.patch.object(runner, "sink", _nginx):
                # aioapns finds answers by their apns-id, and nginx is made to echo it for all.
                beside = runner.throughput(plan, setup, others)
            named = beside.named()
            if "h2load" in named:
                bars.append(
                    Bar("fan_out / h2load, nginx", _ratio(named[FAN_OUT], named["h2load"]), 1)
                )
            for name, runs in named.items():
                if all(run.failed == run.count for run in runs):
                    found.notes.append(f"{name} takes none of nginx's answers for an acceptance.")
                else:
                    found.runs += runs
            for run in beside.runs:
                run.name += ", nginx"
            found.notes += [f"On nginx, {note}" for note in beside.notes]
            found.notes.append(f"Rows with nginx: {beside.settings['sink']}.")
        case "distance":
            found = runner.distance(plan, 0.080, [64, 8, 1])
            bars = [Bar(f"{run.name}: share", run.figures["share"], 0.8) for run in found.runs]
        case "latency":
            found = runner.latency(plan, [100, 1_000, 5_000, 10_000])
        case "memory":
            many = Plan(message=message_of(350), count=int(1_000_000 * given.scale))
            found = runner.memory(many, few)
            bars = [
                Bar("peak memory", _figure(found.runs, "peak MB"), 150, False, "MB"),
                Bar(
                    "CPU, last tenth to second",
                    _figure(found.runs, "last tenth / second"),
                    1.15,
                    False,
                ),
                Bar("growth of the peak", _figure(found.runs, "growth MB"), 2, False, "MB"),
            ]
        case "service":
            found = measure_service(int(1_000_000 * given.scale), few)
            runs = found.named()
            bars = [
                Bar("registering", _rate(runs["register"]), 5_000, unit="tokens/s"),
                Bar("start, CPU a push", _cpu(runs["start"]), 20, False, "us"),
                Bar("first push", _figure(runs["start"], "first push ms"), 1_000, False, "ms"),
                Bar("peak memory", _figure(runs["start"], "peak MB"), 300, False, "MB"),
            ]
        case _:
            found = measure_gateway(given.seconds, setup, overload=640, start=300_000)
            runs = found.named()
            (half,), (over,) = runs["update, half load"], runs["640 connections"]
            calls = runs["one token a call"]
            bars = [
                Bar("updates / empty route", _ratio(runs["update"], runs["empty route"]), 0.25),
                Bar("p99 at half load", half.quantiles["0.99"] * 1e3, 150, False, "ms"),
                Bar("one token a call, CPU", _cpu(calls) / 1e3, 0.5, False, "ms"),
                Bar("one token a call", _rate(calls), 2_000, unit="calls/s"),
                Bar("refusals without Retry-After",
                    over.figures.get("refused without Retry-After", 0), 0, False),
            ]  # fmt: skip
    return finish(found, bars, given)


def _beside(found: Result) -> list[Bar]:
    runs = found.named()
    bars = [Bar("fan_out, CPU a push", _cpu(runs[FAN_OUT]), 4.0, False, "us")]
    if "h2load" in runs:
        bars.append(Bar("fan_out / h2load", _ratio(runs[FAN_OUT], runs["h2load"]), 0.75))
    others = [name for name in ("pushy", "a2") if name in runs]
    if others:
        best = max(others, key=lambda name: _rate(runs[name]))
        bars.append(Bar(f"fan_out / {best}", _ratio(runs[FAN_OUT], runs[best]), 1.6))
    if "pushy" in runs:
        bars.append(Bar("1,000 send() / pushy", _ratio(runs[SEND], runs["pushy"]), 0.65))
    if "aioapns" in runs:
        bars.append(Bar("1,000 send() / aioapns", _ratio(runs[SEND], runs["aioapns"]), 20))
    return bars


def _with_unique_ids(found: Result, plan: Plan, rounds: int) -> list[Bar]:
    """Measure fan_out with and without ``apns-unique-id`` in the answers, alternating."""
    names = ["fan_out, answers alone", "fan_out, answers with apns-unique-id"]
    with (
        runner.stand("throughput", "", plan, None) as place,
        sink(SinkOptions(unique_id=True), place.server_core) as development,
    ):
        for turn in range(2 * rounds):
            which = turn % 2
            contender = Contender(names[which], sender="fan_out")
            place.run([contender], plan, sink=(place.sink, development)[which])
            place.result.runs[-1].round = turn // 2
    found.runs += place.result.runs
    runs = place.result.named()
    alone, unique = (runs[name] for name in names)
    return [
        Bar("fan_out with apns-unique-id, rate beside without", _ratio(unique, alone), 0.9),
        Bar("fan_out with apns-unique-id, CPU a push", _cpu(unique), 4.4, False, "us"),
    ]


@contextlib.contextmanager
def _nginx(_: SinkOptions, core: int | None = None) -> Iterator[Sink]:
    with nginx(keepalive_requests=100_000_000, streams=1_000, echo=True, core=core) as server:

        def cpu() -> float:
            master = psutil.Process(server.pid)
            every = [one.cpu_times() for one in (master, *master.children())]
            return float(sum(times.user + times.system for times in every))

        yield Sink(
            "nginx, one worker, echoes the apns-id, answers before it has the body",
            server.port,
            str(Path(server.ca_file)),
            cpu,
        )


def _rate(runs: list[Run]) -> float:
    return median(run.rate for run in runs)


def _cpu(runs: list[Run]) -> float:
    """Return microseconds each."""
    return median(run.cpu / run.count * 1e6 for run in runs)


def _figure(runs: list[Run], name: str) -> float:
    return median(run.figures[name] for run in runs)


def _ratio(ours: list[Run], theirs: list[Run]) -> float:
    pairs = zip(
        sorted(ours, key=lambda run: run.round),
        sorted(theirs, key=lambda run: run.round),
        strict=True,
    )
    return statistics.median(one.rate / other.rate for one, other in pairs)
