"""Braze's bodies as requests of the service: one table for what is taken, one for what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from apns_live.activities import AlertText, Audience, End, Presentation, Update
from apns_live.activities.people.filters import parse_filter
from apns_live.activities.requests import CatalogText
from apns_live.errors import InvalidInput
from apns_live.gateway.braze.translate import GONE, read_audience, read_start, read_update
from apns_live.gateway.reading import moment as read_date
from tests.gateway.braze.test_life import start_body, update_body

NOW = 1_800_000_000.0
ALERT = AlertText(title="Live Activity", body="It's game time!")


def update_of(body: Any) -> Any:
    return read_update(body, now=NOW)


def test_a_start() -> None:
    asked = read_start(start_body(), now=NOW)
    request = asked
    assert request.id == "match-17"
    assert request.attributes_type == "Match"
    assert request.attributes == {
        "gameType": "Boccia",
        "gameNumber": "12",
        "brazeActivityId": "match-17",
    }
    assert request.content_state == {"teamOneScore": 0, "teamTwoScore": 0}
    # A phone heeds the dismissal date with an end only, so the service ends it then.
    assert (request.end_at, request.end_presentation) == (2_210_803_200.0, GONE)
    assert request.presentation == Presentation(alert=ALERT, stale_date=2_210_864_149.0)
    assert request.audience == Audience(users=("user-0", "user-1"))
    assert request.dialect == "braze"


def test_what_the_caller_says_of_the_id_is_overridden() -> None:
    asked = read_start(start_body(activity_attributes={"brazeActivityId": "x"}), now=NOW)
    assert asked.attributes == {"brazeActivityId": "match-17"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-22T00:00:00+0000", 1_705_881_600.0),
        ("2024-01-22T00:00:00+00:00", 1_705_881_600.0),
        ("2024-01-22T00:00:00Z", 1_705_881_600.0),
        ("2024-01-22T00:00:00", 1_705_881_600.0),
        ("2024-01-22", 1_705_881_600.0),
        ("2024-01-22T02:00:00.500+0200", 1_705_881_600.5),
    ],
)
def test_dates(text: str, seconds: float) -> None:
    assert read_date(text, "stale_date") == seconds


@pytest.mark.parametrize("value", ["", "soon", "2024-13-01T00:00:00Z", 5, None, [], "9" * 50])
def test_bad_dates(value: Any) -> None:
    with pytest.raises(InvalidInput, match="ISO 8601"):
        read_date(value, "stale_date")


NOTIFICATIONS: list[tuple[Any, Presentation]] = [
    (None, Presentation()),
    ({}, Presentation()),
    ({"alert": "Goal"}, Presentation(alert=AlertText(title="", body="Goal"))),
    (
        {"alert": {"title": "Goal", "body": "1:0", "sound": "cheer.caf"}},
        Presentation(alert=AlertText(title="Goal", body="1:0", sound="cheer.caf")),
    ),
    ({"alert": {"title": "Goal"}}, Presentation(alert=AlertText(title="Goal", body=""))),
    ({"alert": {}}, Presentation()),
    (
        {"alert": {"title_loc_key": "GOAL", "title_loc_args": ["Reds"], "loc_key": "SCORE"}},
        Presentation(
            alert=AlertText(
                title="",
                body="",
                title_key=CatalogText(key="GOAL", args=("Reds",)),
                body_key=CatalogText(key="SCORE"),
            )
        ),
    ),
    ({"relevance_score": 0.5}, Presentation(relevance_score=0.5)),
    ({"content-available": True}, Presentation(urgency="quiet")),
    ({"content-available": 1}, Presentation(urgency="quiet")),
    ({"content-available": "1"}, Presentation(urgency="quiet")),
    ({"content-available": "0"}, Presentation()),
    ({"content-available": False}, Presentation()),
    ({"content-available": "true"}, Presentation(urgency="quiet")),
    ({"content_available": 1}, Presentation(urgency="quiet")),
    ({"relevance_score": "0.5"}, Presentation(relevance_score=0.5)),
    ({"apns_priority": "5"}, Presentation(urgency="quiet")),
    (
        {"alert": {"title": None, "body": "1:0", "title_loc_args": None}, "apns_priority": None},
        Presentation(alert=AlertText(title="", body="1:0")),
    ),
    ({"content-available": True, "apns_priority": 10}, Presentation(urgency="urgent")),
    ({"apns_priority": 5}, Presentation(urgency="quiet")),
    ({"apns_priority": 1}, Presentation(urgency="quiet")),
    (
        {
            "badge": 3,
            "sound": "default",
            "extra": {"a": 1},
            "custom_uri": "app://x",
            "category": "c",
            "buttons": [],
            "mutable_content": True,
            "collapse_id": "c",
            "expiry": "2040-01-01T00:00:00Z",
            "message_variation_id": "m",
        },
        Presentation(),
    ),
]


@pytest.mark.parametrize(("notification", "presentation"), NOTIFICATIONS)
def test_what_counts_of_a_notification(notification: Any, presentation: Presentation) -> None:
    asked = update_of(update_body(1, 0, notification=notification))
    assert asked == Update(
        id="match-17",
        content_state={"teamOneScore": 1, "teamTwoScore": 0},
        presentation=presentation,
        dialect="braze",
    )


@pytest.mark.parametrize(
    ("changes", "dismissal"),
    [
        ({}, None),
        ({"dismissal_date": "2040-01-22T00:00:00+0000"}, 2_210_803_200.0),
        ({"dismissal_date": "1999-01-01T00:00:00+0000"}, 0.0),
    ],
)
def test_an_end(changes: dict[str, Any], dismissal: float | None) -> None:
    asked = update_of(update_body(1, 0, end_activity=True, **changes))
    assert isinstance(asked, End)
    assert asked.presentation == Presentation(dismissal_date=dismissal)


@pytest.mark.parametrize("given", [True, "true", "1", 1])
def test_an_end_is_one_as_text_too(given: Any) -> None:
    assert isinstance(update_of(update_body(1, 0, end_activity=given)), End)


def test_a_stale_date_of_long_ago_draws_the_card_as_outdated() -> None:
    """1970 is what servers write for "now outdated"; APNs takes no date before 2001."""
    for date in ("1970-01-01T00:00:00+0000", "0001-01-01T00:00:00Z"):
        asked = read_start(start_body(stale_date=date), now=NOW)
        assert asked.presentation.stale_date == 1e9
        assert update_of(update_body(1, 0, stale_date=date)).presentation.stale_date == 1e9


def test_a_dismissal_date_on_an_update_is_the_time_of_the_end() -> None:
    asked = update_of(update_body(1, 0, end_activity=False, dismissal_date="2040-01-22"))
    assert isinstance(asked, Update)
    assert asked.presentation == Presentation()
    assert (asked.end_at, asked.end_presentation) == (2_210_803_200.0, GONE)
    asked = update_of(update_body(1, 0, dismissal_date="2024-01-22T00:00:00+0000"))
    assert isinstance(asked, End)
    assert asked.presentation == Presentation(dismissal_date=0.0)


TARGETS: list[tuple[dict[str, Any], Audience]] = [
    ({"external_user_ids": ["a"]}, Audience(users=("a",))),
    ({"segment_id": "s-1"}, Audience(segments=("s-1",))),
    (
        {
            "custom_audience": {
                "custom_attribute": {
                    "custom_attribute_name": "team",
                    "comparison": "equals",
                    "value": "red",
                }
            }
        },
        Audience(filter={"field": "custom", "key": "team", "relation": "=", "value": "red"}),
    ),
    (
        {"audience": {"push_subscription_status": {"comparison": "is", "value": "opted_in"}}},
        Audience(filter={"field": "push_enabled", "relation": "=", "value": True}),
    ),
]


@pytest.mark.parametrize(("target", "audience"), TARGETS)
def test_targets(target: dict[str, Any], audience: Audience) -> None:
    body = start_body(**target)
    if "external_user_ids" not in target:
        del body["external_user_ids"]
    assert read_start(body, now=NOW).audience == audience


def custom(comparison: str, value: Any = ...) -> dict[str, Any]:
    given = {"custom_attribute_name": "a", "comparison": comparison}
    return {"custom_attribute": given if value is ... else {**given, "value": value}}


def tree(relation: str, value: Any = ...) -> dict[str, Any]:
    given = {"field": "custom", "key": "a", "relation": relation}
    return given if value is ... else {**given, "value": value}


AUDIENCES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (custom("equals", "x"), tree("=", "x")),
    (custom("equals", True), tree("=", True)),
    (custom("not_equal", 4), tree("!=", 4)),
    (custom("does_not_equal", False), tree("!=", False)),
    (custom("includes_value", "pizza"), tree("=", "pizza")),
    (custom("does_not_include_value", "pizza"), tree("!=", "pizza")),
    (custom("greater_than", 1), tree(">", 1)),
    (custom("greater_than_or_equal_to", 1), tree(">=", 1)),
    (custom("less_than", 1.5), tree("<", 1.5)),
    (custom("less_than_or_equal_to", 1), tree("<=", 1)),
    (custom("exists"), tree("exists")),
    (custom("does_not_exist"), tree("not_exists")),
    (custom("after", "2024-01-22T00:00:00Z"), tree(">", 1_705_881_600_000.0)),
    (custom("before", "2024-01-22T00:00:00Z"), tree("<", 1_705_881_600_000.0)),
    (
        custom("less_than_x_days_ago", 2),
        {"and": [tree("time_elapsed_lt", 172_800), tree("time_elapsed_gt", -0.0)]},
    ),
    (custom("greater_than_x_days_ago", 1), tree("time_elapsed_gt", 86_400)),
    (
        custom("less_than_x_days_in_the_future", 1),
        {"and": [tree("time_elapsed_lt", 0.0), tree("time_elapsed_gt", -86_400)]},
    ),
    (custom("greater_than_x_days_in_the_future", 1), tree("time_elapsed_lt", -86_400)),
    (
        {"push_subscription_status": {"comparison": "is_not", "value": "unsubscribed"}},
        {"field": "push_enabled", "relation": "=", "value": True},
    ),
    (
        {"push_subscription_status": {"comparison": "is_not", "value": "subscribed"}},
        {"field": "push_enabled", "relation": "=", "value": False},
    ),
    (
        {"last_used_app": {"comparison": "after", "value": "2027-01-15T07:00:00Z"}},
        {"field": "last_session", "relation": "<", "hours_ago": 1.0},
    ),
    (
        {"last_used_app": {"comparison": "before", "value": "2099-01-01T00:00:00Z"}},
        {"field": "last_session", "relation": ">", "hours_ago": 0.0},
    ),
    (
        {"AND": [custom("exists"), {"OR": [custom("equals", "x"), custom("equals", "y")]}]},
        {"and": [tree("exists"), {"or": [tree("=", "x"), tree("=", "y")]}]},
    ),
]


@pytest.mark.parametrize(("given", "expected"), AUDIENCES)
def test_connected_audiences(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = read_audience(given, "custom_audience", now=1_800_000_000.0)
    assert found == expected
    parse_filter(found)


BAD_AUDIENCES: list[Any] = [
    [],
    {},
    {"AND": []},
    {"AND": [custom("exists")], "OR": [custom("exists")]},
    {"AND": [None]},
    {"custom_attribute": None},
    {"custom_attribute": {"comparison": "exists"}},
    custom("matches_regex", "x+"),
    custom("equals"),
    custom("equals", [1]),
    custom("greater_than", "7"),
    custom("less_than_x_days_ago", -1),
    custom("after", "yesterday"),
    {"email_subscription_status": {"comparison": "is", "value": "subscribed"}},
    {"push_subscription_status": {"comparison": "is", "value": "maybe"}},
    {"push_subscription_status": {"comparison": "equals", "value": "subscribed"}},
    {"last_used_app": {"comparison": "is", "value": "2024-01-22T00:00:00Z"}},
    {"last_used_app": {"comparison": "after"}},
]


@pytest.mark.parametrize("given", BAD_AUDIENCES)
def test_an_audience_that_cannot_be_said_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInput):
        read_audience(given, "custom_audience", now=NOW)


def test_an_audience_nested_too_deep_is_refused() -> None:
    deep: Any = custom("exists")
    for _ in range(20):
        deep = {"AND": [deep]}
    with pytest.raises(InvalidInput, match="deep"):
        read_audience(deep, "custom_audience", now=NOW)


BAD_STARTS: list[tuple[dict[str, Any], str]] = [
    ({"app_id": None}, "app_id"),
    ({"activity_id": ""}, "activity_id"),
    ({"activity_id": "x" * 256}, "activity_id"),
    ({"activity_id": 7}, "activity_id"),
    ({"activity_attributes_type": "a b"}, "activity_attributes_type"),
    ({"activity_attributes": []}, "activity_attributes"),
    ({"content_state": None}, "content_state"),
    ({"notification": None}, "notification"),
    ({"notification": {}}, "notification.alert"),
    ({"notification": {"alert": "text"}}, "notification.alert"),
    ({"notification": {"alert": {"body": "x"}}}, "notification.alert.title"),
    ({"notification": {"alert": {"title": "x"}}}, "notification.alert.body"),
    ({"stale_date": "tomorrow"}, "stale_date"),
    ({"dismissal_date": 5}, "dismissal_date"),
    ({"external_user_ids": []}, ""),
    ({"external_user_ids": None}, ""),
    ({"external_user_ids": ["x"] * 51}, "external_user_ids"),
    ({"external_user_ids": "x"}, "external_user_ids"),
    ({"external_user_ids": [5]}, "external_user_ids[0]"),
    ({"segment_id": "s"}, "external_user_ids and segment_id"),
]


@pytest.mark.parametrize(("changes", "field"), BAD_STARTS)
def test_bad_starts(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_start(start_body(**changes), now=NOW)
    assert caught.value.field == field


def test_the_limit_of_external_ids_can_be_lifted() -> None:
    body = start_body(external_user_ids=[f"u{n}" for n in range(51)])
    assert len(read_start(body, now=NOW, max_ids=None).audience.users) == 51


BAD_UPDATES: list[tuple[dict[str, Any], str]] = [
    ({"app_id": 5}, "app_id"),
    ({"activity_id": None}, "activity_id"),
    ({"content_state": []}, "content_state"),
    ({"end_activity": "soon"}, "end_activity"),
    ({"notification": []}, "notification"),
    ({"notification": {"alert": 5}}, "notification.alert"),
    ({"notification": {"alert": {"title": 5}}}, "notification.alert.title"),
    ({"notification": {"alert": {"loc_key": 5}}}, "notification.alert.loc_key"),
    (
        {"notification": {"alert": {"loc_key": "a", "loc_args": [5]}}},
        "notification.alert.loc_args[0]",
    ),
    ({"notification": {"relevance_score": 2}}, "notification.relevance_score"),
    ({"notification": {"apns_priority": 11}}, "notification.apns_priority"),
    ({"notification": {"apns_priority": True}}, "notification.apns_priority"),
    ({"notification": {"extra": {"aps": {}}}}, "notification.extra"),
    ({"notification": {"extra": []}}, "notification.extra"),
]


@pytest.mark.parametrize(("changes", "field"), BAD_UPDATES)
def test_bad_updates(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        update_of(update_body(1, 0, **changes))
    assert caught.value.field == field
