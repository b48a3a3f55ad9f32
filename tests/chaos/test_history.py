"""The history checker finds each violation in a history that was made up to have it, and no other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.chaos.history import Card, History, Push, Write, pauses, violations


def write(
    state: int, begun: float, answered: float | None, kind: str = "update", **more: Any
) -> Write:
    values = {"name": "match", "kind": kind, "state": state, "begun": begun, "answered": answered}
    return Write(**{**values, "answers": ["one"], **more})


def push(state: int, at: float, event: str = "update", **more: Any) -> Push:
    values = {
        "device": "phone",
        "token": event[:5],
        "name": "match",
        "apns_id": f"{at}",
        "priority": 10,
    }
    return Push(**{**values, "at": at, "event": event, "state": state, **more})


def right() -> History:
    """A history that keeps every rule: two concurrent updates, an end, a repeat and a notification."""
    return History(
        writes=[
            write(0, 0, 1, "start", devices=("phone",)),
            write(1, 2, 4),
            write(2, 3, 5),
            write(3, 6, 7, "end", answers=["end", "end"]),
            write(0, 8, 9, "notification", name="goal", devices=("phone",)),
        ],
        pushes=[
            push(0, 1.5, "start"),
            push(2, 5.1, token="card"),
            push(1, 5.2, token="card"),  # overlaps with state 2: either may be newer
            push(3, 7.5, "end", token="card"),
            push(3, 7.6, "end", token="card"),  # again after a takeover
            push(0, 9.5, "notification", name="goal"),
        ],
        cards=[Card(device="phone", name="match", ended=True, state=3)],
        takeovers=1,
    )


def without_end(**changes: Any) -> History:
    """The same before the end, the card at state 2."""
    history = right()
    values = {
        "writes": history.writes[:3],
        "pushes": history.pushes[:3],
        "cards": [Card(device="phone", name="match", ended=False, state=2)],
    }
    return msgspec.structs.replace(history, **{**values, **changes})


def spent(over: int) -> History:
    """Twelve updates at priority 10, the last silent although the budget is spent, and ``over`` more."""
    count = 12 + over
    return History(
        writes=[write(n, n, n + 0.5) for n in range(count)],
        pushes=[push(n, n + 0.6, alert=n == 11) for n in range(count)],
        takeovers=1,
    )


def card(state: int, *, ended: bool = False) -> list[Card]:
    return [Card(device="phone", name="match", ended=ended, state=state)]


@pytest.mark.parametrize(
    "history",
    [
        right(),
        without_end(),
        without_end(cards=card(1)),
        without_end(cards=[], reported=[("phone", "match")]),
        msgspec.structs.replace(right(), pushes=right().pushes[:-1], reported=[("phone", "goal")]),
        msgspec.structs.replace(right(), pushes=right().pushes[5:], cards=[]),
        without_end(writes=[*right().writes[:3], write(4, 6, None)], cards=card(4)),
        without_end(
            writes=[*right().writes[:3], write(4, 6, None, "end")], cards=card(4, ended=True)
        ),
        spent(over=1),
    ],
)
def test_what_keeps_the_rules(history: History) -> None:
    assert violations(history) == []
    assert violations(msgspec.json.decode(msgspec.json.encode(history), type=History)) == []


@pytest.mark.parametrize(
    ("rule", "history"),
    [
        ("lost", without_end(cards=[])),
        ("lost", without_end(writes=[*without_end().writes, right().writes[4]])),
        ("not newest", without_end(cards=card(0))),
        ("not newest", msgspec.structs.replace(right(), cards=card(2, ended=True))),
        ("not ended", msgspec.structs.replace(right(), cards=card(3))),
        ("not ended", without_end(cards=card(2, ended=True))),
        ("start doubled", without_end(pushes=[push(0, 1.5, "start"), push(0, 1.6, "start")])),
        ("overtaken", without_end(pushes=[push(2, 5.1), push(0, 5.2)])),
        ("overtaken", msgspec.structs.replace(right(), pushes=[*right().pushes, push(2, 8, token="card")])),
        ("two answers", without_end(writes=[*without_end().writes[:2], write(2, 3, 5, answers=["a", "b"])])),
        ("done twice", msgspec.structs.replace(right(), pushes=[*right().pushes, push(0, 9.7, "notification", name="goal")])),
        ("over budget", spent(over=2)),
        ("open", without_end(open=["update of match"])),
    ],
)  # fmt: skip
def test_each_violation_is_found_alone(rule: str, history: History) -> None:
    assert [found.rule for found in violations(history)] == [rule]


def test_a_pause_lasts_until_this_state_or_a_newer_one_arrives() -> None:
    history = History(
        writes=[write(0, 0, 1, "start"), write(1, 2, 3), write(2, 4, 5), write(3, 9, 10)],
        pushes=[push(0, 1.5, "start"), push(2, 8)],
    )
    assert [(seconds, one.state) for seconds, one in pauses(history)] == [(5, 1), (3, 2)]
    history.registered["match"] = 4  # before, there was nothing to send to
    assert [(seconds, one.state) for seconds, one in pauses(history)] == [(4, 1), (3, 2)]
