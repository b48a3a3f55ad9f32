"""Bad starts, updates, ends and puts of streams, and the field that each refusal names."""

from __future__ import annotations

import datetime
from typing import Any

from apns_live.activities.accept.idempotency import Key
from apns_live.activities.requests import AlertText, Audience, End, Presentation, Update
from tests.activities.bad_calls import MILLISECONDS, NOW, Call, Custom, Entry, deep
from tests.activities.world import ALERT, a_key, a_start


def starts(key: bool = True, **changes: Any) -> Call:
    return lambda world: world.activities.start(
        world.app, a_start(**changes), key=a_key("k") if key else None
    )


def updates(**changes: Any) -> Call:
    request = Update(**{"id": "running", "content_state": {"home": 1}, **changes})
    return lambda world: world.activities.update(world.app, request, key=a_key("k"))


def ends(**changes: Any) -> Call:
    request = End(**{"id": "running", **changes})
    return lambda world: world.activities.end(world.app, request, key=a_key("k"))


def puts(**changes: Any) -> Call:
    request = a_start(**{"id": None, "stream_key": "nightly", **changes})
    return lambda world: world.streams.put(world.app, request, key=a_key("k"))


def shown(**values: Any) -> Presentation:
    return Presentation(**{"alert": ALERT.alert, **values})


STATES: list[tuple[str, Any]] = [
    ("content_state", None),
    ("content_state", [1]),
    ("content_state", "text"),
    ("content_state.n", {"n": float("nan")}),
    ("content_state.n", {"n": float("inf")}),
    ("content_state.n", {"n": 2**64}),
    ("content_state.when", {"when": datetime.datetime.now(datetime.UTC)}),
    ("content_state.who", {"who": Custom()}),
    ("content_state.who", {"who": {1, 2}}),
    ("content_state", {1: "number"}),
    ("content_state.text", {"text": "\ud800"}),
    ("content_state", deep(40)),
    ("content_state", deep(5_000)),
    ("payload", {"text": "x" * 5_000}),
]

PRESENTATIONS: list[tuple[str, Any]] = [
    ("presentation", None),
    ("presentation", "alert"),
    ("presentation.alert", Presentation(alert="Goal")),  # type: ignore[arg-type]
    ("presentation.alert.title", shown(alert=AlertText(title=5, body="x"))),  # type: ignore[arg-type]
    ("presentation.alert.title", shown(alert=AlertText(title={"de": "Tor"}, body="x"))),
    ("presentation.alert.title.x!", shown(alert=AlertText(title={"en": "a", "x!": "b"}, body="x"))),
    ("presentation.alert.body", shown(alert=AlertText(title="a", body={"en": 5}))),  # type: ignore[dict-item]
    ("alert.sound", shown(alert=AlertText(title="a", body="b", sound=""))),
    ("presentation.stale_after", shown(stale_after=-1.0)),
    ("presentation.stale_after", shown(stale_after=float("nan"))),
    ("presentation.stale_after", shown(stale_after="60")),
    ("stale_date", shown(stale_date=NOW * 1000.0)),
    ("presentation.stale_date", shown(stale_date="soon")),
    ("relevance_score", shown(relevance_score=float("inf"))),
    ("presentation.relevance_score", shown(relevance_score="high")),
    ("presentation.urgency", shown(urgency="now")),
]

LABELS: list[tuple[str, dict[str, Any]]] = [
    ("tags[0]", {"tags": ("\ud800",)}),
    ("metadata.a", {"metadata": {"a": "\ud800"}}),
    ("metadata", {"metadata": {"\ud800": "a"}}),
    ("tags", {"tags": "text"}),
    ("tags[0]", {"tags": ("",)}),
    ("tags[0]", {"tags": ("x" * 65,)}),
    ("tags", {"tags": tuple(str(n) for n in range(21))}),
    ("tags", {"tags": (5,)}),
    ("metadata", {"metadata": {"a": [1]}}),
    ("metadata", {"metadata": {"a": None}}),
    ("metadata", {"metadata": {"": 1}}),
    ("metadata.a", {"metadata": {"a": float("nan")}}),
    ("metadata.a", {"metadata": {"a": "x" * 4_001}}),
    ("metadata", {"metadata": {str(n): n for n in range(51)}}),
    ("metadata", {"metadata": {f"k{n}": "x" * 4_000 for n in range(5)}}),
]

KEYS: list[tuple[str, Key]] = [
    ("idempotency_key", Key(caller="server", key="")),
    ("idempotency_key", Key(caller="server", key="a\nb")),
    ("idempotency_key", Key(caller="server", key="x" * 256)),
    ("idempotency_key", Key(caller="server", key=5)),  # type: ignore[arg-type]
]

