"""Lanes, live activities, errands and wakeups over a client in memory, on the simulated clock."""

from __future__ import annotations

import asyncio
import json

import pytest

from apns_live.delivery import Budget, Delivery
from apns_live.delivery.lanes import HOUSEKEEPING, REFUSED_KEPT
from apns_live.errors import ActivityEnded, ClientClosed, InvalidInput, InvalidSetting
from apns_live.outcome import Verdict
from apns_live.payload import Alert, End, Start, Update
from apns_live.testing.clock import SimulatedClock

from .double import OK, Fate, MemoryClient

TOKEN = "ab" * 40
OTHER = "cd" * 40


class Phone:
    """Shows the state with the newest timestamp; remembers what it rang for."""

    def __init__(self) -> None:
        self.shown: dict[str, tuple[int, int]] = {}
        self.history: dict[str, list[int]] = {}
        self.alerts: dict[str, list[str]] = {}
        self.priorities: dict[str, list[int]] = {}
        self.events: dict[str, list[str]] = {}

    def __call__(self, token, message, now):
        aps = json.loads(message.body)["aps"]
        self.priorities.setdefault(token, []).append(message.priority)
        self.events.setdefault(token, []).append(aps["event"])
        stamp, state = aps["timestamp"], aps.get("content-state", {}).get("n", -1)
        assert stamp <= now + 2
        if stamp > self.shown.get(token, (0, 0))[0]:
            self.shown[token] = (stamp, state)
            self.history.setdefault(token, []).append(state)
            if "alert" in aps:
                self.alerts.setdefault(token, []).append(aps["alert"]["title"])


def state(n: int, alert: str | None = None, **more) -> Update:
    return Update(
        content_state={"n": n}, alert=Alert(title=alert, body="b") if alert else None, **more
    )


@pytest.fixture
def clock():
    return SimulatedClock()


@pytest.fixture
def phone():
    return Phone()


@pytest.fixture
def client(clock, phone):
    return MemoryClient(clock, received=phone)


@pytest.fixture
async def delivery(client, clock):
    delivery = Delivery(client, clock=clock, close_timeout=0.0)
    await delivery.open()
    yield delivery
    closing = asyncio.ensure_future(delivery.aclose())
    await clock.advance(1)
    await closing


async def test_a_state_arrives(delivery, clock, phone):
    ticket = delivery.submit(state(1), TOKEN)
    await clock.advance(1)
    outcome = await ticket
    assert outcome.verdict is Verdict.ACCEPTED
    assert outcome.token == TOKEN
    assert phone.history[TOKEN] == [1]


async def test_a_waiting_state_is_replaced_and_only_one_flies(delivery, clock, phone, client):
    tickets = [delivery.submit(state(n), TOKEN) for n in range(5)]
    await clock.advance(3)
    verdicts = [ticket.outcome.verdict for ticket in tickets]
    # The first may leave at once; the client asks at the end of the loop's turn, so none had.
    assert verdicts == [Verdict.SUPERSEDED] * 4 + [Verdict.ACCEPTED]
    assert phone.history[TOKEN] == [4]
    assert client.overtaken == []


async def test_a_later_update_waits_for_the_answer_to_the_earlier(delivery, clock, phone, client):
    client.fate = lambda token, message, now: Fate(delay=1.5)
    first = delivery.submit(state(1), TOKEN)
    await clock.advance(0.5)
    second, third = delivery.submit(state(2), TOKEN), delivery.submit(state(3), TOKEN)
    await clock.advance(0.5)
    assert client.sent == 1
    await clock.advance(5)
    assert first.outcome.accepted
    assert third.outcome.accepted
    assert second.outcome.verdict is Verdict.SUPERSEDED
    assert phone.history[TOKEN] == [1, 3]
    assert client.overtaken == []


async def test_an_alert_that_waits_travels_with_the_state_that_replaces_it(
    delivery, clock, phone, client
):
    client.fate = lambda token, message, now: Fate(delay=1.0)
    delivery.submit(state(1), TOKEN)
    await clock.advance(0.2)
    goal = delivery.submit(state(2, "goal"), TOKEN)
    last = delivery.submit(state(3), TOKEN)
    await clock.advance(5)
    assert goal.outcome.verdict is Verdict.SUPERSEDED
    assert "travels" in goal.outcome.detail
    assert last.outcome.priority == 10
    assert phone.history[TOKEN] == [1, 3]
    assert phone.alerts[TOKEN] == ["goal"]


