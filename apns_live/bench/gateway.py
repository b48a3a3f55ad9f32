"""Measures the gateway: update calls compared with an empty route, registrations, half load, overload.

The gateway runs on one core with SQLite; the sink in Apple's place and the load share the other.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from fastapi import Body, FastAPI

from ..activities.store.sealing import new_key
from ..gateway import create_app
from ..gateway.scopes import ALL
from ..gateway.serving import calm_collector, raise_descriptor_limit, serving
from .processes import Sink, Worker, answer_until_closed, cores, say, sink, worker
from .results import Result, Run, conditions, quantiles
from .runner import Progress, Setup
from .senders import provider_key
from .service import new_app, opened

APP, TYPE = "bench", "DemoAttributes"
STATE = {
    "home": {"name": "FCB", "score": 1, "cards": [3, 17]},
    "away": {"name": "BVB", "score": 0, "cards": []},
    "minute": 12,
    "period": "first half",
    "headline": "A shot from far away, and the keeper has it",
}
_BATCH = 500


# --- the two servers, each a worker


def serve_empty(connection: Connection) -> None:
    """Serve a route that only parses the body and answers, to measure the framework alone."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/v1/activities/{activity}/update", status_code=202)
    async def update(activity: str, body: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008
        return {"operation": "", "activity": activity, "status": "accepted", "version": len(body)}

    run_served(serve_app(connection, app, {}))


def serve_gateway(connection: Connection, address: str, port: int, ca_file: str) -> None:
    """Serve the gateway as the command does, with a key for each API that is measured."""
    run_served(_gateway(connection, address, port, ca_file))


async def _gateway(connection: Connection, address: str, port: int, ca_file: str) -> None:
    async with opened(address, new_key(), port, ca_file) as service:
        app = await new_app(service, APP, provider_key())
        served, secrets = create_app(service), {}
        keys = served.state.gateway.keys
        for dialect in ("native", "braze", "onesignal"):
            _, secrets[dialect] = await keys.create(app, dialect=dialect, scopes=ALL, name=dialect)
        await serve_app(connection, served, secrets)


async def serve_app(connection: Connection, app: Any, facts: dict[str, Any], **tls: Any) -> None:
    """Serve an app until the parent closes its end. The first message has the address and ``facts``."""
    async with serving(app, drain=1.0, **{"host": "127.0.0.1", **tls}) as url:
        with calm_collector():
            place = urlsplit(url)
            say(connection, {"url": url, "host": place.hostname, "port": place.port, **facts})
            await answer_until_closed(connection)


def run_served(work: Any) -> None:
    """Run a server on the loop of the commands ``apns-live gateway`` and ``apns-live worker``."""
    raise_descriptor_limit()
    try:
        from uvloop import new_event_loop
    except ImportError:
        from asyncio import new_event_loop  # type: ignore[assignment]
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(work)


# --- the load


@dataclass(slots=True)
class Traffic:
    """Activities with ``phones`` tokens each, one activity for each connection, and calls for them."""

    activities: int
    phones: int
    count: int | None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _devices: Iterator[int] = field(default_factory=itertools.count)

    def setup(self, key: str) -> Iterator[bytes]:
        """Return the calls that register each phone's token for its activity."""
        activities = range(self.activities)
        every = [self._token(f"a{index}") for index in activities for _ in range(self.phones)]
        return _registering(every, key)

    def beginning(self, key: str, devices: int) -> Iterator[bytes]:
        """Yield calls that register other devices, then one that starts an activity on all of them."""
        facts = {"kind": "start", "attributes_type": TYPE}
        tokens = {f"other-{number}": f"{1 << 200 | number:064x}" for number in range(devices)}
        every = [{"device": device, "token": token, **facts} for device, token in tokens.items()]
        yield from _registering(every, key)
        start = {
            "id": "for-everyone",
            "attributes_type": TYPE,
            "attributes": {},
            "content_state": STATE,
            "alert": {"title": "Kick-off", "body": "It begins"},
            "audience": {"everyone": True},
        }
        yield post("/v1/activities", start, f"Bearer {key}")

    def _token(self, activity: str) -> dict[str, str]:
        number = next(self._devices)
        facts = {"kind": "activity", "activity": activity, "attributes_type": TYPE}
        return {"device": f"phone-{number}", "token": f"{number:064x}", **facts}

    def makers(self, what: str, keys: dict[str, Any]) -> list[Make]:
        """Return the request makers of one contender, one for each activity.

        All together make ``count`` requests, or unlimited ones.
        """

        def call(index: int) -> bytes:
            state = {**STATE, "n": next(self._numbers)}
            if what == "braze":
                body = {"app_id": APP, "activity_id": f"a{index}", "content_state": state}
                return post("/messages/live_activity/update", body, f"Bearer {keys['braze']}")
            if what == "onesignal":
                body = {"event": "update", "event_updates": state, "name": "bench"}
                path = f"/apps/{APP}/live_activities/a{index}/notifications"
                return post(path, body, f"Key {keys['onesignal']}")
            key = f"Bearer {keys['native']}"
            if what == "one token a call":
                # Use other activities than the updated ones, whose updates would go to these tokens too.
                return post("/v1/tokens", {"tokens": [self._token(f"joined-{index}")]}, key)
            return post(f"/v1/activities/a{index}/update", {"content_state": state}, key)

        left = itertools.count() if self.count is None else iter(range(self.count))
        return [
            lambda index=index: None if next(left, None) is None else call(index)  # type: ignore[misc]
            for index in range(self.activities)
        ]


def _registering(tokens: list[dict[str, str]], key: str) -> Iterator[bytes]:
    """Yield the calls that register tokens, a batch in each."""
    for first in range(0, len(tokens), _BATCH):
        yield post("/v1/tokens", {"tokens": tokens[first : first + _BATCH]}, f"Bearer {key}")


def _call_all(calls: Iterator[bytes], place: dict[str, Any]) -> None:
    """Make calls one after the other."""
    asyncio.run(closed_loop(place["host"], place["port"], [lambda: next(calls, None)], seconds=600))


def _measure(
    name: str,
    server: Worker,
    place: dict[str, Any],
    makers: list[Make],
    *,
    apns: Sink,
    seconds: float,
    progress: Progress | None,
    rate: float = 0.0,
) -> Run:
    """Load a server. CPU is the server's."""

    def tell(now: float, seen: Seen) -> None:
        if progress is not None:
            progress(name, now, sum(seen.answers.values()), quantiles(seen.times[-1_000:]))

    at, (cpu, _), busy = time.time(), server.usage(), apns.cpu()
    target = place["host"], place["port"]
    seen = asyncio.run(closed_loop(*target, makers, seconds=seconds, rate=rate, tell=tell))
    (used, peak), busy = server.usage(), apns.cpu() - busy
    answered = sum(seen.answers.values())
    good = sum(count for status, count in seen.answers.items() if status < 300)
    run = Run(
        name=name,
        count=answered,
        failed=answered - good + seen.lost,
        wall=seen.wall,
        cpu=used - cpu,
        sink_busy=busy / seen.wall,
        at=at,
        timeline=seen.timeline,
        quantiles=quantiles(seen.times),
        figures={"peak MB": peak / 1e6},
    )
    if seen.refusals:
        run.figures |= {
            "refused": len(seen.refusals),
            "longest refusal ms": max(seen.refusals) * 1e3,
            "refused without Retry-After": seen.without_retry_after,
        }
    return run


def gateway(
    seconds: float = 5.0,
    setup: Setup | None = None,
    *,
    count: int | None = None,
    connections: int = 64,
    phones: int = 1,
    overload: int = 0,
    start: int = 0,
    database: str | None = None,
) -> Result:
    """Measure updates, an empty route, other APIs and registrations; then half load and overload.

    Each contender makes ``count`` calls, or runs for ``seconds``. ``phones`` follow each activity.
    With ``start`` the half load is measured again while an activity starts on so many other devices.
    At the end ``overload`` connections send at the same time; refusals are not failures there.
    """
    setup = setup or Setup()
    result = Result(measure="gateway", title="The gateway under load", conditions=conditions())
    server_core, other_core = cores()
    with (
        tempfile.TemporaryDirectory(prefix="apns-live-bench-") as folder,
        sink(setup.sink, other_core) as apns,
        worker("the empty route", serve_empty, core=server_core) as plain,
    ):
        address = database or f"sqlite:///{folder}/live.db"
        arguments = (address, apns.port, apns.ca_file)
        with worker("the gateway", serve_gateway, *arguments, core=server_core) as ours:
            places = {"empty route": (plain, plain.receive())}
            facts = ours.receive()
            contenders = ("empty route", "update", "braze", "onesignal", "one token a call")
            result.settings = {
                "server": f"one process, HTTP/1.1 on loopback, {address.partition(':')[0]}",
                "load": f"{connections} keep-alive connections in a closed loop, each for its own "
                f"activity, which {phones} phones follow",
                "sink": f"{apns.name}, on the core of the load",
                "CPU": "the server's",
                "rounds": f"{setup.rounds}, alternating; figures are medians",
            }
            traffic = Traffic(max(connections, overload), phones, count)
            _call_all(traffic.setup(facts["native"]), facts)
            measure = partial(_measure, apns=apns, seconds=seconds, progress=setup.progress)
            for turn in range(setup.rounds):
                for name in contenders if turn % 2 == 0 else reversed(contenders):
                    makers = traffic.makers(name, facts)[:connections]
                    result.runs.append(measure(name, *places.get(name, (ours, facts)), makers))
                    result.runs[-1].round = turn
            rates = sorted(run.rate for run in result.runs if run.name == "update")
            half = rates[len(rates) // 2] / 2

            def update(name: str, most: int, rate: float = 0.0) -> Run:
                makers = traffic.makers("update", facts)[:most]
                result.runs.append(measure(name, ours, facts, makers, rate=rate))
                return result.runs[-1]

            update("update, half load", connections, half)
            if start:
                _call_all(traffic.beginning(facts["native"], start), facts)
                update("update, during a start", connections, half)
            if overload:
                run = update(f"{overload} connections", overload)
                run.failed -= int(run.figures.get("refused", 0))
    return result


# --- the loop of requests: HTTP/1.1 over keep-alive connections, cheap enough not to be the bottleneck

Make = Callable[[], bytes | None]
"""Returns the next request of a connection, or None to close it."""

_END = b"\r\n\r\n"
_GRACE = 15.0


@dataclass(slots=True)
class Seen:
    """The results of a loop: answers by status, and the seconds that each took."""

    answers: Counter[int] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    lost: int = 0
    timeline: list[tuple[float, int]] = field(default_factory=list)
    wall: float = 0.0


@dataclass(eq=False)
class _Connection(asyncio.Protocol):
    """One keep-alive connection. It sends the next request after the last answer, or when it is due.

    ``each`` is the time between two requests in seconds, 0 for none; ``due`` is the next one's time.
    """

    make: Make
    seen: Seen
    each: float
    due: float
    buffer: bytes = b""
    sent: float = 0.0

    def __post_init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        if self.transport.is_closing():
            return
        if (request := self.make()) is None:
            self.transport.close()
            return
        self.sent = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if (end := self.buffer.find(_END)) < 0:
            return
        head = self.buffer[:end].lower()
        mark = head.find(b"content-length:")
        length = int(head[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return
        self.buffer = b""  # one request at a time, so nothing can follow
        seen, took, status = self.seen, time.perf_counter() - self.sent, int(head[9:12])
        seen.answers[status] += 1
        if status in (429, 503):
            seen.refusals.append(took)
            seen.without_retry_after += b"retry-after:" not in head
        else:
            seen.times.append(took)
        self.due += self.each
        pause = self.due - self.loop.time() if self.each else 0.0
        if pause > 0:
            self.loop.call_later(pause, self._ask)
        else:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self.seen.lost += error is not None
        if not self.done.done():
            self.done.set_result(None)


async def closed_loop(
    host: str,
    port: int,
    makers: Sequence[Make],
    *,
    seconds: float,
    rate: float = 0.0,
    tell: Callable[[float, Seen], None] | None = None,
) -> Seen:
    """Run one connection for each maker, until its maker returns None or ``seconds`` have passed.

    ``rate`` limits the answers a second of all connections together.
    """
    seen = Seen()
    loop = asyncio.get_running_loop()
    begin, until = time.perf_counter(), loop.time() + seconds
    each = len(makers) / rate if rate else 0.0
    connections: set[asyncio.Future[None]] = set()
    for index, make in enumerate(makers):
        made = _Connection(
            lambda make=make: make() if loop.time() < until else None,  # type: ignore[misc]
            seen,
            each,
            loop.time() + each * index / len(makers),
        )
        await loop.create_connection(lambda made=made: made, host, port)  # type: ignore[misc]
        connections.add(made.done)
    last = loop.time() + seconds + _GRACE
    while connections and loop.time() < last:
        _, connections = await asyncio.wait(connections, timeout=0.25)
        now = time.perf_counter() - begin
        seen.timeline.append((round(now, 4), sum(seen.answers.values())))
        if tell is not None:
            tell(now, seen)
    seen.lost += len(connections)
    seen.wall = time.perf_counter() - begin
    return seen


def post(path: str, content: object, authorization: str) -> bytes:
    """Return the bytes of a POST with a JSON body."""
    body = msgspec.json.encode(content)
    return (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {authorization}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body