START: list[Entry] = [
    ("id", starts(id="")),
    ("id", starts(id="a\nb")),
    ("id", starts(id=" a")),
    ("id", starts(id="x" * 256)),
    ("id", starts(id=5)),
    ("attributes_type", starts(attributes_type="")),
    ("attributes_type", starts(attributes_type="com.example.Match")),
    ("attributes_type", starts(attributes_type=None)),
    ("attributes", starts(attributes=[1])),
    ("attributes.n", starts(attributes={"n": float("nan")})),
    ("attributes", starts(attributes={"who": Custom()})),
    ("attributes.onesignal", starts(attributes={"onesignal": 5}, id_attribute="onesignal.id")),
    ("audience", starts(audience=Audience())),
    ("audience", starts(audience=None)),
    ("audience.users", starts(audience=Audience(users=(5,)))),  # type: ignore[arg-type]
    ("environment", starts(environment="test")),
    ("channel", starts(channel="not base64!")),
    ("revision", starts(revision="1")),
    ("revision", starts(revision=2**63)),
    ("start_at", starts(start_at=MILLISECONDS)),
    ("start_at", starts(start_at=-1.0)),
    ("start_at", starts(start_at=float("nan"))),
    ("start_at", starts(start_at="noon")),
    ("end_at", starts(end_at=NOW - 1.0)),
    ("end_at", starts(start_at=NOW + 60.0, end_at=NOW + 60.0)),
    ("end_at", starts(end_at=float("inf"))),
    ("end_presentation", starts(end_presentation=Presentation(dismiss_after=1.0))),
    (
        "end_presentation.dismiss_after",
        starts(end_at=NOW + 60.0, end_presentation=Presentation(dismiss_after=-1.0)),
    ),
    ("presentation.alert", starts(presentation=Presentation())),
    ("presentation.dismiss", starts(presentation=shown(dismiss_after=5.0))),
    ("presentation.dismiss", starts(presentation=shown(dismissal_date=NOW + 5.0))),
    ("stream_key", starts(stream_key="a b")),
    ("dialect", starts(dialect="x" * 17)),
    *((field, starts(content_state=state)) for field, state in STATES),
    *((field, starts(presentation=value)) for field, value in PRESENTATIONS),
    *((field, starts(**changes)) for field, changes in LABELS),
    *(
        (field, lambda world, key=key: world.activities.start(world.app, a_start(), key=key))
        for field, key in KEYS
    ),
]

CHANGE: list[Entry] = [
    ("id", updates(id="")),
    ("id", updates(id=5)),
    ("revision", updates(revision="1")),
    ("revision", updates(revision=2**63)),
    ("presentation.dismiss", updates(presentation=Presentation(dismiss_after=5.0))),
    *((field, updates(content_state=state)) for field, state in STATES),
    *((field, updates(presentation=value)) for field, value in PRESENTATIONS),
    *((field, updates(**changes)) for field, changes in LABELS),
    ("id", ends(id="")),
    ("reason", ends(reason=5)),
    ("reason", ends(reason="x" * 65)),
    ("presentation.dismiss_after", ends(presentation=Presentation(dismiss_after=-1.0))),
    ("dismissal_date", ends(presentation=Presentation(dismissal_date=NOW * 1000.0))),
    *((field, ends(content_state=state)) for field, state in STATES[1:]),
    *((field, ends(**changes)) for field, changes in LABELS),
    *(
        (field, lambda world, key=key: world.activities.end(world.app, End(id="running"), key=key))
        for field, key in KEYS
    ),
]

STREAM: list[Entry] = [
    ("stream_key", puts(stream_key=None)),
    ("stream_key", puts(stream_key="")),
    ("stream_key", puts(stream_key="a/b")),
    ("stream_key", puts(stream_key="x" * 256)),
    ("audience", puts(audience=Audience())),
    (
        "content_state.n",
        lambda world: world.streams.put(
            world.app,
            a_start(id=None, stream_key="nightly"),
            change=Update(id="", content_state={"n": float("nan")}),
        ),
    ),
    ("revision", puts(revision="1")),
    *((field, puts(content_state=state)) for field, state in STATES),
    *((field, puts(presentation=value)) for field, value in PRESENTATIONS),
    *((field, puts(**changes)) for field, changes in LABELS),
    ("stream_key", lambda world: world.streams.end(world.app, "a b")),
    ("stream_key", lambda world: world.streams.pause(world.app, "")),
    ("stream_key", lambda world: world.streams.resume(world.app, "a b")),
    *(
        (
            field,
            lambda world, state=state: world.streams.end(
                world.app, "nightly", End(id="", content_state=state)
            ),
        )
        for field, state in STATES[1:]
    ),
    *(
        (
            field,
            lambda world, state=state: world.streams.pause(
                world.app, "nightly", End(id="", content_state=state)
            ),
        )
        for field, state in STATES[1:]
    ),
]