async def test_end_is_last_never_dropped_and_nothing_may_follow(delivery, clock, phone, client):
    client.fate = lambda token, message, now: Fate(delay=1.0)
    delivery.submit(state(1), TOKEN)
    await clock.advance(0.2)
    update = delivery.submit(state(2), TOKEN)
    end = delivery.submit(End(content_state={"n": 9}), TOKEN)
    for late in (state(3), End()):
        with pytest.raises(ActivityEnded, match="Start a new activity"):
            delivery.submit(late, TOKEN)
    await clock.advance(5)
    assert update.outcome.verdict is Verdict.SUPERSEDED
    assert end.outcome.accepted
    assert end.outcome.priority == 10
    assert phone.history[TOKEN] == [1, 9]
    assert phone.events[TOKEN][-1] == "end"
    with pytest.raises(ActivityEnded):
        delivery.submit(state(4), TOKEN)


async def test_an_older_revision_is_superseded_at_once(delivery, clock):
    newer = delivery.submit(state(2), TOKEN, revision=2)
    older = delivery.submit(state(1), TOKEN, revision=1)
    same = delivery.submit(state(2), TOKEN, revision=2)
    assert older.outcome.verdict is Verdict.SUPERSEDED
    assert "revision 1" in older.outcome.detail
    assert same.outcome.verdict is Verdict.SUPERSEDED
    await clock.advance(1)
    assert newer.outcome.accepted


async def test_no_answer_in_three_seconds_sends_the_newest_with_a_newer_timestamp(
    delivery, clock, phone, client
):
    stamps = []
    fates = [Fate(delay=10.0), OK]

    def fate(token, message, now):
        stamps.append(json.loads(message.body)["aps"]["timestamp"])
        return fates.pop(0)

    client.fate = fate
    ticket = delivery.submit(state(1), TOKEN)
    await clock.advance(2.9)
    assert not ticket.done()
    await clock.advance(1)
    assert ticket.outcome.accepted
    assert ticket.outcome.attempts == 2
    assert stamps[1] > stamps[0]
    assert phone.history[TOKEN] == [1]


async def test_after_no_answer_a_newer_state_goes_and_the_older_is_unknown(
    delivery, clock, phone, client
):
    fates = [Fate(delay=10.0, discarded_if_reset=False), OK]
    client.fate = lambda token, message, now: fates.pop(0)
    first = delivery.submit(state(1, "goal"), TOKEN)
    await clock.advance(1)
    second = delivery.submit(state(2), TOKEN)
    await clock.advance(20)
    assert first.outcome.verdict is Verdict.UNKNOWN
    assert first.outcome.may_have_been_sent
    assert second.outcome.accepted
    # The late copy of the first has an older timestamp: the phone keeps the second, which rings.
    assert phone.history[TOKEN] == [2]
    assert phone.alerts[TOKEN] == ["goal"]


async def test_timestamps_are_never_more_than_two_seconds_ahead_and_the_newest_is_held(
    delivery, clock, phone
):
    for n in range(40):
        delivery.submit(state(n), TOKEN)
        await clock.advance(0.1)
    await clock.advance(3)
    assert phone.history[TOKEN][-1] == 39
    assert len(phone.history[TOKEN]) <= 7  # four seconds: one a second, and one ahead
    stamps = phone.shown[TOKEN][0]
    assert stamps <= clock.time()


async def test_an_alert_may_use_the_two_seconds(delivery, clock, phone):
    delivery.submit(state(1), TOKEN)
    await clock.advance(0.1)
    delivery.submit(state(2), TOKEN)
    await clock.advance(0.1)
    delivery.submit(state(3), TOKEN)
    await clock.advance(0.1)
    assert phone.history[TOKEN] == [1, 2]
    delivery.submit(state(4, "goal"), TOKEN)
    await clock.advance(0.1)
    assert phone.history[TOKEN] == [1, 2, 4]


async def test_a_callers_timestamp_is_kept_and_an_old_one_is_superseded(delivery, clock, phone):
    now = int(clock.time())
    one = delivery.submit(state(1, timestamp=now + 1), TOKEN)
    await clock.advance(1)
    old = delivery.submit(state(2, timestamp=now), TOKEN)
    assert old.outcome.verdict is Verdict.SUPERSEDED
    assert one.outcome.accepted
    assert phone.shown[TOKEN] == (now + 1, 1)


async def test_slow_down_slows_that_token_only(delivery, clock, phone, client):
    def fate(token, message, now):
        return Fate(status=429, reason="TooManyRequests") if token == TOKEN and now < slow else OK

    slow = clock.time() + 1
    client.fate = fate
    one, other = delivery.submit(state(1), TOKEN), delivery.submit(state(1), OTHER)
    await clock.advance(1)
    assert other.outcome.accepted
    assert not one.done()
    newer = delivery.submit(state(2), TOKEN)
    await clock.advance(3)
    assert client.sent == 2
    await clock.advance(2)
    assert one.outcome.verdict is Verdict.SUPERSEDED
    assert newer.outcome.accepted
    assert phone.history[TOKEN] == [2]


