"""Typed content states: the fixed kinds of card that an app can draw without code of its own.

A typed state is a mapping with a ``type`` and the fields of that type. `normalise` checks it against
the rules of its type, fills missing fields from the last state, and converts a timer's durations to
absolute times, so that the phone can draw it without further pushes. States of the app's own types
are not handled here.

Fields of another type are dropped: clients are known to send ``counts_down`` and
``is_running`` with every state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import InvalidPayload

Phase = Literal["start", "update", "end"]
State = dict[str, Any]

COLORS = frozenset(
    ["lime", "green", "cyan", "blue", "purple", "magenta", "red", "orange", "yellow", "gray"]
)
_NEW = ("segmented_progress", "progress", "metrics", "stats", "alert", "timer", "value")
TYPES = (*_NEW, "counter", "countdown")
_BADGE_TYPES = frozenset({"alert", "progress", "segmented_progress", "value"})
MAX_METRICS = 8
MAX_METRIC_TEXT = 64


def normalise(
    state: Mapping[str, Any],
    *,
    phase: Phase,
    now: float,
    current: Mapping[str, Any] | None = None,
    field: str = "content_state",
) -> State:
    """Return the checked, complete state to send, without the ``auto_dismiss_*`` fields.

    ``now`` is seconds since 1970; ``current`` is the running activity's normalised state, from which
    ``type``, ``number_of_steps`` and the timer's window are taken where an update leaves them out.
    Raises `InvalidPayload` with the field's path and a remedy.
    """
    if not isinstance(state, Mapping):
        raise InvalidPayload("is not an object", field, "Send a JSON object.")
    kind = _kind(state, phase, current, field)
    same_kind = current if current is not None and current.get("type") == kind else None
    given = _Given(state, field, same_kind, now)
    result: State = {"type": kind, "title": given.text("title", required=True)}
    _keep(result, subtitle=given.text("subtitle"))
    _RULES[kind](result, given)
    _keep(result, color=given.color("color"), icon=given.labelled("icon", "symbol"))
    if kind in _BADGE_TYPES:
        _keep(result, badge=given.labelled("badge", "title"))
    return result


def auto_dismiss_seconds(
    state: Mapping[str, Any], *, default: float, field: str = "content_state"
) -> float:
    """Return how long the ended card stays, in seconds; 0 removes it at once.

    ``auto_dismiss_seconds`` wins over ``auto_dismiss_minutes``. Raises `InvalidPayload`.
    """
    for name, factor in (("auto_dismiss_seconds", 1.0), ("auto_dismiss_minutes", 60.0)):
        if state.get(name) is not None:
            return _Given(state, field).integer(name, minimum=0) * factor
    return default


def equal(left: object, right: object) -> bool:
    """Compare two states by value: 9 equals 9.0, but True is not 1, and key order does not matter."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right
    return type(left) is type(right) and left == right


def _kind(
    state: Mapping[str, Any], phase: Phase, current: Mapping[str, Any] | None, field: str
) -> str:
    kind = state.get("type")
    if kind is None:
        running = current.get("type") if current is not None else None
        if phase != "start" and isinstance(running, str):
            return running
        raise InvalidPayload("is missing", f"{field}.type", f"Give one of {', '.join(_NEW)}.")
    if kind == "timer" and "number_of_steps" in state and "duration_seconds" not in state:
        return "countdown"  # "timer" once named a card that counts steps
    if not isinstance(kind, str) or kind not in _RULES:
        raise InvalidPayload(
            f"{kind!r} is unknown" if isinstance(kind, str) else "is not a string",
            f"{field}.type",
            f"Give one of {', '.join(_NEW)}.",
        )
    return kind


def _keep(result: State, **values: object) -> None:
    """Take over what was given."""
    result.update({name: value for name, value in values.items() if value is not None})


