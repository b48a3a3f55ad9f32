"""OneSignal's bodies as requests of the service: what is taken, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from apns_live.activities import AlertText, Audience, End, Presentation, Update
from apns_live.activities.people.filters import parse_filter
from apns_live.errors import InvalidInput
from apns_live.gateway.onesignal.live import read_idempotency_key, read_start, read_update
from apns_live.gateway.onesignal.segments import read_filters, write_filters
from apns_live.gateway.onesignal.words import NO_TARGET
from tests.gateway.onesignal.caller import ACTIVITY, change_body, start_body, without

KEY = "6F1E4B2A-0000-4000-8000-00000000AbCd"
TITLES = {"en": "Kick-off", "de": "Anpfiff"}
BODIES = {"en": "It begins", "de": "Es beginnt"}


def start_of(**changes: Any) -> Any:
    return read_start(start_body(**changes), "Match", notification="n-1")


def change_of(event: str = "update", **changes: Any) -> Any:
    return read_update(change_body(event, **changes), "match", notification="n-1")


def test_a_start() -> None:
    asked = start_of()
    request = asked
    assert request.id == ACTIVITY
    assert request.attributes_type == "Match"
    assert request.attributes == {"ground": "Hall 3", "onesignal": {"activityId": ACTIVITY}}
    assert request.content_state == {"home": 0, "away": 0, "onesignal": {"notificationId": "n-1"}}
    assert request.presentation == Presentation(
        alert=AlertText(title=TITLES, body=BODIES, sound="default")
    )
    assert request.audience == Audience(users=("user-0", "user-1"))
    assert request.metadata == {"name": "Boccia final"}
    assert request.dialect == "onesignal"


STARTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"stale_date": 2_000_000_000}, {"stale_date": 2_000_000_000.0}),
    ({"ios_relevance_score": 0.25}, {"relevance_score": 0.25}),
    ({"ios_relevance_score": None}, {}),
    # Drawn as outdated at once: APNs takes no date before 2001.
    ({"stale_date": 1}, {"stale_date": 1e9}),
    ({"stale_date": "2000000000"}, {"stale_date": 2_000_000_000.0}),
    ({"ios_relevance_score": "0.25"}, {"relevance_score": 0.25}),
    ({"priority": "5"}, {"urgency": "quiet"}),
    ({"priority": 5}, {"urgency": "quiet"}),
    ({"priority": 10}, {"urgency": "urgent"}),
    (
        {"ios_sound": "cheer.caf"},
        {"alert": AlertText(title=TITLES, body=BODIES, sound="cheer.caf")},
    ),
    ({"ios_sound": "nil"}, {"alert": AlertText(title=TITLES, body=BODIES)}),
    (
        {"contents": {"en": "x", "fi": "y"}, "headings": {"en": "z", "fi": "w", "fr": None}},
        {
            "alert": AlertText(
                title={"en": "z", "fi": "w"}, body={"en": "x", "fi": "y"}, sound="default"
            )
        },
    ),
    ({"unknown": 1, "sound": "old"}, {}),
]


@pytest.mark.parametrize(("changes", "shown"), STARTS)
def test_what_goes_with_a_start(changes: dict[str, Any], shown: dict[str, Any]) -> None:
    alert = AlertText(title=TITLES, body=BODIES, sound="default")
    assert start_of(**changes).presentation == Presentation(**{"alert": alert, **shown})


@pytest.mark.parametrize("name", ["idempotency_key", "external_id"])
def test_idempotency_keys(name: str) -> None:
    assert read_idempotency_key({name: KEY}) == KEY.lower()


TARGETS: list[tuple[dict[str, Any], Audience]] = [
    (
        {
            "include_aliases": {
                "external_id": ["a"],
                "onesignal_id": ["b"],
                "crm": ["c", "d"],
                "none": [],
                "null": None,
            }
        },
        Audience(users=("a",), user_ids=("b",), aliases={"crm": ("c", "d")}),
    ),
    ({"include_subscription_ids": ["s"]}, Audience(devices=("s",))),
    ({"included_segments": ["All"]}, Audience(segments=("All",))),
    (
        {"included_segments": ["All"], "excluded_segments": ["Bots"]},
        Audience(segments=("All",), exclude_segments=("Bots",)),
    ),
    (
        {
            "filters": [{"field": "language", "relation": "=", "value": "de"}],
            "included_segments": [],
        },
        Audience(filter={"field": "language", "relation": "=", "value": "de"}),
    ),
]


@pytest.mark.parametrize(("target", "audience"), TARGETS)
def test_targets(target: dict[str, Any], audience: Audience) -> None:
    body = {**without(start_body(), "include_aliases"), **target}
    assert read_start(body, "Match", notification="n").audience == audience


def one(name: str, relation: str | None = None, **rest: Any) -> dict[str, Any]:
    given = {"field": name, **rest}
    return given if relation is None else {**given, "relation": relation}


OR = {"operator": "OR"}
AND = {"operator": "AND"}
A = one("tag", "=", key="team", value="red")
B = one("language", "=", value="de")
C = one("country", "=", value="AT")
FILTERS: list[tuple[list[Any], dict[str, Any]]] = [
    ([A], A),
    ([A, B], {"and": [A, B]}),
    ([A, AND, B], {"and": [A, B]}),
    ([A, OR, B], {"or": [A, B]}),
    ([A, B, OR, C], {"or": [{"and": [A, B]}, C]}),
    ([A, OR, B, C], {"or": [A, {"and": [B, C]}]}),
    ([{**A, "hours_ago": None, "operator": None}], A),
    ([{**A, "operator": "OR"}], A),  # an SDK's model that carries its default
    ([one("last_session", ">", hours_ago="1.5")], one("last_session", ">", hours_ago="1.5")),
    ([one("first_session", "<", value="2")], one("first_session", "<", hours_ago="2")),
    (
        [one("location", lat=1.0, long=2.0, radius=50)],
        one("location", "within", lat=1.0, long=2.0, radius=50),
    ),
    (
        [one("tag", "in_array", key="team", value="red, blue")],
        one("tag", "in_array", key="team", value=["red", "blue"]),
    ),
    (
        [one("tag", "not_in_array", key="team", value=["red"])],
        one("tag", "not_in_array", key="team", value=["red"]),
    ),
    ([one("tag", "exists", key="team")], one("tag", "exists", key="team")),
    (
        [one("tag", "time_elapsed_gt", key="at", value="60")],
        one("tag", "time_elapsed_gt", key="at", value="60"),
    ),
    ([one("session_count", ">", value="3")], one("session_count", ">", value="3")),
    ([one("app_version", ">=", value="1.2")], one("app_version", ">=", value="1.2")),
]


@pytest.mark.parametrize(("given", "tree"), FILTERS)
def test_filters(given: list[Any], tree: dict[str, Any]) -> None:
    found = read_filters(given)
    assert found == tree
    parse_filter(found)
    written = write_filters(found)
    assert written is not None
    assert read_filters(written) == tree


BAD_FILTERS: list[Any] = [
    [],
    {},
    [5],
    [OR],
    [A, OR],
    [OR, A],
    [A, OR, OR, B],
    [A, {"operator": "XOR"}, B],
    [A] * 201,
]


@pytest.mark.parametrize("given", BAD_FILTERS)
def test_filters_that_say_nothing_are_refused(given: Any) -> None:
    with pytest.raises(InvalidInput):
        read_filters(given)


@pytest.mark.parametrize(
    "given",
    [[one("bought_sku", "=", value="x")], [one("tag", "like", key="a", value="b")], [one("tag")]],
)
def test_filters_that_are_unknown_here_are_refused_when_compiled(given: Any) -> None:
    with pytest.raises(InvalidInput):
        parse_filter(read_filters(given))


def test_a_tree_that_no_list_can_say() -> None:
    assert write_filters({"not": A}) is None
    assert write_filters({"and": [A, {"or": [B, C]}]}) is None


BAD_STARTS: list[tuple[dict[str, Any], str]] = [
    ({"event": "begin"}, "event"),
    ({"event": None}, "event"),
    ({"activity_id": ""}, "activity_id"),
    ({"activity_id": None}, "activity_id"),
    ({"activity_id": "."}, "activity_id"),
    ({"activity_id": ".."}, "activity_id"),
    ({"name": None}, "name"),
    ({"name": "x" * 129}, "name"),
    ({"event_attributes": None}, "event_attributes"),
    ({"event_updates": []}, "event_updates"),
    ({"contents": None}, "contents"),
    ({"contents": {"de": "x"}}, "contents"),
    ({"contents": "x"}, "contents"),
    ({"contents": {"en": 5}}, "contents.en"),
    ({"contents": {"en": "x", "e n": "y"}}, "contents.e n"),
    ({"headings": {}}, "headings"),
    ({"stale_date": "2030"}, "stale_date"),
    ({"stale_date": True}, "stale_date"),
    ({"stale_date": 1.8e12}, "stale_date"),
    ({"priority": 7}, "priority"),
    ({"priority": "high"}, "priority"),
    ({"priority": [10]}, "priority"),
    ({"ios_sound": ""}, "ios_sound"),
    ({"ios_sound": 5}, "ios_sound"),
    ({"ios_relevance_score": 1.5}, "ios_relevance_score"),
    ({"ios_relevance_score": True}, "ios_relevance_score"),
    ({"include_aliases": {"external_id": "a"}}, "include_aliases.external_id"),
    ({"include_aliases": {"external_id": [5]}}, "include_aliases.external_id[0]"),
    ({"include_aliases": []}, ""),
    ({"include_aliases": ["a"]}, "include_aliases"),
    ({"include_aliases": {"external_id": []}}, ""),
    ({"include_aliases": {"external_id": ["x"] * 20_001}}, "include_aliases.external_id"),
    ({"include_aliases": {"external_id": ["x"] * 15_000, "crm": ["x"] * 5_001}}, "include_aliases"),
    ({"include_subscription_ids": ["s"]}, "include_aliases and include_subscription_ids"),
    ({"excluded_segments": ["s"]}, "excluded_segments"),
]


@pytest.mark.parametrize(("changes", "field"), BAD_STARTS)
def test_bad_starts(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        start_of(**changes)
    assert caught.value.field == field
    if not field:
        assert caught.value.problem == NO_TARGET


@pytest.mark.parametrize(
    "body",
    [{"idempotency_key": "again"}, {"idempotency_key": KEY.replace("-", "")}, {"external_id": 5}],
)
def test_bad_idempotency_keys(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_idempotency_key(body)
    assert caught.value.field in body


@pytest.mark.parametrize("name", ["a b", "", "x" * 200])
def test_bad_activity_types(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_start(start_body(), name, notification="n")
    assert caught.value.field == "activity_type"


def test_an_update() -> None:
    assert change_of() == Update(
        id="match",
        content_state={"home": 1, "away": 0, "onesignal": {"notificationId": "n-1"}},
        dialect="onesignal",
        operation="n-1",
    )


CHANGES: list[tuple[dict[str, Any], Presentation]] = [
    ({}, Presentation()),
    ({"stale_date": 2_000_000_000}, Presentation(stale_date=2_000_000_000.0)),
    ({"priority": 5}, Presentation(urgency="quiet")),
    (
        {"headings": TITLES, "contents": BODIES},
        Presentation(alert=AlertText(title=TITLES, body=BODIES, sound="default")),
    ),
    (
        {"headings": TITLES, "contents": BODIES, "ios_sound": "nil"},
        Presentation(alert=AlertText(title=TITLES, body=BODIES)),
    ),
    # Without a title ActivityKit drops the sound.
    (
        {"contents": BODIES, "ios_sound": "cheer.caf"},
        Presentation(alert=AlertText(title="", body=BODIES)),
    ),
    ({"ios_sound": "cheer.caf"}, Presentation()),
    ({"dismissal_date": 2_000_000_000}, Presentation()),
]


@pytest.mark.parametrize(("changes", "shown"), CHANGES)
def test_what_goes_with_an_update(changes: dict[str, Any], shown: Presentation) -> None:
    assert change_of(**changes).presentation == shown


@pytest.mark.parametrize(
    ("changes", "dismissal"),
    [
        ({}, None),
        ({"dismissal_date": 2_000_000_000}, 2_000_000_000.0),
        ({"dismiss_at": 2_000_000_000}, 2_000_000_000.0),
        ({"dismissal_date": 2_000_000_000, "dismiss_at": 1}, 2_000_000_000.0),
        ({"dismissal_date": 5}, 0.0),
    ],
)
def test_an_end(changes: dict[str, Any], dismissal: float | None) -> None:
    request = change_of("end", **changes)
    assert isinstance(request, End)
    assert request.presentation == Presentation(dismissal_date=dismissal)
    assert request.content_state is not None


def test_an_end_without_a_state() -> None:
    assert change_of("end", event_updates={}).content_state is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"event": "start"}, "event"),
        ({"event": 5}, "event"),
        ({"name": ""}, "name"),
        ({"event_updates": None}, "event_updates"),
        ({"dismissal_date": "now"}, "dismissal_date"),
        ({"ios_sound": 5}, "ios_sound"),
        ({"headings": {"de": "x"}}, "headings"),
    ],
)
def test_bad_changes(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_update({**change_body(), **changes}, "match", notification="n")
    assert caught.value.field == field
