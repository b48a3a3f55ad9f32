"""The measured senders, each in its own process.

A sender connects and sends a few pushes. When the parent is ready, it sends according to the plan and
reports its progress. Imports, TLS and the first connection are not measured.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import json
import ssl
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from .. import Client, Endpoint, ProviderKey
from ..delivery import Delivery
from ..outcome import Outcome
from ..payload import Message, Update, encode
from ..testing.certificates import write_private
from .processes import Sink, peak_bytes, say
from .results import Run, quantiles, taken

BUNDLE_ID = "com.example.scores"
TEAM_ID, KEY_ID = "DEF123GHIJ", "ABC123DEFG"
WARM_UP = 200
TICK = 0.25
"""Seconds between two reports to the parent."""
EACH = 16
"""The time of one in so many answers is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a sender: ``count`` pushes, or pushes for ``seconds``.

    ``concurrent`` tasks send at once where a call sends one push. ``rate`` is pushes a second for
    `paced`; ``updates`` states, one ``every`` so many seconds, are for `live`. Port, authority and
    provider key (PEM) are those of `at`.
    """

    message: Message
    count: int | None = None
    seconds: float = 5.0
    connections: int = 1
    concurrent: int = 1_000
    rate: float = 0.0
    updates: int = 0
    every: float = 1.0
    port: int = 0
    ca_file: str = ""
    key: str = ""

    def at(self, sink: Sink) -> Plan:
        """Return the plan for this sink, with a new key, which the sink does not check."""
        return replace(self, port=sink.port, ca_file=sink.ca_file, key=provider_key())

    def tokens(self, begin: int = WARM_UP) -> Iterator[str]:
        """Yield distinct device tokens until the plan is fulfilled."""
        if self.count is not None:
            yield from (f"{number:064x}" for number in range(begin, begin + self.count))
            return
        until = time.perf_counter() + self.seconds
        for number in itertools.count(begin):
            if not number & 63 and time.perf_counter() > until:
                return
            yield f"{number:064x}"

    def body(self) -> bytes:
        """Return the encoded payload, for senders that do not encode it."""
        return encode(self.message, now=time.time()).body

    def headers(self) -> dict[str, str]:
        """Return a push's headers, for senders that do not make them."""
        own = encode(self.message, now=time.time()).headers(BUNDLE_ID)
        return {"authorization": "bearer " + "x" * 180, **own}


def provider_key() -> str:
    """Return a new provider key as PEM. Only a sink accepts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class Watch:
    """Counts answers, measures some of them, and reports to the parent four times a second."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.times: list[float] = []
        self.run = Run(name="")

    def count(self, accepted: bool, took: float) -> None:
        """Count one answer that took ``took`` seconds."""
        self.run.count += 1
        self.run.failed += not accepted
        if not self.run.count % EACH:
            self.times.append(took)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Measure wall and CPU time of the block. Waits until the parent is ready."""
        say(self._connection, "ready")
        self._connection.recv()
        run = self.run
        run.count = run.failed = 0
        self.times.clear()
        reporting = asyncio.create_task(self._report(time.perf_counter()))
        try:
            with taken(run):
                yield
        finally:
            reporting.cancel()
            run.timeline.append((round(run.wall, 4), run.count))
            run.quantiles = quantiles(self.times)

    async def _report(self, began: float) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = time.perf_counter() - began
            self.run.timeline.append((round(now, 4), self.run.count))
            say(self._connection, (now, self.run.count, quantiles(self.times[-1_000:])))


async def serve(connection: Connection, name: str, plan: Plan) -> None:
    """Run the sender with this name. Its last message is its `Run`."""
    watch = Watch(connection)
    await SENDERS[name](plan, watch)
    say(connection, watch.run)


# --- ours


def our_client(plan: Plan) -> Client:
    """Return our client for the sink, with a user's default settings."""
    key = ProviderKey.from_pem(plan.key.encode(), key_id=KEY_ID, team_id=TEAM_ID)
    endpoint = Endpoint("localhost", plan.port, ca_file=plan.ca_file)
    return Client(key, bundle_id=BUNDLE_ID, environment=endpoint, max_connections=plan.connections)


