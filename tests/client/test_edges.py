"""The edge to the caller: event loops, closing, sources of work, expired messages, storms of 429."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from apns_live import Alert, Client, Start, Update, Verdict
from apns_live.client import WorkItem
from apns_live.errors import ClientClosed, InvalidInput, InvalidSetting, WrongEventLoop
from apns_live.payload import encode
from apns_live.pool.connect import make_ssl_context
from apns_live.testing import FakeApns, SimulatedClock, ThreadedFakeApns
from tests.blocking.conftest import arguments
from tests.client.conftest import client_for, token, tokens
from tests.client.test_attach import Source, until

UPDATE = Update(content_state={"home": 71})


# One client, one event loop


def test_a_client_on_a_second_event_loop_is_refused_at_once() -> None:
    with ThreadedFakeApns() as running:
        client = Client(**arguments(running))  # on no loop: it binds to the first
        first = asyncio.new_event_loop()
        sent = first.run_until_complete(client.send(UPDATE, token(1)))
        assert sent.verdict is Verdict.ACCEPTED

        async def elsewhere() -> None:
            with pytest.raises(WrongEventLoop, match="one Client in each event loop"):
                await client.send(UPDATE, token(1))
            with pytest.raises(RuntimeError):
                await client.fan_out(UPDATE, tokens(2)).wait()
            with pytest.raises(WrongEventLoop):
                client.attach(Source())
            with pytest.raises(WrongEventLoop):
                await client.aclose()

        asyncio.run(elsewhere())
        assert not client.is_closed()
        first.run_until_complete(client.aclose())
        assert client.is_closed()
        first.close()


def test_a_client_whose_event_loop_has_ended_closes_at_once() -> None:
    with ThreadedFakeApns() as running:
        client = Client(**arguments(running))

        async def use() -> None:
            client.attach(Source())

        asyncio.run(use())
        asyncio.run(client.aclose())
        assert client.is_closed()
        with pytest.raises(ClientClosed):
            asyncio.run(use())


# Closing


@pytest.mark.wire
async def test_leaving_by_an_exception_does_not_drain(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("withhold", skip=1)
    sending = None
    example = client_for(timed_fake)
    key = example.provider_tokens.key

    async def leave() -> None:
        nonlocal sending
        async with Client(
            key, bundle_id=timed_fake.bundle_id, environment=example.endpoint, clock=clock
        ) as client:
            await client.send(UPDATE, token(0))
            sending = asyncio.ensure_future(client.send(UPDATE, token(1)))
            await clock.settle(until=lambda: client.statistics().in_flight == 1)
            raise LookupError

    with pytest.raises(LookupError):
        await leave()
    assert clock.monotonic() == 0.0
    assert (await sending).verdict is Verdict.UNKNOWN


@pytest.mark.wire
async def test_a_second_close_waits_for_the_first(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("withhold", skip=1)
    client = client_for(timed_fake, clock=clock)
    await client.send(UPDATE, token(0))
    sending = asyncio.ensure_future(client.send(UPDATE, token(1)))
    await clock.settle(until=lambda: client.statistics().in_flight == 1)
    closing = [asyncio.ensure_future(client.aclose()) for _ in range(3)]
    await clock.settle()
    assert not any(task.done() for task in closing)
    closing[2].cancel()
    await clock.settle()
    assert not client.is_closed()
    await clock.advance(10.0)
    await asyncio.gather(*closing[:2], sending)
    assert client.is_closed()
    await client.aclose()


@pytest.mark.wire
async def test_what_waits_after_a_500_may_have_been_sent(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    """Given up before its second try it is UNKNOWN: a 500 does not say that nothing happened."""
    timed_fake.fault("answer", reason="InternalServerError")
    client = client_for(timed_fake, clock=clock)
    sending = asyncio.ensure_future(client.send(UPDATE, token(1)))
    await clock.settle(until=lambda: client.statistics().retries == 1)
    await client.aclose(drain=0)
    outcome = await sending
    assert (outcome.verdict, outcome.may_have_been_sent) == (Verdict.UNKNOWN, True)


@pytest.mark.wire
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, True, "1"])
async def test_seconds_that_are_none_are_refused(fake: FakeApns, value: object) -> None:
    async with client_for(fake) as client:
        for call in (
            lambda: client.aclose(drain=value),
            lambda: client.send(UPDATE, token(1), deadline=value),
        ):
            with pytest.raises(InvalidInput, match="seconds"):
                await call()
        with pytest.raises(InvalidInput):
            client.attach(Source(), deadline=value)
        with pytest.raises(InvalidInput):
            client.attach(Source(), response_timeout=value)


# Sources of work


@pytest.mark.wire
async def test_a_source_that_gives_no_tokens_harms_nobody(fake: FakeApns) -> None:
    complaints: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    source = Source()
    async with client_for(fake, max_connections=1) as client:
        message = client.prepare(encode(UPDATE, now=client.clock.time()))
        bad = [None, "xyz", token(5) + "\n", 7, "\ud800"]
        source.waiting = deque(
            [None, *(WorkItem(each, message) for each in [token(1), *bad, token(2)])]
        )
        sends = [asyncio.ensure_future(client.send(UPDATE, each)) for each in tokens(500)]
        client.attach(source)
        assert all(each.accepted for each in await asyncio.gather(*sends))
        await until(lambda: len(source.outcomes) == 7)
    verdicts = {item.token: out.verdict for batch in source.batches for item, out in batch}
    assert {verdicts[each] for each in bad} == {Verdict.FIX_REQUEST}
    assert verdicts[token(1)] is verdicts[token(2)] is Verdict.ACCEPTED
    assert len(complaints) == 1
    assert len({push.connection_id for push in fake.pushes}) == 1


@pytest.mark.wire
async def test_a_source_that_gives_too_much_is_served(fake: FakeApns) -> None:
    class Generous(Source):
        def take(self, limit: int) -> list[WorkItem]:
            everything = list(self.waiting)
            self.waiting.clear()
            return everything

    source = Generous()
    async with client_for(fake, max_connections=1) as client:
        message = client.prepare(encode(UPDATE, now=client.clock.time()))
        source.waiting.extend(WorkItem(each, message) for each in tokens(2_500))
        client.attach(source)
        await until(lambda: len(source.outcomes) == 2_500)
    assert all(outcome.accepted for outcome in source.outcomes.values())


# What fills the engine


@pytest.mark.wire
async def test_tokens_answered_429_hold_up_no_others(
    timed_fake: FakeApns, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More tokens wait 5 s than a run may leave unread; the others leave all the same."""
    monkeypatch.setattr("apns_live.client.run.UNREAD_LIMIT", 500)
    timed_fake.fault("answer", reason="TooManyRequests", times=600)
    async with client_for(timed_fake, clock=clock, max_connections=1) as client:
        run = client.fan_out(UPDATE, (token(number) for number in range(900)))
        waiting = asyncio.ensure_future(run.wait())
        await clock.settle(until=lambda: run.report.accepted == 300)
        assert clock.monotonic() == 0.0
        assert run.report.read == 900
        await clock.advance(5.0)
        await clock.settle(until=waiting.done)
        assert waiting.result().accepted == 900


