"""The client for synchronous code, from one thread and from many."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from apns_live import blocking
from apns_live.blocking import HAND_OVER, TOKENS_AHEAD
from apns_live.channels import BroadcastChannel
from apns_live.credentials import ProviderKey
from apns_live.errors import (
    ApnsLiveError,
    ClientClosed,
    InvalidInput,
    InvalidPayload,
    InvalidSetting,
    InvalidToken,
)
from apns_live.outcome import Outcome, Verdict
from apns_live.payload import Alert, Start, Update
from apns_live.testing import ThreadedFakeApns

from .conftest import arguments

UPDATE = Update(content_state={"home": 71})


def tokens(count: int, first: int = 0) -> list[str]:
    return [f"{number:064x}" for number in range(first, first + count)]


def test_send_returns_the_outcome(client: blocking.Client, running: ThreadedFakeApns) -> None:
    outcome = client.send(UPDATE, "ab" * 32)
    assert outcome.verdict is Verdict.ACCEPTED
    (push,) = running.fake.pushes
    assert push.token == "ab" * 32
    assert push.apns_id == outcome.apns_id


def test_refusals_are_outcomes(client: blocking.Client, running: ThreadedFakeApns) -> None:
    running.call(lambda fake: fake.fault("answer", status=410, reason="ExpiredToken"))
    outcome = client.send(UPDATE, "ab" * 32)
    assert (outcome.verdict, outcome.reason) == (Verdict.DROP_TOKEN, "ExpiredToken")


def test_bad_input_is_raised_in_the_callers_thread(client: blocking.Client) -> None:
    with pytest.raises(InvalidToken):
        client.send(UPDATE, "no hex")
    with pytest.raises(InvalidPayload):
        client.fan_out(Update(content_state={"when": object()}), tokens(1))
    with pytest.raises(InvalidInput):
        client.fan_out(UPDATE, tokens(1), deadline=-1.0)
    with pytest.raises(InvalidInput):
        client.fan_out(UPDATE, "ab" * 32)


def test_wrong_arguments_are_refused_at_once(running: ThreadedFakeApns) -> None:
    with pytest.raises(InvalidSetting):
        blocking.Client(**{**arguments(running), "environment": "staging"})


@pytest.mark.parametrize("kind", [list, tuple, iter, dict.fromkeys])
def test_fan_out_gives_every_token_one_outcome(
    client: blocking.Client, running: ThreadedFakeApns, kind: type
) -> None:
    wanted = tokens(5_000)
    with client.fan_out(UPDATE, kind(wanted)) as run:
        outcomes = list(run)
        assert next(run, None) is None
    assert sorted(outcome.token for outcome in outcomes) == wanted
    assert all(outcome.accepted for outcome in outcomes)
    assert run.report.accepted == run.report.read == 5_000
    assert running.fake.pushes.total == 5_000


def test_wait_returns_the_report(client: blocking.Client) -> None:
    report = client.fan_out(UPDATE, iter([*tokens(3_000), "no hex"])).wait()
    assert (report.read, report.accepted) == (3_001, 3_000)
    assert report.verdicts[Verdict.FIX_REQUEST] == 1


def test_no_tokens_is_no_trouble(client: blocking.Client) -> None:
    assert client.fan_out(UPDATE, iter([])).wait().read == 0
    assert client.fan_out(UPDATE, []).wait().read == 0


def test_async_iterables_are_taken_too(client: blocking.Client) -> None:
    async def source() -> AsyncIterator[str]:
        for token in tokens(100):
            await asyncio.sleep(0)
            yield token

    assert client.fan_out(UPDATE, source()).wait().accepted == 100


def test_generators_run_in_the_callers_thread(client: blocking.Client) -> None:
    # A database cursor may belong to its thread; in Django it does.
    threads: set[int] = set()

    def source() -> Iterator[str]:
        for token in tokens(3 * TOKENS_AHEAD):
            threads.add(threading.get_ident())
            yield token

    assert client.fan_out(UPDATE, source()).wait().accepted == 3 * TOKENS_AHEAD
    assert threads == {threading.get_ident()}


def test_reading_stays_a_bounded_step_ahead(client: blocking.Client) -> None:
    read = 0

    def source() -> Iterator[str]:
        nonlocal read
        for token in tokens(100_000):
            read += 1
            yield token

    # The engine's own bound on outcomes that nobody has read is 10,000.
    bound = 10_000 + HAND_OVER + TOKENS_AHEAD
    with client.fan_out(UPDATE, source()) as run:
        for count, _ in enumerate(run, start=1):
            assert read <= count + bound
            if count == 18_000:
                break
    assert run.report.settled >= 18_000


def test_nothing_is_read_before_the_first_outcome_is_asked_for(client: blocking.Client) -> None:
    source = iter(tokens(10))
    with client.fan_out(UPDATE, source):
        pass
    assert next(source) == tokens(1)[0]


def test_what_the_iterable_raises_reaches_the_caller(client: blocking.Client) -> None:
    def source() -> Iterator[str]:
        yield from tokens(10)
        raise LookupError("the database has gone")

    with pytest.raises(LookupError, match="gone"), client.fan_out(UPDATE, source()) as run:
        for _ in run:
            pass
    assert client.send(UPDATE, tokens(1)[0]).accepted


def test_leaving_early_cancels_what_has_not_left(
    client: blocking.Client, running: ThreadedFakeApns
) -> None:
    with client.fan_out(UPDATE, iter(tokens(50_000))) as run:
        for _ in run:
            break
    report = run.report
    assert report.settled == report.read < 50_000
    assert client.send(UPDATE, "ab" * 32).accepted
    run.close()


def test_every_token_read_has_an_outcome_at_the_deadline(
    client: blocking.Client, running: ThreadedFakeApns
) -> None:
    assert client.send(UPDATE, "ab" * 32).accepted
    running.call(lambda fake: fake.fault("withhold"))
    read: list[str] = []

    def source() -> Iterator[str]:
        for token in tokens(20_000):
            read.append(token)
            yield token

    with client.fan_out(UPDATE, source(), deadline=0.3) as run:
        outcomes = list(run)
    assert sorted(outcome.token for outcome in outcomes) == read
    assert {outcome.verdict for outcome in outcomes} == {Verdict.NOT_SENT, Verdict.UNKNOWN}
    report = run.report
    assert (report.read, report.settled) == (len(read), len(read))
    assert sum(report.verdicts.values()) == len(read)
    assert report.deadline_passed


def test_many_threads_share_one_client(client: blocking.Client, running: ThreadedFakeApns) -> None:
    wanted = tokens(400)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda token: client.send(UPDATE, token), wanted))
    assert [outcome.token for outcome in outcomes] == wanted
    assert all(outcome.accepted for outcome in outcomes)
    assert sorted(push.token for push in running.fake.pushes) == wanted


def test_many_threads_fan_out_at_once(client: blocking.Client, running: ThreadedFakeApns) -> None:
    def work(number: int) -> int:
        return client.fan_out(UPDATE, iter(tokens(2_000, number * 10_000))).wait().accepted

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [2_000] * 4
    assert running.fake.pushes.total == 8_000


def test_channels_and_broadcast(client: blocking.Client, running: ThreadedFakeApns) -> None:
    channel = client.channels.create(storage_policy=0)
    assert isinstance(channel, BroadcastChannel)
    assert client.channels.list() == [channel]
    assert client.channels.read(channel).storage_policy == 0
    # Policy 0 takes no expiration but 0; the client knows, also for the bare id.
    assert client.broadcast(UPDATE, str(channel)).accepted
    assert client.channels.delete(channel) is True
    assert client.channels.delete(channel) is False
    assert client.broadcast(UPDATE, channel).verdict is Verdict.DROP_CHANNEL


def test_another_key_is_taken_without_a_restart(
    client: blocking.Client, running: ThreadedFakeApns
) -> None:
    assert client.send(UPDATE, "ab" * 32).accepted
    path = running.call(lambda fake: fake.add_key("ZYX987WVUT"))
    client.replace_key(ProviderKey.from_file(path, team_id=running.fake.team_id))
    assert client.send(UPDATE, "ab" * 32).accepted
    keys = [connection.bound_key for connection in running.fake.connections]
    assert keys == [running.fake.key_id, "ZYX987WVUT"]


def test_statistics_are_a_snapshot(client: blocking.Client) -> None:
    before = client.statistics()
    client.send(UPDATE, "ab" * 32)
    assert (before.accepted, client.statistics().accepted) == (0, 1)


def test_the_events_of_a_start_are_the_callers_too(client: blocking.Client) -> None:
    start = Start(
        content_state={"home": 0},
        attributes_type="MatchAttributes",
        attributes={},
        alert=Alert(title="Kick-off", body="Lions - Bears"),
    )
    assert client.send(start, "cd" * 80).accepted


def test_closed_means_closed(running: ThreadedFakeApns) -> None:
    client = blocking.Client(**arguments(running))
    client.send(UPDATE, "ab" * 32)
    client.close()
    client.close()
    with pytest.raises(ClientClosed):
        client.send(UPDATE, "ab" * 32)
    with pytest.raises(ClientClosed):
        client.channels.list()


def test_leaving_by_an_exception_does_not_drain(running: ThreadedFakeApns) -> None:
    running.call(lambda fake: fake.fault("withhold", skip=1))
    outcomes: list[Outcome] = []

    def leave() -> None:
        with blocking.Client(**arguments(running)) as client:
            client.send(UPDATE, "ab" * 32)
            sending = threading.Thread(
                target=lambda: outcomes.append(client.send(UPDATE, "cd" * 32))
            )
            sending.start()
            while not client.statistics().in_flight:
                pass
            raise LookupError

    with pytest.raises(LookupError):
        leave()
    # It drained for no second: the answer that never comes times out only after ten.
    while not outcomes:
        pass
    assert outcomes[0].verdict is Verdict.UNKNOWN
    assert outcomes[0].reason == "closed"


def test_a_client_that_was_never_used_closes(running: ThreadedFakeApns) -> None:
    blocking.Client(**arguments(running)).close()


def test_a_blocking_call_from_the_loops_own_thread_is_refused(client: blocking.Client) -> None:
    _, portal = client.started()
    caught: list[BaseException] = []

    async def hook() -> None:
        try:
            client.statistics()
        except ApnsLiveError as error:
            caught.append(error)

    portal.call(hook)
    assert "own thread" in str(caught[0])


def test_the_repr_has_no_secrets(client: blocking.Client, running: ThreadedFakeApns) -> None:
    shown = repr(client)
    assert running.fake.bundle_id in shown
    assert "PRIVATE" not in shown
    assert "bearer" not in shown