async def test_expiration_and_deadline_end_retries(delivery, clock, client):
    client.fate = lambda token, message, now: Fate(status=503, reason="ServiceUnavailable")
    late = delivery.submit(state(1, expiration=clock.time() + 4), TOKEN)
    due = delivery.submit(state(1), OTHER, deadline=3.0)
    await clock.advance(30)
    for ticket in (late, due):
        assert ticket.outcome.verdict is Verdict.EXPIRED
        assert ticket.outcome.reason == "ServiceUnavailable"
        assert ticket.outcome.attempts >= 2


async def test_a_deadline_passes_while_no_connection_is_there(delivery, clock, client):
    client.open = False
    ticket = delivery.submit(state(1), TOKEN, deadline=3.0)
    await clock.advance(20)
    assert ticket.outcome.verdict is Verdict.EXPIRED
    assert ticket.outcome.attempts == 0


async def test_a_dropped_token_ends_its_lane_and_what_waits_is_told(delivery, clock, client):
    client.fate = lambda token, message, now: Fate(status=410, reason="ExpiredToken")
    one = delivery.submit(state(1), TOKEN)
    await clock.advance(0.04)
    two = delivery.submit(state(2), TOKEN)
    await clock.advance(1)
    assert one.outcome.verdict is two.outcome.verdict is Verdict.DROP_TOKEN
    assert two.outcome.attempts == 0
    await clock.advance(REFUSED_KEPT + 2 * HOUSEKEEPING)
    assert delivery.statistics().lanes == 0


async def test_a_token_that_was_refused_by_mistake_gets_no_older_timestamp(
    delivery, clock, client, phone
):
    """Its phone would not show the state, although APNs accepted it."""
    for n in range(2):
        delivery.submit(state(n, "goal"), TOKEN)
        await clock.advance(0.1)
    client.fate = lambda token, message, now: Fate(status=400, reason="BadDeviceToken")
    refused = delivery.submit(state(2, "goal"), TOKEN)
    await clock.advance(0.1)
    assert refused.outcome.verdict is Verdict.DROP_TOKEN
    client.fate = lambda token, message, now: OK
    delivery.submit(state(3), TOKEN)
    await clock.advance(5)
    assert phone.shown[TOKEN][1] == 3


async def test_nothing_follows_an_end_although_its_token_was_refused(delivery, clock, client):
    client.fate = lambda token, message, now: Fate(status=410, reason="ExpiredToken")
    end = delivery.submit(End(content_state={"n": 1}), TOKEN)
    await clock.advance(REFUSED_KEPT + 2 * HOUSEKEEPING)
    assert end.outcome.verdict is Verdict.DROP_TOKEN
    with pytest.raises(ActivityEnded):
        delivery.submit(state(2), TOKEN)


async def test_priorities_follow_urgency_and_budget(delivery, clock, phone):
    outcomes = []
    for n in range(30):
        outcomes.append(delivery.submit(state(n), TOKEN))
        await clock.advance(10)
    assert [ticket.outcome.priority for ticket in outcomes[:3]] == [10, 10, 10]
    assert outcomes[3].outcome.priority == 5
    assert outcomes[3].outcome.demoted
    goal = delivery.submit(state(99, "goal"), TOKEN)
    quiet = None
    await clock.advance(5)
    quiet = delivery.submit(state(100), TOKEN, urgency="quiet")
    await clock.advance(5)
    assert goal.outcome.priority == 10
    assert not goal.outcome.over_budget
    assert (quiet.outcome.priority, quiet.outcome.demoted) == (5, False)
    statistics = delivery.statistics()
    assert statistics.demoted > 20
    assert not statistics.budget_verified


async def test_urgent_beyond_the_budget_is_sent_at_10_and_flagged(delivery, clock):
    flags = []
    for n in range(20):
        ticket = delivery.submit(state(n), TOKEN, urgency="urgent")
        await clock.advance(5)
        flags.append(ticket.outcome.over_budget)
        assert ticket.outcome.priority == 10
    assert flags[:7] == [False] * 7
    assert flags[-1]
    end = delivery.submit(End(), TOKEN)
    await clock.advance(5)
    assert end.outcome.priority == 10
    assert end.outcome.over_budget


async def test_a_device_without_frequent_pushes_is_kept_to_the_default_budget(client, clock):
    async with Delivery(client, clock=clock, budget="frequent", close_timeout=0.0) as delivery:
        delivery.frequent_pushes(OTHER, False)
        await clock.advance(60)  # a lane with nothing sent yet is remembered too
        tens = {TOKEN: 0, OTHER: 0}
        for n in range(25):
            tickets = [delivery.submit(state(n), token) for token in tens]
            await clock.advance(20)
            for ticket in tickets:
                tens[ticket.outcome.token] += ticket.outcome.priority == 10
        assert tens[TOKEN] > 15
        assert tens[OTHER] < 6