@pytest.mark.wire
async def test_connections_alone_bound_what_is_in_flight(
    timed_fake: FakeApns, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 ms a connection has 187 pushes in flight. At 53 connections a run took no more."""
    monkeypatch.setattr("apns_live.client.run.UNREAD_LIMIT", 50)
    async with client_for(timed_fake, clock=clock, max_connections=1) as client:
        await client.send(UPDATE, token(0))
        timed_fake.fault("delay", delay=5.0)
        run = client.fan_out(UPDATE, (token(number) for number in range(150)))
        waiting = asyncio.ensure_future(run.wait())
        await clock.settle(until=lambda: run.report.read == 150)
        assert run.report.settled == 0
        await clock.advance(5.0)
        await clock.settle(until=waiting.done)
        assert waiting.result().accepted == 150


@pytest.mark.wire
async def test_an_expired_message_leaves_the_event_loop_to_others(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    async with client_for(timed_fake, clock=clock) as client:
        assert (await client.send(UPDATE, token(1))).accepted
        update = Update(content_state={"home": 1}, expiration=clock.time() + 5)
        message = client.prepare(encode(update, now=clock.time()))
        await clock.advance(6)
        run = client.fan_out(message, (token(number) for number in range(10_000)))
        waiting = asyncio.ensure_future(run.wait())
        turns = 0
        while not waiting.done():
            await asyncio.sleep(0)
            turns += 1
        assert waiting.result().verdicts == {Verdict.EXPIRED: 10_000}
        # At most eight rounds of 256 tokens in one turn.
        assert turns >= 10_000 / 2048
        assert not run.report.accepted


@pytest.mark.wire
async def test_a_pause_of_everything_can_be_seen(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("answer", reason="ServiceUnavailable", retry_after=40, times=1)
    async with client_for(timed_fake, clock=clock) as client:
        first = asyncio.ensure_future(client.send(UPDATE, token(1)))
        await clock.settle(until=lambda: client.statistics().paused_for > 0)
        assert client.statistics().paused_for == pytest.approx(40.0)
        second = asyncio.ensure_future(client.send(UPDATE, token(2), deadline=5.0))
        await clock.settle()
        await clock.advance(5.0)
        outcome = await second
        assert outcome.verdict is Verdict.NOT_SENT
        assert "503" in outcome.detail
        assert "35" in outcome.detail
        await clock.advance(36.0)
        assert (await first).accepted
        assert client.statistics().paused_for == 0.0


@pytest.mark.wire
async def test_hooks_that_raise_are_logged_once(
    timed_fake: FakeApns, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    from apns_live.client import Hooks

    def hook(*_: object) -> None:
        raise RuntimeError("hook")

    timed_fake.fault("answer", reason="Shutdown", times=20)
    async with client_for(timed_fake, clock=clock, hooks=Hooks(retry=hook)) as client:
        sending = asyncio.ensure_future(client.send(UPDATE, token(1)))
        await clock.advance_until(sending.done)
    assert len([each for each in caplog.records if "retry" in each.message]) == 1


def test_a_start_is_encoded_with_an_alert_that_says_something() -> None:
    make: Callable[..., Alert] = Alert
    for empty in ({"title": ""}, {"body": ""}, {"title": "", "body": ""}):
        with pytest.raises(InvalidInput, match="alert"):
            make(**empty)
    with pytest.raises(InvalidInput, match="alert"):
        Start(content_state={}, attributes_type="A", attributes={}, alert=Alert(title="a", body=""))


def test_a_ca_file_without_certificates_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "roots.pem"
    file.write_text("no certificate")
    with pytest.raises(InvalidSetting, match="trusted roots"):
        make_ssl_context(file)
