"""The pushes of a fake as a test reads them, and assertions over them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic, sleep
from typing import Any

from apns_live.testing.fake import FakeApns
from apns_live.testing.log import PushRecord
from apns_live.testing.phones.decoding import as_json

from .calling import PATIENCE, PAUSE, Caller, in_event_loop
from .differences import describe, differences


class PushView:
    """A push as it arrived, what APNs answered and what the phone did.

    ``state`` is ``delivered``, ``discarded`` (then ``why`` says why), ``stored`` and so on; ``""``
    for a refused push, whose ``status`` and ``reason`` say what was wrong.
    """

    def __init__(self, record: PushRecord) -> None:
        push = record.push
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
        self.body = push.body
        self.received_at = push.received_at
        self.state = record.state
        self.why = record.why
        self.detail = record.detail
        self.device = record.device
        self.activity = record.activity
        payload = as_json(push.body)
        self.payload: Any = payload
        aps = payload.get("aps") if isinstance(payload, dict) else None
        self.aps: dict[str, Any] = aps if isinstance(aps, dict) else {}

    @property
    def event(self) -> str | None:
        """``start``, ``update``, ``end``, or None."""
        return self.aps.get("event")

    @property
    def content_state(self) -> Any:
        """The content state that was sent."""
        return self.aps.get("content-state")

    @property
    def attributes(self) -> Any:
        """The attributes that were sent."""
        return self.aps.get("attributes")

    @property
    def attributes_type(self) -> str | None:
        """The attributes type that was sent."""
        return self.aps.get("attributes-type")

    @property
    def alert(self) -> Any:
        """The alert that was sent."""
        return self.aps.get("alert")

    @property
    def timestamp(self) -> Any:
        """The timestamp that was sent."""
        return self.aps.get("timestamp")

    def __repr__(self) -> str:
        where = f"channel {self.channel}" if self.channel else f"{self.token[:8]}..."
        fate = self.state or f"{self.status} {self.reason}"
        if self.why:
            fate += f": {self.why}"
        return f"<push {self.number}: {self.event or self.push_type} to {where}, {fate}>"


_FIELDS = frozenset(
    {
        "number",
        "status",
        "reason",
        "token",
        "channel",
        "topic",
        "push_type",
        "priority",
        "expiration",
        "collapse_id",
        "apns_id",
        "state",
        "why",
        "device",
        "activity",
        "payload",
        "event",
        "content_state",
        "attributes",
        "attributes_type",
        "alert",
        "timestamp",
    }
)


class PushBook(Sequence[PushView]):
    """The pushes that the fake keeps, oldest first. ``refused`` chooses the refused ones."""

    def __init__(self, running: Caller, *, refused: bool = False) -> None:
        self._running = running
        self._refused = refused

    def _all(self) -> list[PushView]:
        def read(fake: FakeApns) -> list[PushView]:
            return [
                PushView(record)
                for record in fake.log.pushes
                if (record.status >= 400) is self._refused
            ]

        return self._running.call(read)

    def __len__(self) -> int:
        return len(self._all())

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __iter__(self) -> Iterator[PushView]:
        return iter(self._all())

    def where(self, **wanted: Any) -> list[PushView]:
        """Return the pushes whose fields equal what is given, for example ``event="update"``."""
        _check(wanted)
        return [push for push in self._all() if not differences(push, wanted)]

    def assert_one(self, *, timeout: float = PATIENCE, **wanted: Any) -> PushView:
        """Return the one push that fits; AssertionError when there is none or more than one.

        Waits up to ``timeout`` seconds for it. Inside a running event loop it does not wait, since
        that would keep the code under test from sending: use ``await pushes.expect_one(...)``.
        """
        _check(wanted)
        give_up = monotonic() + (0 if in_event_loop() else timeout)
        while True:
            pushes = self._all()
            found = [push for push in pushes if not differences(push, wanted)]
            if found or monotonic() >= give_up:
                return self._only(found, pushes, wanted)
            sleep(PAUSE)

    async def expect_one(self, *, timeout: float = PATIENCE, **wanted: Any) -> PushView:  # noqa: ASYNC109
        """Do as ``assert_one``, letting the event loop run while it waits."""
        _check(wanted)
        give_up = monotonic() + timeout
        while True:
            pushes = self._all()
            found = [push for push in pushes if not differences(push, wanted)]
            if found or monotonic() >= give_up:
                return self._only(found, pushes, wanted)
            await asyncio.sleep(PAUSE)

    def assert_none(self, **wanted: Any) -> None:
        """AssertionError when a push fits."""
        _check(wanted)
        found = [push for push in self._all() if not differences(push, wanted)]
        if found:
            raise AssertionError(f"expected no push with {_text(wanted)}, but there is {found[0]}")

    def _only(
        self, found: list[PushView], pushes: list[PushView], wanted: dict[str, Any]
    ) -> PushView:
        if len(found) == 1:
            return found[0]
        kind = "refused push" if self._refused else "push"
        if found:
            listed = "".join(f"\n  {push!r}" for push in found)
            raise AssertionError(
                f"expected one {kind} with {_text(wanted)}, found {len(found)}:{listed}"
            )
        if not pushes:
            raise AssertionError(f"expected a {kind} with {_text(wanted)}; none was recorded")
        closest = min(pushes, key=lambda push: (len(differences(push, wanted)), -push.number))
        text = describe(differences(closest, wanted))
        raise AssertionError(
            f"no {kind} fits, {len(pushes)} recorded; the closest is {closest!r}\n{text}"
        )

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._all())) or "<no pushes>"


def _check(wanted: Mapping[str, Any]) -> None:
    unknown = set(wanted) - _FIELDS
    if unknown:
        raise TypeError(f"a push has no {', '.join(sorted(unknown))}; it has {sorted(_FIELDS)}")


def _text(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in wanted.items()) or "any content"