async def fan_out(plan: Plan, watch: Watch) -> None:
    """One fan_out whose outcomes are read."""
    answered = failed = 0
    async with our_client(plan) as client:
        await client.fan_out(plan.message, (f"{number:064x}" for number in range(WARM_UP))).wait()
        async with watch.running(), client.fan_out(plan.message, plan.tokens()) as run:
            async for outcome in run:
                # This does the work of `Watch.count` without a call for each outcome.
                answered += 1
                if not outcome.accepted:
                    failed += 1
                if not answered % EACH:
                    watch.times.append(outcome.round_trip)
                    watch.run.count = answered
            watch.run.count, watch.run.failed = answered, failed
        watch.run.figures["connections"] = len(client.statistics().connections)


async def _concurrently(
    plan: Plan, watch: Watch, send: Callable[[str], Awaitable[bool]], concurrent: int | None = None
) -> None:
    async def work(source: Iterator[str]) -> None:
        for token in source:
            begin = time.perf_counter()
            watch.count(await send(token), time.perf_counter() - begin)

    async def all_of(source: Iterator[str]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrent or plan.concurrent):
                group.create_task(work(source))

    await send(f"{0:064x}")
    await all_of(f"{number:064x}" for number in range(1, WARM_UP))
    async with watch.running():
        await all_of(plan.tokens())


async def send(plan: Plan, watch: Watch) -> None:
    """``client.send`` of one message object from many tasks at once."""
    async with our_client(plan) as client:

        async def one(token: str) -> bool:
            return (await client.send(plan.message, token)).accepted

        await _concurrently(plan, watch, one)


async def paced(plan: Plan, watch: Watch) -> None:
    """``client.send`` at a steady rate, whether or not earlier pushes were answered.

    Time counts from a push's due time, so that falling behind is visible. The loop never
    sleeps: a timer's tick of a millisecond would dominate the result. So its CPU time means nothing.
    """
    lag: list[float] = []
    async with our_client(plan) as client:
        await client.send(plan.message, f"{0:064x}")
        total = plan.count or int(plan.rate * plan.seconds)

        async def one(token: str, due: float) -> None:
            lag.append(time.perf_counter() - due)
            outcome = await client.send(plan.message, token)
            watch.run.count += 1
            watch.run.failed += not outcome.accepted
            watch.times.append(time.perf_counter() - due)

        async with watch.running():
            begin = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for number in range(total):
                    due = begin + number / plan.rate
                    while time.perf_counter() < due:  # noqa: ASYNC110 - it must not sleep
                        await asyncio.sleep(0)
                    group.create_task(one(f"{number + 1:064x}", due))
    watch.run.figures["generator late, p99 ms"] = quantiles(lag)["0.99"] * 1e3


async def live(plan: Plan, watch: Watch) -> None:
    """States of one activity with ``count`` tokens; time counts from ``put`` until APNs' answer."""
    message = cast("Update", plan.message)
    put_at: list[float] = []
    took: list[float] = []

    def answered(outcome: Outcome) -> None:
        # The push had the newest state at the time when it was chosen.
        now = time.perf_counter()
        newest = bisect.bisect_right(put_at, now - outcome.elapsed + 1e-6) - 1
        watch.count(outcome.accepted, now - put_at[max(0, newest)])

    async def everyone_has(version: Any, at: float) -> None:
        await version
        took.append(time.perf_counter() - at)

    async with our_client(plan) as client, Delivery(client, on_outcome=answered) as delivery:
        audience = (f"{number:064x}" for number in range(plan.count or 0))
        match = delivery.activity("bench", tokens=audience)
        await delivery.flush()
        put_at.append(time.perf_counter())
        await match.put(message)  # the first put also records the audience
        await asyncio.sleep(plan.every)
        async with watch.running():
            put_at.clear()
            async with asyncio.TaskGroup() as group:
                begin = time.perf_counter()
                for number in range(plan.updates):
                    await asyncio.sleep(begin + number * plan.every - time.perf_counter())
                    put_at.append(time.perf_counter())
                    group.create_task(everyone_has(match.put(message), put_at[-1]))
        watch.run.figures["all have it, median s"] = quantiles(took)["0.5"]
        watch.run.figures["worst s"] = max(took)


