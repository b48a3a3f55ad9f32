"""The pushes of a fake, for tests, and assertions about them."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic, sleep
from typing import Any, TypeVar

import msgspec

from apns_live.testing.log import PushRecord
from apns_live.testing.phones.decoding import as_json
from apns_live.testing.threaded import ThreadedFakeApns

PATIENCE = 2.0
"""Seconds of the machine's time that an assertion waits for a push that is still on its way."""
PAUSE = 0.005
_ABSENT = object()
T = TypeVar("T")


class Sent:
    """A push's body and its values as they were sent; ``event`` is start, update, end or None."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        payload = as_json(body)
        self.payload: Any = payload
        aps = payload.get("aps") if isinstance(payload, dict) else None
        self.aps: dict[str, Any] = aps if isinstance(aps, dict) else {}
        self.event: str | None = self.aps.get("event")
        self.content_state: Any = self.aps.get("content-state")
        self.attributes: Any = self.aps.get("attributes")
        self.attributes_type: str | None = self.aps.get("attributes-type")
        self.alert: Any = self.aps.get("alert")
        self.timestamp: Any = self.aps.get("timestamp")


class PushView(Sent):
    """A push, APNs' answer, and the result on the phone.

    ``state`` is ``delivered``, ``discarded`` (then ``why`` says why), ``stored`` and so on; ``""``
    for a refused push, whose ``status`` and ``reason`` say what was wrong.
    """

    def __init__(self, record: PushRecord) -> None:
        push = record.push
        super().__init__(push.body)
        self.number = record.number
        self.status = record.status
        self.reason = record.reason
        self.token = push.token
        self.channel = push.channel_id
        self.topic = push.topic
        self.push_type = push.push_type
        self.priority = push.priority
        self.expiration = push.expiration
        self.collapse_id = push.collapse_id
        self.apns_id = push.apns_id
        self.received_at = push.received_at
        self.state = record.state
        self.why = record.why
        self.detail = record.detail
        self.device = record.device
        self.activity = record.activity

    def __repr__(self) -> str:
        where = f"channel {self.channel}" if self.channel else f"{self.token[:8]}..."
        fate = self.state or f"{self.status} {self.reason}"
        if self.why:
            fate += f": {self.why}"
        return f"<push {self.number}: {self.event or self.push_type} to {where}, {fate}>"


PUSH_FIELDS = frozenset(
    (
        *("number", "status", "reason", "token", "channel", "topic", "push_type", "priority"),
        *("expiration", "collapse_id", "apns_id", "state", "why", "device", "activity", "payload"),
        *("event", "content_state", "attributes", "attributes_type", "alert", "timestamp"),
    )
)


class PushBook(Sequence[PushView]):
    """The pushes that the fake keeps, oldest first. ``refused`` chooses the refused ones."""

    def __init__(self, running: ThreadedFakeApns, *, refused: bool = False) -> None:
        self._running = running
        self._refused = refused

    def _all(self) -> list[PushView]:
        return self._running.call(
            lambda fake: [
                PushView(record)
                for record in fake.log.pushes
                if (record.status >= 400) is self._refused
            ]
        )

    def __len__(self) -> int:
        return len(self._all())

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __iter__(self) -> Iterator[PushView]:
        return iter(self._all())

    def where(self, **wanted: Any) -> list[PushView]:
        """Return the pushes whose fields have the given values, for example ``event="update"``."""
        _check(wanted)
        return [push for push in self._all() if not differences(push, wanted)]

    def assert_one(self, *, timeout: float = PATIENCE, **wanted: Any) -> PushView:
        """Return the one push that matches. Raises AssertionError if there is none or more than one.

        Waits up to ``timeout`` seconds for it. Inside a running event loop it does not wait, since
        that would keep the code under test from sending: use ``await pushes.expect_one(...)``.
        """
        return self.verify(1, timeout=timeout, **wanted)[0]

    def verify(self, count: int, *, timeout: float = PATIENCE, **wanted: Any) -> list[PushView]:
        """Return the pushes that match. Raises AssertionError unless there are exactly ``count``.

        Waits as `assert_one` does. The error shows the closest push and how it differs.
        """
        _check(wanted)
        return waited(lambda late: self._fitting(count, wanted, late=late), timeout)

    async def expect_one(self, *, timeout: float = PATIENCE, **wanted: Any) -> PushView:  # noqa: ASYNC109
        """Like ``assert_one``, but the event loop runs while it waits."""
        _check(wanted)
        give_up = monotonic() + timeout
        while (found := self._fitting(1, wanted, late=monotonic() >= give_up)) is None:  # noqa: ASYNC110
            await asyncio.sleep(PAUSE)
        return found[0]

    def assert_none(self, **wanted: Any) -> None:
        """Raise AssertionError if a push matches."""
        _check(wanted)
        if found := fitting(self._all(), wanted)[0]:
            raise AssertionError(f"expected no push with {_text(wanted)}, but there is {found[0]}")

    def _fitting(self, count: int, wanted: dict[str, Any], *, late: bool) -> list[PushView] | None:
        """Return the pushes that match; None while more may arrive."""
        pushes = self._all()
        found = fitting(pushes, wanted)[0]
        if len(found) == count:
            return found
        if late or len(found) > count:
            kind = "refused push" if self._refused else "push"
            raise AssertionError(explain_misfit(found, pushes, wanted, count, kind))
        return None

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._all())) or "<no pushes>"


def fitting(
    pushes: Sequence[PushView], wanted: Mapping[str, Any]
) -> tuple[list[PushView], PushView | None, list[Difference]]:
    """Return the pushes that match, and the closest other push with its differences."""
    misfits = [(differences(push, wanted), push) for push in pushes]
    found = [push for different, push in misfits if not different]
    if not (others := [each for each in misfits if each[0]]):
        return found, None, []
    different, closest = min(others, key=lambda each: (len(each[0]), -each[1].number))
    return found, closest, different


def explain_misfit(
    found: Sequence[PushView],
    pushes: Sequence[PushView],
    wanted: Mapping[str, Any],
    count: int,
    kind: str = "push",
) -> str:
    """Explain why not exactly ``count`` pushes match: list those, or the closest other push."""
    number = "one" if count == 1 else str(count)
    if found:
        listed = "".join(f"\n  {push!r}" for push in found[:20])
        return f"expected {number} {kind} with {_text(wanted)}, found {len(found)}:{listed}"
    _, closest, different = fitting(pushes, wanted)
    if closest is None:
        return f"expected a {kind} with {_text(wanted)}; none was recorded"
    head = f"no {kind} fits, {len(pushes)} recorded; the closest is {closest!r}"
    return f"{head}\n{describe(different)}"


def _check(wanted: Mapping[str, Any]) -> None:
    if unknown := set(wanted) - PUSH_FIELDS:
        raise TypeError(f"a push has no {', '.join(sorted(unknown))}; it has {sorted(PUSH_FIELDS)}")


def _text(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in wanted.items()) or "any content"


class Difference(msgspec.Struct, frozen=True):
    """One field that is not as expected."""

    field: str
    expected: Any
    found: Any


def waited(look: Callable[[bool], T | None], timeout: float) -> T:
    """Call ``look`` until it returns something, and return that.

    Its argument is True after ``timeout`` seconds, or at once inside an event loop, which waiting would
    block. Then it must return something or raise.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        give_up = monotonic() + timeout
    else:
        give_up = monotonic()
    while (found := look(monotonic() >= give_up)) is None:
        sleep(PAUSE)
    return found


