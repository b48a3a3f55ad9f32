"""The rules of every fan-out (docs/fan-out.md), held against each kind of run.

A kind is an adapter: ``collect`` reads all outcomes, ``leave`` breaks out of the iteration without a
``with`` block, ``wait`` waits for the report. Another room joins by adding its adapter to `KINDS`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from apns_live import Client, Outcome, ProviderKey, Update, Verdict, blocking
from apns_live.delivery import Delivery
from apns_live.errors import InvalidInput, SourceCancelled
from apns_live.testing import FakeApns
from tests.client.conftest import client_for, token, tokens
from tests.delivery.memory_journal import MemoryJournal

pytestmark = pytest.mark.wire
UPDATE = Update(content_state={"home": 71})


class ClientRuns:
    """`Client.fan_out`."""

    def __init__(self, fake: FakeApns) -> None:
        self.client: Any = client_for(fake)

    async def open(self) -> None:
        """Open what opens."""

    def run(self, source: Any, **options: Any) -> Any:
        return self.client.fan_out(UPDATE, source, **options)

    async def collect(self, run: Any, seen: list[Outcome]) -> None:
        async for outcome in run:
            seen.append(outcome)  # noqa: PERF401 - what came before an error counts

    async def leave(self, run: Any, after: int) -> None:
        seen = 0
        async for _ in run:
            seen += 1
            if seen == after:
                break

    async def wait(self, run: Any) -> Any:
        return await run.wait()

    async def first(self, run: Any) -> Outcome:
        return await anext(aiter(run))

    async def close(self) -> None:
        await self.client.aclose()


class SharedRuns(ClientRuns):
    """`Client.fan_out` with workers."""

    def run(self, source: Any, **options: Any) -> Any:
        return self.client.fan_out(UPDATE, source, workers=2, **options)


class BlockingRuns(ClientRuns):
    """`blocking.Client.fan_out`, on a thread."""

    def __init__(self, fake: FakeApns) -> None:
        key = ProviderKey.from_file(fake.key_file, team_id=fake.team_id)
        self.client = blocking.Client(
            key, bundle_id=fake.bundle_id, environment=client_for(fake).endpoint
        )

    async def collect(self, run: Any, seen: list[Outcome]) -> None:
        await asyncio.to_thread(_extend, seen, run)

    async def leave(self, run: Any, after: int) -> None:
        def work() -> None:
            for number, _ in enumerate(run, start=1):
                if number == after:
                    break

        await asyncio.to_thread(work)

    async def wait(self, run: Any) -> Any:
        return await asyncio.to_thread(run.wait)

    async def close(self) -> None:
        await asyncio.to_thread(self.client.close)


class DeliveryRuns(ClientRuns):
    """`Delivery.fan_out`, without a journal."""

    def __init__(self, fake: FakeApns) -> None:
        super().__init__(fake)
        self.delivery = Delivery(self.client)
        self.count = 0

    async def open(self) -> None:
        await self.delivery.open()

    def run(self, source: Any, **options: Any) -> Any:
        self.count += 1
        return self.delivery.fan_out(UPDATE, source, name=str(self.count), **options)

    async def close(self) -> None:
        await self.delivery.aclose(drain=0.0)
        await super().close()


class JournalledRuns(DeliveryRuns):
    """`Delivery.fan_out` with a journal."""

    def __init__(self, fake: FakeApns) -> None:
        super().__init__(fake)
        self.delivery = Delivery(self.client, journal=MemoryJournal(), commit_interval=0.01)


def _extend(seen: list[Outcome], run: Any) -> None:
    for outcome in run:
        seen.append(outcome)  # noqa: PERF402 - what came before an error counts


KINDS: dict[str, Callable[[FakeApns], Any]] = {
    "client": ClientRuns,
    "workers": SharedRuns,
    "blocking": BlockingRuns,
    "delivery": DeliveryRuns,
    "journalled": JournalledRuns,
}


@pytest.fixture(params=list(KINDS))
async def runs(request: pytest.FixtureRequest, fake: FakeApns) -> AsyncIterator[Any]:
    # A blocking run is made from the loop's thread here, so its portal is another thread.
    runs = await asyncio.to_thread(KINDS[request.param], fake)
    await runs.open()
    yield runs
    await runs.close()


async def made(runs: Any, source: Any, **options: Any) -> Any:
    return await asyncio.to_thread(runs.run, source, **options)


async def quiet(run: Any) -> None:
    """Return when the run has settled everything it read."""
    before = -1
    while run.report.settled != run.report.read or run.report.read != before:
        before = run.report.read
        await asyncio.sleep(0.02)


async def test_bad_tokens_are_outcomes(runs: Any, fake: FakeApns) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    source = [token(1), None, "xyz", 7, token(2) + "\n", b"00", "\ud800", Odd(), token(3)]
    seen: list[Outcome] = []
    run = await made(runs, iter(source))
    await runs.collect(run, seen)
    verdicts = [outcome.verdict for outcome in seen]
    assert verdicts.count(Verdict.ACCEPTED) == 2
    assert verdicts.count(Verdict.FIX_REQUEST) == 7
    assert run.report.read == run.report.settled == 9


async def test_thousands_of_bad_tokens_in_a_row(runs: Any) -> None:
    seen: list[Outcome] = []
    await runs.collect(await made(runs, iter(["bad"] * 3_000 + [token(1)])), seen)
    assert len(seen) == 3_001
    assert seen.count(seen[0]) == 3_000


@pytest.mark.parametrize("deadline", [0, 0.0, -1.0, math.nan, math.inf, "1", True])
async def test_deadlines_that_are_no_seconds_are_refused(runs: Any, deadline: Any) -> None:
    with pytest.raises(InvalidInput, match="deadline"):
        await made(runs, [token(1)], deadline=deadline)


async def test_each_token_of_a_slow_async_source_leaves_as_it_comes(runs: Any) -> None:
    accepted = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield token(1)
        # The next one comes only when the first has its outcome.
        while not accepted.is_set():
            await asyncio.sleep(0.005)
        yield token(2)

    run = await made(runs, source())
    watching = asyncio.ensure_future(runs.wait(run))
    while run.report.accepted < 1:
        await asyncio.sleep(0.005)
    accepted.set()
    assert (await watching).accepted == 2


async def test_each_token_of_a_slow_plain_source_leaves_as_it_comes(
    runs: Any, fake: FakeApns
) -> None:
    read: list[str] = []

    def source() -> Iterator[str]:
        for each in tokens(2_000):
            time.sleep(0.012)
            if fake.pushes:
                break
            read.append(each)
            yield each

    assert (await runs.wait(await made(runs, source()))).accepted == len(read) < 2_000


@pytest.mark.parametrize("count", [0, 1, 700])
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_the_error_of_a_source_comes_behind_its_outcomes(
    runs: Any, kind: str, count: int
) -> None:
    def broken() -> Iterator[str]:
        yield from tokens(count)
        raise LookupError("the cursor is gone")

    async def broken_async() -> AsyncIterator[str]:
        for each in tokens(count):
            yield each
        raise LookupError("the cursor is gone")

    seen: list[Outcome] = []
    run = await made(runs, broken() if kind == "plain" else broken_async())
    with pytest.raises(LookupError, match="cursor"):
        await runs.collect(run, seen)
    assert sorted(outcome.token for outcome in seen) == tokens(count)
    assert not run.report.source_exhausted


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_source_that_raises_cancelled_error_ends_the_run(runs: Any, kind: str) -> None:
    def broken() -> Iterator[str]:
        yield from tokens(3)
        raise asyncio.CancelledError

    async def broken_async() -> AsyncIterator[str]:
        for each in tokens(3):
            yield each
        raise asyncio.CancelledError

    run = await made(runs, broken() if kind == "plain" else broken_async())
    with pytest.raises(SourceCancelled):
        await asyncio.wait_for(runs.wait(run), 10)
    assert run.report.accepted == 3


async def test_iter_itself_may_raise(runs: Any) -> None:
    class Broken:
        def __iter__(self) -> Iterator[str]:
            raise LookupError("no cursor")

    with pytest.raises(LookupError, match="cursor"):
        await runs.wait(await made(runs, Broken()))


async def test_leaving_the_iteration_stops_the_run(runs: Any, fake: FakeApns) -> None:
    read = 0

    def source() -> Iterator[str]:
        nonlocal read
        for number in range(200_000):
            read += 1
            yield token(number)

    run = await made(runs, source())
    await runs.leave(run, 3)
    await quiet(run)
    assert run.report.settled == run.report.read == read < 200_000
    assert set(run.report.verdicts) <= {Verdict.ACCEPTED, Verdict.NOT_SENT}
    # What was left unread may be read now, and it is all there is.
    rest: list[Outcome] = []
    await runs.collect(run, rest)
    assert len(rest) <= read - 3
    assert (await runs.wait(run)).read == read


async def test_waiting_goes_on_with_a_run_that_paused(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outcomes that nobody reads pause a run at a limit; `wait` throws them away and goes on."""
    for place in (
        "client.run.UNREAD_LIMIT",
        "delivery.run.UNREAD_LIMIT",
        "client.workers.UNREAD_LIMIT",
    ):
        monkeypatch.setattr(f"apns_live.{place}", 1_000)
    run = await made(runs, (token(number) for number in range(3_000)))
    if isinstance(runs, BlockingRuns):
        await asyncio.to_thread(next, run)
    else:
        iterator = aiter(run)
        await anext(iterator)
        while run.report.settled < 1_000:
            await asyncio.sleep(0.01)
    report = await asyncio.wait_for(runs.wait(run), 20)
    assert report.accepted == 3_000


