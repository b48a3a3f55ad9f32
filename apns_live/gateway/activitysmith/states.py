"""Completes a caller's state: takes missing fields from the card."""

from collections.abc import Mapping
from typing import Any

from ...activities.cards.content_states import Phase, State, auto_dismiss_seconds, equal, normalise
from ...activities.checks import plain_numbers
from ...activities.requests import AlertText
from .requests import SLOTS, AlertWords

END_DISMISSAL = 180.0
"""Seconds that an ended card stays after an end."""
STREAM_DISMISSAL = 120.0
"""The same after the end of a stream."""
_WINDOW = ("started_at", "ends_at", "frozen_remaining", "frozen_elapsed")
_LOOKS = ("subtitle", "color", "icon", "badge", "step_color", "step_colors")
_PARTS = 3


def complete(
    state: Mapping[str, Any],
    *,
    phase: Phase,
    now: float,
    current: Mapping[str, Any] | None = None,
    steady: bool = False,
) -> State:
    """Return the checked state without buttons. ``current`` is the state of the running card.

    An update or end keeps the looks of the card that it does not mention; ``null`` removes one. With
    ``steady`` (streams) the state is complete, and a timer continues if it is put again unchanged.
    Ending a timer without a duration freezes it. Raises `InvalidPayload`.
    """
    given, card = dict(state), _known(current)
    kind = given.get("type") or (None if card is None else card.get("type"))
    if card is not None and not steady and card.get("type") == kind:
        given = {name: card[name] for name in _LOOKS if name in card} | given
    given = {name: value for name, value in given.items() if value is not None}

    def checked(values: Mapping[str, Any]) -> State:
        return State(plain_numbers(normalise(values, phase=phase, now=now, current=card)))

    if kind == "timer" and "duration_seconds" not in given:
        if phase == "end":
            given["is_running"] = False
        return _same_window(checked(given), card)
    made = checked(given)
    if (
        steady
        and kind == "timer"
        and card is not None
        and card["type"] == kind
        and "ends_at" in card
    ):
        lasts = card["ends_at"] - card["started_at"]
        if abs(lasts - given.pop("duration_seconds")) < 0.01:
            kept = _same_window(checked(given), card)
            if equal(kept, card):
                return kept
    return made


def without_buttons(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored state without its buttons."""
    return {name: value for name, value in state.items() if name not in SLOTS}


def without_window(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state without the times of its timer, as a caller sends it."""
    return {name: value for name, value in state.items() if name not in _WINDOW}


def dismissal(state: Mapping[str, Any] | None, default: float) -> float:
    """Return how many seconds the ended card stays. Raises `InvalidPayload`."""
    return default if state is None else auto_dismiss_seconds(state, default=default)


def start_alert(words: AlertWords | None, state: Mapping[str, Any]) -> AlertText:
    """Return the alert of a start, which a phone ignores without one."""
    words = words or AlertWords()
    return AlertText(title=words.title or state["title"], body=words.body or summary(state))


def summary(state: Mapping[str, Any]) -> str:
    """Return one line about the card, for an alert without a body."""
    said = state.get("subtitle") or state.get("message")
    if said:
        return str(said)
    if state.get("metrics"):
        return ", ".join(
            f"{one['label']} {_number(one['value'])}{one.get('unit', '')}"
            for one in state["metrics"][:_PARTS]
        )
    if "percentage" in state:
        return f"{_number(state['percentage'])} %"
    if "upper_limit" in state:
        return f"{_number(state['value'])} / {_number(state['upper_limit'])}"
    if "number_of_steps" in state:
        return f"{state['current_step']} / {state['number_of_steps']}"
    if "value" in state and state["value"] != "":
        return _number(state["value"])
    return str(state["title"])


def _known(current: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the card without buttons, or None if another API wrote a state of no known type."""
    if current is None or not isinstance(current.get("type"), str):
        return None
    times = _WINDOW if current["type"] == "timer" else ()
    numbers = [current[name] for name in (*times, "number_of_steps") if name in current]
    if current["type"] == "timer" and "started_at" not in current:
        return None
    if any(isinstance(one, bool) or not isinstance(one, (int, float)) for one in numbers):
        return None
    return without_buttons(current)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _same_window(made: State, current: Mapping[str, Any] | None) -> State:
    """Keep the times of a timer that stays stopped, so that the card does not change."""
    if current is None or made.get("type") != "timer" or current.get("type") != "timer":
        return made
    still = made["is_running"] is False and current.get("is_running") is False
    if still and made["counts_down"] == current.get("counts_down"):
        return without_window(made) | {name: current[name] for name in _WINDOW if name in current}
    return made
