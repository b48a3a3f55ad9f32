"""P24 as a state machine: lanes and a live activity against the phones, on a network that misbehaves.

Answers come late or never, pushes arrive long after they were given up, connections go away with and
without having passed them on, APNs says 429 and 503. Whatever happens: what a phone shows only moves
forward, one push a token is in flight, the final state arrives, and the end is last.
"""

from __future__ import annotations

import asyncio
import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from apns_live.delivery import Delivery
from apns_live.outcome import Verdict
from apns_live.payload import Alert, End, Update
from apns_live.testing.clock import SimulatedClock
from apns_live.testing.phones import PhoneSettings, SimulatedPhones
from apns_live.testing.state import Push

from .double import Fate, MemoryClient

PHONES = 4
DELAYS = [0.0, 0.05, 0.4, 2.9]

FATES = st.one_of(
    st.builds(Fate, delay=st.sampled_from(DELAYS)),
    # Given up after 3 s: lost, or shown much later all the same.
    st.builds(Fate, delay=st.sampled_from([3.5, 6.0, 11.0]), discarded_if_reset=st.booleans()),
    # GOAWAY or REFUSED_STREAM that the client could not replay: certainly not processed.
    st.just(Fate(delay=0.05, status=0, verdict=Verdict.NOT_SENT, reason="closed")),
    # The connection is lost: it may have been processed, or not.
    st.builds(
        Fate,
        delay=st.sampled_from([0.05, 1.0]),
        status=st.just(0),
        verdict=st.just(Verdict.UNKNOWN),
        reason=st.just("connection_lost"),
        reaches_phone=st.booleans(),
    ),
    st.just(Fate(delay=0.05, status=429, reason="TooManyRequests")),
    st.just(Fate(delay=0.05, status=503, reason="ServiceUnavailable")),
)


class Order(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = SimulatedClock()
        self.phones = SimulatedPhones(
            PhoneSettings(budget=None, priority_5="at once"), clock=self.clock
        )
        self.fates: list[Fate] = []
        self.count = 0
        self.shown: dict[str, list[int]] = {}
        self.number = 0
        self.ended = False
        self.lane_ended = False

    def teardown(self) -> None:
        self.run(self.finish())
        self.loop.close()

    def run(self, work):
        return self.loop.run_until_complete(work)

    @initialize(fates=st.lists(FATES, min_size=0, max_size=60))
    def begin(self, fates):
        self.fates = fates
        self.run(self.open())

    async def open(self):
        self.activities = []
        for _ in range(PHONES):
            device = self.phones.add_device(attributes_types=["Match"])
            activity = self.phones.start_activity(device, "Match", {}, {"n": 0})
            self.activities.append(activity)
        await self.clock.advance(5)
        self.tokens = [activity.token.text for activity in self.activities]
        self.topic = self.activities[0].token.topic
        self.client = MemoryClient(self.clock, room=3, fate=self.fate, received=self.receive)
        self.delivery = Delivery(self.client, clock=self.clock, close_timeout=0.0)
        await self.delivery.open()
        self.match = self.delivery.activity("match", tokens=self.tokens[1:])

    def fate(self, token, message, now):
        self.count += 1
        return self.fates.pop() if self.fates else Fate(delay=0.05)

    def receive(self, token, message, now):
        self.phones.receive(
            Push(
                number=self.count,
                apns_id=str(self.count),
                apns_unique_id="",
                token=token,
                topic=self.topic,
                push_type="liveactivity",
                priority=message.priority,
                expiration=message.encoded.expiration,
                collapse_id=None,
                body=message.body,
                received_at=now,
                connection_id=1,
            )
        )
        aps = json.loads(message.body)["aps"]
        assert aps["timestamp"] <= now + 2 or aps["timestamp"] <= now + 14

    def update(self, number, alert):
        return Update(
            content_state={"n": number}, alert=Alert(title="t", body="b") if alert else None
        )

    @rule(alert=st.booleans(), urgency=st.sampled_from(["urgent", "normal", "quiet"]))
    @precondition(lambda self: not self.ended)
    def put(self, alert, urgency):
        self.number += 1

        async def work():
            self.match.put(self.update(self.number, alert), urgency=urgency)

        self.run(work())

    @rule(alert=st.booleans())
    @precondition(lambda self: not self.lane_ended)
    def submit(self, alert):
        self.number += 1

        async def work():
            self.delivery.submit(self.update(self.number, alert), self.tokens[0])

        self.run(work())

    @rule()
    @precondition(lambda self: not self.lane_ended)
    def end_lane(self):
        self.number += 1
        self.lane_ended = True

        async def work():
            self.delivery.submit(End(content_state={"n": self.number}), self.tokens[0])

        self.run(work())

    @rule()
    @precondition(lambda self: not self.ended and self.number > 3)
    def end(self):
        self.number += 1
        self.ended = True

        async def work():
            self.match.end(End(content_state={"n": self.number}))

        self.run(work())

    @rule(place=st.integers(1, PHONES - 1))
    @precondition(lambda self: not self.ended)
    def leave_and_join(self, place):
        async def work():
            self.match.leave(self.tokens[place])
            await self.clock.advance(0.02)
            self.match.join(self.tokens[place])

        self.run(work())

    @rule(seconds=st.sampled_from([0.01, 0.06, 0.5, 1.0, 3.1, 10.0]))
    def pass_time(self, seconds):
        self.run(self.clock.advance(seconds))

    @invariant()
    def shown_moves_forward(self):
        for place, activity in enumerate(getattr(self, "activities", ())):
            shown = self.shown.setdefault(str(place), [0])
            number = (activity.content_state or {"n": 0})["n"]
            assert number >= shown[-1], f"phone {place} went back from {shown[-1]} to {number}"
            shown.append(number)

    async def finish(self):
        if not hasattr(self, "match"):
            return
        self.fates = []
        if not self.ended:
            self.number += 1
            self.match.end(End(content_state={"n": self.number}))
        last = self.number
        if not self.lane_ended:
            self.number += 1
            self.delivery.submit(End(content_state={"n": self.number}), self.tokens[0])
        await self.clock.advance(1300)
        assert self.client.overtaken == []
        for place, activity in enumerate(self.activities):
            assert activity.state in ("ended", "dismissed"), f"phone {place} never ended"
        for activity in self.activities[1:]:
            if not self.ended:
                assert activity.content_state == {"n": last}
        assert self.delivery.statistics().activities == 0
        await self.delivery.aclose()


TestOrder = Order.TestCase
TestOrder.settings = settings(stateful_step_count=25)