async def memory(plan: Plan, watch: Watch) -> None:
    """Measure the peak memory of one fan_out, its growth, and the CPU of its second and last tenth."""
    total = plan.count or 1_000_000
    marks = {total * tenth // 10: (0.0, 0) for tenth in (1, 2, 9, 10)}
    async with (
        our_client(plan) as client,
        watch.running(),
        client.fan_out(plan.message, plan.tokens()) as run,
    ):
        async for outcome in run:
            watch.run.count += 1
            watch.run.failed += not outcome.accepted
            if watch.run.count in marks:
                marks[watch.run.count] = (time.process_time(), peak_bytes())
    (early, _), (until, held), (late, _), (end, peak) = marks.values()
    watch.run.figures |= {
        "peak MB": peak / 1e6,
        "growth MB": (peak - held) / 1e6,
        "last tenth / second": (end - late) / max(until - early, 1e-9),
    }


# --- others


async def aioapns(plan: Plan, watch: Watch) -> None:
    """Send with aioapns. It finds answers by their apns-id, which the sink echoes."""
    from aioapns import APNs, NotificationRequest, PushType

    message, headers = json.loads(plan.body()), plan.headers()
    context = ssl.create_default_context(cafile=plan.ca_file)
    context.set_alpn_protocols(["h2"])
    sender = APNs(
        key=plan.key,
        key_id=KEY_ID,
        team_id=TEAM_ID,
        topic=headers["apns-topic"],
        max_connections=plan.connections,
        ssl_context=context,
    )
    kind = sender.pool.protocol_class
    place = {"APNS_SERVER": "localhost", "APNS_PORT": plan.port}
    sender.pool.protocol_class = type("Local", (kind,), place)

    async def one(token: str) -> bool:
        request = NotificationRequest(
            device_token=token,
            message=message,
            priority=int(headers["apns-priority"]),
            push_type=PushType(headers["apns-push-type"]),
        )
        return bool((await sender.send_notification(request)).is_successful)

    await _concurrently(plan, watch, one)
    sender.pool.close()


async def httpx(plan: Plan, watch: Watch) -> None:
    """Send with httpx over HTTP/2, 100 streams a connection (its own bound)."""
    import httpx

    body = plan.body()
    limits = httpx.Limits(max_connections=plan.connections)
    context = ssl.create_default_context(cafile=plan.ca_file)
    async with httpx.AsyncClient(
        http1=False,
        http2=True,
        verify=context,
        limits=limits,
        timeout=60,
        headers=plan.headers(),
        base_url=f"https://localhost:{plan.port}/3/device",
    ) as client:

        async def one(token: str) -> bool:
            headers = {"apns-id": str(uuid.uuid4())}
            answer = await client.post(f"/{token}", content=body, headers=headers)
            return answer.status_code == 200

        await _concurrently(plan, watch, one)


async def pyapns(plan: Plan, watch: Watch) -> None:
    """Send with pyapns_client, which sends one push after the other."""
    from pyapns_client import APNSClient

    body, headers = plan.body(), plan.headers()
    del headers["authorization"]

    ready = SimpleNamespace(get_headers=lambda: headers, get_json_data=lambda: body)
    with tempfile.TemporaryDirectory(prefix="apns-live-bench-") as folder:
        key_file = Path(folder) / "key.p8"
        write_private(key_file, plan.key.encode())
        APNSClient.BASE_URLS = {"prod": f"https://localhost:{plan.port}"}
        client = APNSClient("prod", plan.ca_file, str(key_file), KEY_ID, TEAM_ID)

        async def one(token: str) -> bool:
            client.push(ready, token)
            await asyncio.sleep(0)  # lets the watch report its progress
            return True

        await _concurrently(plan, watch, one, concurrent=1)
        client.close()


_ALL = (fan_out, send, paced, live, memory, aioapns, httpx, pyapns)
SENDERS = {each.__name__: each for each in _ALL}
PEERS = {"aioapns": "aioapns", "httpx": "httpx", "pyapns": "pyapns_client"}
"""Other senders that run in Python -> the module that each needs."""
