"""What must hold for phones whatever happens to them, in whatever order."""

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from apns_live.testing.phones import BudgetLaw

from .conftest import GAME, Sender

LAWS = st.sampled_from(
    [
        BudgetLaw(frequent_capacity=3),
        BudgetLaw(kind="rolling", frequent_capacity=3),
        BudgetLaw(kind="clock hour", frequent_capacity=(1, 4)),
        BudgetLaw(kind="bucket", frequent_capacity=3, exempt_end=True),
    ]
)
OFFSETS = st.integers(-3, 12)
SECONDS = st.one_of(st.floats(0, 3), st.floats(0, 3), st.floats(0, 2000), st.floats(0, 40_000))
SELDOM = st.integers(0, 9).map(lambda number: number == 9)
SHOWN = {"delivered", "delivered from storage"}


class Phones(RuleBasedStateMachine):
    """Pushes, networks, users and time in any order, against a model that only counts timestamps."""

    activities = Bundle("activities")
    phones = Bundle("phones")

    def __init__(self):
        super().__init__()
        self.sender = None
        self.counter = 0
        self.accepted = {}  # activity -> [(timestamp, content bytes), ...] in order of acceptance
        self.frozen = {}  # ended activity -> what it showed when it ended
        self.records = []

    @initialize(
        target=phones,
        law=LAWS,
        seed=st.integers(0, 3),
        asleep=st.booleans(),
        storage=st.sampled_from(["app", "token"]),
    )
    def a_phone(self, law, seed, asleep, storage):
        if self.sender is None:
            self.sender = Sender(
                budget=law,
                seed=seed,
                storage=storage,
                start_budget=None,
                equal_timestamp="discard",
                app_limit=50,
                device_limit=50,
                token_delay=(0, 0),
            )
        return self.sender.phones.add_device(attributes_types=[GAME], awake=not asleep)

    @rule(target=phones, asleep=st.booleans())
    def another_phone(self, asleep):
        return self.sender.phones.add_device(attributes_types=[GAME], awake=not asleep)

    @rule(target=activities, phone=phones, offset=OFFSETS)
    def a_start(self, phone, offset):
        sender = self.sender
        timestamp = int(sender.now) + offset
        before = list(phone.activities)
        record = self.keep(
            sender.start(phone.token_of("start").text, {"n": self.next()}, timestamp=timestamp)
        )
        if record.state != "delivered":
            return multiple()
        (activity,) = [each for each in phone.activities if each not in before]
        self.accepted[activity] = [(timestamp, activity.content)]
        return activity

    @rule(
        activity=activities,
        offset=OFFSETS,
        priority=st.sampled_from([5, 10]),
        expiration=st.sampled_from([None, 0, 5, 600]),
    )
    def an_update(self, activity, offset, priority, expiration):
        self.push(activity, "update", offset, priority, expiration)

    @rule(activity=activities, count=st.integers(2, 6), priority=st.sampled_from([5, 10]))
    def several_updates(self, activity, count, priority):
        newest = max(self.accepted[activity])[0] - int(self.sender.now)
        for number in range(1, count + 1):
            self.push(activity, "update", newest + number, priority, None)

    @rule(activity=activities, offset=OFFSETS, has_state=st.booleans(), really=SELDOM)
    def an_end(self, activity, offset, has_state, really):
        if really:
            self.push(activity, "end", offset, 10, None, has_state)

    @rule(activity=activities)
    def rubbish(self, activity):
        if activity.token is not None:
            self.keep(self.sender.push(activity.token.text, b'{"aps": {"event": "update"'))

    @rule(seconds=SECONDS)
    def time_passes(self, seconds):
        if self.sender is not None:
            self.sender.clock.advance_sync(seconds)
            self.collect()

    @rule(phone=phones, online=st.sampled_from([True, True, False]), awake=st.booleans())
    def the_phone_changes(self, phone, online, awake):
        self.sender.phones.configure(phone, {"online": online, "awake": awake})
        self.collect()

    @rule(phone=phones, seconds=st.floats(1, 4000), really=SELDOM)
    def the_network_goes(self, phone, seconds, really):
        if really:
            self.sender.phones.go_offline(phone, seconds)

    @rule(activity=activities, really=SELDOM)
    def the_user_swipes(self, activity, really):
        if really:
            self.sender.phones.dismiss(activity)

    @rule(activity=activities)
    def the_token_rotates(self, activity):
        if activity.token is not None and activity.state == "active":
            self.sender.phones.rotate(activity.token)

    def next(self):
        self.counter += 1
        return self.counter

    def keep(self, record):
        self.records.append([record, record.state in SHOWN])
        return record

    def push(self, activity, event, offset, priority, expiration, has_state=True):
        if activity.token is None:
            return
        sender = self.sender
        aps = {"event": event, "timestamp": int(sender.now) + offset}
        if has_state:
            aps["content-state"] = {"n": self.next()}
        if expiration:
            expiration += int(sender.now)
        was_active = activity.state == "active"
        newest = max(self.accepted[activity])[0]
        remaining = sender.phones.budget_of(activity).remaining(sender.now)
        device = activity.device
        reachable = device.online and not (device.offline_until or 0) > sender.now
        record = sender.push(
            activity.token.text, {"aps": aps}, priority=priority, expiration=expiration
        )
        self.records.append([record, False])
        self.collect()
        if reachable and (priority == 10 or device.awake):
            in_time = event == "end" or aps["timestamp"] > newest
            fits = was_active and in_time and (priority == 5 or remaining > 0)
            exempt = event == "end" and sender.phones.settings.budget.exempt_end
            if fits or not exempt:
                assert (record.state == "delivered") == fits, (record.state, record.why)

    def collect(self):
        """Put what was shown since the last look into the model, in the order of the log."""
        shown = {id(record): record for record, done in self.records if not done}
        for entry in self.sender.log.entries:
            record = entry.record
            if entry.state in SHOWN and shown.pop(id(record), None) is not None:
                aps = json.loads(record.push.body)["aps"]
                activity = next((a for a in self.accepted if a.id == entry.activity), None)
                if aps["event"] != "start" and activity is not None:
                    previous = max(self.accepted[activity])
                    timestamp = aps["timestamp"]
                    if aps["event"] == "end":  # exempt: it is shown however old it is
                        self.accepted[activity].remove(previous)
                        timestamp = max(timestamp, previous[0])
                    else:
                        assert timestamp > previous[0]
                    content = aps.get("content-state")
                    data = json.dumps(content).encode() if content else previous[1]
                    self.accepted[activity].append((timestamp, data))
        self.records = [[r, done or r.state in SHOWN] for r, done in self.records]

    @invariant()
    def the_newest_accepted_state_is_shown(self):
        for activity, states in self.accepted.items():
            timestamp, content = max(states)
            assert activity.timestamp == timestamp
            assert json.loads(activity.content) == json.loads(content)

    @invariant()
    def an_ended_activity_never_changes(self):
        for activity in self.accepted:
            if activity.state != "active":
                now = (activity.content, activity.timestamp, activity.ended_at, activity.ended_by)
                assert self.frozen.setdefault(activity, now) == now
                assert activity.ended_at is not None

    @invariant()
    def no_budget_is_negative(self):
        for activity in self.accepted:
            budget = self.sender.phones.budget_of(activity)
            assert 0 <= budget.remaining(self.sender.now) <= budget.capacity

    @invariant()
    def every_push_is_somewhere(self):
        if self.sender is not None:
            states = self.sender.log.by_state
            waiting = sum(phone.waiting for phone in self.sender.phones.devices.values())
            settled = states["delivered"] + states["delivered from storage"] + states["discarded"]
            assert states["received"] == settled + waiting


TestPhones = Phones.TestCase
TestPhones.settings = settings(stateful_step_count=60)
