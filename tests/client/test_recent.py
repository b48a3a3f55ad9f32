"""A message object is encoded once, and again as soon as it would come out otherwise."""

from __future__ import annotations

import enum
from typing import Any

import pytest

from apns_live import Update
from apns_live.client.prepared import RecentMessage
from apns_live.errors import InvalidPayload
from apns_live.payload import encode
from apns_live.pool import HeaderSet, Sendable


def recent() -> tuple[RecentMessage, list[Any]]:
    made: list[Any] = []

    def make(message: Any, now: float) -> Sendable:
        made.append(Sendable(encode(message, now=now), HeaderSet(())))
        return made[-1]

    return RecentMessage(make), made


def test_one_object_is_encoded_once_a_second() -> None:
    cache, made = recent()
    update = Update(content_state={"home": 1})
    sent = [cache.sendable(update, 1000.0 + at / 100) for at in range(50)]
    assert len(made) == 2  # the second time it is known to come again
    assert {each.body for each in sent} == {made[0].body}
    assert cache.sendable(update, 1001.0).body != made[0].body


@pytest.mark.parametrize("value", [2, True, 1.5, None, "1", [1]])
def test_a_state_that_was_changed_in_place_is_encoded_again(value: object) -> None:
    cache, made = recent()
    state: dict[str, object] = {"home": 1}
    update = Update(content_state=state)
    for _ in range(3):
        cache.sendable(update, 1000.0)
    state["home"] = value
    assert cache.sendable(update, 1000.0).body == encode(update, now=1000.0).body
    assert len(made) == 3


def test_what_may_not_be_sent_is_refused_however_often() -> None:
    class Colour(enum.Enum):
        RED = "red"

    cache, _ = recent()
    update = Update(content_state={"colour": Colour.RED})
    for _ in range(3):
        with pytest.raises(InvalidPayload):
            cache.sendable(update, 1000.0)
