"""A fan-out that several processes share: each token has exactly one outcome, whatever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from apns_live import Hooks, Outcome, StartToken, Update, Verdict
from apns_live.client import RequestIds, worker, workers
from apns_live.client.attachment import Acceptances
from apns_live.client.workers import (
    Accepted,
    NoMore,
    Setup,
    SharedRun,
    Take,
    decode_settled,
    pack,
    write,
)
from apns_live.errors import InvalidSetting, TransportError
from apns_live.http2 import EncodedString
from apns_live.testing import FakeApns
from tests.client.conftest import client_for, tokens

UPDATE = Update(content_state={"n": 1})


def share(client: Any, given: Any, **options: Any) -> SharedRun:
    run = client.fan_out(UPDATE, given, workers=2, **options)
    assert isinstance(run, SharedRun)
    return run


def processes(run: SharedRun) -> list[int]:
    """The workers' process ids."""
    return [worker.process.pid for worker in run._workers if worker.process is not None]


async def test_every_token_has_its_outcome_once(fake: FakeApns) -> None:
    given = tokens(2_000)
    fake.fault("answer", token=given[7], reason="Unregistered")
    fake.fault("answer", token=given[1_500], reason="TooManyRequests", times=1)
    async with client_for(fake) as client:
        run = share(client, given)
        outcomes = [outcome async for outcome in run]
    assert sorted(outcome.token for outcome in outcomes) == given
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    assert verdicts == {Verdict.ACCEPTED: 1_999, Verdict.DROP_TOKEN: 1}
    assert all(each.apns_id and each.apns_unique_id for each in outcomes if each.accepted)
    assert {outcome.attempts for outcome in outcomes if outcome.token == given[1_500]} == {2}
    sent = {(push.token, push.apns_id) for push in fake.pushes}
    assert {(each.token, each.apns_id) for each in outcomes if each.accepted} == sent
    report = run.report
    assert (report.read, report.settled, report.accepted) == (2_000, 2_000, 1_999)
    assert (report.source_exhausted, report.drop_count, report.reasons) == (
        True,
        1,
        {"Unregistered": 1},
    )
    assert [outcome.token for outcome in report.drops] == [given[7]]
    assert report.connections == sum(each.accepted > 0 for each in fake.connections)
    assert report.p50 > 0


async def test_a_worker_ends_when_its_last_word_has_left(fake: FakeApns) -> None:
    given = tokens(3_000)
    ours, theirs = socket.socketpair()
    with ours:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        async with client_for(fake) as client:
            setup = share(client, [])._make_setup()
            setup.ids = bytes(16)
        task = asyncio.create_task(worker._main(theirs.detach()))
        hand: Any = SimpleNamespace(write=ours.sendall)
        for order in (setup, Take(given), NoMore()):
            await asyncio.to_thread(write, hand, order)
        while not task.done() and len(fake.pushes) < len(given):
            await asyncio.sleep(0)
        ours.setblocking(False)
        said = b""
        while True:
            for _ in range(20):
                if not task.done():
                    await asyncio.sleep(0)
            try:
                part = ours.recv(2_048)
            except BlockingIOError:
                assert not task.done(), "it ended with words that had not left"
                continue
            if not part:
                break
            said += part
        await task
    settled = 0
    while said:
        end = 4 + int.from_bytes(said[:4], "big")
        settled = decode_settled(said[4:end]).counts.settled
        said = said[end:]
    assert settled == len(given)


async def test_repeated_tokens_have_an_outcome_each(fake: FakeApns) -> None:
    given = [*tokens(300), *tokens(200), *tokens(100)]
    fake.fault("answer", token=given[7], reason="Unregistered", times=2)
    async with client_for(fake) as client:
        outcomes = [outcome async for outcome in share(client, given)]
    assert sorted(outcome.token for outcome in outcomes) == sorted(given)
    assert sum(outcome.accepted for outcome in outcomes) == 598


async def test_waiting_after_the_first_outcomes(fake: FakeApns) -> None:
    async with client_for(fake) as client:
        run = share(client, iter(tokens(40_000)))
        async with run:
            await anext(aiter(run))
            report = await run.wait()
    assert report.settled == report.read
    assert run._workers[0].in_hand == run._workers[1].in_hand == 0


async def test_wait_gets_counts_alone(fake: FakeApns) -> None:
    given = tokens(1_000)
    fake.fault("answer", token=given[5], reason="Unregistered")
    drops: list[str] = []
    async with client_for(fake) as client:
        report = await share(
            client, iter(given), drops_to=lambda outcome: drops.append(outcome.token)
        ).wait()
    assert (report.settled, report.accepted, report.drop_count) == (1_000, 999, 1)
    assert drops == [given[5]]


async def test_what_is_no_token_costs_itself_alone(fake: FakeApns) -> None:
    bad: list[Any] = [None, 7, "x" * 64, f"{tokens(1)[0]}\n", "\ud800"]
    given = [*tokens(20), *bad, *tokens(20)]
    async with client_for(fake) as client:
        outcomes = [outcome async for outcome in share(client, given, dedupe=True)]
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    assert verdicts == {Verdict.ACCEPTED: 20, Verdict.FIX_REQUEST: 5}


async def test_a_token_of_another_kind_is_refused_before_a_worker_has_it(fake: FakeApns) -> None:
    given = [*tokens(1), StartToken(tokens(2)[1])]
    async with client_for(fake) as client:
        found = {each.token: each async for each in share(client, given)}
    assert found[given[0]].accepted
    assert found[given[1]].verdict is Verdict.FIX_REQUEST
    assert "StartToken" in found[given[1]].detail


