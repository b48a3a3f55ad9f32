"""Typed content states: the fixed kinds of card that an app can draw without code of its own.

A typed state is a mapping with a ``type`` and the fields of that type. `normalise` checks it against
the rules of its type, fills what an update may leave out from the running state, and turns the
timer's durations into absolute times, so that a phone draws it without a push per second. A free
state (whatever the app's own ContentState decodes) does not come here.

Fields of another type are tolerated and left out: clients are known to send ``counts_down`` and
``is_running`` with every state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ...errors import InvalidPayload

Phase = Literal["start", "update", "end"]
State = dict[str, Any]

COLORS = frozenset(
    ["lime", "green", "cyan", "blue", "purple", "magenta", "red", "orange", "yellow", "gray"]
)
LEGACY_TYPES = frozenset({"counter", "countdown"})
TYPES = (
    "segmented_progress",
    "progress",
    "metrics",
    "stats",
    "alert",
    "timer",
    "value",
    "counter",
    "countdown",
)
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
        raise InvalidPayload("is no object", field=field, remedy="Send a JSON object.")
    kind = _kind(state, phase, current, field)
    result: State = {"type": kind, "title": _text(state, "title", field, required=True)}
    if (subtitle := _text(state, "subtitle", field)) is not None:
        result["subtitle"] = subtitle
    same_kind = current if current is not None and current.get("type") == kind else None
    _RULES[kind](result, state, same_kind, now, field)
    if (color := _color(state, "color", field)) is not None:
        result["color"] = color
    if (icon := _labelled(state, "icon", "symbol", field)) is not None:
        result["icon"] = icon
    if kind in _BADGE_TYPES and (badge := _labelled(state, "badge", "title", field)) is not None:
        result["badge"] = badge
    return result


def auto_dismiss_seconds(
    state: Mapping[str, Any], *, default: float, field: str = "content_state"
) -> float:
    """Return how long the ended card stays, in seconds; 0 removes it at once.

    ``auto_dismiss_seconds`` wins over ``auto_dismiss_minutes``. Raises `InvalidPayload`.
    """
    for name, factor in (("auto_dismiss_seconds", 1.0), ("auto_dismiss_minutes", 60.0)):
        if state.get(name) is not None:
            return _integer(state, name, field, minimum=0) * factor
    return default


def equal(left: object, right: object) -> bool:
    """Compare two states by value: 9 equals 9.0, but True is not 1, and key order is no matter."""
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
        raise InvalidPayload(
            "is missing",
            field=f"{field}.type",
            remedy=f"Give one of {', '.join(TYPES[:7])}.",
        )
    if kind == "timer" and "number_of_steps" in state and "duration_seconds" not in state:
        return "countdown"  # "timer" once named a card that counts steps
    if not isinstance(kind, str) or kind not in _RULES:
        raise InvalidPayload(
            f"{kind!r} is unknown" if isinstance(kind, str) else "is no string",
            field=f"{field}.type",
            remedy=f"Give one of {', '.join(TYPES[:7])}.",
        )
    return kind


def _segmented(
    result: State, state: Mapping[str, Any], current: Mapping[str, Any] | None, _: float, field: str
) -> None:
    if state.get("number_of_steps") is not None:
        steps = _integer(state, "number_of_steps", field, minimum=1)
    elif current is not None and "number_of_steps" in current:
        steps = int(current["number_of_steps"])
    else:
        raise InvalidPayload(
            "is missing", field=f"{field}.number_of_steps", remedy="Give the number of steps."
        )
    done = _integer(state, "current_step", field, minimum=0)
    if done > steps:
        raise InvalidPayload(
            f"{done} is more than the {steps} steps there are",
            field=f"{field}.current_step",
            remedy="Give at most number_of_steps, or raise number_of_steps.",
        )
    result["number_of_steps"], result["current_step"] = steps, done
    if (color := _color(state, "step_color", field)) is not None:
        result["step_color"] = color
    colors = state.get("step_colors")
    if colors is not None:
        if not isinstance(colors, (list, tuple)):
            raise InvalidPayload(
                "is no list", field=f"{field}.step_colors", remedy="Give a list of colours."
            )
        result["step_colors"] = [
            _check_color(color, f"{field}.step_colors[{index}]")
            for index, color in enumerate(colors)
        ]


def _progress(
    result: State, state: Mapping[str, Any], _: Mapping[str, Any] | None, __: float, field: str
) -> None:
    value, limit = state.get("value"), state.get("upper_limit")
    if (value is None) != (limit is None):
        missing = "value" if value is None else "upper_limit"
        raise InvalidPayload(
            "value and upper_limit travel together",
            field=f"{field}.{missing}",
            remedy="Send both, or percentage alone.",
        )
    if state.get("percentage") is not None:
        result["percentage"] = _number(state, "percentage", field, minimum=0, maximum=100)
        return
    if value is None:
        raise InvalidPayload(
            "is missing",
            field=f"{field}.percentage",
            remedy="Give percentage (0 to 100), or value with upper_limit.",
        )
    result["value"] = _number(state, "value", field)
    result["upper_limit"] = _number(state, "upper_limit", field, above=0)


def _metrics(
    result: State, state: Mapping[str, Any], _: Mapping[str, Any] | None, __: float, field: str
) -> None:
    metrics = state.get("metrics")
    where = f"{field}.metrics"
    if not isinstance(metrics, (list, tuple)) or not 1 <= len(metrics) <= MAX_METRICS:
        raise InvalidPayload(
            f"is no list of 1 to {MAX_METRICS} metrics",
            field=where,
            remedy="Give objects with label and value.",
        )
    result["metrics"] = [_metric(metric, f"{where}[{n}]") for n, metric in enumerate(metrics)]


def _metric(metric: object, field: str) -> State:
    if not isinstance(metric, Mapping):
        raise InvalidPayload("is no object", field=field, remedy="Give label and value.")
    result: State = {"label": _text(metric, "label", field, required=True)}
    value = metric.get("value")
    if isinstance(value, str):
        if not 1 <= len(value) <= MAX_METRIC_TEXT:
            raise InvalidPayload(
                f"has {len(value)} characters",
                field=f"{field}.value",
                remedy=f"Use 1 to {MAX_METRIC_TEXT}.",
            )
        result["value"] = value
    else:
        result["value"] = _number(metric, "value", field, minimum=0)
    if (unit := _text(metric, "unit", field, empty=True)) is not None:
        result["unit"] = unit
    if (color := _color(metric, "color", field)) is not None:
        result["color"] = color
    return result


def _alert(
    result: State, state: Mapping[str, Any], _: Mapping[str, Any] | None, __: float, field: str
) -> None:
    result["message"] = _text(state, "message", field, required=True)


def _timer(
    result: State,
    state: Mapping[str, Any],
    current: Mapping[str, Any] | None,
    now: float,
    field: str,
) -> None:
    """Keep the window as absolute seconds since 1970, and what was left when it was frozen.

    A timer that runs has ``started_at`` and, unless it counts up without an end, ``ends_at``. One
    that is frozen has ``frozen_remaining`` (counting down) or ``frozen_elapsed`` (counting up).
    """
    down = _boolean(state, "counts_down", field, default=True)
    running = _boolean(state, "is_running", field, default=True)
    result["counts_down"], result["is_running"] = down, running
    if state.get("duration_seconds") is not None:
        started = now
        ends: float | None = now + _number(state, "duration_seconds", field, above=0)
    elif current is not None:
        started, ends = _running_window(current, now)
    elif not down:
        started, ends = now, None
    else:
        raise InvalidPayload(
            "is missing",
            field=f"{field}.duration_seconds",
            remedy="Give seconds, or counts_down false to count up without an end.",
        )
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


def _value(
    result: State, state: Mapping[str, Any], _: Mapping[str, Any] | None, __: float, field: str
) -> None:
    value = state.get("value")
    result["value"] = value if isinstance(value, str) else _number(state, "value", field)


_Rule = Callable[[State, Mapping[str, Any], Mapping[str, Any] | None, float, str], None]
_RULES: dict[str, _Rule] = {
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


def _text(
    state: Mapping[str, Any],
    name: str,
    field: str,
    *,
    required: bool = False,
    empty: bool = False,
) -> str | None:
    value = state.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str):
        problem = "is missing" if value is None else "is no string"
        raise InvalidPayload(problem, field=f"{field}.{name}", remedy="Give a text.")
    if required and not value and not empty:
        raise InvalidPayload("is empty", field=f"{field}.{name}", remedy="Give a text.")
    return value


def _number(
    state: Mapping[str, Any],
    name: str,
    field: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
) -> float | int:
    value = state.get(name)
    where = f"{field}.{name}"
    if value is None:
        raise InvalidPayload("is missing", field=where, remedy="Give a number.")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidPayload("is no number", field=where, remedy="Give a number.")
    if not math.isfinite(value):
        raise InvalidPayload("is not finite", field=where, remedy="Give a finite number.")
    if minimum is not None and value < minimum:
        raise InvalidPayload(
            f"{value} is below {minimum:g}", field=where, remedy=f"Give at least {minimum:g}."
        )
    if maximum is not None and value > maximum:
        raise InvalidPayload(
            f"{value} is above {maximum:g}", field=where, remedy=f"Give at most {maximum:g}."
        )
    if above is not None and value <= above:
        raise InvalidPayload(
            f"{value} is not above {above:g}", field=where, remedy=f"Give more than {above:g}."
        )
    return value


def _integer(state: Mapping[str, Any], name: str, field: str, *, minimum: int) -> int:
    value = _number(state, name, field, minimum=minimum)
    if value != int(value):
        raise InvalidPayload(
            f"{value} is no whole number", field=f"{field}.{name}", remedy="Give a whole number."
        )
    return int(value)


def _boolean(state: Mapping[str, Any], name: str, field: str, *, default: bool) -> bool:
    value = state.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidPayload("is no boolean", field=f"{field}.{name}", remedy="Give true or false.")
    return value


def _check_color(value: object, field: str) -> str:
    if not isinstance(value, str) or value not in COLORS:
        raise InvalidPayload(
            f"{value!r} is no colour of the list" if isinstance(value, str) else "is no string",
            field=field,
            remedy=f"Give one of {', '.join(sorted(COLORS))}.",
        )
    return value


def _color(state: Mapping[str, Any], name: str, field: str) -> str | None:
    value = state.get(name)
    return None if value is None else _check_color(value, f"{field}.{name}")


def _labelled(state: Mapping[str, Any], name: str, label: str, field: str) -> dict[str, Any] | None:
    """Check an icon (``symbol``) or a badge (``title``), each with an optional colour."""
    value = state.get(name)
    if value is None:
        return None
    where = f"{field}.{name}"
    if not isinstance(value, Mapping):
        raise InvalidPayload("is no object", field=where, remedy=f"Give {label} and color.")
    result: dict[str, Any] = {label: _text(value, label, where, required=True)}
    if (color := _color(value, "color", where)) is not None:
        result["color"] = color
    return result