def _segmented(result: State, given: _Given) -> None:
    if given.has("number_of_steps"):
        steps = given.integer("number_of_steps", minimum=1)
    elif given.current is not None and "number_of_steps" in given.current:
        steps = int(given.current["number_of_steps"])
    else:
        raise given.wrong("number_of_steps", "is missing", "Give the number of steps.")
    done = given.integer("current_step", minimum=0)
    if done > steps:
        raise given.wrong(
            "current_step",
            f"{done} is more than the {steps} steps there are",
            "Give at most number_of_steps, or raise number_of_steps.",
        )
    result["number_of_steps"], result["current_step"] = steps, done
    _keep(result, step_color=given.color("step_color"))
    colors = given.values.get("step_colors")
    if colors is not None:
        if not isinstance(colors, (list, tuple)):
            raise given.wrong("step_colors", "is not a list", "Give a list of colours.")
        result["step_colors"] = [
            _check_color(color, f"{given.field}.step_colors[{index}]")
            for index, color in enumerate(colors)
        ]


def _progress(result: State, given: _Given) -> None:
    if given.has("value") != given.has("upper_limit"):
        raise given.wrong(
            "upper_limit" if given.has("value") else "value",
            "value and upper_limit must be given together",
            "Send both, or percentage alone.",
        )
    if given.has("percentage"):
        result["percentage"] = given.number("percentage", minimum=0, maximum=100)
    elif given.has("value"):
        result["value"] = given.number("value")
        result["upper_limit"] = given.number("upper_limit", above=0)
    else:
        remedy = "Give percentage (0 to 100), or value with upper_limit."
        raise given.wrong("percentage", "is missing", remedy)


def _metrics(result: State, given: _Given) -> None:
    metrics = given.values.get("metrics")
    if not isinstance(metrics, (list, tuple)) or not 1 <= len(metrics) <= MAX_METRICS:
        problem = f"is not a list of 1 to {MAX_METRICS} metrics"
        raise given.wrong("metrics", problem, "Give objects with label and value.")
    field = f"{given.field}.metrics"
    result["metrics"] = [_metric(metric, f"{field}[{n}]") for n, metric in enumerate(metrics)]


def _metric(metric: object, field: str) -> State:
    if not isinstance(metric, Mapping):
        raise InvalidPayload("is not an object", field, "Give label and value.")
    given = _Given(metric, field)
    result: State = {"label": given.text("label", required=True)}
    value = metric.get("value")
    if isinstance(value, str):
        if not 1 <= len(value) <= MAX_METRIC_TEXT:
            problem = f"has {len(value)} characters"
            raise given.wrong("value", problem, f"Use 1 to {MAX_METRIC_TEXT}.")
        result["value"] = value
    else:
        result["value"] = given.number("value", minimum=0)
    _keep(result, unit=given.text("unit"), color=given.color("color"))
    return result


def _alert(result: State, given: _Given) -> None:
    result["message"] = given.text("message", required=True)


def _timer(result: State, given: _Given) -> None:
    """Keep the window as absolute seconds since 1970, and what was left when it was frozen.

    A timer that runs has ``started_at`` and, unless it counts up without an end, ``ends_at``. One
    that is frozen has ``frozen_remaining`` (counting down) or ``frozen_elapsed`` (counting up).
    """
    now = started = given.now
    ends: float | None = None
    down = given.boolean("counts_down", default=True)
    running = given.boolean("is_running", default=True)
    result["counts_down"], result["is_running"] = down, running
    if given.has("duration_seconds"):
        ends = now + given.number("duration_seconds", above=0)
    elif given.current is not None:
        started, ends = _running_window(given.current, now)
    elif down:
        remedy = "Give seconds, or counts_down false to count up without an end."
        raise given.wrong("duration_seconds", "is missing", remedy)
    result["started_at"] = round(started, 3)
    if ends is not None:
        result["ends_at"] = round(ends, 3)
    if not running:
        if down and ends is not None:
            result["frozen_remaining"] = round(max(0.0, ends - now), 3)
        else:
            result["frozen_elapsed"] = round(max(0.0, now - started), 3)


