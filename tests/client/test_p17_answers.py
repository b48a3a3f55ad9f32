"""P17 to P21: strange answers, Retry-After, answers in pieces, 500 after idle, fresh DNS."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import socket

import pytest

from apns_live import Alert, Client, Endpoint, Start, Update, Verdict
from apns_live.testing import FakeApns, SimulatedClock
from tests.client.conftest import client_for, pass_time, token, tokens

UPDATE = Update(content_state={"home": 71})
START = Start(
    content_state={"home": 0},
    attributes_type="MatchAttributes",
    attributes={"home": "A"},
    alert=Alert(title="Kick-off", body="A match begins"),
)


@pytest.mark.http
@pytest.mark.parametrize(
    ("status", "body", "verdict", "reason"),
    [
        (400, '{"reason":"BrandNewReason"}', Verdict.FIX_REQUEST, "BrandNewReason"),
        (403, '{"reason":"BrandNewReason"}', Verdict.OPERATOR, "BrandNewReason"),
        (410, '{"reason":"BrandNewReason"}', Verdict.DROP_TOKEN, "BrandNewReason"),
        (400, "", Verdict.FIX_REQUEST, ""),
        (403, "", Verdict.OPERATOR, ""),
        (404, "<html>not found</html>", Verdict.FIX_REQUEST, ""),
        (407, "proxy says no", Verdict.OPERATOR, ""),
        (400, "null", Verdict.FIX_REQUEST, ""),
        (400, "[1, 2]", Verdict.FIX_REQUEST, ""),
        (400, '{"reason": 17}', Verdict.FIX_REQUEST, ""),
        (400, '{"reason": null}', Verdict.FIX_REQUEST, ""),
        (400, "[" * 5000, Verdict.FIX_REQUEST, ""),
        (400, "\ufeff{}", Verdict.FIX_REQUEST, ""),
        (410, '{"reason":"Unregistered","timestamp":"soon"}', Verdict.DROP_TOKEN, "Unregistered"),
        (410, '{"reason":"Unregistered","timestamp":1e300}', Verdict.DROP_TOKEN, "Unregistered"),
        (410, '{"reason":"Unregistered","timestamp":-5}', Verdict.DROP_TOKEN, "Unregistered"),
        (204, "", Verdict.FIX_REQUEST, ""),
        (302, "", Verdict.FIX_REQUEST, ""),
    ],
)
async def test_p17_unknown_reasons_and_odd_bodies_never_raise(
    fake: FakeApns, transport: str, status: int, body: str, verdict: Verdict, reason: str
) -> None:
    fake.fault("answer", status=status, body=body)
    async with client_for(fake, transport=transport) as client:
        outcome = await client.send(UPDATE, token(1))
    assert (outcome.verdict, outcome.status, outcome.reason) == (verdict, status, reason)
    assert outcome.timestamp is None


@pytest.mark.http
@pytest.mark.parametrize("status", [500, 502, 504, 599])
@pytest.mark.parametrize("body", ["", "<html>", '{"reason":"Unheard"}'])
async def test_p17_a_5xx_is_retried_twice_for_an_update(
    timed_fake: FakeApns, clock: SimulatedClock, transport: str, status: int, body: str
) -> None:
    timed_fake.fault("answer", status=status, body=body)
    async with client_for(timed_fake, clock=clock, transport=transport) as client:
        outcome = await pass_time(client, clock, client.send(UPDATE, token(1)))
    assert (outcome.verdict, outcome.status, outcome.attempts) == (Verdict.RETRY_LATER, status, 3)
    assert outcome.retry_at > clock.time()
    assert 11.0 <= clock.monotonic() <= 11.5


def struck(fake: FakeApns) -> int:
    return sum(active.fired for active in fake.faults)


@pytest.mark.http
async def test_p17_a_500_to_a_start_is_unknown_and_not_repeated(
    fake: FakeApns, transport: str
) -> None:
    fake.fault("answer", status=500, reason="InternalServerError")
    async with client_for(fake, transport=transport) as client:
        outcome = await client.send(START, token(1))
    assert (outcome.verdict, outcome.attempts) == (Verdict.UNKNOWN, 1)
    assert (outcome.status, outcome.reason) == (500, "InternalServerError")
    assert outcome.may_have_been_sent
    assert struck(fake) == 1


@pytest.mark.http
@pytest.mark.parametrize("reason", ["TooManyRequests", "ServiceUnavailable"])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_p18_retry_after_is_waited_for(
    timed_fake: FakeApns, clock: SimulatedClock, transport: str, reason: str, form: str
) -> None:
    wait: str | float = 17
    if form == "date":
        wait = email.utils.formatdate(clock.time() + 17, usegmt=True)
    timed_fake.fault("answer", reason=reason, retry_after=wait, times=1)
    async with client_for(timed_fake, clock=clock, transport=transport) as client:
        task = asyncio.ensure_future(client.send(UPDATE, token(1)))
        await clock.settle(until=lambda: struck(timed_fake) == 1)
        await clock.settle(50)
        await clock.advance(16.9)
        await clock.settle(50)
        assert not timed_fake.pushes
        await clock.advance(0.2)
        await clock.settle(until=task.done)
    outcome = task.result()
    assert (outcome.verdict, outcome.attempts) == (Verdict.ACCEPTED, 2)
    (push,) = timed_fake.pushes
    assert push.apns_id == outcome.apns_id
    assert 17.0 <= push.received_at - 1_800_000_000 <= 17.2


@pytest.mark.http
@pytest.mark.parametrize("reason", ["TooManyRequests", "ServiceUnavailable"])
async def test_p18_a_wait_beyond_the_deadline_is_the_callers(
    timed_fake: FakeApns, clock: SimulatedClock, transport: str, reason: str
) -> None:
    timed_fake.fault("answer", reason=reason, retry_after=17)
    async with client_for(timed_fake, clock=clock, transport=transport) as client:
        outcome = await client.send(UPDATE, token(1), deadline=10)
    expected = Verdict.SLOW_DOWN if reason == "TooManyRequests" else Verdict.RETRY_LATER
    assert (outcome.verdict, outcome.attempts, outcome.status) == (
        expected,
        1,
        429 if reason == "TooManyRequests" else 503,
    )
    assert outcome.retry_at == pytest.approx(clock.time() + 17)


@pytest.mark.wire
async def test_p18_a_429_holds_back_that_token_only(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("answer", reason="TooManyRequests", token=token(1), times=1)
    async with client_for(timed_fake, clock=clock) as client:
        slow = asyncio.ensure_future(client.send(UPDATE, token(1)))
        await clock.settle(until=lambda: struck(timed_fake) == 1)
        await clock.settle(50)
        also = asyncio.ensure_future(client.send(UPDATE, token(1)))
        assert (await client.send(UPDATE, token(2))).accepted
        await clock.settle(50)
        assert [push.token for push in timed_fake.pushes] == [token(2)]
        await clock.advance(4.9)
        assert not slow.done()
        assert not also.done()
        await clock.advance(0.2)
        await clock.settle(until=lambda: slow.done() and also.done())
    assert slow.result().attempts == 2
    assert also.result().attempts == 1


@pytest.mark.wire
async def test_p18_a_503_holds_back_everything_and_doubles(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("answer", reason="ServiceUnavailable", times=3)
    async with client_for(timed_fake, clock=clock) as client:
        outcome = await pass_time(client, clock, client.send(UPDATE, token(1)))
        assert (outcome.verdict, outcome.attempts) == (Verdict.ACCEPTED, 4)
        # 1 s, 2 s, 4 s.
        assert clock.monotonic() == pytest.approx(7.0, abs=0.1)


@pytest.mark.wire
@pytest.mark.parametrize("reason", ["BadDeviceToken", "Unregistered"])
async def test_p19_an_error_body_in_pieces_is_put_together(fake: FakeApns, reason: str) -> None:
    """Several DATA frames, padding, and the header block in CONTINUATION frames."""
    fake.fault("answer", reason=reason, in_pieces=True)
    async with client_for(fake) as client:
        async with client.fan_out(UPDATE, tokens(200)) as run:
            reasons = {outcome.reason async for outcome in run}
        assert reasons == {reason}
        fake.faults.clear()
        outcome = await client.send(UPDATE, token(1))
        assert (outcome.verdict, outcome.connection_id) == (Verdict.ACCEPTED, 1)


@pytest.mark.wire
async def test_p20_a_500_after_idle_means_a_new_connection(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    async with client_for(timed_fake, clock=clock) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        await clock.advance(120)
        timed_fake.fault("answer", reason="InternalServerError", connection=1)
        outcome = await pass_time(client, clock, client.send(UPDATE, token(1)))
        assert (outcome.verdict, outcome.attempts, outcome.connection_id) == (
            Verdict.ACCEPTED,
            2,
            2,
        )
        await clock.settle(until=lambda: timed_fake.connections[0].state == "closed")


@pytest.mark.wire
async def test_p20_a_500_on_a_busy_connection_keeps_it(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    async with client_for(timed_fake, clock=clock) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        timed_fake.fault("answer", reason="InternalServerError", times=1)
        outcome = await pass_time(client, clock, client.send(UPDATE, token(1)))
        assert (outcome.verdict, outcome.attempts, outcome.connection_id) == (
            Verdict.ACCEPTED,
            2,
            1,
        )


@pytest.mark.wire
async def test_a_refusal_after_a_500_still_says_that_a_phone_may_have_got_it(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    async with client_for(timed_fake, clock=clock) as client:
        timed_fake.fault("answer", reason="InternalServerError", nth=(1,))
        timed_fake.fault("answer", reason="Unregistered", nth=(2,))
        outcome = await pass_time(client, clock, client.send(UPDATE, token(1)))
        assert (outcome.verdict, outcome.attempts) == (Verdict.DROP_TOKEN, 2)
        assert outcome.may_have_been_sent


@contextlib.asynccontextmanager
async def relay(address: str, port: int):
    """Listen on another loopback address and pass everything on to the fake."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            pipe(reader, inner_writer), pipe(inner_reader, writer), return_exceptions=True
        )
        for each in (writer, inner_writer):
            each.close()

    server = await asyncio.start_server(serve, address, port)
    async with server:
        yield


