"""A match of four hours on forty phones (a hundred in ``make soak``), through the whole of delivery, against the phones' own budgets."""

from __future__ import annotations

import random

import pytest

from apns_live.delivery import Delivery
from apns_live.payload import Alert, End, Update
from apns_live.testing.clock import SimulatedClock
from apns_live.testing.phones import BudgetLaw, PhoneSettings, SimulatedPhones
from apns_live.testing.state import Push
from tests.counts import count

from .double import MemoryClient

SEEDS = count(40, soak=100)
MATCH = 4 * 3600


class Watched:
    """Phones with budgets of 12 to 20 by the clock hour; notes what each did with its pushes."""

    def __init__(self, clock: SimulatedClock, constant: int | None) -> None:
        law = BudgetLaw(kind="clock hour", frequent_capacity=(12, 20))
        settings = PhoneSettings(
            seed=7,
            budget=law,
            priority_5="at once",
            token_delay=(0.0, 0.0),
            equal_timestamp="accept",
        )
        self.phones = SimulatedPhones(settings, clock=clock)
        self.constant = constant
        self.activities = {}
        self.alerts: dict[str, list[bool]] = {}
        self.exhausted: set[str] = set()
        self.number = 0

    def begin(self, phones: int) -> None:
        for _ in range(phones):
            device = self.phones.add_device(attributes_types=["Match"])
            activity = self.phones.start_activity(device, "Match", {}, {"n": 0})
            self.activities[activity.id] = activity

    def tokens(self) -> list[str]:
        self.by_token = {activity.token.text: activity for activity in self.activities.values()}
        return list(self.by_token)

    def __call__(self, token, message, now):
        activity = self.by_token[token]
        before = activity.alerts
        self.number += 1
        priority = self.constant or message.priority
        self.phones.receive(
            Push(
                number=self.number,
                apns_id=str(self.number),
                apns_unique_id="",
                token=token,
                topic=activity.token.topic,
                push_type="liveactivity",
                priority=priority,
                expiration=None,
                collapse_id=None,
                body=message.body,
                received_at=now,
                connection_id=1,
            )
        )
        if message.encoded.has_alert:
            self.alerts.setdefault(token, []).append(activity.alerts == before + 1)
        if activity.timestamp != message.encoded.timestamp:
            # Nothing is late or doubled here, so a state that is not shown was over the budget.
            self.exhausted.add(token)


@pytest.mark.parametrize("constant", [None, 10], ids=["budgeted", "always 10"])
async def test_a_match_against_phones_whose_budget_is_not_known(constant):
    clock = SimulatedClock()
    watched = Watched(clock, constant)
    phones = SEEDS // 4 if constant else SEEDS  # that a budget is spent, a few show
    watched.begin(phones)
    await clock.advance(2)
    tokens = watched.tokens()
    client = MemoryClient(clock, received=watched)
    async with Delivery(client, clock=clock, close_timeout=0.0) as delivery:
        for seed, token in enumerate(tokens):
            draw = random.Random(seed)
            moments = [(draw.uniform(0, MATCH), False) for _ in range(600)]
            moments += [(draw.uniform(0, MATCH), True) for _ in range(20)]
            for n, (at, alert) in enumerate(moments):
                message = Update(
                    content_state={"n": n}, alert=Alert(title="t", body="b") if alert else None
                )
                clock.call_later(at, lambda m=message, t=token: delivery.submit(m, t))
            clock.call_later(MATCH + 5, lambda t=token: delivery.submit(End(), t))
        await clock.advance(MATCH + 30)
    rang = sum(all(watched.alerts[token]) for token in tokens)
    assert all(len(watched.alerts[token]) >= 18 for token in tokens)
    if constant:
        assert len(watched.exhausted) == phones
    else:
        assert rang >= 0.95 * phones
        assert phones - len(watched.exhausted) >= 0.95 * phones
    assert all(activity.state == "ended" for activity in watched.activities.values()) or constant
