"""One push to all devices of an audience, read, sent and recorded in a stream: a start or a notification.

Page by page: the intent of a page is committed before it may leave, results are committed behind it, and
both run beside the sending. After a crash the reading goes on behind the last intended page; what becomes
of those whose answer was not stored is the business of `StartFanOut` and `NotificationFanOut`.

A fan-out belongs to one term of its partition. When another worker had the partition since, nothing more
leaves or is stored: whoever owns it now has reported or taken up what was under way.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from ... import payload
from ...client import WorkItem
from ...clock import Clock
from ...delivery import SpikeGuard
from ...outcome import Outcome, Verdict
from ..apps import App
from ..people.audience import Audiences, Recipient
from ..requests.messages import best_language
from ..store.database import Database
from ..store.ownership import NOT_HELD, NotOwner, Ownership
from .apns_clients import Carrier
from .limits import Limits
from .recorder import Recorder
from .refusals import refusal_of, refuses_credentials
from .results import Batch

PAGE = 2_000
AHEAD = 3 * PAGE
"""Tokens that are intended and not recorded: bounds what a crash leaves unknown."""
ROOM = 10 * PAGE
"""The same over all fan-outs together: bounds memory."""
_ACCEPTED = Verdict.ACCEPTED
_OURS = frozenset({"closed", "cancelled"})
"""Reasons of what was not sent because we stop: it is sent when we go on."""

Page = TypeVar("Page", bound=Sequence[Any])


class Room:
    """How many pushes of fan-outs may be under way; whoever asks first is served first."""

    def __init__(self, size: int = ROOM) -> None:
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, count: int) -> None:
        """Return when there is room for ``count`` more."""
        if not self._waiting and self._free >= count:
            self._free -= count
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give(count)
            raise

    def give(self, count: int) -> None:
        """Make room again."""
        self._free += count
        while self._waiting and (
            self._waiting[0][1].cancelled() or self._waiting[0][0] <= self._free
        ):
            wanted, future = self._waiting.popleft()
            if not future.cancelled():
                self._free -= wanted
                future.set_result(None)


@dataclass(frozen=True, slots=True)
class Setting:
    """What every fan-out needs."""

    database: Database
    clock: Clock
    audiences: Audiences
    recorder: Recorder
    room: Room
    limits: Limits
    ownership: Ownership
    running: set[FanOut[Any]] = field(default_factory=set)
    """The fan-outs under way."""


@dataclass(eq=False, repr=False)
class Wording:
    """What is said at one moment, encoded once for each language that has a text."""

    carrier: Carrier
    languages: frozenset[str]
    message: Callable[[str], Any]
    _: KW_ONLY
    key: object
    now: float

    def __post_init__(self) -> None:
        self._made: dict[str | None, Any] = {}
        """What it depends on: with another self.key another one is made."""

    def message_in(self, language: str | None) -> Any:
        """Return the message, ready to send."""
        made = self._made.get(language)
        if made is None:
            best = best_language(self.languages, language)
            made = self._made.get(best)
            if made is None:
                message = payload.encode(self.message(best), now=self.now)
                made = self.carrier.client.prepare(message)
            self._made[best] = self._made[language] = made
        return made


class FanOut(ABC, Generic[Page]):
    """One start or notification. ``await run()`` returns when every device has its result stored."""

    def __init__(self, setting: Setting, app: App, operation: Row[Any], carrier: Carrier) -> None:
        self.partition: int = operation.partition
        self.refused = ""
        """Why APNs refuses the credentials, if it refused any push for that."""
        self.sent = self.accepted = 0
        self._setting = setting
        self._app = app
        self._operation = operation
        self._carrier = carrier
        self._term = setting.ownership.terms.get(self.partition, NOT_HELD)
        self._ready: deque[WorkItem] = deque()
        self._taken_back: list[tuple[int, int]] = []
        self._unrecorded = 0
        self._changed = asyncio.Event()
        self._guard = SpikeGuard()
        self._wordings: list[Wording] = []
        self._over = False
        self.left = False
        """Whether its partition was left."""

    @property
    def stopped(self) -> str:
        """Why it was stopped: its answers would have been refusals for ever. Empty if it was not."""
        return self._guard.stopped

    @property
    def ours(self) -> bool:
        """Whether the term that it began in goes on."""
        return self._setting.ownership.terms.get(self.partition, NOT_HELD) == self._term

    def leave(self) -> None:
        """Stop: the partition is left to another worker, or begun with again."""
        self.left = True
        self._changed.set()

    # What a kind of fan-out says.

    @abstractmethod
    async def _recover(self) -> None:
        """See what an earlier run began with."""

    @abstractmethod
    def _pages(self) -> AsyncIterator[Page]:
        """Read whom it is for. Raises `InvalidInput` if the audience no longer resolves."""

    @abstractmethod
    async def _intend(self, page: Page) -> list[WorkItem] | None:
        """Commit that a page is about to leave, and return its items; None to end here."""

    @abstractmethod
    def _noted(self, batch: Batch, device: int, outcome: Outcome) -> None:
        """Add to a batch what an outcome other than accepted means for this kind."""

    def _put_back(self, batch: Batch, taken_back: Sequence[tuple[int, int]]) -> None:
        """Add to a batch, for the next run, rows and devices whose push certainly did not leave."""

    # Part of `WorkSource`.

    def take(self, limit: int) -> Sequence[WorkItem]:
        """Give the client what is intended and waits."""
        ready = self._ready
        if self.left or not self._setting.ownership.holds(self.partition) or not self.ours:
            return ()
        if len(ready) <= limit:
            items = list(ready)
            ready.clear()
            return items
        return [ready.popleft() for _ in range(limit)]

    def settled(self, outcomes: Sequence[tuple[WorkItem, Outcome]]) -> None:
        """Note results."""
        if not self.ours:
            self.recorded(len(outcomes))
            return
        recorder = self._setting.recorder
        batch = recorder.noting(self.partition)
        app, operation = self._app.row, self._operation.id
        accepted = 0
        rows = batch.outcomes
        for item, outcome in outcomes:
            device = item.context[1]
            if outcome.verdict is _ACCEPTED:
                accepted += 1
                rows.append(
                    (
                        app,
                        operation,
                        device,
                        "accepted",
                        outcome.status,
                        outcome.reason,
                        outcome.apns_id,
                        outcome.priority,
                    )
                )
            elif outcome.verdict is Verdict.NOT_SENT and outcome.reason in _OURS:
                self._taken_back.append(item.context)
            elif refuses_credentials(outcome):
                # This says nothing about the device: it is sent when the credentials are right.
                self._taken_back.append(item.context)
                self.refused = refusal_of(outcome)
                self._guard.answered(outcome)
            else:
                batch.add(app, operation, device, outcome)
                self._noted(batch, device, outcome)
                self._guard.answered(outcome)
        if accepted:
            batch.counts.setdefault(operation, [0, 0])[0] += accepted
            self.accepted += accepted
        recorder.count(self.recorded, len(outcomes))
        recorder.soon(len(outcomes))
        if self._over:
            self._rewind()
        if self._guard.judge(accepted):
            self._give_up()

    def recorded(self, count: int) -> None:
        """Note that results are in the store."""
        self._unrecorded -= count
        self._setting.room.give(count)
        self._changed.set()

    # The run.

    async def run(self) -> bool:
        """Send to the whole audience; return whether it was read to its end.

        Raises `InvalidInput` if the audience no longer resolves, `NotOwner` when it is left.
        """
        await self._recover()
        attachment = self._carrier.sender.attach(self)
        self._setting.running.add(self)
        try:
            whole = await self._work_off(attachment)
            await self._all_recorded(attachment)
        except Exception:
            # What is on its way has its results stored before anybody tries again: it would have
            # two otherwise.
            self._stop(attachment)
            await self._all_recorded(attachment)
            raise
        finally:
            self._setting.running.discard(self)
            self._stop(attachment)
        if self.left:
            raise NotOwner(frozenset({self.partition}))
        return whole

    async def _work_off(self, attachment: Any) -> bool:
        async with aclosing(_one_ahead(self._pages())) as pages:
            async for page in pages:
                if not await self._admit(len(page)):
                    return True
                items: list[WorkItem] | None = None
                try:
                    items = await self._intend(page)
                finally:
                    # Room was taken for the whole page; who is not to be sent to needs none.
                    if unused := len(page) - len(items or ()):
                        self.recorded(unused)
                if items is None:
                    return False
                self._ready.extend(items)
                self.sent += len(items)
                attachment.wake()
                if self.stopped:
                    self._give_up()
        return True

    async def _admit(self, count: int) -> bool:
        """Return True when ``count`` more may be intended, False when the run was stopped."""
        while self._unrecorded + count > AHEAD and not (self.stopped or self.left):
            await self._wait()
        self._check_ours()
        if self.stopped:
            return False
        await self._setting.room.take(count)
        self._unrecorded += count
        return True

    def _check_ours(self) -> None:
        if self.left or not self.ours:
            raise NotOwner(frozenset({self.partition}))

    async def _keep(self, connection: AsyncConnection) -> None:
        """Keep the partition until a transaction ends. Raises `NotOwner`."""
        await self._setting.ownership.guard(connection, {self.partition: self._term})

    async def _all_recorded(self, attachment: Any) -> None:
        while self._unrecorded:
            if self.left:
                self._stop(attachment)
            await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _stop(self, attachment: Any) -> None:
        attachment.detach()
        attachment.cancel_waiting()
        self._over = True
        self._rewind()

    def _rewind(self) -> None:
        """Leave what has not left to the next run."""
        recorder = self._setting.recorder
        waiting = [item.context for item in self._ready]
        self._ready.clear()
        taken_back, self._taken_back = self._taken_back + waiting, []
        recorder.count(self.recorded, len(waiting))
        if taken_back and self.ours:
            self._put_back(recorder.noting(self.partition), taken_back)
        if taken_back:
            recorder.soon()

    def _give_up(self) -> None:
        """Take back what has not left: for good, unless it is for the credentials."""
        if self.refused:
            self._taken_back += [item.context for item in self._ready]
            self._setting.recorder.count(self.recorded, len(self._ready))
            self._setting.recorder.soon()
            self._ready.clear()
        elif self._ready:
            waiting, self._ready = self._ready, deque()
            self.settled([(item, _not_sent(item)) for item in waiting])
        self._changed.set()

    def _worded(
        self, key: object, languages: frozenset[str], message: Callable[[str], Any], now: float
    ) -> Callable[[str | None], Any]:
        """Return what gives the message for a language, made anew when ``key`` changes."""
        for wording in self._wordings:
            if wording.key == key:
                return wording.message_in
        wording = Wording(self._carrier, languages, message, key=key, now=now)
        self._wordings = [wording, *self._wordings[:1]]  # with a channel there are two at a time
        return wording.message_in


def item_for(recipient: Recipient, message: Any) -> WorkItem:
    """Return the work item for a device."""
    return WorkItem(recipient.token, message, (recipient.row, recipient.device))


def _not_sent(item: WorkItem) -> Outcome:
    return Outcome(
        token=item.token,
        verdict=Verdict.NOT_SENT,
        reason="stopped",
        priority=item.message.priority,
    )


async def _one_ahead(pages: AsyncIterator[Page]) -> AsyncGenerator[Page, None]:
    """Read the next page while the last one is worked on: the database has more than one core."""

    async def read() -> Page | None:
        return await anext(pages, None)

    waiting = asyncio.create_task(read())
    try:
        while (page := await waiting) is not None:
            waiting = asyncio.create_task(read())
            yield page
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
