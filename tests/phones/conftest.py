"""What the tests of the phones share: a way to push without a network."""

import itertools
import json

import msgspec
import pytest

from apns_live.testing.clock import SimulatedClock
from apns_live.testing.control.rows import row_of
from apns_live.testing.phones import PhoneSettings, SimulatedPhones
from apns_live.testing.state import Push, TokenCondition

BUNDLE = "com.example.scores"
TOPIC = f"{BUNDLE}.push-type.liveactivity"
GAME = "GameAttributes"
ALERT = {"title": "Kick-off", "body": "It begins"}


def log_lines(log):
    """Return the kept entries of a log as lines of JSON, oldest first."""
    return b"".join(msgspec.json.encode(row_of(entry, None)) + b"\n" for entry in log.entries)


class Sender:
    """APNs as the phones see it: pushes come in, answered by what ``token_status`` says."""

    def __init__(self, **settings):
        self.clock = SimulatedClock()
        self.phones = SimulatedPhones(PhoneSettings(**settings), clock=self.clock, bundle_id=BUNDLE)
        self.numbers = itertools.count(1)

    @property
    def now(self):
        return self.clock.time()

    @property
    def log(self):
        return self.phones.log

    def push(
        self,
        token,
        body,
        *,
        topic=TOPIC,
        push_type="liveactivity",
        priority=10,
        expiration=None,
        collapse_id=None,
    ):
        number = next(self.numbers)
        push = Push(
            number,
            f"id-{number}",
            "",
            token,
            topic,
            push_type,
            priority,
            expiration,
            collapse_id,
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            self.now,
            1,
        )
        self.phones.receive(push)
        return self.log.pushes.get(self.log.pushes.total)

    def broadcast(self, channel, body, *, policy=0, priority=10, expiration=0):
        number = next(self.numbers)
        push = Push(
            number,
            f"id-{number}",
            "",
            "",
            TOPIC,
            "liveactivity",
            priority,
            expiration,
            None,
            json.dumps(body).encode(),
            self.now,
            1,
            channel,
            policy,
        )
        self.phones.receive_broadcast(push)
        return self.log.pushes.get(self.log.pushes.total)

    def start(self, token, state=None, *, push=None, **changes):
        aps = {
            "event": "start",
            "timestamp": int(self.now),
            "attributes-type": GAME,
            "attributes": {"home": "FCB"},
            "content-state": {"score": 0} if state is None else state,
            "alert": ALERT,
            "input-push-token": 1,
        }
        return self.push(token, {"aps": _changed(aps, changes)}, **(push or {}))

    def update(self, token, state=None, *, push=None, **changes):
        aps = {
            "event": "update",
            "timestamp": int(self.now),
            "content-state": {"score": 1} if state is None else state,
        }
        return self.push(token, {"aps": _changed(aps, changes)}, **(push or {}))

    def end(self, token, state=None, *, push=None, **changes):
        aps = {"event": "end", "timestamp": int(self.now)}
        if state is not None:
            aps["content-state"] = state
        return self.push(token, {"aps": _changed(aps, changes)}, **(push or {}))

    def started(self, **device):
        """Return a phone with a running activity that has its token."""
        phone = self.phones.add_device(attributes_types=[GAME], **device)
        record = self.start(phone.token_of("start").text)
        assert record.state == "delivered", (record.why, record.detail)
        self.clock.advance_sync(5)
        (activity,) = phone.activities
        return phone, activity

    def condition(self, token, topic=TOPIC):
        return self.phones.token_status(token, topic).condition

    def is_live(self, token):
        return self.condition(token) is TokenCondition.LIVE


def _changed(aps, changes):
    for name, value in changes.items():
        key = name.replace("_", "-")
        if value is None:
            aps.pop(key, None)
        else:
            aps[key] = value
    return aps


@pytest.fixture
def sender():
    return Sender()


@pytest.fixture
def make_sender():
    return Sender
