"""The start of an activity on all devices of an audience, read, sent and recorded in a stream.

Page by page: the intent of a page is committed before it may leave, results are committed behind
it, and both run beside the sending. Each page carries the newest state, so a long start does not
end with an old score. After a crash the reading goes on behind the last intended page.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Row, select

from ... import payload
from ...client import WorkItem
from ...clock import Clock
from ...delivery import SpikeGuard
from ...outcome import Outcome, Verdict
from ..apps import App
from ..people.audience import Audiences, Recipient
from ..requests.audience import Audience
from ..requests.messages import best_language, languages_of, start_alert_of, start_message
from ..requests.start_again import Started, read_further
from ..store import schema
from ..store.database import Database
from ..store.ownership import NotOwner, Ownership
from ..times import milliseconds
from .apns_clients import Carrier
from .limits import Limits
from .recorder import Recorder
from .refusals import refusal_of, refuses_credentials
from .results import intend, refusal, report_unknown

PAGE = 2_000
AHEAD = 3 * PAGE
"""Tokens of a start that are intended and not recorded: bounds what a crash leaves UNKNOWN."""
ROOM = 10 * PAGE
"""The same over all starts together: bounds memory."""
_ACCEPTED = Verdict.ACCEPTED
_OURS = frozenset({"closed", "cancelled"})
"""Reasons of what was not sent because we stop: it is sent when we go on."""


class Room:
    """How many pushes of starts may be under way; whoever asks first is served first."""

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
    """What every start needs."""

    database: Database
    clock: Clock
    audiences: Audiences
    recorder: Recorder
    room: Room
    limits: Limits
    ownership: Ownership
    running: set[Any] = field(default_factory=set)
    """The fan-outs under way."""


class StartFanOut:
    """One start. ``await run()`` returns when every device it read has its result in the store.

    ``resumed``: if it had begun, then in an earlier process, which may have died.
    """

    def __init__(
        self,
        setting: Setting,
        app: App,
        activity: Row[Any],
        operation: Row[Any],
        carrier: Carrier,
        *,
        resumed: bool = True,
    ) -> None:
        self._setting = setting
        self._app = app
        self._activity = activity
        self._operation = operation
        self._further = read_further(operation)
        self._carrier = carrier
        self._ready: deque[WorkItem] = deque()
        self._unrecorded = 0
        self._changed = asyncio.Event()
        self._guard = SpikeGuard()
        self._wording: _Wording | None = None
        self._taken_back: list[tuple[int, int]] = []
        self._over = False
        self._refusal = ""
        self.taken_over = not resumed
        """Whether what an earlier process began has been reported."""
        self.sent = 0
        self.accepted = 0

    @property
    def stopped(self) -> str:
        """Why it was stopped: its answers would have been refusals for ever. Empty if it was not."""
        return self._guard.stopped

    @property
    def refused(self) -> str:
        """Why APNs refuses the credentials, if it refused any push for that; else empty."""
        return self._refusal

    def take(self, limit: int) -> Sequence[WorkItem]:
        """Give the client what is intended and waits. Part of `WorkSource`."""
        ready = self._ready
        if not self._setting.ownership.holds(self._activity.partition):
            return ()
        if len(ready) <= limit:
            items = list(ready)
            ready.clear()
            return items
        return [ready.popleft() for _ in range(limit)]

    def settled(self, outcomes: Sequence[tuple[WorkItem, Outcome]]) -> None:
        """Note results. Part of `WorkSource`."""
        recorder = self._setting.recorder
        batch = recorder.batch
        app, operation = self._app.row, self._operation.id
        batch.partitions.add(self._activity.partition)
        accepted = 0
        rows = batch.outcomes
        for item, outcome in outcomes:
            if outcome.verdict is not _ACCEPTED:
                self._failed(item, outcome)
                continue
            accepted += 1
            rows.append(
                (
                    app,
                    operation,
                    item.context[1],
                    "accepted",
                    outcome.status,
                    outcome.reason,
                    outcome.apns_id,
                    outcome.priority,
                )
            )
        self.accepted += accepted
        if accepted:
            batch.counts.setdefault(operation, [0, 0])[0] += accepted
        recorder.count(self, len(outcomes))
        recorder.soon()
        if self._over:
            self._rewind()
        if self._guard.judge(accepted):
            self._give_up()

    def _failed(self, item: WorkItem, outcome: Outcome) -> None:
        batch = self._setting.recorder.batch
        app = self._app.row
        if outcome.verdict is Verdict.NOT_SENT and outcome.reason in _OURS:
            self._taken_back.append(item.context)
            return
        if refuses_credentials(outcome):
            # It is no answer about this device: it is sent when the credentials are right.
            self._taken_back.append(item.context)
            self._refusal = refusal_of(outcome)
            self._guard.answered(outcome)
            return
        device = item.context[1]
        batch.add(app, self._operation.id, device, outcome)
        if outcome.verdict is Verdict.DROP_TOKEN:
            now = milliseconds(self._setting.clock)
            batch.refused_starts.append(refusal(app, outcome, now))
        if not outcome.may_have_been_sent:
            batch.unstarted.append((self._activity.id, device))
        self._guard.answered(outcome)

    def _give_up(self) -> None:
        """Take back what has not left: for good, unless it is for the credentials."""
        if self._refusal:
            self._taken_back += [item.context for item in self._ready]
            self._setting.recorder.count(self, len(self._ready))
            self._setting.recorder.soon()
            self._ready.clear()
            self._changed.set()
            return
        waiting = [
            (
                item,
                Outcome(
                    token=item.token,
                    verdict=Verdict.NOT_SENT,
                    reason="stopped",
                    priority=item.message.priority,
                ),
            )
            for item in self._ready
        ]
        self._ready.clear()
        if waiting:
            self.settled(waiting)
        self._changed.set()

    def recorded(self, count: int) -> None:
        """Note that results are in the store."""
        self._unrecorded -= count
        self._setting.room.give(count)
        self._changed.set()

    async def run(self) -> bool:
        """Send to the whole audience; return whether the activity was still to be started.

        Raises `InvalidInput` if the audience no longer resolves.
        """
        if self._operation.status == "running" and not self.taken_over:
            async with self._setting.database.write() as connection:
                await self._setting.ownership.guard(connection, [self._activity.partition])
                await report_unknown(
                    connection,
                    app=self._app.row,
                    activity=self._activity.id,
                    operation=self._operation.id,
                    now=milliseconds(self._setting.clock),
                )
        self.taken_over = True
        attachment = self._carrier.sender.attach(self)
        self._setting.running.add(self)
        try:
            finished = await self._read(attachment)
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
        return finished

    def _stop(self, attachment: Any) -> None:
        attachment.detach()
        attachment.cancel_waiting()
        self._over = True
        self._rewind()

    async def _all_recorded(self, attachment: Any) -> None:
        while self._unrecorded:
            if self._activity.partition not in self._setting.ownership.partitions:
                self._stop(attachment)
            await self._wait()

    def wake(self) -> None:
        """Look again: partitions may have been lost."""
        self._changed.set()

    def _rewind(self) -> None:
        """Let the next run read again from the first device whose push certainly did not leave."""
        recorder = self._setting.recorder
        taken_back = self._taken_back + [item.context for item in self._ready]
        recorder.count(self, len(self._ready))
        self._ready.clear()
        self._taken_back.clear()
        if taken_back:
            batch = recorder.batch
            batch.partitions.add(self._activity.partition)
            first = min(row for row, _ in taken_back)
            batch.unstarted += [(self._activity.id, device) for _, device in taken_back]
            batch.rewound.append((self._operation.id, first - 1, len(taken_back)))
            recorder.soon()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _read(self, attachment: Any) -> bool:
        setting = self._setting
        pages = setting.audiences.recipients(
            self._app,
            self._further.audience or msgspec.json.decode(self._activity.audience, type=Audience),
            attributes_type=self._activity.attributes_type,
            environment=self._activity.environment,
            after=self._operation.cursor,
            page=PAGE,
        )
        async with aclosing(_one_ahead(pages)) as read:
            return await self._work_off(read, attachment)

    async def _work_off(self, pages: AsyncIterator[list[Recipient]], attachment: Any) -> bool:
        setting = self._setting
        async for page in pages:
            while self._unrecorded + len(page) > AHEAD and not self.stopped:
                await self._wait()
            if self.stopped:
                return True
            if self._activity.partition not in setting.ownership.partitions:
                raise NotOwner(frozenset({self._activity.partition}))
            await setting.room.take(len(page))
            self._unrecorded += len(page)
            left = 0
            try:
                activity, fresh, now = await self._intend(page)
                if activity is None:
                    return False
                self._ready.extend(self._items(page, activity, fresh, now))
                left = len(fresh)
            finally:
                # Room was taken for the whole page; who is not to be sent to needs none.
                if unused := len(page) - left:
                    self._unrecorded -= unused
                    setting.room.give(unused)
            self.sent += left
            attachment.wake()
            if self.stopped:
                self._give_up()
        return True

    async def _intend(self, page: Sequence[Recipient]) -> tuple[Row[Any] | None, set[int], float]:
        table = schema.activities
        async with self._setting.database.write() as connection:
            await self._setting.ownership.guard(connection, [self._activity.partition])
            # The row is held: an end that came first is seen, and one that comes later finds
            # these devices among those that it must reach.
            activity = (
                await connection.execute(
                    select(table).where(table.c.id == self._activity.id).with_for_update()
                )
            ).one_or_none()
            if activity is None or activity.status != "active":
                return None, set(), 0.0
            # A state that is accepted after this moment has a later timestamp than this page.
            now = self._setting.clock.time()
            fresh = await intend(
                connection,
                app=self._app.row,
                activity=self._activity.id,
                operation=self._operation.id,
                environment=self._activity.environment,
                version=activity.version,
                devices=[recipient.device for recipient in page],
                cursor=page[-1].row,
                now=int(now * 1000),
            )
            evicted = await self._setting.limits.within(
                connection,
                self._app,
                [(self._activity.id, device) for device in fresh],
                int(now * 1000),
            )
        self._setting.limits.tell(evicted)
        return activity, fresh, now

    def _items(
        self, page: Sequence[Recipient], activity: Row[Any], fresh: set[int], now: float
    ) -> list[WorkItem]:
        wording = self._wording
        if wording is None or not wording.serves(activity.version, now):
            told = Started(activity, self._further)
            wording = self._wording = _Wording(self._carrier, told, now)
        message_in = wording.message_in
        remaining = set(fresh)
        items: list[WorkItem] = []
        for recipient in page:
            if recipient.device in remaining:
                remaining.discard(recipient.device)
                items.append(
                    WorkItem(
                        recipient.token,
                        message_in(recipient.language),
                        (recipient.row, recipient.device),
                    )
                )
        return items


class _Wording:
    """The start for one state, encoded once for each language that has a text."""

    def __init__(self, carrier: Carrier, activity: Started, now: float) -> None:
        self._carrier = carrier
        self._activity = activity
        self._now = now
        self._languages = languages_of(start_alert_of(activity))
        self._made: dict[str | None, Any] = {}

    def serves(self, version: int, now: float) -> bool:
        """Whether this is still what would be said."""
        return bool(version == self._activity.version and int(now) == int(self._now))

    def message_in(self, language: str | None) -> Any:
        """Return the message, ready to send."""
        made = self._made.get(language)
        if made is None:
            best = best_language(self._languages, language)
            made = self._made.get(best)
            if made is None:
                message = start_message(self._activity, best, now=self._now)
                made = self._carrier.client.prepare(payload.encode(message, now=self._now))
            self._made[best] = self._made[language] = made
        return made


async def _one_ahead(
    pages: AsyncIterator[list[Recipient]],
) -> AsyncGenerator[list[Recipient], None]:
    """Read the next page while the last one is worked on: the database has more than one core."""

    async def read() -> list[Recipient] | None:
        return await anext(pages, None)

    waiting = asyncio.create_task(read())
    try:
        while (page := await waiting) is not None:
            waiting = asyncio.create_task(read())
            yield page
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
