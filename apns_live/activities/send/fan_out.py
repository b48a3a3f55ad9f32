"""Sends one push to all devices of an audience, shard by shard: a start or a notification.

A shard is a range of tokens (see store/shards). Its steps::

    _lead      the operation's owner divides the audience. A single worker makes each page a shard as it reads;
               with several workers it divides far ahead, so that all can claim shards
    _claim     any worker claims the shard; first it settles what an earlier worker left
    _address   the devices of the shard are stored and counted, before anything is sent
    settled    results are stored, under the shard's epoch
    _close     the last result deletes the shard, in the same transaction. A shard with unsent pushes is
               released instead, and another worker claims it

The owner stays until no shard is left. The others end when there is nothing to claim. Reading and recording run
in parallel with sending.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from ...client import Acceptances, Alike, WorkItem
from ...delivery import SpikeGuard
from ...outcome import Outcome, Verdict
from ..people.audience import Recipient
from ..store import schema
from ..store.ownership import NOT_HELD, NotOwner
from ..store.shards import RELEASED, Shard, advance, decode_devices, encode_devices
from ..store.statements import page_of
from ..store.wakeups import POLL
from .kind import Intended, Kind, Pass, apns_ids
from .refusals import refusal_of, refuses_credentials
from .results import Batch, unsettled, write

PAGE = 3_000
"""Tokens of a shard, about. Each of its statements has a cost that does not depend on their number."""
MOST = PAGE + PAGE // 4
"""Tokens of a shard at most. It is sent in parts if it has more."""
AHEAD = 6_000
"""Tokens that are intended and not recorded: bounds the unknown outcomes after a crash."""
ROOM = 20_000
"""The same limit for all fan-outs together: bounds memory."""
CUT = 16
"""Shards that are cut together."""
_OURS = frozenset({"closed", "cancelled"})
"""Reasons of pushes that were not sent because this worker stops: they are sent later."""
_IN_DOUBT = Outcome("", Verdict.UNKNOWN, reason="restart", may_have_been_sent=True, priority=10)


@dataclass(eq=False, slots=True)
class Part:
    """A shard in progress. A part that its owner reads has no shard before it is addressed."""

    page: Sequence[Recipient]
    until: int
    shard: Shard | None = None
    before: int = 0
    """Devices that were counted as targeted when an earlier worker addressed them."""
    devices: dict[str, int] = field(default_factory=dict)
    """The devices that get a push, each by the push's apns-id."""
    unanswered: int = 0
    taken_back: list[int] = field(default_factory=list)
    """Devices to which a push was certainly not sent."""
    addressed: bool = False


