"""Payloads that APNs would refuse, or that a phone would ignore without a word."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest

from apns_live.errors import InvalidPayload, InvalidSetting, InvalidToken, PayloadTooLarge
from apns_live.payload import (
    Alert,
    Background,
    CriticalSound,
    End,
    Localized,
    Notification,
    Start,
    Update,
    apple_date,
    encode,
)

from .table import BadInput, check

NOW = 1_795_212_000.0
NAIVE = datetime.datetime(2026, 11, 20)  # noqa: DTZ001 - what must be refused
AWARE = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 1


@dataclass
class Play:
    when: Any


class Score(msgspec.Struct):
    home: Any


class Game(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    clock: Any


Point = namedtuple("Point", "x y")


def start(**changes):
    fields = {
        "content_state": {"home": 0},
        "attributes_type": "ScoreAttributes",
        "attributes": {},
        "alert": Alert(title="Tip-off", body="Now"),
    }
    return encode(Start(**(fields | changes)), now=NOW)


def update(state=None, **changes):
    encoding = {
        key: changes.pop(key)
        for key in ("target", "storage_policy", "timestamp_override")
        if key in changes
    }
    if "timestamp_override" in encoding:
        encoding["timestamp"] = encoding.pop("timestamp_override")
    return encode(
        Update(content_state={} if state is None else state, **changes), now=NOW, **encoding
    )


def end(**changes):
    return encode(End(**changes), now=NOW)


def notify(**changes):
    return encode(Notification(**({"body": "x"} | changes)), now=NOW)


def circle():
    state = {}
    state["again"] = state
    return state


def deep(levels):
    state = {}
    for _ in range(levels):
        state = {"a": state}
    return state


def payload(name, call, field, remedy, error=InvalidPayload):
    return BadInput(name, call, error, field, remedy)


START = [
    payload("no state", lambda: start(content_state=None), "content_state", "first state"),
    payload("no alert", lambda: start(alert=None), "alert", "Alert(title=..., body=...)"),
    payload("no title", lambda: start(alert=Alert(body="x")), "alert.title", "a title and a body"),
    payload("no body", lambda: start(alert=Alert(title="x")), "alert.body", "a title and a body"),
    payload(
        "empty title",
        lambda: start(alert=Alert(title="", body="x")),
        "alert.title",
        "a title and a body",
    ),
    payload("alert as dict", lambda: start(alert={"title": "x"}), "alert", "Pass Alert("),
    payload("no attributes", lambda: start(attributes=None), "attributes", "{} if the Swift type"),
    payload("attributes as text", lambda: start(attributes="{}"), "attributes", "Pass a mapping"),
    payload("attributes as list", lambda: start(attributes=[1]), "attributes", "Pass a mapping"),
    payload("no type", lambda: start(attributes_type=None), "attributes_type", "Swift Activity"),
    payload("empty type", lambda: start(attributes_type=""), "attributes_type", "Swift Activity"),
    payload("type class", lambda: start(attributes_type=Play), "attributes_type", "as text"),
    payload(
        "type with module",
        lambda: start(attributes_type="Scores.ScoreAttributes"),
        "attributes_type",
        "alone: 'ScoreAttributes'",
    ),
    payload(
        "type with space", lambda: start(attributes_type="Score A"), "attributes_type", "exactly"
    ),
    payload(
        "type with a line end",
        lambda: start(attributes_type="Score\r\n"),
        "attributes_type",
        "exactly",
    ),
    payload(
        "both inputs",
        lambda: start(input_push_token=True, input_push_channel="dHN0LXNyY2g="),
        "input_push_token",
        "Choose one",
    ),
    payload(
        "input as number", lambda: start(input_push_token=1), "input_push_token", "True or False"
    ),
    payload(
        "input channel with a line end",
        lambda: start(input_push_channel="dHN0\n"),
        "input_push_channel",
        "Strip it",
        InvalidToken,
    ),
    payload(
        "input channel not base64",
        lambda: start(input_push_channel="my channel!"),
        "input_push_channel",
        "channels.create()",
        InvalidToken,
    ),
    payload("long id", lambda: start(activity_id="x" * 65), "activity_id", "shorter id"),
    payload(
        "header injection",
        lambda: start(activity_id="a\r\napns-priority: 10"),
        "activity_id",
        "Strip it",
    ),
    payload("empty id", lambda: start(activity_id=""), "activity_id", "Leave it out"),
    payload("id as number", lambda: start(activity_id=7), "activity_id", "short text"),
    payload(
        "start on a channel",
        lambda: encode(
            Start(
                content_state={},
                attributes_type="A",
                attributes={},
                alert=Alert(title="a", body="b"),
            ),
            now=NOW,
            target="broadcast",
        ),
        "message",
        "input_push_channel=",
    ),
]

DATES = [
    payload(
        f"{field} {name}", lambda field=field, value=value: end(**{field: value}), field, remedy
    )
    for field in ("stale_date", "dismissal_date", "timestamp", "expiration")
    for name, value, remedy in (
        ("in milliseconds", 1_795_212_000_000, "divide by 1000"),
        ("as a duration", 300, "timedelta(seconds=...)"),
        ("as an Apple date", apple_date(AWARE), "seconds since 1970"),
        ("naive", NAIVE, "aware datetime"),
        ("as text", "2026-11-20T00:00:00Z", "aware datetime, a timedelta"),
    )
] + [
    payload("NaN date", lambda: end(stale_date=float("nan")), "stale_date", "finite"),
    payload("boolean date", lambda: end(stale_date=True), "stale_date", "aware datetime"),
    payload("date without time", lambda: end(stale_date=AWARE.date()), "stale_date", "aware"),
    payload("negative date", lambda: end(stale_date=-1), "stale_date", "timedelta"),
    payload(
        "far future",
        lambda: end(stale_date=datetime.timedelta(days=9_999_999)),
        "stale_date",
        "between 1970 and 5138",
    ),
    payload("stale date 0", lambda: end(stale_date=0), "stale_date", "seconds since 1970"),
    payload(
        "lane stamp in ms",
        lambda: update(timestamp_override=1_795_212_000_000),
        "timestamp",
        "1000",
    ),
    payload("apple_date of a naive one", lambda: apple_date(NAIVE), "moment", "timezone.utc"),
    payload("apple_date of a number", lambda: apple_date(1), "moment", "aware datetime"),
]

VALUES = [
    payload(name, lambda value=value: update({"score": [1, {"x": value}]}), field, remedy)
    for name, value, field, remedy in (
        ("datetime", AWARE, "content_state.score[1].x", "apple_date("),
        ("date", AWARE.date(), "content_state.score[1].x", "apple_date("),
        ("timedelta", datetime.timedelta(1), "content_state.score[1].x", "total_seconds()"),
        ("NaN", float("nan"), "content_state.score[1].x", "finite number"),
        ("infinity", float("-inf"), "content_state.score[1].x", "finite number"),
        ("65 bits", 2**64, "content_state.score[1].x", "64 bits"),
        ("65 bits below", -(2**63) - 1, "content_state.score[1].x", "64 bits"),
        ("Decimal", decimal.Decimal("1.5"), "content_state.score[1].x", "float()"),
        ("UUID", uuid.UUID(int=0), "content_state.score[1].x", "str()"),
        ("bytes", b"abc", "content_state.score[1].x", "base64"),
        ("set", {1, 2}, "content_state.score[1].x", "sorted("),
        ("Enum", Colour.RED, "content_state.score[1].x", ".value"),
        ("IntEnum", Level.HIGH, "content_state.score[1].x", ".value"),
        ("generator", (x for x in ()), "content_state.score[1].x", "list("),
        ("complex", 1j, "content_state.score[1].x", "two numbers"),
        ("object", object(), "content_state.score[1].x", "text, numbers"),
        ("class", Play, "content_state.score[1].x", "an instance"),
        ("named tuple", Point(1, 2), "content_state.score[1].x", "_asdict()"),
        ("surrogate", "a\ud800", "content_state.score[1].x", "Decode the text"),
        ("in a dataclass", Play(AWARE), "content_state.score[1].x.when", "apple_date("),
        ("in a Struct", Score({"a": {1}}), "content_state.score[1].x.home.a", "sorted("),
        ("in a model", Game(clock=[AWARE]), "content_state.score[1].x.clock[0]", "apple_date("),
        ("number as key", {1: "a"}, "content_state.score[1].x", "write it as a str"),
        ("None as key", {None: "a"}, "content_state.score[1].x", "write it as a str"),
        ("Enum as key", {Colour.RED: "a"}, "content_state.score[1].x", "write it as a str"),
        ("surrogate as key", {"\udfff": 1}, "content_state.score[1].x", "Decode the text"),
    )
] + [
    payload("state of text", lambda: update('{"a": 1}'), "content_state", "Pass a mapping"),
    payload("state of a list", lambda: update([1]), "content_state", "Pass a mapping"),
    payload("state of a number", lambda: update(7), "content_state", "Pass a mapping"),
    payload("state of a class", lambda: update(Game), "content_state", "an instance"),
    payload("nested too deeply", lambda: update(deep(32)), "content_state" + ".a" * 32, "Flatten"),
    payload(
        "own member",
        lambda: update(circle()),
        f"{('content_state' + '.again' * 32)[:60]}...{('.again' * 32)[-50:]}",
        "Flatten",
    ),
    payload(
        "attributes", lambda: start(attributes={"when": AWARE}), "attributes.when", "apple_date("
    ),
    payload("custom", lambda: notify(custom={"a": [{1}]}), "custom.a[0]", "sorted("),
    payload("custom aps", lambda: notify(custom={"aps": {}}), "custom.aps", "message's fields"),
    payload("custom as list", lambda: Background_(custom=[1]), "custom", "Pass a mapping"),
]


def Background_(**changes):  # noqa: N802 - stands in for the class
    return encode(Background(**changes), now=NOW)


KEYS = [
    payload("no state", lambda: encode(Update(), now=NOW), "content_state", "all fields"),
    payload("empty alert", lambda: update(alert=Alert()), "alert", "leave the alert out"),
    payload("title", lambda: update(alert=Alert(title=7)), "alert.title", "Localized("),
    payload("body", lambda: update(alert=Alert(body=b"x")), "alert.body", "Localized("),
    payload("body surrogate", lambda: update(alert=Alert(body="\ud800")), "alert.body", "Decode"),
    payload(
        "sound", lambda: update(alert=Alert(title="x", sound={"name": "a"})), "alert.sound", "str"
    ),
    payload(
        "sound with NUL",
        lambda: update(alert=Alert(title="x", sound="a\0.caf")),
        "alert.sound",
        "Strip it",
    ),
    payload("loc key", lambda: Localized(""), "loc_key", "Leave it out"),
    payload("loc args as text", lambda: Localized("K", "abc"), "args", "list of str"),
    payload("loc args as numbers", lambda: Localized("K", ["a", 1]), "args[1]", "str()"),
    payload(
        "relevance NaN", lambda: update(relevance_score=float("nan")), "relevance_score", "finite"
    ),
    payload("relevance text", lambda: update(relevance_score="1"), "relevance_score", "finite"),
    payload("priority 1", lambda: update(priority=1), "priority", "10 or 5"),
    payload("priority 7", lambda: update(priority=7), "priority", "10 or 5"),
    payload("priority text", lambda: update(priority="10"), "priority", "10 or 5"),
    payload("priority true", lambda: update(priority=True), "priority", "10 or 5"),
    payload(
        "priority 2 on a channel",
        lambda: update(priority=2, target="broadcast"),
        "priority",
        "10 or 5 or 1",
    ),
    payload(
        "background at 10", lambda: encode(Background(), now=NOW, priority=10), "priority", "Pass 5"
    ),
    payload(
        "stored on a channel that stores nothing",
        lambda: update(expiration=datetime.timedelta(60), target="broadcast", storage_policy=0),
        "expiration",
        "storage policy 1",
    ),
    payload(
        "storage policy 2",
        lambda: update(target="broadcast", storage_policy=2),
        "storage_policy",
        "Pass 0",
        InvalidSetting,
    ),
    payload("target", lambda: update(target="channel"), "target", "broadcast", InvalidSetting),
    payload(
        "notification on a channel",
        lambda: encode(Notification(body="x"), now=NOW, target="broadcast"),
        "message",
        "Broadcast an Update",
    ),
    payload("a dict as message", lambda: encode({"aps": {}}, now=NOW), "message", "Pass Start"),
]

ORDINARY = [
    payload("nothing", lambda: notify(body=None), "body", "use Background"),
    payload("only a thread", lambda: notify(body="", thread_id="a"), "body", "use Background"),
    payload("badge text", lambda: notify(badge="1"), "badge", "number to show"),
    payload("badge negative", lambda: notify(badge=-1), "badge", "number to show"),
    payload("badge true", lambda: notify(badge=True), "badge", "number to show"),
    payload(
        "level", lambda: notify(interruption_level="urgent"), "interruption_level", "time-sensitive"
    ),
    payload("relevance", lambda: notify(relevance_score=1.5), "relevance_score", "between 0 and 1"),
    payload("mutable", lambda: notify(mutable_content=1), "mutable_content", "True or False"),
    payload("collapse id", lambda: notify(collapse_id="é"), "collapse_id", "ASCII"),
    payload("collapse id long", lambda: notify(collapse_id="x" * 65), "collapse_id", "shorter"),
    payload("collapse id NUL", lambda: notify(collapse_id="a\0"), "collapse_id", "Strip it"),
    payload("collapse id space", lambda: notify(collapse_id=" a"), "collapse_id", "Strip it"),
    payload("category", lambda: notify(category="A\nB"), "category", "Strip it"),
    payload("sound number", lambda: notify(sound=1), "sound", "Pass a str"),
    payload("sound key", lambda: notify(sound={"loud": 1}), "sound", "critical, name and volume"),
    payload("volume", lambda: CriticalSound(volume=11), "sound.volume", "between 0 and 1"),
]

SIZES = [
    payload(
        "device",
        lambda: update({"text": "x" * 4096, "home": 1}),
        "payload",
        "aps.content-state.text 4105",
        PayloadTooLarge,
    ),
    payload(
        "broadcast",
        lambda: update({"text": "x" * 5120}, target="broadcast"),
        "payload",
        "aps.content-state.text 5129",
        PayloadTooLarge,
    ),
    payload(
        "notification",
        lambda: notify(custom={"blob": "é" * 2048}),
        "payload",
        "blob 4105",
        PayloadTooLarge,
    ),
]


@pytest.mark.parametrize(
    "row",
    [*START, *DATES, *VALUES, *KEYS, *ORDINARY, *SIZES],
    ids=lambda row: f"{row.field[:40]}: {row.name}",
)
def test_it_is_refused_with_its_field_and_a_remedy(row):
    check(row)
