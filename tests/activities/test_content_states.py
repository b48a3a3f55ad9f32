"""The rules of each typed content state, as tables."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.activities.cards.content_states import auto_dismiss_seconds, equal, normalise
from apns_live.errors import InvalidPayload

NOW = 1_800_000_000.0

STEPS = {"type": "segmented_progress", "title": "Build", "number_of_steps": 4, "current_step": 2}
TIMER = {"type": "timer", "title": "Tea", "duration_seconds": 240}


@pytest.mark.parametrize(
    ("given_state", "expected"),
    [
        (STEPS, STEPS),
        (STEPS | {"current_step": 0}, STEPS | {"current_step": 0}),
        (STEPS | {"step_colors": ["lime", "red"]}, STEPS | {"step_colors": ["lime", "red"]}),
        (
            {"type": "progress", "title": "Copy", "percentage": 12.5},
            {"type": "progress", "title": "Copy", "percentage": 12.5},
        ),
        (
            {"type": "progress", "title": "C", "percentage": 5, "value": 1, "upper_limit": 3},
            {"type": "progress", "title": "C", "percentage": 5},
        ),
        (
            {"type": "progress", "title": "C", "value": 1, "upper_limit": 3},
            {"type": "progress", "title": "C", "value": 1, "upper_limit": 3},
        ),
        (
            {"type": "metrics", "title": "Host", "metrics": [{"label": "CPU", "value": 9.0}]},
            {"type": "metrics", "title": "Host", "metrics": [{"label": "CPU", "value": 9.0}]},
        ),
        (
            {
                "type": "stats",
                "title": "Day",
                "metrics": [{"label": "Steps", "value": "1,200", "unit": "", "color": "cyan"}],
            },
            {
                "type": "stats",
                "title": "Day",
                "metrics": [{"label": "Steps", "value": "1,200", "unit": "", "color": "cyan"}],
            },
        ),
        (
            {"type": "alert", "title": "A", "message": "M", "badge": {"title": "New"}},
            {"type": "alert", "title": "A", "message": "M", "badge": {"title": "New"}},
        ),
        (
            {"type": "value", "title": "V", "value": "12 °C"},
            {"type": "value", "title": "V", "value": "12 °C"},
        ),
        (
            {"type": "value", "title": "V", "value": -3},
            {"type": "value", "title": "V", "value": -3},
        ),
        (
            {"type": "counter", "title": "L", "number_of_steps": 3, "current_step": 1},
            {"type": "counter", "title": "L", "number_of_steps": 3, "current_step": 1},
        ),
        (
            {"type": "timer", "title": "L", "number_of_steps": 3, "current_step": 1},
            {"type": "countdown", "title": "L", "number_of_steps": 3, "current_step": 1},
        ),
        (  # a field that the type does not have is left out
            {
                "type": "alert",
                "title": "A",
                "message": "M",
                "counts_down": True,
                "is_running": True,
            },
            {"type": "alert", "title": "A", "message": "M"},
        ),
    ],
)
def test_a_state_that_keeps_the_rules(
    given_state: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert normalise(given_state, phase="start", now=NOW) == expected


@pytest.mark.parametrize(
    ("state", "field"),
    [
        ([], "content_state"),
        ({"title": "x"}, "content_state.type"),
        ({"type": "pie", "title": "x"}, "content_state.type"),
        ({"type": 7, "title": "x"}, "content_state.type"),
        ({"type": "alert", "message": "m"}, "content_state.title"),
        ({"type": "alert", "title": ""}, "content_state.title"),
        ({"type": "alert", "title": "x", "message": ""}, "content_state.message"),
        ({"type": "alert", "title": "x", "message": "m", "color": "teal"}, "content_state.color"),
        (
            {"type": "alert", "title": "x", "message": "m", "icon": {"color": "red"}},
            "content_state.icon.symbol",
        ),
        ({"type": "alert", "title": "x", "message": "m", "badge": "b"}, "content_state.badge"),
        (
            {k: v for k, v in STEPS.items() if k != "number_of_steps"},
            "content_state.number_of_steps",
        ),
        ({k: v for k, v in STEPS.items() if k != "current_step"}, "content_state.current_step"),
        (STEPS | {"current_step": 5}, "content_state.current_step"),
        (STEPS | {"current_step": -1}, "content_state.current_step"),
        (STEPS | {"current_step": 1.5}, "content_state.current_step"),
        (STEPS | {"number_of_steps": 0}, "content_state.number_of_steps"),
        (STEPS | {"step_colors": "red"}, "content_state.step_colors"),
        (STEPS | {"step_colors": ["red", "beige"]}, "content_state.step_colors[1]"),
        ({"type": "progress", "title": "x"}, "content_state.percentage"),
        ({"type": "progress", "title": "x", "percentage": 101}, "content_state.percentage"),
        ({"type": "progress", "title": "x", "percentage": True}, "content_state.percentage"),
        ({"type": "progress", "title": "x", "value": 1}, "content_state.upper_limit"),
        ({"type": "progress", "title": "x", "upper_limit": 1}, "content_state.value"),
        (
            {"type": "progress", "title": "x", "value": 1, "upper_limit": 0},
            "content_state.upper_limit",
        ),
        ({"type": "metrics", "title": "x", "metrics": []}, "content_state.metrics"),
        (
            {"type": "stats", "title": "x", "metrics": [{"label": "l", "value": 1}] * 9},
            "content_state.metrics",
        ),
        (
            {"type": "metrics", "title": "x", "metrics": [{"value": 1}]},
            "content_state.metrics[0].label",
        ),
        (
            {"type": "metrics", "title": "x", "metrics": [{"label": "l", "value": -1}]},
            "content_state.metrics[0].value",
        ),
        (
            {"type": "metrics", "title": "x", "metrics": [{"label": "l", "value": "v" * 65}]},
            "content_state.metrics[0].value",
        ),
        ({"type": "timer", "title": "x"}, "content_state.duration_seconds"),
        ({"type": "timer", "title": "x", "duration_seconds": 0}, "content_state.duration_seconds"),
        (TIMER | {"duration_seconds": float("nan")}, "content_state.duration_seconds"),
        (TIMER | {"is_running": "yes"}, "content_state.is_running"),
        ({"type": "value", "title": "x"}, "content_state.value"),
        ({"type": "value", "title": "x", "value": float("inf")}, "content_state.value"),
    ],
)
def test_a_state_that_breaks_a_rule_names_the_field(state: Any, field: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        normalise(state, phase="start", now=NOW)
    assert caught.value.field == field
    assert caught.value.remedy


def test_an_update_takes_type_and_steps_from_the_running_state() -> None:
    running = normalise(STEPS, phase="start", now=NOW)
    assert normalise(
        {"title": "Build", "current_step": 3}, phase="update", now=NOW, current=running
    ) == (STEPS | {"current_step": 3})


def test_an_update_to_another_type_takes_nothing_along() -> None:
    running = normalise(STEPS, phase="start", now=NOW)
    with pytest.raises(InvalidPayload, match="number_of_steps"):
        normalise(
            {"type": "counter", "title": "x", "current_step": 1},
            phase="update",
            now=NOW,
            current=running,
        )


def test_a_timer_keeps_its_window_until_a_duration_restarts_it() -> None:
    running = normalise(TIMER, phase="start", now=NOW)
    assert (running["started_at"], running["ends_at"]) == (NOW, NOW + 240)
    later = normalise({"title": "Tea!"}, phase="update", now=NOW + 60, current=running)
    assert (later["started_at"], later["ends_at"]) == (NOW, NOW + 240)
    anew = normalise(TIMER, phase="update", now=NOW + 60, current=later)
    assert (anew["started_at"], anew["ends_at"]) == (NOW + 60, NOW + 300)


def test_a_frozen_timer_resumes_with_what_was_left() -> None:
    running = normalise(TIMER, phase="start", now=NOW)
    frozen = normalise(
        {"title": "Tea", "is_running": False}, phase="update", now=NOW + 100, current=running
    )
    assert frozen["frozen_remaining"] == 140
    still = normalise(
        {"title": "Tea", "is_running": False}, phase="update", now=NOW + 500, current=frozen
    )
    assert still["frozen_remaining"] == 140
    resumed = normalise({"title": "Tea"}, phase="update", now=NOW + 1000, current=still)
    assert resumed["ends_at"] == NOW + 1140
    assert "frozen_remaining" not in resumed


def test_an_open_ended_timer_counts_up_and_freezes() -> None:
    running = normalise(
        {"type": "timer", "title": "Run", "counts_down": False}, phase="start", now=NOW
    )
    assert "ends_at" not in running
    frozen = normalise(
        {"title": "Run", "counts_down": False, "is_running": False},
        phase="end",
        now=NOW + 33,
        current=running,
    )
    assert frozen["frozen_elapsed"] == 33


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, 180.0),
        ({"auto_dismiss_minutes": 0}, 0.0),
        ({"auto_dismiss_minutes": 2}, 120.0),
        ({"auto_dismiss_minutes": 2, "auto_dismiss_seconds": 5}, 5.0),
    ],
)
def test_auto_dismiss(state: dict[str, Any], expected: float) -> None:
    assert auto_dismiss_seconds(state, default=180.0) == expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (9, 9.0, True),
        ({"a": [9, {"b": 1}]}, {"a": [9.0, {"b": 1.0}]}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (True, 1, False),
        (False, 0.0, False),
        ("9", 9, False),
        (None, 0, False),
        ([1, 2], [2, 1], False),
        ({"a": None}, {}, False),
    ],
)
def test_states_are_compared_by_value(left: object, right: object, expected: bool) -> None:
    assert equal(left, right) is expected
    assert equal(right, left) is expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_a_state_equals_itself(state: object) -> None:
    assert equal(state, state)


@given(
    st.dictionaries(st.sampled_from([*STEPS, *TIMER, "metrics", "value", "icon", "badge"]), JSON)
)
def test_no_state_fails_in_another_way(state: dict[str, Any]) -> None:
    try:
        result = normalise(state, phase="start", now=NOW)
    except InvalidPayload as error:
        assert error.field.startswith("content_state")
        assert error.remedy
    else:
        # What was accepted once is accepted as it came out, or carries a timer's window.
        assert result["type"] == "timer" or normalise(result, phase="start", now=NOW) == result
