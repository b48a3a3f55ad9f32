"""The measures of the engine: senders in alternating rounds against one sink, each alone on its core."""

import contextlib
import json
import math
import os
import re
import resource
import shlex
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from ..errors import BenchError, InvalidInput
from ..misfits import misfit
from ..payload import Update, encode
from ..testing.certificates import write_private
from . import senders
from .processes import Sink, SinkOptions, carries, cores, relayed, sink, worker
from .results import Result, Run, conditions
from .senders import BUNDLE_ID, KEY_ID, PEERS, TEAM_ID, Plan

SILENCE = 120.0
"""Seconds to wait for a sender, in addition to the time for which it sends."""
PROBE = 2_000
"""Pushes of a command's first turn: how many it can send in the seconds asked for."""

H2LOAD = (
    "h2load -c{connections} -m500 -n{count} -d{body} "
    + " ".join(
        f"-H '{name}: {{{name}}}'"
        for name in ("apns-topic", "apns-push-type", "apns-priority", "apns-expiration")
    )
    + f" -H 'authorization: bearer {'x' * 180}' -H 'apns-id: {uuid.UUID(int=1)}'"
    + f" https://localhost:{{port}}/3/device/{1:064x}"
)

Progress = Callable[[str, float, int, dict[str, float]], None]
"""Called with what runs, seconds, answers so far, and the quantiles of the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The set-up of a measure: its sink, its rounds, and its progress display."""

    sink: SinkOptions = field(default_factory=SinkOptions)
    rounds: int = 1
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """A sender that is measured: one of `senders.SENDERS`, or a ``command`` of the user's."""

    name: str
    sender: str = ""
    command: str = ""


def contenders_of(
    names: Sequence[str], commands: Sequence[str], file: str | None
) -> list[Contender]:
    """Return the named peers, and the user's own commands.

    ``file`` is JSON that maps names of senders to commands. Raises InvalidInput for an unknown name, and
    for a peer that is not installed.
    """
    known: dict[str, str] = {"h2load": H2LOAD}
    if file is not None:
        try:
            known |= msgspec.json.decode(Path(file).read_bytes(), type=dict[str, str])
        except msgspec.DecodeError as error:
            remedy = 'Write {"name": "command"}.'
            raise InvalidInput(f"{file}: {misfit(error)}", "senders", remedy) from None
    found = []
    for name in names:
        if name in PEERS and find_spec(PEERS[name]) is not None:
            found.append(Contender(name, sender=name))
        elif name in known and shutil.which(shlex.split(known[name])[0]) is not None:
            found.append(Contender(name, command=known[name]))
        elif name in PEERS or name in known:
            wanted = PEERS.get(name) or shlex.split(known[name])[0]
            problem = f"{name} needs {wanted}, which is not installed here"
            raise InvalidInput(problem, "against", f"Install {wanted}, or leave it out.")
        else:
            remedy = f"Use one of {', '.join((*PEERS, *known))}, or register it with --senders."
            raise InvalidInput(f"{name!r:.40} is not known", "against", remedy)
    return found + [
        Contender(Path(shlex.split(command)[0]).name, command=command) for command in commands
    ]


def message_of(size: int) -> Update:
    """Return an update whose encoded body has exactly ``size`` bytes."""

    def padded(pad: str) -> Update:
        state = {"home": 71, "away": 68, "clock": "Q3 04:12", "pad": pad}
        return Update(content_state=state, priority=10)

    missing = size - len(encode(padded(""), now=time.time()).body)
    if missing < 0:
        raise InvalidInput(f"{size} bytes are too few", "body", f"Give at least {size - missing}.")
    return padded("x" * missing)


