"""Runs contenders in alternating rounds against one sink, each alone on its core."""

from __future__ import annotations

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ..errors import BenchError, InvalidInput
from ..payload import Message, Update, encode
from . import senders
from .processes import worker
from .results import Result, Run
from .senders import BUNDLE_ID, KEY_ID, PEERS, TEAM_ID, Plan
from .sinks import Sink

BODY_BYTES = 350
SILENCE = 300.0
"""Seconds after which a sender that says nothing is given up."""
PROBE = 2_000
"""Pushes of a command's first turn: how many it can send in the seconds asked for."""

Progress = Callable[[str, float, int, dict[str, float]], None]
"""Called with what runs, seconds, answers so far, and the quantiles of the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What every contender is to send. ``count`` pushes, or as many as go in ``seconds``."""

    message: Message
    count: int | None = None
    seconds: float = 5.0
    connections: int = 1
    concurrent: int = 1_000
    rate: float = 0.0
    updates: int = 0
    every: float = 1.0

    @property
    def body_bytes(self) -> int:
        """The size of the encoded payload."""
        return len(encode(self.message, now=time.time()).body)

    def plan(self, sink: Sink) -> Plan:
        """Return the plan of a sender for this sink, with a key made for it."""
        given = {name: getattr(self, name) for name in self.__slots__}
        return Plan(port=sink.port, ca_file=sink.ca_file, key=provider_key(), **given)


@dataclass(frozen=True, slots=True)
class Contender:
    """Who is measured: one of `senders.SENDERS` by ``sender``, or a ``command`` of the user's."""

    name: str
    sender: str = ""
    command: str = ""


H2LOAD = (
    "h2load -c{connections} -m500 -n{count} -d{body} "
    + " ".join(
        f"-H '{name}: {{{name}}}'"
        for name in ("apns-topic", "apns-push-type", "apns-priority", "apns-expiration")
    )
    + f" -H 'authorization: bearer {'x' * 180}' -H 'apns-id: {uuid.UUID(int=1)}'"
    + f" https://localhost:{{port}}/3/device/{1:064x}"
)


def message_of(size: int) -> Update:
    """Return an update whose encoded body has exactly ``size`` bytes."""

    def padded(pad: str) -> Update:
        state = {"home": 71, "away": 68, "clock": "Q3 04:12", "pad": pad}
        return Update(content_state=state, priority=10)

    missing = size - len(encode(padded(""), now=time.time()).body)
    if missing < 0:
        raise InvalidInput(
            f"{size} bytes are too few", field="body", remedy=f"Give at least {size - missing}."
        )
    return padded("x" * missing)


def provider_key() -> str:
    """Return a new provider key as PEM; it is good for nothing but a sink."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def contenders_of(
    names: Sequence[str], commands: Sequence[str], file: str | None
) -> list[Contender]:
    """Return the peers named, and commands of the user's own.

    ``file`` is JSON: the name of a sender -> its command. Raises InvalidInput for a peer that is
    not installed, and for a name that nobody knows.
    """
    known: dict[str, str] = {"h2load": H2LOAD}
    if file is not None:
        try:
            known |= msgspec.json.decode(Path(file).read_bytes(), type=dict[str, str])
        except msgspec.DecodeError as error:
            raise InvalidInput(
                f"{file}: {error}", field="senders", remedy='Write {"name": "command"}.'
            ) from None
    found = []
    for name in names:
        if name in PEERS and find_spec(PEERS[name]) is not None:
            found.append(Contender(name, sender=name))
        elif name in known and shutil.which(shlex.split(known[name])[0]) is not None:
            found.append(Contender(name, command=known[name]))
        else:
            raise InvalidInput(
                f"{name!r:.40} is not installed here"
                if name in {**PEERS, **known}
                else f"{name!r:.40} is not known",
                field="against",
                remedy=f"Use one of {', '.join((*PEERS, *known))}, "
                "or register its command in a file for --senders.",
            )
    return found + [
        Contender(Path(shlex.split(command)[0]).name, command=command) for command in commands
    ]


def run_rounds(
    result: Result,
    contenders: Sequence[Contender],
    load: Load,
    sink: Sink,
    *,
    rounds: int,
    progress: Progress | None = None,
    core: int | None = None,
) -> None:
    """Add to the result each contender's turn in each round.

    Every other round goes backwards, so that nobody always runs after the same one.
    """
    counts: dict[str, int] = {}
    for turn in range(rounds):
        for contender in contenders if turn % 2 == 0 else reversed(contenders):
            plan = load.plan(sink)
            if contender.command:
                name = contender.name
                if load.count is None and name not in counts:
                    probe = _run_command(contender, replace(plan, count=PROBE), core)
                    counts[name] = max(PROBE, math.ceil(probe.rate * load.seconds))
                plan = replace(plan, count=load.count or counts[name])
            run = run_one(contender, plan, sink, progress, core)
            run.round = turn
            result.runs.append(run)


def run_one(
    contender: Contender,
    plan: Plan,
    sink: Sink,
    progress: Progress | None = None,
    core: int | None = None,
) -> Run:
    """Run one contender once, with the sink's CPU taken over the same seconds."""
    before = sink.cpu()
    if contender.command:
        run = _run_command(contender, plan, core)
    else:
        name = contender.name
        with worker(name, senders.serve, contender.sender, plan, core=core) as sending:
            sending.receive(SILENCE)
            before = sink.cpu()
            sending.connection.send("go")
            while not isinstance(said := sending.receive(SILENCE + plan.seconds), Run):
                if progress is not None:
                    progress(name, *said)
            run = said
    run.name = contender.name
    run.sink_busy = (sink.cpu() - before) / max(run.wall, 1e-9)
    return run


def _run_command(contender: Contender, plan: Plan, core: int | None) -> Run:
    """Run a command to its end. Its last line may be JSON with count, wall, cpu, failed and quantiles."""
    with tempfile.TemporaryDirectory(prefix="apns-live-bench-") as name:
        files = {"body": plan.body(), "key": plan.key.encode()}
        for file, content in files.items():
            path = Path(name) / file
            path.touch(mode=0o600)
            path.write_bytes(content)
        values: dict[str, Any] = {file: f"{name}/{file}" for file in files} | plan.headers()
        values |= {"host": "localhost", "port": plan.port, "ca": plan.ca_file, "count": plan.count}
        values |= {"connections": plan.connections, "concurrent": plan.concurrent}
        values |= {"key_id": KEY_ID, "team_id": TEAM_ID, "bundle_id": BUNDLE_ID}
        words = shlex.split(contender.command)
        for key, value in values.items():
            words = [word.replace(f"{{{key}}}", str(value)) for word in words]
        return _timed(contender.name, words, plan.count or 0, core)


def _timed(name: str, words: list[str], count: int, core: int | None) -> Run:
    before, at, begin = (
        resource.getrusage(resource.RUSAGE_CHILDREN),
        time.time(),
        time.perf_counter(),
    )
    pinned = None if core is None else lambda: os.sched_setaffinity(0, {core})
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=SILENCE, check=False, preexec_fn=pinned
        )
    except (OSError, subprocess.TimeoutExpired) as error:
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
        return msgspec.convert({**msgspec.to_builtins(run), **said, "name": name}, Run)
    except (ValueError, TypeError, msgspec.ValidationError):
        return run
