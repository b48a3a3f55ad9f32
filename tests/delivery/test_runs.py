"""Named fan-outs and the journal: what survives, what is sent again, what is not."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from apns_live.clock import SystemClock
from apns_live.delivery import Delivery, FileTokens, SqliteJournal, TokenPage
from apns_live.delivery.journal import CODE, PENDING, UNSENT, in_doubt
from apns_live.errors import DeliveryError, InvalidInput, JournalError
from apns_live.outcome import Verdict
from apns_live.payload import Alert, End, Start

from .double import Fate, MemoryClient
from .test_delivery import Phone, state
from .test_live import tokens

START = Start(
    content_state={"n": 0}, attributes_type="Match", attributes={}, alert=Alert(title="t", body="b")
)
QUICK = Fate(delay=0.002)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


class Log:
    """What the server was sent: how often each token."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}

    def __call__(self, token, message, now):
        self.times[token] = self.times.get(token, 0) + 1


def make_client(log, *, room=500, fate=lambda token, message, now: QUICK):
    return MemoryClient(SystemClock(), room=room, fate=fate, received=log)


def kill(delivery, client):
    """Let a process "die": nothing of it runs any more, what was not committed is gone."""
    client.open = False
    dispatch = delivery._dispatch
    dispatch.detach()
    dispatch.writer._task.cancel()
    for run in list(delivery._runs.values()):
        run._commit = lambda: None
        run.abandon("killed")
    journal = dispatch.journal
    journal._thread.shutdown(wait=True)
    journal._connection.close()


async def arrived(client):
    """Return when nothing is on the wire any more."""
    while client.in_flight:
        await asyncio.sleep(0.001)


def test_what_is_known_of_a_token():
    assert in_doubt(9, 10, PENDING)
    assert not in_doubt(10, 10, PENDING)
    assert not in_doubt(5, 10, UNSENT)
    assert not any(in_doubt(5, 10, code) for code in CODE.values())


@pytest.mark.parametrize("journalled", [True, False])
@pytest.mark.parametrize("kind", ["list", "generator", "async", "source"])
async def test_every_token_gets_one_outcome(path, journalled, kind):
    names = tokens(3210)

    async def slowly():
        for token in names:
            yield token

    class Pages:
        async def read(self, *, after, limit):
            at = int(after or 0)
            chunk = names[at : at + 700]
            return TokenPage(chunk, str(at + len(chunk))) if chunk else None

    source = {"list": names, "generator": iter(names), "async": slowly(), "source": Pages()}[kind]
    log = Log()
    journal = SqliteJournal(path) if journalled else None
    async with (
        Delivery(make_client(log), journal=journal) as delivery,
        delivery.fan_out(state(1), source, name="r") as run,
    ):
        got = [outcome async for outcome in run]
    assert sorted(outcome.token for outcome in got) == names
    assert log.times == dict.fromkeys(names, 1)
    report = run.report
    assert report.finished == True  # noqa: E712 - the record's own value
    assert report.counts == {Verdict.ACCEPTED: 3210}
    assert (report.read, report.unsettled, report.exhausted) == (3210, 0, True)


async def test_nothing_starts_before_it_is_asked_for(path):
    log = Log()
    async with Delivery(make_client(log), journal=SqliteJournal(path)) as delivery:
        delivery.fan_out(state(1), tokens(10), name="r")
        await delivery.fan_out(state(1), tokens(12)[10:], name="asked for").wait()
        assert set(log.times) == set(tokens(12)[10:])


async def test_wait_gives_the_report_and_drops_are_in_it_and_in_the_journal(path):
    log = Log()

    def fate(token, message, now):
        if int(token, 16) % 10 == 0:
            return Fate(delay=0.002, status=410, reason="ExpiredToken")
        return QUICK

    journal = SqliteJournal(path)
    async with Delivery(make_client(log, fate=fate), journal=journal) as delivery:
        report = await delivery.fan_out(START, tokens(2000), name="r").wait()
        assert report.counts == {Verdict.ACCEPTED: 1800, Verdict.DROP_TOKEN: 200}
        assert len(report.problems) == 200
        kept = await journal.problems("r", -1, 1000)
        assert len(kept) == 200
    # The same name again: it is done, nothing is sent.
    log.times.clear()
    async with Delivery(make_client(log), journal=SqliteJournal(path)) as delivery:
        again = await delivery.fan_out(START, None, name="r").wait()
        assert again.finished
        assert again.counts == report.counts
        assert not log.times


