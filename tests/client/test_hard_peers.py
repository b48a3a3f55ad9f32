"""Peers, clocks and callers that wear the wire down: each once hung, hammered or lost something."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from apns_live import Client, Endpoint, Update, Verdict
from apns_live.errors import ConnectFailed, PoolFull
from apns_live.pool import Loss
from apns_live.pool.connect import Address, Connector, make_ssl_context
from apns_live.testing import FakeApns, SimulatedClock
from tests.client.conftest import client_for, pass_time, token, tokens
from tests.servers import make_certificate

pytestmark = pytest.mark.wire
UPDATE = Update(content_state={"home": 71})


class StepClock:
    """The simulated clock, with a wall time that is wrong by ``ahead`` seconds."""

    def __init__(self, clock: SimulatedClock, ahead: float) -> None:
        self._clock = clock
        self.ahead = ahead
        self.monotonic, self.call_later, self.sleep = clock.monotonic, clock.call_later, clock.sleep

    def time(self) -> float:
        return self._clock.time() + self.ahead


async def test_malformed_tokens_in_a_row_each_get_an_outcome(fake: FakeApns) -> None:
    bad = ["no token"] * 3000
    async with client_for(fake) as client, client.fan_out(UPDATE, [*bad, token(1)]) as run:
        outcomes = [outcome async for outcome in run]
    assert [outcome.verdict for outcome in outcomes].count(Verdict.FIX_REQUEST) == 3000
    assert [outcome.token for outcome in outcomes if outcome.accepted] == [token(1)]


async def test_a_token_from_the_future_is_given_up_with_its_link(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    ours = StepClock(clock, 7200.0)
    async with client_for(timed_fake, clock=ours) as client:
        assert (await client.send(UPDATE, token(1))).connection_id == 1
        ours.ahead = 0.0
        outcome = await pass_time(client, clock, client.send(UPDATE, token(2)))
        assert (outcome.verdict, outcome.connection_id) == (Verdict.ACCEPTED, 2)


@pytest.mark.parametrize("how", ["goaway", "disconnect"])
async def test_a_peer_that_accepts_and_then_drops_is_not_hammered(
    timed_fake: FakeApns, clock: SimulatedClock, how: str
) -> None:
    async with client_for(timed_fake, clock=clock, uniform=lambda: 1.0) as client:
        began = clock.monotonic()
        for number in range(20):
            assert (await pass_time(client, clock, client.send(UPDATE, token(number)))).accepted
            if how == "goaway":
                timed_fake.go_away()
            else:
                timed_fake.disconnect()
            await clock.settle(until=lambda: not client.statistics().connections)
        # At once the first time, then 0.5 s doubling to 5 s.
        assert clock.monotonic() - began > 60.0
        await clock.advance(60.0)
        assert (await pass_time(client, clock, client.send(UPDATE, token(0)))).accepted
        await clock.advance(11.0)
        timed_fake.disconnect()
        await clock.settle(until=lambda: not client.statistics().connections)
        # A connection that lived for a while is replaced at once.
        began = clock.monotonic()
        assert (await pass_time(client, clock, client.send(UPDATE, token(0)))).accepted
        assert clock.monotonic() == began


async def test_the_waiting_room_lets_in_no_more_than_it_holds(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("withhold", skip=1)
    async with client_for(
        timed_fake, clock=clock, waiting_room=10, queue_timeout=5.0, max_connections=1
    ) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        tasks = [asyncio.ensure_future(client.send(UPDATE, each)) for each in tokens(1300)]
        await clock.settle(until=lambda: client.statistics().in_flight == 1000)
        await clock.settle(50)
        assert client.statistics().waiting <= 11
        await clock.advance(5.1)
        await clock.settle()
        full = [task for task in tasks if task.done() and task.exception()]
        assert len(full) >= 1300 - 1000 - 11
        assert all(isinstance(task.exception(), PoolFull) for task in full)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _black_hole() -> tuple[socket.socket, Address]:
    """Return a listening socket whose backlog is full: connecting to it never ends."""
    listener = socket.socket()
    listener.bind(("127.0.0.2", 0))
    listener.listen(0)
    return listener, (socket.AF_INET, listener.getsockname())


@contextlib.contextmanager
def black_hole():
    listener, address = _black_hole()
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address[1])
        yield address


async def test_a_black_holed_address_does_not_hold_up_the_next(fake: FakeApns) -> None:
    with black_hole() as nowhere:
        good: Address = (socket.AF_INET, ("127.0.0.1", fake.port))

        async def resolver(host: str, port: int) -> Sequence[Address]:
            return [nowhere, good]

        async with client_for(fake, resolver=resolver) as client:
            outcome = await client.send(UPDATE, token(1), deadline=5.0)
            assert outcome.accepted, outcome.detail


async def test_addresses_that_were_tried_are_named(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    with black_hole() as nowhere, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))

        async def resolver(host: str, port: int) -> Sequence[Address]:
            return [nowhere]

        async with client_for(timed_fake, clock=clock, resolver=resolver) as client:
            task = asyncio.ensure_future(client.send(UPDATE, token(1), deadline=11.0))
            await clock.settle(until=lambda: client.statistics().connections)
            await clock.advance_until(task.done)
        assert f"127.0.0.2:{nowhere[1][1]}" in task.result().detail

        async def refused(host: str, port: int) -> Sequence[Address]:
            return [(socket.AF_INET, closed.getsockname())]

        endpoint = Endpoint(**timed_fake.endpoint._asdict())
        connector = Connector(
            endpoint, ssl_context=make_ssl_context(endpoint.ca_file), resolver=refused
        )
        with pytest.raises(ConnectFailed, match=f"127.0.0.1:{closed.getsockname()[1]}"):
            await connector.open(asyncio.Protocol)


async def test_a_503_with_retry_after_can_be_seen(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    async with client_for(timed_fake, clock=clock) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        timed_fake.fault("answer", reason="ServiceUnavailable", retry_after=300, times=1)
        waiting = asyncio.ensure_future(client.send(UPDATE, token(1), deadline=20.0))
        await clock.settle(until=lambda: client.statistics().paused_for > 0)
        late = asyncio.ensure_future(client.send(UPDATE, token(2), deadline=10.0))
        await clock.settle()
        statistics = client.statistics()
        assert statistics.paused_for == pytest.approx(300, abs=1)
        assert [link.state for link in statistics.connections] == ["paused"]
        await clock.advance_until(lambda: late.done() and waiting.done())
        assert late.result().verdict is Verdict.NOT_SENT
        assert "ServiceUnavailable" in late.result().detail
        assert "Retry-After" in late.result().detail


@contextlib.asynccontextmanager
async def server_without_alpn(
    fake: FakeApns, folder: Path, clock: SimulatedClock
) -> AsyncIterator[tuple[Client, list[asyncio.StreamWriter]]]:
    certificate, key = make_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    seen: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(
        lambda _, writer: seen.append(writer), "127.0.0.1", 0, ssl=context
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint("localhost", port, ca_file=certificate)
        async with client_for(fake, environment=endpoint, clock=clock) as client:
            yield client, seen
        for writer in seen:
            writer.transport.abort()


async def test_a_fan_out_to_what_speaks_no_http2_ends(
    fake: FakeApns, tmp_path: Path, clock: SimulatedClock
) -> None:
    async with server_without_alpn(fake, tmp_path, clock) as (client, seen):
        run = client.fan_out(UPDATE, tokens(5000))
        report = await pass_time(client, clock, run.wait())
        assert report.source_exhausted
        assert report.verdicts == {Verdict.OPERATOR: 5000}
        assert clock.monotonic() < 60.0
        assert len(seen) >= 5
        outcome = await pass_time(client, clock, client.send(UPDATE, token(1)))
        assert outcome.verdict is Verdict.OPERATOR
        assert "ALPN" in outcome.detail
        assert outcome.retry_at > 0


@pytest.mark.parametrize("end", ["timeout", "deadline", "disconnect", "cancel"])
async def test_a_body_that_never_left_whole_is_not_sent(
    timed_fake: FakeApns, clock: SimulatedClock, end: str
) -> None:
    timed_fake.fault("slow_window", window=0, rate=0, times=1)
    async with client_for(timed_fake, clock=clock, max_connections=1) as client:
        deadline = 5.0 if end == "deadline" else None
        task = asyncio.ensure_future(client.send(UPDATE, token(1), deadline=deadline))
        await clock.settle(until=lambda: client.statistics().in_flight == 1)
        if end == "disconnect":
            timed_fake.disconnect()
            outcome = await pass_time(client, clock, task)
            # It is certain that nothing was processed, so the next connection takes it.
            assert (outcome.verdict, outcome.attempts) == (Verdict.ACCEPTED, 2)
            return
        if end == "cancel":
            push = next(iter(client._transport.in_flight()))
            client._engine.give_up(push, Loss.DEADLINE)
        else:
            await clock.advance_until(task.done)
        outcome = await task
        assert (outcome.verdict, outcome.may_have_been_sent) == (Verdict.NOT_SENT, False)


async def test_a_connection_whose_streams_get_no_window_is_replaced(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("slow_window", window=0, rate=0, times=1)
    async with client_for(timed_fake, clock=clock, max_connections=1) as client:
        task = asyncio.ensure_future(client.send(UPDATE, token(1)))
        await clock.settle(until=lambda: client.statistics().in_flight == 1)
        await clock.advance(5)
        assert 4.0 < client.statistics().connections[0].stalled_for < 6.0
        await clock.advance_until(task.done)
        assert task.result().verdict is Verdict.NOT_SENT
        outcome = await pass_time(client, clock, client.send(UPDATE, token(1)))
        assert (outcome.accepted, outcome.connection_id) == (True, 2)
        assert client.statistics().connections[0].stalled_for == 0.0


async def test_a_connection_that_gets_no_window_at_all_is_replaced(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("slow_window", window=65_535, rate=0.0, times=1)
    big = Update(content_state={"pad": "x" * 3000})
    async with client_for(timed_fake, clock=clock, max_connections=1) as client:
        run = client.fan_out(big, tokens(100))
        task = asyncio.ensure_future(run.wait())
        await clock.settle(until=lambda: run.report.accepted >= 15)
        await clock.advance_until(task.done)
        assert task.result().accepted == 100
        assert 10.0 <= clock.monotonic() < 15.0
        assert client.statistics().connections_opened == 2


async def test_a_connection_with_a_slow_window_is_kept(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("slow_window", window=65_535, rate=1_000.0, times=1)
    big = Update(content_state={"pad": "x" * 3000})
    async with client_for(timed_fake, clock=clock, max_connections=1) as client:
        task = asyncio.ensure_future(client.fan_out(big, tokens(30)).wait())
        await clock.advance_until(task.done)
        assert task.result().accepted == 30
        assert client.statistics().connections_opened == 1


async def test_nothing_is_written_to_a_transport_that_is_closing(fake: FakeApns) -> None:
    writes: list[bool] = []
    async with client_for(fake) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        (link,) = client._transport._links  # type: ignore[attr-defined]
        transport = link.wire._transport
        real = transport.write
        transport.write = lambda data: (writes.append(transport.is_closing()), real(data))
        transport.abort()
        sending = asyncio.ensure_future(client.send(UPDATE, token(1)))
        link.feed()
        assert (await sending).accepted
    assert not any(writes)