@hypothesis.given(
    st.permutations(range(12)), st.integers(1, 12), st.integers(0, 5_000), st.booleans()
)
def test_what_crosses_comes_back_in_pairs(
    order: list[int], count: int, before: int, unique: bool
) -> None:
    ids = RequestIds()
    ids.many(before)
    numbers = [before + number for number in order[:count]]
    tokens_of = {number: f"{number:064x}" for number in numbers}
    batch = Acceptances(
        Outcome(token="", verdict=Verdict.ACCEPTED),
        list(tokens_of.values()),
        [ids.span(number, 1)[0] for number in numbers],
        [EncodedString(f"\0{number}".encode()) for number in numbers] if unique else (),
    )
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(pack(batch, ids)), type=Accepted)
    handed = [tokens_of[number] for number in packed.numbers()]
    back = packed.outcomes(handed, RequestIds(lambda _size: ids.seed))
    key = attrgetter("token")
    assert sorted(back, key=key) == sorted(batch.outcomes(), key=key)


async def test_a_source_that_raises_ends_it_behind_its_outcomes(fake: FakeApns) -> None:
    async def source() -> Any:
        for each in tokens(100):
            yield each
        raise ValueError("the cursor broke")

    outcomes: list[Any] = []

    async def collect(run: SharedRun) -> None:
        async for outcome in run:
            outcomes.append(outcome)  # noqa: PERF401 - what came before the error counts

    async with client_for(fake) as client:
        with pytest.raises(ValueError, match="the cursor broke"):
            await collect(share(client, source()))
    assert Counter(outcome.verdict for outcome in outcomes) == {Verdict.ACCEPTED: 100}


async def test_a_break_stops_every_worker(fake: FakeApns) -> None:
    async with client_for(fake) as client:
        run = share(client, iter(tokens(100_000)))
        async with run:
            async for _ in run:
                break
        report = run.report
        assert not run._tasks
    assert report.settled == report.read < 100_000
    assert report.verdicts[Verdict.ACCEPTED] == len(fake.pushes)


async def test_the_deadline_ends_it(fake: FakeApns) -> None:
    fake.fault("delay", delay=3_600.0)
    async with client_for(fake) as client:
        report = await share(client, tokens(50_000), deadline=1.0).wait()
    assert report.deadline_passed
    assert report.settled == report.read < 50_000
    assert set(report.verdicts) <= {Verdict.UNKNOWN, Verdict.NOT_SENT}


@pytest.mark.parametrize("killed", [1, 2])
async def test_what_a_killed_worker_had_in_hand_is_unknown(fake: FakeApns, killed: int) -> None:
    given = tokens(30_000)
    outcomes: list[Any] = []

    async def read(run: SharedRun) -> None:
        left = killed
        async for outcome in run:
            outcomes.append(outcome)
            if left and len(outcomes) >= 1_000 and len(processes(run)) == 2:
                for process in processes(run)[:left]:
                    os.kill(process, signal.SIGKILL)
                left = 0

    async with client_for(fake) as client:
        run = share(client, iter(given))
        if killed == 2:
            with pytest.raises(TransportError, match="every worker process"):
                await read(run)
        else:
            await read(run)
    seen = Counter(outcome.token for outcome in outcomes)
    assert set(seen.values()) == {1}
    assert len(seen) == run.report.read == run.report.settled
    processed = {push.token for push in fake.pushes}
    lost = {outcome.token for outcome in outcomes if outcome.reason == "worker_lost"}
    assert processed <= {outcome.token for outcome in outcomes if outcome.accepted} | lost
    assert all(outcome.accepted or outcome.token in lost for outcome in outcomes)
    if killed == 1:
        assert len(seen) == 30_000


async def test_a_client_that_closes_ends_its_workers(fake: FakeApns) -> None:
    client = client_for(fake)
    run = share(client, iter(tokens(200_000)))
    waiting = asyncio.create_task(run.wait())
    while not run.report.accepted:
        await asyncio.sleep(0.01)
    await client.aclose()
    report = await waiting
    assert report.settled == report.read < 200_000
    assert not run._tasks


@pytest.mark.parametrize(
    ("options", "field"),
    [({"hooks": Hooks(retry=print)}, "hooks"), ({"transport": "httpx"}, "transport")],
)
async def test_what_cannot_be_shared_is_refused(
    fake: FakeApns, options: dict[str, Any], field: str
) -> None:
    async with client_for(fake, **options) as client:
        with pytest.raises(InvalidSetting, match=field):
            client.fan_out(UPDATE, [], workers=2)
        for wrong in (0, -1, True, 1.5, 1_000):
            with pytest.raises(InvalidSetting, match="workers"):
                client.fan_out(UPDATE, [], workers=wrong)


async def test_workers_get_provider_tokens_and_no_key(
    fake: FakeApns, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def watched(writer: Any, what: Any) -> None:
        sent.append(what)
        write(writer, what)

    monkeypatch.setattr(workers, "write", watched)
    async with client_for(fake) as client:
        await share(client, tokens(10)).wait()
        pem = Path(fake.key_file).read_text()
        first, second = (each for each in sent if isinstance(each, Setup))
        assert first.provider_tokens == second.provider_tokens
        assert client.provider_tokens.current().value[7:].decode() in first.provider_tokens.values()
    assert all(line not in str(sent) for line in pem.splitlines()[1:-1])