async def test_a_run_that_is_forgotten_may_be_sent_again_under_its_name(path):
    log = Log()
    journal = SqliteJournal(path)
    async with Delivery(make_client(log), journal=journal) as delivery:
        await delivery.fan_out(START, tokens(100), name="r").wait()
        await delivery.flush()
        await journal.forget_run("r")
        assert not await journal.problems("r", -1, 10)
    async with Delivery(make_client(log), journal=SqliteJournal(path)) as delivery:
        report = await delivery.fan_out(START, tokens(100), name="r").wait()
    assert report.counts == {Verdict.ACCEPTED: 100}
    assert log.times == dict.fromkeys(tokens(100), 2)


@pytest.mark.parametrize("message", [START, state(7)], ids=["start", "update"])
async def test_after_a_death_nothing_is_lost_and_only_the_unknown_may_be_doubled(path, message):
    names = tokens(5000)
    log = Log()
    client = make_client(log, room=300)
    for life in range(6):
        delivery = Delivery(client, journal=SqliteJournal(path), commit_interval=0.01)
        await delivery.open()
        run = delivery.fan_out(message, names, name="r")
        reading = asyncio.ensure_future(run.wait())
        while life < 5 and len(log.times) < 700 * (life + 1) and not reading.done():
            await asyncio.sleep(0)
        if life < 5 and not reading.done():
            kill(delivery, client)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await arrived(client)
            client = make_client(log, room=300)
            continue
        report = await reading
        await delivery.aclose()
        break
    assert report.finished
    # A start in doubt is reported, in whichever life found it; an update is sent again.
    async with Delivery(make_client(Log()), journal=SqliteJournal(path)) as last:
        after, kept = -1, []
        while page := await last._dispatch.journal.problems("r", after, 500):
            kept += page
            after = page[-1].position
    unknown = {names[record.position] for record in kept}
    assert set(names) == set(log.times) | unknown
    doubled = {token for token, times in log.times.items() if times > 1}
    if message is START:
        assert not doubled
        assert report.counts.get(Verdict.UNKNOWN, 0) == len(unknown)
    else:
        assert not unknown
        assert set(log.times) == set(names)
    assert sum(report.counts.values()) == 5000


async def test_unknown_starts_are_sent_again_when_told_so(path):
    names = tokens(600)
    client = make_client(Log(), room=100, fate=lambda token, message, now: Fate(delay=5.0))
    delivery = Delivery(client, journal=SqliteJournal(path))
    await delivery.open()
    run = delivery.fan_out(START, names, name="r")
    reading = asyncio.ensure_future(run.wait())
    while client.in_flight < 100:
        await asyncio.sleep(0.01)
    kill(delivery, client)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    log = Log()
    async with Delivery(make_client(log), journal=SqliteJournal(path)) as delivery:
        report = await delivery.fan_out(START, names, name="r", resend_unknown=True).wait()
    assert report.resent >= 100
    assert report.counts == {Verdict.ACCEPTED: 600}
    assert set(log.times) == set(names)


async def test_leaving_early_keeps_the_rest_for_the_same_name(path):
    names = tokens(4000)
    log = Log()
    async with (
        Delivery(make_client(log, room=100), journal=SqliteJournal(path)) as delivery,
        delivery.fan_out(START, names, name="r") as run,
    ):
        async for _ in run:
            if len(log.times) > 500:
                break
    first = dict(log.times)
    assert 500 < len(first) < 4000
    async with (
        Delivery(make_client(log), journal=SqliteJournal(path)) as delivery,
        delivery.fan_out(START, names, name="r") as run,
    ):
        run.start()  # one that is left before the journal was read changes nothing in it
    assert log.times == first
    async with Delivery(make_client(log), journal=SqliteJournal(path)) as delivery:
        report = await delivery.fan_out(START, names, name="r").wait()
    assert log.times == dict.fromkeys(names, 1)
    assert report.counts == {Verdict.ACCEPTED: 4000}
    assert report.resumed


async def test_a_resumed_source_is_not_read_again_from_the_start(tmp_path, path):
    names = tokens(20_000)
    file = tmp_path / "tokens.txt"
    file.write_text("\n".join(names))
    log = Log()
    asked = []

    class Watched(FileTokens):
        async def read(self, *, after, limit):
            asked.append(after)
            return await super().read(after=after, limit=limit)

    async with (
        Delivery(make_client(log, room=100), journal=SqliteJournal(path)) as delivery,
        delivery.fan_out(START, Watched(file), name="r") as run,
    ):
        async for _ in run:
            if len(log.times) > 1500:
                break
    seen = len(asked)
    async with Delivery(make_client(log), journal=SqliteJournal(path)) as delivery:
        report = await delivery.fan_out(START, Watched(file), name="r").wait()
    assert asked[0] is None
    assert None not in asked[seen:]
    assert len(asked) <= 22
    assert report.counts == {Verdict.ACCEPTED: 20_000}
    assert log.times == dict.fromkeys(names, 1)