async def test_minimum_interval_holds_but_the_last_state_goes_out(client, clock, phone):
    async with Delivery(client, clock=clock, minimum_interval=10.0, close_timeout=0.0) as delivery:
        for n in range(12):
            delivery.submit(state(n), TOKEN)
            await clock.advance(2)
        await clock.advance(10)
        assert phone.history[TOKEN][-1] == 11
        assert len(phone.history[TOKEN]) <= 4
        delivery.submit(state(20), TOKEN)
        await clock.advance(1)
        delivery.submit(state(21, "goal"), TOKEN)
        await clock.advance(1)
        assert phone.history[TOKEN][-1] == 21


async def test_starts_are_not_repeated_when_they_may_have_arrived(delivery, clock, client):
    client.fate = lambda token, message, now: Fate(delay=10.0)
    start = Start(
        content_state={"n": 0},
        attributes_type="Match",
        attributes={},
        alert=Alert(title="t", body="b"),
    )
    ticket = delivery.submit(start, OTHER)
    await clock.advance(10)
    assert ticket.outcome.verdict is Verdict.UNKNOWN
    assert ticket.outcome.attempts == 1
    client.fate = lambda token, message, now: OK
    flags = []
    for _ in range(9):
        ticket = delivery.submit(start, OTHER)
        await clock.advance(1)
        flags.append(ticket.outcome.over_budget)
    assert flags[0] is False
    assert flags[-1] is True


async def test_wakeups_keep_the_newest_until_the_token_is_handed_in(delivery, clock, phone):
    first = delivery.submit_when_known(state(1, "goal"), "user-7")
    second = delivery.submit_when_known(state(2), "user-7")
    await clock.advance(60)
    assert first.outcome.verdict is Verdict.SUPERSEDED
    assert not second.done()
    assert delivery.statistics().wakeups == 1
    assert delivery.hand_in("user-7", TOKEN)
    await clock.advance(1)
    assert second.outcome.accepted
    assert phone.history[TOKEN] == [2]
    assert phone.alerts[TOKEN] == ["goal"]
    assert not delivery.hand_in("user-7", TOKEN)


async def test_a_wakeup_expires_when_no_token_comes(delivery, clock):
    ticket = delivery.submit_when_known(state(1), "user-7", deadline=30.0)
    await clock.advance(60)
    assert ticket.outcome.verdict is Verdict.EXPIRED
    assert delivery.statistics().wakeups == 0


async def test_a_cancelled_send_takes_its_state_back(delivery, clock, client):
    client.open = False
    task = asyncio.ensure_future(delivery.send(state(1), TOKEN))
    await clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    client.open = True
    client.wake()
    await clock.advance(1)
    assert client.sent == 0


async def test_closing_answers_what_has_not_left(client, clock):
    delivery = Delivery(client, clock=clock, close_timeout=1.0)
    await delivery.open()
    client.open = False
    ticket = delivery.submit(state(1), TOKEN)
    closing = asyncio.ensure_future(delivery.aclose())
    await clock.advance(2)
    await closing
    assert ticket.outcome.verdict is Verdict.NOT_SENT
    with pytest.raises(ClientClosed):
        delivery.submit(state(2), TOKEN)


@pytest.mark.parametrize(
    "settings",
    [
        {"budget": "huge"},
        {"minimum_interval": -1.0},
        {"response_timeout": 0.0},
        {"lane_lifetime": float("nan")},
    ],
)
def test_settings_that_cannot_be_are_refused(client, settings):
    with pytest.raises(InvalidSetting):
        Delivery(client, **settings)


def test_budgets_that_cannot_be_are_refused():
    for figures in ({"per_hour": 0}, {"per_hour": 5, "reserve": 4}, {"per_hour": 9, "reserve": -1}):
        with pytest.raises(InvalidSetting, match="budget"):
            Budget(**figures)


async def test_submit_refuses_bad_input(delivery):
    with pytest.raises(InvalidInput, match="token"):
        delivery.submit(state(1), "nothex")
    with pytest.raises(InvalidInput, match="deadline"):
        delivery.submit(state(1), TOKEN, deadline=-1)
    with pytest.raises(InvalidSetting, match="urgency"):
        delivery.submit(state(1), TOKEN, urgency="very")
    delivery.activity("match", tokens=[OTHER])
    with pytest.raises(InvalidInput, match="belongs to the live activity"):
        delivery.submit(state(1), OTHER)


async def test_idle_lanes_are_forgotten_after_their_life(client, clock):
    async with Delivery(client, clock=clock, lane_lifetime=60.0, close_timeout=0.0) as delivery:
        delivery.submit(state(1), TOKEN)
        await clock.advance(1)
        assert delivery.statistics().lanes == 1
        await clock.advance(100)
        assert delivery.statistics().lanes == 0