@dataclass(slots=True)
class Stand:
    """The place of a measurement: one sink, one core for the sender, one result."""

    result: Result
    sink: Sink
    setup: Setup
    server_core: int | None = field(default_factory=lambda: cores()[0])
    core: int | None = field(default_factory=lambda: cores()[1])

    def run(
        self, contenders: Sequence[Contender], plan: Plan, rounds: int = 1, sink: Sink | None = None
    ) -> None:
        """Run each contender once in each round.

        Every other round is in reverse order, so that no contender always follows the same one. A
        command that fails is left out from then on, and a note says why.
        """
        plan = plan.at(sink or self.sink)
        there = list(contenders)
        counts = {}
        for one in contenders:
            if one.command and plan.count is None:
                with self._leaving_out(one, there):
                    probe = self._command(one, replace(plan, count=PROBE))
                    counts[one.name] = max(PROBE, math.ceil(probe.rate * plan.seconds))
        for turn in range(rounds):
            for one in tuple(there) if turn % 2 == 0 else reversed(tuple(there)):
                own = replace(plan, count=counts.get(one.name, plan.count))
                with self._leaving_out(one, there):
                    run = self._one(one, own, sink or self.sink)
                    run.name, run.round = one.name, turn
                    self.result.runs.append(run)

    @contextlib.contextmanager
    def _leaving_out(self, one: Contender, there: list[Contender]) -> Iterator[None]:
        """If a command fails, remove it from ``there`` and its runs from the result, unless it is the only one."""
        try:
            yield
        except BenchError as error:
            if not one.command or len(there) == 1:
                raise
            there.remove(one)
            self.result.runs = [run for run in self.result.runs if run.name != one.name]
            self.result.notes.append(f"{one.name} is left out: {error}")

    def _one(self, contender: Contender, plan: Plan, sink: Sink) -> Run:
        before, begin = sink.cpu(), time.perf_counter()
        if contender.command:
            run = self._command(contender, plan)
            lasted = time.perf_counter() - begin
        else:
            work = (senders.serve, contender.sender, plan)
            with worker(contender.name, *work, core=self.core) as sending:
                sending.receive(SILENCE)
                before = sink.cpu()
                sending.connection.send("go")
                while not isinstance(said := sending.receive(SILENCE + plan.seconds), Run):
                    if self.setup.progress is not None:
                        self.setup.progress(contender.name, *said)
                run, lasted = said, said.wall
        run.sink_busy = (sink.cpu() - before) / max(lasted, 1e-9)
        return run

    def _command(self, contender: Contender, plan: Plan) -> Run:
        """Run a command to its end, with the values of the plan in place of its ``{names}``."""
        with tempfile.TemporaryDirectory(prefix="apns-live-bench-") as name:
            values: dict[str, Any] = plan.headers() | {"host": "localhost", "ca": plan.ca_file}
            for file, content in {"body": plan.body(), "key": plan.key.encode()}.items():
                values[file] = f"{name}/{file}"
                write_private(Path(name) / file, content)
            values |= {"key_id": KEY_ID, "team_id": TEAM_ID, "bundle_id": BUNDLE_ID}
            for each in ("port", "count", "connections", "concurrent"):
                values[each] = getattr(plan, each)
            words = shlex.split(contender.command)
            for key, value in values.items():
                words = [word.replace(f"{{{key}}}", str(value)) for word in words]
            return _timed(contender.name, words, plan.count or 0, self.core, SILENCE + plan.seconds)


@contextlib.contextmanager
def stand(measure: str, title: str, plan: Plan, setup: Setup | None) -> Iterator[Stand]:
    """Yield a stand with a running sink, and a result with its conditions."""
    setup = setup or Setup()
    result = Result(measure=measure, title=title, conditions=conditions())
    with sink(setup.sink, cores()[0]) as running:
        result.settings = {
            "sink": f"{running.name}, {setup.sink.streams:,} streams and a window of "
            f"{setup.sink.window:,} bytes a connection",
            "senders": f"one process each, {plan.connections} connections at most, "
            f"bodies of {len(plan.body())} bytes",
        }
        yield Stand(result, running, setup)


def _timed(name: str, words: list[str], count: int, core: int | None, at_most: float) -> Run:
    """Run a command for at most ``at_most`` seconds and return its time.

    The time is that of the process, unless its last line is JSON with fields of `Run`.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    at, begin = time.time(), time.perf_counter()
    pinned = None if core is None else lambda: os.sched_setaffinity(0, {core})
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=at_most, check=False, preexec_fn=pinned
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{name} did not end within {at_most:g} seconds") from None
    except OSError as error:
        raise BenchError(f"{name}: {error}") from error
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(f"{name} ended with {done.returncode}: {done.stderr[-1000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    run = Run(name=name, count=count, wall=wall, cpu=cpu, at=at)
    if finished := re.search(r"finished in [^,]+, ([0-9.]+) req/s", done.stdout):  # h2load
        succeeded = re.search(r"(\d+) succeeded", done.stdout)
        run.wall = count / float(finished[1])
        run.failed = count - int(succeeded[1] if succeeded else 0)
        return run
    try:
        said = json.loads((done.stdout.strip().splitlines() or [""])[-1])
        return msgspec.convert({"count": count, "at": at, **said, "name": name}, Run)
    except (ValueError, TypeError, msgspec.ValidationError):
        return run


# --- the measures

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
        place.result.settings["tokens"] = f"{plan.count:,} from a generator, each outcome read"
        place.result.settings["growth"] = "of the peak, after the first fifth"
        place.run([Contender("fan_out", sender="memory")], plan, place.setup.rounds)
    return place.result
