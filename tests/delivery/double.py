"""A client in memory that keeps the contract of a work source, on any clock.

It has room for a number of pushes in flight, asks the source for work when there is room, answers
each push after a delay that a test decides, and gives up after the response timeout. What "the
server" did with a push is told to ``received``, so that phones can be put behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apns_live.outcome import Outcome, Verdict
from apns_live.payload import EncodedMessage


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one push.

    ``delay`` seconds until the answer, ``status`` and ``reason`` of it. ``shown_after`` seconds until a
    phone has it (None: the same moment as the answer). With ``discarded_if_reset`` a push whose answer
    was given up never reaches a phone. ``verdict`` None derives it from the status.
    """

    delay: float = 0.08
    status: int = 200
    reason: str = ""
    verdict: Verdict | None = None
    discarded_if_reset: bool = True
    reaches_phone: bool = True
    retry_after: float = 0.0


OK = Fate()
VERDICTS = {
    200: Verdict.ACCEPTED,
    410: Verdict.DROP_TOKEN,
    429: Verdict.SLOW_DOWN,
    500: Verdict.RETRY_LATER,
    503: Verdict.RETRY_LATER,
    403: Verdict.OPERATOR,
}


class Prepared:
    __slots__ = ("body", "encoded", "event", "priority")

    def __init__(self, encoded: EncodedMessage) -> None:
        self.encoded = encoded
        self.body = encoded.body
        self.event = encoded.event
        self.priority = encoded.priority


class MemoryAttachment:
    def __init__(self, client: MemoryClient, source: Any, response_timeout: float) -> None:
        self.client = client
        self.source = source
        self.response_timeout = response_timeout
        self.detached = False

    def wake(self) -> None:
        self.client.wake()

    def detach(self) -> None:
        self.detached = True

    def cancel(self, item: Any) -> bool:
        raise NotImplementedError


class MemoryClient:
    """See the module. ``rate`` bounds how many pushes leave in a second (None: as many as fit)."""

    def __init__(
        self,
        clock: Any,
        *,
        room: int = 8000,
        fate: Callable[[str, Prepared, float], Fate] = lambda token, message, now: OK,
        received: Callable[[str, Prepared, float], object] = lambda token, message, now: None,
    ) -> None:
        self.clock = clock
        self.room = room
        self.fate = fate
        self.received = received
        self.in_flight = 0
        self.most_in_flight = 0
        self.flying: dict[str, int] = {}
        self.overtaken: list[str] = []
        self.bodies: list[bytes] = []
        self.sent = 0
        self.open = True
        self.watch_lanes = True
        self.keep_bodies = False
        self._attachments: list[MemoryAttachment] = []
        self._woken = False

    def prepare(self, encoded: EncodedMessage) -> Prepared:
        return Prepared(encoded)

    def check_decodes(self, encoded: EncodedMessage) -> EncodedMessage:
        return encoded

    def attach(
        self,
        source: Any,
        *,
        retry: bool = True,
        response_timeout: float | None = None,
        deadline: float | None = None,
        tokens_checked: bool = False,
    ) -> MemoryAttachment:
        del retry, deadline, tokens_checked
        attachment = MemoryAttachment(self, source, response_timeout or 10.0)
        self._attachments.append(attachment)
        self.wake()
        return attachment

    def wake(self) -> None:
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._pull)

    def _pull(self) -> None:
        self._woken = False
        now = self.clock.time()
        for attachment in self._attachments:
            while self.open and not attachment.detached and self.in_flight < self.room:
                items = attachment.source.take(min(1000, self.room - self.in_flight))
                if not items:
                    break
                self.send(attachment, items, now)

    def send(self, attachment: MemoryAttachment, items: Any, now: float) -> None:
        groups: dict[tuple[float, bool], list[tuple[Any, Fate]]] = {}
        timeout = attachment.response_timeout
        for item in items:
            if self.watch_lanes:
                if self.flying.get(item.token):
                    self.overtaken.append(item.token)
                self.flying[item.token] = self.flying.get(item.token, 0) + 1
            fate = self.fate(item.token, item.message, now)
            late = fate.delay > timeout
            groups.setdefault((min(fate.delay, timeout), late), []).append((item, fate))
        self.in_flight += len(items)
        self.sent += len(items)
        if self.keep_bodies:
            self.bodies.extend(item.message.body for item in items)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        for (delay, late), group in groups.items():
            self.clock.call_later(delay, lambda g=group, x=late: self._answer(attachment, g, x))

    def _answer(
        self, attachment: MemoryAttachment, group: list[tuple[Any, Fate]], late: bool
    ) -> None:
        now = self.clock.time()
        outcomes = []
        received = self.received
        for item, fate in group:
            token = item.token
            if self.watch_lanes:
                self.flying[token] -= 1
            if late:
                verdict = Verdict.UNKNOWN
                if not fate.discarded_if_reset and fate.reaches_phone:
                    rest = fate.delay - attachment.response_timeout
                    self.clock.call_later(
                        rest, lambda t=token, m=item.message: self.received(t, m, self.clock.time())
                    )
                outcomes.append(
                    (
                        item,
                        Outcome(
                            token=token,
                            verdict=verdict,
                            reason="response_timeout",
                            attempts=1,
                            may_have_been_sent=True,
                            priority=item.message.priority,
                        ),
                    )
                )
                continue
            verdict = fate.verdict or VERDICTS.get(fate.status, Verdict.FIX_REQUEST)
            if fate.reason == "BadDeviceToken":
                verdict = Verdict.DROP_TOKEN
            if fate.status == 200 and fate.reaches_phone:
                received(token, item.message, now)
            outcomes.append(
                (
                    item,
                    Outcome(
                        token=token,
                        verdict=verdict,
                        status=fate.status,
                        reason=fate.reason,
                        attempts=1,
                        priority=item.message.priority,
                        may_have_been_sent=verdict is Verdict.UNKNOWN,
                        retry_at=now + fate.retry_after if fate.retry_after else 0.0,
                    ),
                )
            )
        self.in_flight -= len(group)
        attachment.source.settled(outcomes)
        self.wake()
