"""Typed content states: the fixed kinds of card that an app can draw without code of its own.

A typed state is a mapping with a ``type`` and the fields of that type. `normalise` checks it against
the rules of its type, fills missing fields from the last state, and converts a timer's durations to
absolute times, so that the phone can draw it without further pushes. States of the app's own types
are not handled here.

Fields of another type are dropped: clients are known to send ``counts_down`` and
``is_running`` with every state.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ...errors import InvalidPayload
from ..checks import convert, plain_numbers

Phase = Literal["start", "update", "end"]
State = dict[str, Any]
Color = Literal[
    "lime", "green", "cyan", "blue", "purple", "magenta", "red", "orange", "yellow", "gray"
]
COLORS = frozenset(get_args(Color))
MAX_METRICS = 8
MAX_METRIC_TEXT = 64

_MOST = 1e300
_Number = Annotated[float, Meta(ge=-_MOST, le=_MOST)]
_Positive = Annotated[float, Meta(gt=0, le=_MOST)]
_NotNegative = Annotated[float, Meta(ge=0, le=_MOST)]
_Text = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=0)]


class _Icon(msgspec.Struct):
    symbol: _Text
    color: Color | UnsetType = UNSET


class _Badge(msgspec.Struct):
    title: _Text
    color: Color | UnsetType = UNSET


class _Metric(msgspec.Struct):
    label: _Text
    value: Annotated[str, Meta(min_length=1, max_length=MAX_METRIC_TEXT)] | _NotNegative
    unit: str | UnsetType = UNSET
    color: Color | UnsetType = UNSET


class _Card(msgspec.Struct, kw_only=True):
    """The fields of every card. ``complete`` checks the others and uses those of the last state."""

    title: _Text
    subtitle: str | UnsetType = UNSET
    color: Color | UnsetType = UNSET
    icon: _Icon | UnsetType = UNSET

    def complete(self, state: State, current: Mapping[str, Any], now: float) -> None:
        """Check and complete ``state`` in place. ``current`` is empty for another type of card."""


class _Steps(_Card, kw_only=True):
    number_of_steps: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    current_step: _Count
    step_color: Color | UnsetType = UNSET
    step_colors: list[Color] | UnsetType = UNSET

    def complete(self, state: State, current: Mapping[str, Any], now: float) -> None:
        steps = state.setdefault("number_of_steps", current.get("number_of_steps"))
        if steps is None:
            raise InvalidPayload("is missing", "number_of_steps", "Give the number of steps.")
        if self.current_step > steps:
            problem = f"{self.current_step} is more than the {steps} steps there are"
            remedy = "Give at most number_of_steps, or raise number_of_steps."
            raise InvalidPayload(problem, "current_step", remedy)


class _Segmented(_Steps):
    badge: _Badge | UnsetType = UNSET


class _Progress(_Card):
    percentage: Annotated[float, Meta(ge=0, le=100)] | UnsetType = UNSET
    value: _Number | UnsetType = UNSET
    upper_limit: _Positive | UnsetType = UNSET
    badge: _Badge | UnsetType = UNSET

    def complete(self, state: State, current: Mapping[str, Any], now: float) -> None:
        if ("value" in state) != ("upper_limit" in state):
            missing = "upper_limit" if "value" in state else "value"
            problem = "value and upper_limit must be given together"
            raise InvalidPayload(problem, missing, "Send both, or percentage alone.")
        if "percentage" in state:
            state.pop("value", None)
            state.pop("upper_limit", None)
        elif "value" not in state:
            remedy = "Give percentage (0 to 100), or value with upper_limit."
            raise InvalidPayload("is missing", "percentage", remedy)


class _Metrics(_Card, kw_only=True):
    metrics: Annotated[list[_Metric], Meta(min_length=1, max_length=MAX_METRICS)]


class _Alert(_Card, kw_only=True):
    message: _Text
    badge: _Badge | UnsetType = UNSET


class _Timer(_Card):
    """A timer's state has its window in absolute seconds since 1970.

    A timer that runs has ``started_at`` and, unless it counts up without an end, ``ends_at``. A frozen
    one has ``frozen_remaining`` (counting down) or ``frozen_elapsed`` (counting up).
    """

    duration_seconds: _Positive | UnsetType = UNSET
    counts_down: bool = True
    is_running: bool = True

    def complete(self, state: State, current: Mapping[str, Any], now: float) -> None:
        started, ends = now, None
        if (duration := state.pop("duration_seconds", None)) is not None:
            ends = now + duration
        elif current:
            started, ends = _running_window(current, now)
        elif self.counts_down:
            remedy = "Give seconds, or counts_down false to count up without an end."
            raise InvalidPayload("is missing", "duration_seconds", remedy)
        state["started_at"] = round(started, 3)
        if ends is not None:
            state["ends_at"] = round(ends, 3)
        if not self.is_running and self.counts_down and ends is not None:
            state["frozen_remaining"] = round(max(0.0, ends - now), 3)
        elif not self.is_running:
            state["frozen_elapsed"] = round(max(0.0, now - started), 3)


class _Value(_Card, kw_only=True):
    value: str | _Number
    badge: _Badge | UnsetType = UNSET


_CARDS: dict[str, type[_Card]] = {
    "segmented_progress": _Segmented,
    "progress": _Progress,
    "metrics": _Metrics,
    "stats": _Metrics,
    "alert": _Alert,
    "timer": _Timer,
    "value": _Value,
    "counter": _Steps,
    "countdown": _Steps,
}
TYPES = tuple(_CARDS)
FIELDS = frozenset({"type"}).union(*(kind.__struct_fields__ for kind in _CARDS.values()))
"""The fields of all cards, as a caller writes them."""
_NAMED = f"Give one of {', '.join(TYPES[:-2])}."  # the last two are older names


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
    last = current or {}
    kind = state.get("type")
    if kind is None and phase != "start":
        kind = last.get("type")
    elif kind == "timer" and "number_of_steps" in state and "duration_seconds" not in state:
        kind = "countdown"  # "timer" once named a card that counts steps
    if not isinstance(kind, str) or kind not in _CARDS:
        problem = "is missing" if kind is None else f"{kind!r:.40} is not a type of card"
        raise InvalidPayload(problem, f"{field}.type", _NAMED)
    card = _read(state, _CARDS[kind], field)
    result: State = {"type": kind, **plain_numbers(msgspec.to_builtins(card))}
    try:
        card.complete(result, last if last.get("type") == kind else {}, now)
    except InvalidPayload as error:
        raise InvalidPayload(error.problem, f"{field}.{error.field}", error.remedy) from None
    return result


def auto_dismiss_seconds(
    state: Mapping[str, Any], *, default: float, field: str = "content_state"
) -> float:
    """Return how long the ended card stays, in seconds; 0 removes it at once.

    ``auto_dismiss_seconds`` wins over ``auto_dismiss_minutes``. Raises `InvalidPayload`.
    """
    for name, factor in (("auto_dismiss_seconds", 1.0), ("auto_dismiss_minutes", 60.0)):
        if state.get(name) is not None:
            count: int = _read(state[name], _Count, f"{field}.{name}")
            return count * factor
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


def _read(value: Any, kind: Any, field: str) -> Any:
    """Convert a value to a type. Null counts as absent, and 3.0 as a whole number."""
    try:
        return convert(_given(plain_numbers(value)), kind, field, error=InvalidPayload)
    except InvalidPayload as error:
        if "color" not in error.field.rpartition(".")[2]:
            raise
        remedy = f"Give one of {', '.join(sorted(COLORS))}."
        raise InvalidPayload(error.problem, error.field, remedy) from None


def _given(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _given(entry) for name, entry in value.items() if entry is not None}
    return [_given(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _running_window(current: Mapping[str, Any], now: float) -> tuple[float, float | None]:
    """Return the window as if the timer ran now: a frozen window is shifted by its pause."""
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