async def test_another_list_under_the_same_name_is_refused(path):
    names = tokens(9000)
    async with (
        Delivery(make_client(Log(), room=50), journal=SqliteJournal(path)) as delivery,
        delivery.fan_out(START, names, name="r") as run,
    ):
        async for _ in run:
            break
    async with Delivery(make_client(Log()), journal=SqliteJournal(path)) as delivery:
        with pytest.raises(JournalError, match="not those"):
            await delivery.fan_out(START, list(reversed(names)), name="r").wait()
        with pytest.raises(DeliveryError, match="sends 'start'"):
            await delivery.fan_out(End(), names, name="r").wait()
        with pytest.raises(DeliveryError, match="no fan-out named"):
            await delivery.fan_out(START, None, name="other").wait()
        with pytest.raises(InvalidInput, match="not an iterable of tokens"):
            await delivery.fan_out(START, "abcd", name="third").wait()
        with pytest.raises(InvalidInput, match="needs a name"):
            delivery.fan_out(START, names, name="")


async def test_a_source_that_fails_ends_the_run_with_its_error(path):
    def broken():
        yield from tokens(1500)
        raise LookupError("the table is gone")

    async with Delivery(make_client(Log()), journal=SqliteJournal(path)) as delivery:
        with pytest.raises(LookupError, match="the table is gone"):
            await delivery.fan_out(START, broken(), name="r").wait()


async def test_a_spike_of_bad_tokens_stops_the_run(path):
    client = make_client(
        Log(), room=100, fate=lambda t, m, n: Fate(delay=0.002, status=400, reason="BadDeviceToken")
    )
    async with Delivery(client, journal=SqliteJournal(path)) as delivery:
        report = await delivery.fan_out(START, tokens(5000), name="r").wait()
        assert "environment" in report.stopped
        assert not report.finished
        assert client.sent <= 200
    log = Log()
    async with Delivery(make_client(log), journal=SqliteJournal(path)) as delivery:
        report = await delivery.fan_out(START, tokens(5000), name="r").wait()
        assert report.finished
        assert len(log.times) == 5000 - client.sent


async def test_deadline_ends_it(path):
    client = make_client(Log(), room=100, fate=lambda t, m, n: Fate(delay=0.05))
    async with Delivery(client, journal=SqliteJournal(path)) as delivery:
        run = delivery.fan_out(START, tokens(3000), name="r", deadline=0.2)
        got = [outcome async for outcome in run]
    assert {outcome.verdict for outcome in got} == {Verdict.ACCEPTED, Verdict.NOT_SENT}
    assert len({outcome.token for outcome in got}) == len(got) == run.report.read
    assert "deadline" in run.report.stopped


async def test_slow_down_and_retry_later_are_retried_in_a_run(path):
    log = Log()
    tries: dict[str, int] = {}

    def fate(token, message, now):
        tries[token] = tries.get(token, 0) + 1
        if tries[token] == 1 and int(token, 16) % 100 == 0:
            return Fate(delay=0.002, status=503, reason="ServiceUnavailable", retry_after=0.05)
        return QUICK

    async with Delivery(make_client(log, fate=fate), journal=SqliteJournal(path)) as delivery:
        report = await delivery.fan_out(state(1), tokens(1500), name="r").wait()
    assert report.counts == {Verdict.ACCEPTED: 1500}
    assert log.times == dict.fromkeys(tokens(1500), 1)


async def test_lanes_survive_a_death(path):
    phone = Phone()
    token, other = tokens(2)
    client = make_client(phone, fate=lambda t, m, n: Fate(delay=30.0))
    delivery = Delivery(client, journal=SqliteJournal(path), response_timeout=60.0)
    await delivery.open()
    delivery.submit(state(1, "goal"), token, revision=4)
    while not client.in_flight:
        await asyncio.sleep(0.005)
    stamp = delivery._lanes.get(token).last_timestamp
    client.open = False
    delivery.submit(state(2), token, revision=5)
    delivery.submit(End(content_state={"n": 9}), other)
    await delivery.flush()
    kill(delivery, client)

    phone = Phone()
    async with Delivery(make_client(phone), journal=SqliteJournal(path)) as delivery:
        while len(phone.history) < 2:
            await asyncio.sleep(0.01)
        old = delivery.submit(state(1), token, revision=4)
        assert old.outcome.verdict is Verdict.SUPERSEDED
        with pytest.raises(Exception, match="ended"):
            delivery.submit(state(3), other)
    assert phone.history[token] == [2]
    assert phone.history[other] == [9]
    assert phone.shown[token][0] > stamp