def _running_window(current: Mapping[str, Any], now: float) -> tuple[float, float | None]:
    """Return the window as if it ran now: a frozen one is shifted by the time it stood still."""
    started = float(current["started_at"])
    ends = current.get("ends_at")
    end = float(ends) if ends is not None else None
    if "frozen_remaining" in current and end is not None:
        shift = now + float(current["frozen_remaining"]) - end
        return started + shift, end + shift
    if "frozen_elapsed" in current:
        shift = now - float(current["frozen_elapsed"]) - started
        return started + shift, None if end is None else end + shift
    return started, end


def _value(result: State, given: _Given) -> None:
    value = given.values.get("value")
    result["value"] = value if isinstance(value, str) else given.number("value")


_RULES: dict[str, Callable[[State, _Given], None]] = {
    "segmented_progress": _segmented,
    "progress": _progress,
    "metrics": _metrics,
    "stats": _metrics,
    "alert": _alert,
    "timer": _timer,
    "value": _value,
    "counter": _segmented,
    "countdown": _segmented,
}


@dataclass(eq=False, repr=False, slots=True)
class _Given:
    """An object that a caller gave; each field is checked when it is asked for."""

    values: Mapping[str, Any]
    field: str
    current: Mapping[str, Any] | None = None
    now: float = 0.0

    def wrong(self, name: str, problem: str, remedy: str) -> InvalidPayload:
        """Return the error of a field."""
        return InvalidPayload(problem, f"{self.field}.{name}", remedy)

    def has(self, name: str) -> bool:
        """Return whether a field was given; null is as absent."""
        return self.values.get(name) is not None

    def text(self, name: str, *, required: bool = False) -> str | None:
        """Return a text; one that is required is not empty."""
        value = self.values.get(name)
        if value is None and not required:
            return None
        if not isinstance(value, str):
            problem = "is missing" if value is None else "is not a string"
            raise self.wrong(name, problem, "Give a text.")
        if required and not value:
            raise self.wrong(name, "is empty", "Give a text.")
        return value

    def number(
        self,
        name: str,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        above: float | None = None,
    ) -> float | int:
        """Return a finite number within its limits."""
        value = self.values.get(name)
        if value is None:
            raise self.wrong(name, "is missing", "Give a number.")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(name, "is not a number", "Give a number.")
        if not math.isfinite(value):
            raise self.wrong(name, "is not finite", "Give a finite number.")
        for limit, fits, below, remedy in (
            (minimum, minimum is None or value >= minimum, "below", "at least"),
            (maximum, maximum is None or value <= maximum, "above", "at most"),
            (above, above is None or value > above, "not above", "more than"),
        ):
            if not fits:
                raise self.wrong(name, f"{value} is {below} {limit:g}", f"Give {remedy} {limit:g}.")
        return value

    def integer(self, name: str, *, minimum: int) -> int:
        """Return a whole number; 3.0 is one."""
        value = self.number(name, minimum=minimum)
        if value != int(value):
            raise self.wrong(name, f"{value} is not a whole number", "Give a whole number.")
        return int(value)

    def boolean(self, name: str, *, default: bool) -> bool:
        """Return a boolean."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "is not a boolean", "Give true or false.")
        return value

    def color(self, name: str) -> str | None:
        """Return a colour of the list."""
        value = self.values.get(name)
        return None if value is None else _check_color(value, f"{self.field}.{name}")

    def labelled(self, name: str, label: str) -> dict[str, Any] | None:
        """Return an icon (``symbol``) or a badge (``title``), each with an optional colour."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(name, "is not an object", f"Give {label} and color.")
        inner = _Given(value, f"{self.field}.{name}")
        result: dict[str, Any] = {label: inner.text(label, required=True)}
        _keep(result, color=inner.color("color"))
        return result


def _check_color(value: object, field: str) -> str:
    if not isinstance(value, str) or value not in COLORS:
        raise InvalidPayload(
            f"{value!r} is not a colour of the list"
            if isinstance(value, str)
            else "is not a string",
            field,
            f"Give one of {', '.join(sorted(COLORS))}.",
        )
    return value
