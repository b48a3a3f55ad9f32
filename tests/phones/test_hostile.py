"""No body makes a phone raise: APNs has answered 200 already."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from .conftest import BUNDLE, GAME, Sender, log_lines

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -1, 1e308, 1800000000, 1800000000000, 2**63, 2**64]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = [
    "timestamp",
    "content-state",
    "alert",
    "attributes-type",
    "attributes",
    "stale-date",
    "dismissal-date",
    "relevance-score",
    "input-push-token",
    "input-push-channel",
]
GOOD = {
    "timestamp": 1_900_000_000,
    "content-state": {"n": 1},
    "alert": {"title": "t"},
    "attributes-type": GAME,
    "attributes": {},
    "input-push-token": 1,
}
EVENTS = st.one_of(st.sampled_from(["start", "update", "end"]), JSON)


@given(
    event=EVENTS,
    changes=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4),
    priority=st.sampled_from([1, 5, 10]),
    expiration=st.one_of(st.none(), st.integers(0, 10**15)),
    online=st.booleans(),
)
def test_any_value_of_any_key(event, changes, priority, expiration, online):
    sender = Sender(schemas={GAME: {"type": "object"}})
    phone, activity = sender.started()
    sender.phones.configure(phone, {"online": online})
    body = {"aps": GOOD | changes | {"event": event}}
    for token in (phone.token_of("start").text, activity.token.text, "ab" * 40):
        sender.push(token, body, priority=priority, expiration=expiration, collapse_id="c")
    sender.push(phone.token_of("device").text, body, topic=BUNDLE, push_type="alert")
    sender.broadcast("Y2g=", body, policy=1, expiration=expiration)
    sender.clock.advance_sync(13 * 3600)
    sender.phones.configure(phone, {"online": True})
    assert log_lines(sender.log)


@given(data=st.binary(max_size=200))
@example(data=b"\xef\xbb\xbf{}")
@example(data=b'{"aps":{"event":"update","timestamp":1e999,"content-state":{}}}')
@example(data=b'{"aps":{"event":"update","timestamp":NaN,"content-state":{}}}')
@example(data=b'{"aps":{"event":"update","timestamp":1,"content-state":{"a":"\xff"}}}')
@example(data=b'{"aps":{"event":"update","timestamp":1,"content-state":{"a":"\\ud800"}}}')
@example(data=b'{"aps":' * 3000 + b"1" + b"}" * 3000)
def test_any_bytes(data):
    sender = Sender(schemas={GAME: {"type": "object"}})
    phone, activity = sender.started()
    for token in (activity.token.text, phone.token_of("start").text, "cd" * 32):
        record = sender.push(token, data)
        assert record.state in {"discarded", "delivered"}
    assert activity.content_state is not None
    json.dumps(activity.content_state)
