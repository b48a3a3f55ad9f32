"""A fan-out finds its place again: bad tokens, sources that trickle, pages of the wrong size."""

from __future__ import annotations

import asyncio

import pytest

from apns_live.delivery import Delivery, TokenPage
from apns_live.errors import InvalidInput, JournalError, SourceCancelled
from apns_live.outcome import Verdict
from apns_live.testing.clock import SimulatedClock

from .double import Fate, MemoryClient
from .memory_journal import MemoryJournal
from .test_delivery import Phone, state
from .test_live import tokens


@pytest.fixture
def clock():
    return SimulatedClock()


@pytest.fixture
def phone():
    return Phone()


@pytest.fixture
def client(clock, phone):
    return MemoryClient(clock, received=phone, room=10)


@pytest.fixture
def journal():
    return MemoryJournal()


async def stopped_after(delivery, clock, run, count):
    """Read ``count`` outcomes of a run, then leave it."""
    reading = asyncio.ensure_future(_read(run, count))
    await clock.advance_until(reading.done)
    await reading


async def _read(run, count):
    async with run:
        async for _ in run:
            count -= 1
            if not count:
                break


async def test_bad_tokens_do_not_shift_the_verdicts_of_others(client, clock, phone, journal):
    names = tokens(60)
    source = [*names[:20], "newline\n" + names[0], "two\n\nlines", "\ud800", *names[20:]]
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        await stopped_after(delivery, clock, delivery.fan_out(state(1), source, name="r"), 30)
    first = dict(phone.history)
    assert 20 < len(first) < 60
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        running = asyncio.ensure_future(delivery.fan_out(state(1), source, name="r").wait())
        await clock.advance(60)
        report = await running
    assert report.counts == {Verdict.ACCEPTED: 60, Verdict.FIX_REQUEST: 3}
    assert phone.history == {key: [1] for key in names}
    assert all(len(events) == 1 for events in phone.events.values()), "nobody was sent it twice"
    kept = await journal.problems("r", -1, 10)
    assert [record.position for record in kept] == [20, 21, 22]


async def test_repeats_that_are_left_out_do_not_shift_the_others(client, clock, phone, journal):
    names = tokens(60)
    source = [*names[:20], *[each.upper() for each in names[:15]], *names[20:]]
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        run = delivery.fan_out(state(1), source, name="r", dedupe=True)
        await stopped_after(delivery, clock, run, 25)
        assert run.report.duplicates == 15
    assert 25 <= len(phone.history) < 60
    journal.not_exhausted("r")
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        run = delivery.fan_out(state(1), iter(source), name="r", dedupe=True)
        running = asyncio.ensure_future(run.wait())
        await clock.advance(60)
        report = await running
    assert (report.accepted, report.duplicates, report.unsettled) == (60, 15, 0)
    assert phone.history == {key: [1] for key in names}


async def test_a_source_that_trickles_is_known_again_however_it_is_cut(
    client, clock, phone, journal
):
    names = tokens(2300)

    async def slowly(pause_at):
        for number, token in enumerate(names):
            if number in pause_at:
                await clock.sleep(0.5)
            yield token

    client.room = 2000
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        run = delivery.fan_out(state(1), slowly(set(range(3, 1500, 97))), name="r")
        await stopped_after(delivery, clock, run, 1200)
    sent = len(phone.history)
    assert 1200 <= sent < 2300
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        run = delivery.fan_out(state(1), slowly({1, 700, 1100, 2000}), name="r")
        running = asyncio.ensure_future(run.wait())
        await clock.advance(60)
        assert (await running).counts == {Verdict.ACCEPTED: 2300}
        other = [*names[:5], "f" * 64, *names[6:]]
        journal.not_exhausted("r")
        waiting = asyncio.ensure_future(delivery.fan_out(state(1), other, name="r").wait())
        await clock.advance(5)
        with pytest.raises(JournalError, match="not those"):
            await waiting
    assert phone.history == {key: [1] for key in names}
    assert all(len(events) == 1 for events in phone.events.values())


async def test_a_page_that_is_too_large_is_an_error(client, clock):
    class Greedy:
        async def read(self, *, after, limit):
            return TokenPage(tokens(limit + 1), "x")

    async with Delivery(client, clock=clock, close_timeout=0.0) as delivery:
        with pytest.raises(InvalidInput, match="1001 tokens"):
            await delivery.fan_out(state(1), Greedy(), name="r").wait()


async def test_a_run_whose_delivery_closes_reports_what_may_have_left(client, clock):
    client.fate = lambda token, message, now: Fate(delay=100.0)
    async with Delivery(client, clock=clock, close_timeout=0.5, response_timeout=60) as delivery:
        running = asyncio.ensure_future(delivery.fan_out(state(1), tokens(30), name="r").wait())
        await clock.advance(1)
        closing = asyncio.ensure_future(delivery.aclose())
        await clock.advance(2)
        await closing
    report = await running
    assert report.counts == {Verdict.UNKNOWN: 10, Verdict.NOT_SENT: 20}


async def test_a_run_whose_last_moment_comes_when_it_is_asked_for_work(client, clock):
    raised: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: raised.append(context))
    client.open = False
    async with Delivery(client, clock=clock, close_timeout=0.0) as delivery:
        run = delivery.fan_out(state(1), tokens(16), name="r", deadline=5.0)
        running = asyncio.ensure_future(run.wait())
        await clock.settle()
        # Asked at the very moment, before its timer rings.
        delivery._dispatch.time.step -= 5.0
        client.open = True
        client.wake()
        await clock.settle()
        ticket = delivery.submit(state(2), tokens(17)[16])
        await clock.advance(1)
        assert (await running).counts == {Verdict.NOT_SENT: 16}
        assert ticket.outcome.accepted
    assert not raised


@pytest.mark.parametrize("error", [LookupError(), asyncio.CancelledError()])
async def test_closing_a_run_whose_source_failed_answers_what_was_read(
    client, clock, journal, error
):
    async def broken():
        for token in tokens(4):
            yield token
        raise error

    client.open = False
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        run = delivery.fan_out(state(1), broken(), name="r")
        running = asyncio.ensure_future(run.wait())
        await clock.advance(1)
    with pytest.raises((LookupError, SourceCancelled)):
        await running
    assert run.report.counts == {Verdict.NOT_SENT: 4}


async def test_a_run_goes_on_reading_when_only_commits_make_room(client, clock, journal):
    names = tokens(5400)

    class Pages:
        async def read(self, *, after, limit):
            at = int(after or 0)
            return TokenPage(names[at : at + 900], str(at + 900)) if at < len(names) else None

    client.open = False
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        running = asyncio.ensure_future(delivery.fan_out(state(1), Pages(), name="r").wait())
        await clock.advance(1)
    assert (await running).read == 5400
    client = MemoryClient(clock)  # answers to all that may leave at a time come together
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        running = asyncio.ensure_future(delivery.fan_out(state(1), Pages(), name="r").wait())
        await clock.advance(30)
        assert running.done()
    assert (await running).finished