async def test_a_live_activity_survives_a_death(path):
    names = tokens(2500)
    log = Phone()
    client = make_client(log, room=200)
    delivery = Delivery(client, journal=SqliteJournal(path), commit_interval=0.01)
    await delivery.open()
    match = delivery.activity("match", tokens=names)
    match.leave(names[3])
    await match.put(state(1))
    match.put(state(2, "goal"))
    while sum(history[-1] == 2 for history in log.history.values()) < 800:
        await asyncio.sleep(0.002)
    kill(delivery, client)
    await arrived(client)

    before = {token: list(history) for token, history in log.history.items()}
    second = make_client(log, room=200)
    async with Delivery(second, journal=SqliteJournal(path)) as delivery:
        match = delivery.activity("match")
        report = await match.settled()
        assert report.tokens == 2499
        assert report.behind == 0
        assert delivery.in_doubt <= 200 + 1000
        # What was recorded as accepted is not sent again.
        assert second.sent <= 2499 - 800 + 200 + 1000
        await match.end(End(content_state={"n": 9}))
    assert names[3] not in before
    for token in names:
        if token != names[3]:
            assert [n for n in log.history[token] if n != 2] == [1, 9]
            assert "goal" in log.alerts[token]
            assert log.events[token][-1] == "end"
    async with Delivery(make_client(log), journal=SqliteJournal(path)) as delivery:
        assert delivery.statistics().activities == 0


async def test_wakeups_survive_a_death(path):
    client = make_client(Log())
    delivery = Delivery(client, journal=SqliteJournal(path))
    await delivery.open()
    delivery.submit_when_known(state(1), "user-1")
    delivery.submit_when_known(state(2), "user-2")
    delivery.hand_in("user-2", tokens(1)[0])
    await delivery.flush()
    kill(delivery, client)
    phone = Phone()
    async with Delivery(make_client(phone), journal=SqliteJournal(path)) as delivery:
        assert delivery.statistics().wakeups == 1
        assert delivery.hand_in("user-1", tokens(2)[1])
        while tokens(2)[1] not in phone.history:
            await asyncio.sleep(0.01)


async def test_a_journal_that_breaks_stops_everything(path):
    log = Log()
    journal = SqliteJournal(path)
    client = make_client(log, room=50)
    async with Delivery(client, journal=journal) as delivery:
        run = delivery.fan_out(START, tokens(5000), name="r")
        reading = asyncio.ensure_future(run.wait())
        while not log.times:
            await asyncio.sleep(0.001)

        async def refuse(entries):
            raise JournalError("no space left")

        journal.commit = refuse
        with pytest.raises(JournalError, match="no space left"):
            await reading
        await arrived(client)
        sent = len(log.times)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(log.times) == sent < 5000
        with pytest.raises(JournalError):
            delivery.submit(state(1), tokens(1)[0])


async def test_a_journal_is_for_one_process_and_of_one_version(path, tmp_path):
    first = SqliteJournal(path)
    await first.open()
    with pytest.raises(JournalError, match="locked"):
        await SqliteJournal(path, busy_timeout=0.1).open()
    await first.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(JournalError, match="version 99"):
        await SqliteJournal(path).open()
    (tmp_path / "rubbish.db").write_bytes(b"not a database" * 100)
    with pytest.raises(JournalError, match="not a database"):
        await SqliteJournal(tmp_path / "rubbish.db").open()
    assert path.stat().st_mode & 0o077 == 0


async def test_full_synchronous_is_a_setting(path):
    journal = SqliteJournal(path, synchronous="full")
    await journal.open()
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await journal.close()
    with pytest.raises(ValueError, match="synchronous"):
        SqliteJournal(path, synchronous="off")


async def test_the_journal_does_not_grow_with_what_is_done(path):
    async with Delivery(make_client(Log()), journal=SqliteJournal(path)) as delivery:
        await delivery.fan_out(state(1), tokens(20_000), name="r").wait()
    connection = sqlite3.connect(path)
    assert connection.execute(
        "SELECT count(*) FROM entry WHERE kind IN ('tokens', 'verdicts')"
    ).fetchone() == (0,)
    connection.close()