def differences(thing: object, wanted: Mapping[str, Any]) -> list[Difference]:
    """Return the fields of ``thing`` that differ from the wanted ones. Tokens match in any case."""
    different = []
    for name, expected in wanted.items():
        found = getattr(thing, name)
        if name in {"token", "apns_id"} and isinstance(expected, str) and isinstance(found, str):
            same = expected.lower() == found.lower()
        else:
            same = found == expected and isinstance(found, bool) == isinstance(expected, bool)
        if not same:
            different.append(Difference(name, expected, found))
    return different


def describe(found: list[Difference]) -> str:
    """Return text with one block for each differing field; objects are shown as a diff."""
    lines = []
    for each in found:
        expected, actual = each.expected, each.found
        if not (isinstance(expected, Mapping) and isinstance(actual, Mapping)):
            lines.append(f"  {each.field}: expected {expected!r}, found {actual!r}")
            continue
        wrong = [
            str(key)
            for key in {**expected, **actual}
            if expected.get(key, _ABSENT) != actual.get(key, _ABSENT)
        ]
        lines.append(f"  {each.field} differs ({', '.join(sorted(wrong))}):")
        diff = difflib.ndiff(_lines(expected), _lines(actual))
        lines += [f"    {line}" for line in diff if not line.startswith("?")]
        lines.append("    (- expected, + found)")
    return "\n".join(lines)


def _lines(value: object) -> list[str]:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=repr)
    return text.splitlines()
