"""What a fan-out promises, besides outcomes."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

from apns_live import Update, Verdict
from apns_live.errors import InvalidInput, InvalidSetting
from apns_live.testing import FakeApns, SimulatedClock
from tests.client.conftest import client_for, token, tokens

pytestmark = pytest.mark.wire
UPDATE = Update(content_state={"home": 71})


async def test_nothing_starts_before_it_is_asked_for(fake: FakeApns) -> None:
    read = []

    def source():
        for each in tokens(3):
            read.append(each)
            yield each

    async with client_for(fake) as client:
        async with client.fan_out(UPDATE, source()) as run:
            for _ in range(50):
                await asyncio.sleep(0)
            assert not read
            assert not client.statistics().connections
            report = await run.wait()
        assert report.accepted == 3


async def test_a_run_that_was_never_started_is_over(fake: FakeApns) -> None:
    async with client_for(fake) as client, client.fan_out(UPDATE, tokens(3)) as run:
        pass
    assert run.report.read == 0
    assert not run.report.source_exhausted
    assert not fake.connections


async def test_break_cancels_what_has_not_left_and_drains_the_rest(fake: FakeApns) -> None:
    async with client_for(fake) as client:
        async with client.fan_out(UPDATE, (token(n) for n in range(100_000))) as run:
            async for outcome in run:
                assert outcome.accepted
                break
        report = run.report
        assert report.read == report.settled < 100_000
        assert not report.source_exhausted
        assert set(report.verdicts) <= {Verdict.ACCEPTED, Verdict.NOT_SENT}
        assert report.accepted == len(fake.pushes) or report.accepted > 10_000
        statistics = client.statistics()
        assert (statistics.waiting, statistics.in_flight) == (0, 0)
        assert (await client.send(UPDATE, token(1))).accepted


async def test_a_bad_token_is_an_outcome_and_not_an_exception(fake: FakeApns) -> None:
    source = [token(1), "not hex", token(2), "", None, 7, b"00", token(3)]
    async with client_for(fake) as client, client.fan_out(UPDATE, source) as run:
        outcomes = [outcome async for outcome in run]
    bad = [outcome for outcome in outcomes if outcome.verdict is Verdict.FIX_REQUEST]
    assert len(outcomes) == 8
    assert len(bad) == 5
    assert {outcome.attempts for outcome in bad} == {0}
    assert all(outcome.detail for outcome in bad)
    assert run.report.read == run.report.settled == 8


async def test_only_bad_tokens_end_as_well(fake: FakeApns) -> None:
    async with client_for(fake) as client, client.fan_out(UPDATE, ["x"] * 500) as run:
        outcomes = [outcome async for outcome in run]
    assert len(outcomes) == 500
    assert not fake.connections


async def test_duplicates_are_sent_as_given_unless_told_otherwise(fake: FakeApns) -> None:
    source = [token(1), token(2), token(1), token(10).upper(), token(10)]
    async with client_for(fake) as client:
        report = await client.fan_out(UPDATE, source).wait()
        assert (report.read, report.accepted, report.duplicates) == (5, 5, 0)
        report = await client.fan_out(UPDATE, source, dedupe=True).wait()
        assert (report.read, report.accepted, report.duplicates) == (5, 3, 2)


async def test_an_async_source_is_read_ahead_only_a_little(fake: FakeApns) -> None:
    produced = closed = 0

    async def source():
        nonlocal produced, closed
        try:
            for number in range(100_000):
                produced = number + 1
                yield token(number)
        finally:
            closed += 1

    async with client_for(fake) as client:
        async with client.fan_out(UPDATE, source()) as run:
            async for _ in run:
                break
            assert produced < 20_000
        report = run.report
    assert closed == 1
    assert report.read == report.settled


async def test_an_async_source_is_read_to_its_end(fake: FakeApns) -> None:
    async def source():
        for each in tokens(5000):
            if each.endswith("00"):
                await asyncio.sleep(0)
            yield each

    async with client_for(fake) as client:
        report = await client.fan_out(UPDATE, source()).wait()
    assert (report.read, report.accepted, report.source_exhausted) == (5000, 5000, True)


async def test_the_deadline_ends_it(timed_fake: FakeApns, clock: SimulatedClock) -> None:
    timed_fake.fault("withhold", skip=10)
    async with client_for(timed_fake, clock=clock, max_connections=1) as client:
        run = client.fan_out(UPDATE, (token(n) for n in range(5000)), deadline=3.0)

        async def collect() -> list:
            async with run:
                return [outcome async for outcome in run]

        task = asyncio.ensure_future(collect())
        await clock.settle(until=lambda: client.statistics().in_flight == 1000)
        await clock.advance_until(task.done)
        assert clock.monotonic() == 3.0
        report = run.report
        assert report.deadline_passed
        assert not report.source_exhausted
        assert report.read == report.settled == len(task.result()) < 5000
        assert report.verdicts[Verdict.ACCEPTED] == 10
        assert report.verdicts[Verdict.UNKNOWN] == 1000
        assert set(report.verdicts) <= {Verdict.ACCEPTED, Verdict.UNKNOWN, Verdict.NOT_SENT}
        assert report.reasons["deadline"] == report.read - 10


async def test_drops_go_to_a_file_with_mode_0600(fake: FakeApns, tmp_path: Path) -> None:
    for number in (3, 5):
        fake.fault(
            "answer", reason="Unregistered", token=token(number), timestamp=1_800_000_000_000
        )
    path = tmp_path / "drops.jsonl"
    async with client_for(fake) as client:
        await client.fan_out(UPDATE, tokens(20), drops_to=path).wait()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(row["token"] for row in rows) == [token(3), token(5)]
    assert rows[0]["drop_if_registered_before"] == "2027-01-15T08:00:00+00:00"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_drops_go_to_a_function(fake: FakeApns) -> None:
    fake.fault("answer", reason="ExpiredToken")
    dropped = []
    async with client_for(fake) as client:
        report = await client.fan_out(UPDATE, tokens(1500), drops_to=dropped.append).wait()
    assert len(dropped) == report.drop_count == 1500
    assert len(report.drops) == 1000


async def test_bad_arguments_are_refused(fake: FakeApns, tmp_path: Path) -> None:
    async with client_for(fake) as client:
        for bad in (token(1), 7, None, b"00"):
            with pytest.raises(InvalidInput, match="tokens"):
                client.fan_out(UPDATE, bad)
        with pytest.raises(InvalidSetting, match="drops_to"):
            client.fan_out(UPDATE, [], drops_to=7)
        with pytest.raises(InvalidSetting, match="drops_to"):
            await client.fan_out(UPDATE, [], drops_to=tmp_path / "no" / "such").wait()
    assert not fake.connections


async def test_two_runs_and_single_sends_share_the_connection(fake: FakeApns) -> None:
    async with client_for(fake, max_connections=1) as client:
        reports = await asyncio.gather(
            client.fan_out(UPDATE, tokens(3000)).wait(),
            client.fan_out(UPDATE, tokens(3000)).wait(),
            *(client.send(UPDATE, each) for each in tokens(50)),
        )
    assert [report.accepted for report in reports[:2]] == [3000, 3000]
    assert all(outcome.accepted for outcome in reports[2:])


async def test_closing_the_client_ends_a_run(fake: FakeApns) -> None:
    client = client_for(fake)
    run = client.fan_out(UPDATE, (token(n) for n in range(1_000_000)))
    outcomes = 0
    async for _ in run:
        outcomes += 1
        if outcomes == 100:
            closing = asyncio.ensure_future(client.aclose())
    await closing
    assert outcomes == run.report.read == run.report.settled < 1_000_000


async def test_ten_thousand_pushes_replayed_by_a_restarting_server(fake: FakeApns) -> None:
    """nginx's manner: GOAWAY after a thousand requests, again and again."""
    fake.fault("goaway", every=1000, skip=999, reason=None)
    async with client_for(fake, max_connections=2, response_timeout=60) as client:
        report = await client.fan_out(UPDATE, tokens(10_000)).wait()
        assert report.accepted == 10_000
        assert report.connections >= 10
    assert len(fake.pushes) == 10_000