class FanOut:
    """One worker's part of a start or notification. ``leads`` says whether it owns the operation."""

    def __init__(self, kind: Kind, *, leads: bool = True) -> None:
        self.kind = kind
        self.leads = leads
        self.operation: int = kind.operation.id
        self.partition: int = kind.operation.partition
        self.refused = ""
        """Why APNs refuses the credentials, if it refused a push for them."""
        self.sent = 0
        self._ended = False
        """Whether nothing more may be sent: the rest of its shards is removed."""
        self.left = False
        """Whether it stops because its partition or one of its shards went to another worker."""
        self._shared = kind.shared
        self._shards = kind.shared.ownership.shards
        self._term = kind.shared.ownership.terms.get(self.partition, NOT_HELD)
        self._parts: set[Part] = set()
        self._ready: deque[Alike] = deque()
        self._unrecorded = 0
        self._changed = asyncio.Event()
        self._guard = SpikeGuard()
        self._attachment: Any = None
        self._passes: Sequence[Pass] = ()

    @property
    def stopped(self) -> str:
        """Why the guard stopped it: all further answers would be refusals. Empty if it did not."""
        return self._guard.stopped

    def leave(self) -> None:
        """Stop: another worker owns the partition, or the work starts anew."""
        self.left = True
        if self._attachment is not None:
            self._attachment.cancel_waiting()
        self._changed.set()

    def lose(self, shards: frozenset[int]) -> None:
        """Stop if another worker now has one of its shards."""
        lost = {part for part in self._parts if part.shard and part.shard.row in shards}
        self._parts -= lost
        if lost:
            self.leave()

    # Part of `AlikeSource`.

    def take(self, limit: int) -> Alike | None:
        """Return waiting pushes whose intent is stored."""
        if not self._ready or self.left or self._shared.ownership.fenced:
            return None
        message, tokens, ids = first = self._ready.popleft()
        if len(tokens) <= limit:
            return first
        self._ready.appendleft(Alike(message, tokens[limit:], ids[limit:]))
        return Alike(message, tokens[:limit], ids[:limit])

    def accepted(self, batches: Sequence[Acceptances]) -> None:
        """Record acceptances."""
        touched: set[Part] = set()
        count = 0
        for batch in batches:
            count += len(batch.apns_ids)
            for part, devices in self._by_part(batch.apns_ids):
                touched.add(part)
                self._note_accepted(part, devices, batch.like.priority)
        self._collected(touched, count)
        self._guard.judge(count)

    def settled(self, outcomes: Sequence[tuple[WorkItem, Outcome]]) -> None:
        """Record other outcomes."""
        self._record([(push.request_id, outcome) for push, outcome in outcomes])

    def _record(self, outcomes: Sequence[tuple[str, Outcome]]) -> None:
        kind, accepted = self.kind, 0
        failed: list[Outcome] = []
        touched: set[Part] = set()
        for apns_id, outcome in outcomes:
            for part, [device] in self._by_part([apns_id]):
                touched.add(part)
                if outcome.verdict is Verdict.ACCEPTED:
                    accepted += 1
                    self._note_accepted(part, [device], outcome.priority)
                    continue
                part.unanswered -= 1
                if outcome.verdict is Verdict.NOT_SENT and outcome.reason in _OURS:
                    part.taken_back.append(device)
                    continue
                failed.append(outcome)
                if refuses_credentials(outcome):
                    # This says nothing about the device: it gets the push once the credentials
                    # are right.
                    part.taken_back.append(device)
                    self.refused = refusal_of(outcome)
                else:
                    batch = self._shared.recorder.noting(_shard_of(part))
                    batch.add(kind.app.row, self.operation, device, outcome)
                    kind.noted(batch, device, outcome)
        self._collected(touched, len(outcomes))
        if self._guard.judge(accepted, failed):
            self._give_up()

    def _by_part(self, pushes: Sequence[str]) -> Iterator[tuple[Part, list[int]]]:
        """Yield parts and their devices among pushes, by apns-id. Those of lost parts are left out."""
        left = len(pushes)
        for part in tuple(self._parts):
            of = part.devices
            if left and (devices := [of[one] for one in pushes if one in of]):
                left -= len(devices)
                yield part, devices

    def _note_accepted(self, part: Part, devices: list[int], priority: int) -> None:
        batch = self._shared.recorder.noting(_shard_of(part))
        batch.counts.setdefault(self.operation, [0, 0])[0] += len(devices)
        shared = (self.kind.app.row, self.operation, self.kind.apns_id_head, priority)
        batch.reached.setdefault(shared, []).extend(devices)
        part.unanswered -= len(devices)

    def _collected(self, parts: set[Part], count: int) -> None:
        """Close finished parts, and have ``count`` results stored."""
        self._close(parts)
        self._shared.recorder.count(self.recorded, count)
        self._shared.recorder.soon(count, patient=True)

    def recorded(self, count: int) -> None:
        """Note that results were stored."""
        self._unrecorded -= count
        self._shared.allowance.give(count)
        self._changed.set()

    def _close(self, parts: set[Part]) -> None:
        """Remove or release the shards of parts whose last answer has arrived."""
        for part in parts:
            if part.unanswered or part.shard is None or part not in self._parts:
                continue
            self._parts.discard(part)
            batch = self._shared.recorder.noting(part.shard)
            if part.taken_back:
                self.kind.put_back(batch, part.taken_back)
            (batch.released if part.taken_back or not part.addressed else batch.sent).append(
                (part.shard.row,)
            )
            self._shards.close(part.shard)
            self._shared.recorder.soon()

    # The run.

    async def run(self) -> bool:
        """Send to the audience, or to its claimable shards; return False if it ended early.

        Raises `InvalidInput` if the audience no longer resolves, `NotOwner` if another worker takes
        over.
        """
        client = self.kind.carrier.client
        self._attachment = client.attach(self, tokens_checked=True, alike=True)
        self._shared.running.add(self)
        try:
            await self._work_off()
            await self._all_recorded()
        except Exception:
            # The results of pushes in flight must be stored before another attempt. Otherwise a
            # device could get two pushes.
            self._stop()
            await self._all_recorded()
            raise
        finally:
            self._shared.running.discard(self)
            self._stop()
        if self.left:
            raise NotOwner(frozenset({self.partition}))
        return not self._ended

    async def _work_off(self) -> None:
        async with aclosing(_one_ahead(self._read())) as parts:
            async for part in parts:
                count = len(part.page)
                if not await self._admit(count):
                    return
                sent = 0
                try:
                    sent = await self._address(part)
                finally:
                    # The allowance was taken for the whole page; devices that get no push need none.
                    if unused := count - sent:
                        self.recorded(unused)
                self._attachment.wake()
                if self.stopped:
                    self._give_up()

    async def _admit(self, count: int) -> bool:
        """Return True once ``count`` more pushes may be intended, False if the run was stopped."""
        while (
            self._unrecorded + count > AHEAD
            and self._unrecorded
            and not (self.stopped or self.left)
        ):
            await self._wait()
        while self._shared.ownership.fenced and not (self.stopped or self.left):
            await self._shared.clock.sleep(POLL)  # Its leases are renewed soon, or lost.
        if self.left:
            raise NotOwner(frozenset({self.partition}))
        if self.stopped:
            return False
        await self._shared.allowance.take(count)
        self._unrecorded += count
        return True

    async def _address(self, part: Part) -> int:
        """Store the devices of a part that are about to get a push; return how many are ready to be sent."""
        page = part.page
        if len({one.device for one in page}) < len(page):  # a device with two tokens gets one push
            page = [*{recipient.device: recipient for recipient in reversed(page)}.values()][::-1]
        async with self._shared.database.write() as connection:
            if (shard := part.shard) is None:
                await self.keep(connection)
            first = self.leads and not (self.sent or self.kind.operation.cursor)
            intended: Intended | None = None
            if page:
                intended = await self.kind.intend(connection, page, first=first)
            over = bool(page) and intended is None
            devices: Sequence[int] = () if intended is None else intended.devices
            coded = encode_devices(devices)
            more = len(devices) - part.before
            shards, place = self._shards, (connection, self.operation)
            if shard is not None:
                if part.until < shard.until and not over:
                    await shards.put(*place, [(part.until, shard.until)])
                if not await shards.address(connection, shard, coded, more):
                    raise NotOwner(shards=frozenset({shard.row}))
            elif not over:
                shard = await shards.put_mine(*place, part.until, coded, more)
            if over:
                await shards.drop(*place)
        if shard is not None and part.shard is None:
            self._shards.hold(shard)
            part.shard = shard
        part.addressed = True
        try:
            messages = () if intended is None else await intended.messages()
            if messages is None and shard is not None:
                over = True
                await self._undo(part, shard, devices)
            for message, recipients in messages or ():
                rows = [one.device for one in recipients]
                ids = apns_ids(self.kind.apns_id_head, rows)
                part.devices.update(zip(ids, rows, strict=True))
                self._ready.append(Alike(message, [one.token for one in recipients], ids))
        except BaseException:
            part.taken_back += devices
            raise
        finally:
            part.unanswered = len(part.devices)
            self.sent += len(part.devices)
            if part.shard is None:
                self._parts.discard(part)
            self._ended = self._ended or over
            self._close({part})
            self._changed.set()
        return len(part.devices)

    async def _undo(self, part: Part, shard: Shard, devices: Sequence[int]) -> None:
        """Delete a shard and what was stored of its devices: they must not get the push any more."""
        batch = Batch()
        self.kind.put_back(batch, devices)
        batch.sent.append((shard.row,))
        async with self._shared.database.write() as connection:
            if await self._shards.guard(connection, {shard.row: shard.epoch}):
                raise NotOwner(shards=frozenset({shard.row}))
            await write(connection, batch, now=self.kind.now)
            await advance(connection, self.operation, more=-len(devices))
            await self._shards.drop(connection, self.operation)
        self._shards.forget([shard.row])
        self._parts.discard(part)

    async def keep(self, connection: AsyncConnection) -> None:
        """Lock the operation's partition until the transaction ends. Raises `NotOwner`."""
        await self._shared.ownership.guard(connection, {self.partition: self._term})

    async def _all_recorded(self) -> None:
        while self._unrecorded:
            if self.left:
                self._stop()
            await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _stop(self) -> None:
        """Leave unsent pushes to the next worker."""
        self._attachment.detach()
        self._attachment.cancel_waiting()
        self._take_back()
        self._close({part for part in self._parts if not part.addressed})

    def _take_back(self) -> None:
        waiting = self._withdraw()
        parts: set[Part] = set()
        for part, devices in self._by_part(waiting):
            part.taken_back += devices
            part.unanswered -= len(devices)
            parts.add(part)
        self._close(parts)
        if waiting:
            self._shared.recorder.count(self.recorded, len(waiting))
            self._shared.recorder.soon()

    def _give_up(self) -> None:
        """Give up unsent pushes: for later if credentials were refused, else permanently."""
        if self.refused:
            self._take_back()
        elif self._ready:
            priority = self._ready[0].message.priority
            outcome = Outcome("", Verdict.NOT_SENT, reason="stopped", priority=priority)
            self._record([(one, outcome) for one in self._withdraw()])
        self._changed.set()

    def _withdraw(self) -> list[str]:
        """Remove the pushes that wait; return their apns-ids."""
        waiting, self._ready = self._ready, deque()
        return [one for alike in waiting for one in alike.apns_ids]

    # The recipients.

    async def _read(self) -> AsyncIterator[Part]:
        """Read part after part: first the owner's own parts, then claimed shards."""
        shared = False
        self._passes = await self.kind.passes()
        if self.leads:
            shared = await self._take_over()
            async for part in self._lead():
                shared = shared or part is None or part.shard is not None
                if part is not None:
                    yield part
        while shared or not self.leads:
            if (part := await self._claim()) is not None:
                yield part
            elif not self.leads or await self._all_over():
                return

    async def _take_over(self) -> bool:
        """Check what an earlier worker left; return whether it may have left shards."""
        operation = self.kind.operation
        if operation.status in {"running", "failed"}:
            async with self._shared.database.write() as connection:
                await self.keep(connection)
                open_ = operation.status == "running"  # an older release without shards began it
                for devices in await self.kind.left_open(connection) if open_ else ():
                    ends, coded = [(operation.cursor, operation.cursor)], encode_devices(devices)
                    await self._shards.put(connection, self.operation, ends, coded)
                await advance(connection, self.operation, cursor=operation.cursor)
        return bool(operation.status != "accepted")

    async def _lead(self) -> AsyncIterator[Part | None]:
        """Read the first page, then all pages if this is the only worker; else cut and claim.

        Yields None if shards were cut and none was claimed.
        """
        for each in self._passes:
            after, more, span = max(self.kind.operation.cursor - each.behind, 0), True, 0
            while more and not (self.left or self._ended):
                if span and not self._shared.ownership.whole:
                    after, more = await self._cut(each, after, span)
                    yield await self._claim()
                    continue
                page = await self._recipients(each, after, PAGE)
                more = len(page) >= PAGE
                if page:
                    span, after = page[-1].row - page[0].row + 1, page[-1].row
                    part = Part(each.chosen(page), after + each.behind)
                    self._parts.add(part)
                    yield part

    async def _recipients(self, each: Pass, after: int, most: int) -> list[Recipient]:
        """Read a page of recipients."""
        async with self._shared.database.read(once=True) as connection:
            found = await page_of(connection, each.page, {"after": after, "most": most}, Recipient)
        found.sort(key=lambda recipient: recipient.row)
        return found

    async def _cut(self, each: Pass, after: int, span: int) -> tuple[int, bool]:
        """Cut shards that any worker may claim; return their end, and whether more may follow.

        Each takes as many rows as the page before. Only its worker counts the tokens of the
        audience in it, and leaves the rest of a dense one to others.
        """
        while any(part.shard is None for part in self._parts):
            await self._wait()  # the cursor moves past what was read before
        row = each.query.with_only_columns(each.place, maintain_column_froms=True)
        row = row.where(each.place > after).order_by(each.place.desc()).limit(1)
        if (last := await self._shared.database.scalar(row)) is None:
            return after, False
        ends = [*islice(range(after, last, span), CUT), min(after + span * CUT, last)]
        behind = [end + each.behind for end in ends]
        async with self._shared.database.write() as connection:
            await self.keep(connection)
            await self._shards.put(connection, self.operation, list(pairwise(behind)))
            await advance(connection, self.operation, cursor=behind[-1])
        self._shards.told(self.operation)
        return ends[-1], ends[-1] < last

    async def _claim(self) -> Part | None:
        """Claim a shard and read its recipients; None if there is none."""
        if self.stopped or self.refused or self.left or self._shared.ownership.fenced:
            return None
        if (shard := await self._shards.claim(self._shared.database, self.operation)) is None:
            return None
        part = Part((), shard.until, shard)
        self._parts.add(part)
        if shard.devices is not None:
            part.page, part.before = await self._left_of(shard, decode_devices(shard.devices))
            return part
        reached = (one for one in self._passes if one.behind <= shard.after)
        each = max(reached, key=lambda one: one.behind)
        page = await self._recipients(each, shard.after - each.behind, MOST)
        if len(page) == MOST:
            part.until = min(page[-1].row + each.behind, shard.until)
        part.page = each.chosen([one for one in page if one.row + each.behind <= part.until])
        return part

    async def _left_of(
        self, shard: Shard, devices: Sequence[int]
    ) -> tuple[Sequence[Recipient], int]:
        """Settle what an earlier worker left of a shard; return the recipients to repeat and their number."""
        async with self._shared.database.write() as connection:
            if await self._shards.guard(connection, {shard.row: shard.epoch}):
                raise NotOwner(shards=frozenset({shard.row}))
            left = await unsettled(connection, self.operation, devices)
            if not left or shard.before == RELEASED:
                query = self.kind.living().where(schema.devices.c.id.in_(left))
                return await page_of(connection, query, kind=Recipient) if left else [], len(left)
            # The earlier worker may have sent to these, or may still do so if it was only stopped.
            batch = Batch()
            for device in left:
                batch.add(self.kind.app.row, self.operation, device, _IN_DOUBT)
                self.kind.noted(batch, device, _IN_DOUBT)
            await write(connection, batch, now=self.kind.now)
        return [], 0

    async def _all_over(self) -> bool:
        """Wait briefly for shards of other workers; return whether none is left."""
        while self._parts or self._unrecorded:
            if self.stopped or self.refused or self.left:
                return True
            await self._wait()
        over = self.stopped or self.refused or self.left
        if over or not await self._shards.left(self._shared.database, self.operation):
            return True
        await self._shared.clock.sleep(POLL)
        return False


def _shard_of(part: Part) -> Shard:
    assert part.shard is not None  # noqa: S101 - a part with pushes was addressed
    return part.shard


async def _one_ahead(parts: AsyncIterator[Part]) -> AsyncGenerator[Part, None]:
    """Read the next part while the last one is processed: the database has more than one core."""

    async def read() -> Part | None:
        return await anext(parts, None)

    waiting = asyncio.create_task(read())
    try:
        while (part := await waiting) is not None:
            waiting = asyncio.create_task(read())
            yield part
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