async def test_drops_to_that_raises_is_logged_once(
    runs: Any, fake: FakeApns, caplog: pytest.LogCaptureFixture
) -> None:
    fake.fault("answer", reason="Unregistered", timestamp=1_800_000_000_000)

    def full(outcome: Outcome) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = await made(runs, tokens(600), drops_to=full)
    with caplog.at_level(logging.ERROR, "apns_live"):
        report = await asyncio.wait_for(runs.wait(run), 20)
    assert report.drop_count == report.settled == 600
    assert len([each for each in caplog.records if "drops_to" in each.message]) == 1


async def test_drops_to_on_a_full_disk(runs: Any, fake: FakeApns) -> None:
    fake.fault("answer", reason="Unregistered", timestamp=1_800_000_000_000)
    run = await made(runs, tokens(600), drops_to="/dev/full")
    report = await asyncio.wait_for(runs.wait(run), 20)
    assert report.drop_count == report.settled == 600


async def test_two_spellings_of_a_token_are_one(runs: Any) -> None:
    source = [token(10), token(10).upper(), token(11)]
    report = await runs.wait(await made(runs, source, dedupe=True))
    assert (report.accepted, report.duplicates, report.read) == (2, 1, 3)


async def test_a_cancelled_wait_stops_the_run(fake: FakeApns) -> None:
    """Without ``async with``."""
    async with client_for(fake) as client:
        run = client.fan_out(UPDATE, (token(number) for number in range(1_000_000)))
        waiting = asyncio.ensure_future(run.wait())
        while run.report.settled < 100:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await quiet(run)
        assert run.report.read == run.report.settled < 1_000_000
        assert (await client.send(UPDATE, token(1))).accepted


async def test_a_thread_is_not_needed_for_a_run_that_is_left(fake: FakeApns) -> None:
    """An async source is closed when the iteration is left without a block."""
    closed = threading.Event()

    async def source() -> AsyncIterator[str]:
        try:
            for number in range(1_000_000):
                yield token(number)
        finally:
            closed.set()

    async with client_for(fake) as client:
        run = client.fan_out(UPDATE, source())
        async for _ in run:
            break
        await quiet(run)
        assert closed.is_set()
        assert isinstance(client, Client)