async def leave(fake: FakeApns, client: Client) -> None:
    fake.go_away("Shutdown")
    while client.statistics().connections:
        await asyncio.sleep(0)


@pytest.mark.wire
async def test_p21_the_host_is_looked_up_for_every_connection(fake: FakeApns) -> None:
    answers = iter(["127.0.0.1", "127.0.0.2"])
    asked: list[tuple[str, int]] = []

    async def resolver(host: str, port: int):
        asked.append((host, port))
        return [(socket.AF_INET, (next(answers), port))]

    async with relay("127.0.0.2", fake.port), client_for(fake, resolver=resolver) as client:
        addresses = []
        for number in range(2):
            assert (await client.send(UPDATE, token(number))).accepted
            addresses.append(client.statistics().connections[0].address)
            await leave(fake, client)
    assert asked == [("localhost", fake.port)] * 2
    assert addresses == [f"127.0.0.1:{fake.port}", f"127.0.0.2:{fake.port}"]


@pytest.mark.wire
async def test_p21_several_addresses_are_used_in_turn_and_dead_ones_passed_over(
    fake: FakeApns,
) -> None:
    async def resolver(host: str, port: int):
        return [
            (socket.AF_INET, (address, port)) for address in ("127.0.0.1", "127.0.0.9", "127.0.0.2")
        ]

    async with relay("127.0.0.2", fake.port), client_for(fake, resolver=resolver) as client:
        addresses = []
        for number in range(4):
            assert (await client.send(UPDATE, token(number))).accepted
            addresses.append(client.statistics().connections[0].address.split(":")[0])
            await leave(fake, client)
    assert addresses == ["127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.1"]


@pytest.mark.wire
async def test_no_address_says_so(fake: FakeApns, clock: SimulatedClock) -> None:
    async def resolver(host: str, port: int):
        raise socket.gaierror(-2, "Name or service not known")

    endpoint = Endpoint("localhost", fake.port, ca_file=str(fake.ca_file))
    async with client_for(fake, environment=endpoint, resolver=resolver, clock=clock) as client:
        task = asyncio.ensure_future(client.send(UPDATE, token(1), deadline=1.0))
        await clock.settle(50)
        await clock.advance_until(task.done)
    outcome = task.result()
    assert outcome.verdict is Verdict.NOT_SENT
    assert "DNS" in outcome.detail
