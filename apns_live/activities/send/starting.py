"""The start of an activity on all devices of an audience, a few side by side.

Each page carries the newest state, so a long start does not end with an old score. A start is never sent
twice: what a crash leaves of a page without an outcome is reported as UNKNOWN. An end stops a start behind
the page that is under way. One that comes at once does not take its place: the first page leaves, and the
end follows to each device when its token comes. One with the reason "cancelled" calls the start off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...client import WorkItem
from ...errors import InvalidInput
from ...outcome import Outcome, Verdict
from ..apps import App
from ..checks import has_channels
from ..people.audience import Recipient
from ..people.suspects import Which
from ..read.operations import persons_reached
from ..requests import CANCELLED
from ..requests.audience import Audience
from ..requests.messages import languages_of, start_alert_of, start_message
from ..requests.start_again import Further, Started, read_further
from ..store import schema
from ..store.hand_over import hand_over
from ..store.ownership import NOT_HELD
from ..store.statements import hold, row_of
from ..times import milliseconds
from . import fan_out
from .apns_clients import Carrier
from .backlog import ActivityBacklog, is_open
from .failing import Failing
from .fan_out import FanOut, Setting, item_for
from .jobs import Jobs
from .refusals import Pauses
from .results import Batch, advance, intend, refusal, report_unknown, write

AT_ONCE = 10.0
"""Seconds after a start within which an end lets its first page leave all the same."""


LEFT_OUT = "nobody was reached: the {count} push-to-start tokens of the audience are suspect"
SUSPECT_TOKEN = "suspect token"
"""The reason of an outcome for a device that was left out."""
_BEHIND = 1 << 62
"""Added to the cursor while suspect tokens are read: they come after all others, also when a start is resumed."""


GiveChannel = Callable[[App, Row[Any], Further, Mapping[int, int]], Awaitable[tuple[Row[Any], str]]]
"""Gives an activity a channel before its start; see `OwnChannels.give`."""


async def _no_channel(
    app: App, activity: Row[Any], further: Further, terms: Mapping[int, int]
) -> tuple[Row[Any], str]:
    return activity, ""


class StartFanOut(FanOut[Sequence[Recipient]]):
    """One start. ``resumed``: if it had begun, then in an earlier process, which may have died."""

    nobody = "nobody was reached: none of the audience has a push-to-start token for {type}"

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
        super().__init__(setting, app, operation, carrier)
        self._activity = activity
        self._further = read_further(operation)
        self._since = int(operation.created_at) if self._further.hand_over else 0
        """Milliseconds since 1970; earlier starts on the same devices were another operation's."""
        self.taken_over = not resumed
        """Whether what an earlier process began has been reported."""
        self.left_out = 0
        """Devices that it did not go to because their tokens are suspect."""

    async def _recover(self) -> None:
        if self._operation.status == "running" and not self.taken_over:
            async with self._setting.database.write() as connection:
                await self._keep(connection)
                await report_unknown(
                    connection,
                    app=self._app.row,
                    activity=self._activity.id,
                    operation=self._operation.id,
                    since=self._since,
                    now=milliseconds(self._setting.clock),
                )
        self.taken_over = True

    @property
    def _suspects(self) -> str:
        """What becomes of suspect tokens: use, last or skip."""
        given = self._setting.limits.settings.suspect_tokens
        return str(self._app.settings.get("suspect_tokens", given))

    async def run(self) -> bool:
        """Send to the whole audience, and note who was left out of it. See `FanOut.run`."""
        whole = await super().run()
        if whole and self._suspects == "skip" and not (self.refused or self.stopped):
            async for page in self._read("suspect"):
                await self._leave_out(page)
        return whole

    async def _pages(self) -> AsyncIterator[list[Recipient]]:
        kinds: dict[str, tuple[Which, ...]] = {"use": ("all",), "skip": ("trusted",)}
        for which in kinds.get(self._suspects, ("trusted", "suspect")):
            async for page in self._read(which):
                yield page

    def _whom(self) -> tuple[Audience, int | None]:
        """Return whom it is for, and of which activity they must have a card."""
        stored = msgspec.json.decode(self._activity.audience, type=Audience)
        return self._further.audience or stored, None

    async def _read(self, which: Which) -> AsyncIterator[list[Recipient]]:
        behind = _BEHIND if which == "suspect" else 0
        audience, started = self._whom()
        read = self._setting.audiences.recipients(
            self._app,
            audience,
            attributes_type=self._activity.attributes_type,
            environment=self._activity.environment,
            started=started,
            after=max(self._operation.cursor - behind, 0),
            page=fan_out.PAGE,
            which=which,
            moment=self._began(self._activity),
        )
        async for page in read:
            yield [replace(one, row=one.row + behind) for one in page] if behind else page

    async def _leave_out(self, page: Sequence[Recipient]) -> None:
        """Give the devices of a page an outcome that says why nothing was sent to them."""
        now, batch = milliseconds(self._setting.clock), Batch()
        async with self._setting.database.write() as connection:
            await self._keep(connection)
            await hold(connection, schema.activities, [self._activity.id])
            fresh = await intend(
                connection,
                **self._place(self._activity.version, page, now),
                leaves=False,
            )
            for one in page:
                if one.device in fresh:
                    outcome = Outcome(one.token, Verdict.NOT_SENT, reason=SUSPECT_TOKEN)
                    batch.add(self._app.row, self._operation.id, one.device, outcome)
            await write(connection, batch, now=now)
        self.left_out += len(fresh)

    def _place(self, version: int, page: Sequence[Recipient], now: int) -> dict[str, Any]:
        """Return what `intend` notes of a page; ``now`` is milliseconds."""
        return {
            "app": self._app.row,
            "activity": self._activity.id,
            "operation": self._operation.id,
            "environment": self._activity.environment,
            "version": version,
            "devices": [recipient.device for recipient in page],
            "cursor": page[-1].row,
            "now": now,
        }

    async def _intend(self, page: Sequence[Recipient]) -> list[WorkItem] | None:
        setting, table = self._setting, schema.activities
        async with setting.database.write() as connection:
            await self._keep(connection)
            # The row is held: an end that came first is seen, and one that comes later finds
            # these devices among those that it must reach.
            activity = await row_of(
                connection, select(table).where(table.c.id == self._activity.id).with_for_update()
            )
            # A state that is accepted after this moment has a later timestamp than this page.
            now = setting.clock.time()
            if activity is None or not self._may_start(activity, now):
                return None
            living = activity.status == "active"
            fresh = await self._note_intent(connection, activity, page, int(now * 1000))
            evicted = await setting.limits.within(
                connection,
                self._app,
                [(activity.id, device) for device in fresh],
                int(now * 1000),
            )
        setting.limits.tell(evicted)
        if not living:
            now = min(now, activity.ended_at / 1000)  # phones want the end to be newer
        started = Started(activity, self._further)
        # Devices on the channel and the others get another message each.
        messages = {
            by_channel: self._worded(
                (activity.version, int(now), by_channel),
                languages_of(start_alert_of(started)),
                partial(start_message, started, by_channel=by_channel, now=now),
                now,
            )
            for by_channel in set(fresh.values())
        }
        # A device with two tokens is started once.
        first = {recipient.device: recipient for recipient in reversed(page)}
        return [
            item_for(recipient, messages[fresh[recipient.device]](recipient.language))
            for recipient in page
            if recipient.device in fresh and first[recipient.device] is recipient
        ]

    async def _note_intent(
        self, connection: AsyncConnection, activity: Row[Any], page: Sequence[Recipient], now: int
    ) -> dict[int, bool]:
        """Note that a page is about to leave; return to which devices, and if they follow the channel."""
        living = activity.status == "active"
        version = activity.version if living else activity.version - 1  # the end follows
        following = {one.device for one in page if self._follows(one)}
        fresh = await intend(connection, **self._place(version, page, now), following=following)
        return {device: device in following for device in fresh}

    def _follows(self, recipient: Recipient) -> bool:
        """Whether a device that is started follows the activity's channel."""
        given = self._setting.limits.settings.channel_devices
        everyone = self._app.settings.get("channel_devices", given) == "all"
        known = everyone or has_channels(recipient.os_version)
        return known and self._activity.channel_id is not None

    def _may_start(self, activity: Row[Any], now: float) -> bool:
        if activity.status == "active":
            return True
        return (
            activity.status == "ended"
            and activity.end_reason != CANCELLED  # called off: it is not to be shown at all
            and activity.retired_at is None
            and now - self._began(activity) / 1000 < AT_ONCE
            and not (self.sent or self._operation.cursor)
        )

    def _began(self, activity: Row[Any]) -> int:
        """Return when it was to begin, in milliseconds since 1970."""
        return max(activity.started_at or 0, int(self._operation.created_at))

    def _noted(self, batch: Batch, device: int, outcome: Outcome) -> None:
        if outcome.verdict is Verdict.DROP_TOKEN:
            now = milliseconds(self._setting.clock)
            batch.refused_starts.append(refusal(self._app.row, outcome, now))
        if not outcome.may_have_been_sent:
            batch.unstarted.append((self._activity.id, device))
        else:
            batch.doubtful.append((self._activity.id, device))

    def _put_back(self, batch: Batch, taken_back: Sequence[tuple[int, int]]) -> None:
        first = min(row for row, _ in taken_back)
        batch.unstarted += [(self._activity.id, device) for _, device in taken_back]
        batch.rewound.append((self._operation.id, first - 1, len(taken_back)))


class HandOverFanOut(StartFanOut):
    """Second cards in place of those that are soon too old; of a stream also what its audience lacks."""

    nobody = "no card was left that could be handed over"

    def _whom(self) -> tuple[Audience, int | None]:
        if self._activity.stream_key is not None:
            return super()._whom()
        return Audience(everyone=True), self._activity.id

    async def _note_intent(
        self, connection: AsyncConnection, activity: Row[Any], page: Sequence[Recipient], now: int
    ) -> dict[int, bool]:
        devices = [recipient.device for recipient in page]
        handed = await hand_over(connection, activity, devices, now)
        added: dict[int, bool] = {}
        if activity.stream_key is not None:
            added = await super()._note_intent(connection, activity, page, now)
        await advance(connection, self._operation.id, page[-1].row, len(handed))
        return handed | added

    def _may_start(self, activity: Row[Any], now: float) -> bool:
        return bool(activity.status == "active")

    def _noted(self, batch: Batch, device: int, outcome: Outcome) -> None:
        super()._noted(batch, device, outcome)
        if not outcome.may_have_been_sent:
            batch.not_handed_over.append((self._activity.id, device))

    def _put_back(self, batch: Batch, taken_back: Sequence[tuple[int, int]]) -> None:
        super()._put_back(batch, taken_back)
        batch.not_handed_over += [(self._activity.id, device) for _, device in taken_back]


class Starts:
    """The starts of a courier. ``at_once`` is how many are fanned out side by side."""

    def __init__(
        self,
        setting: Setting,
        jobs: Jobs,
        failing: Failing,
        pauses: Pauses,
        backlog: ActivityBacklog,
        at_once: int,
    ) -> None:
        self._setting = setting
        self._jobs = jobs
        self._failing = failing
        self._pauses = pauses
        self._backlog = backlog
        self._most = 2 * at_once
        self._allowed = asyncio.Semaphore(at_once)
        self._later: dict[int, None] = {}
        """Activities whose start waits until others are done."""
        self.give_channel: GiveChannel = _no_channel
        self.begun: dict[int, tuple[int, int]] = {}
        """Activity and partition of each start that was begun in this term and is not finished."""

    def __len__(self) -> int:
        return len(self._later)

    def begin(self, app: App, activity: Row[Any], operations: Sequence[Row[Any]]) -> None:
        """Begin the first start of an activity that is open and need not wait."""
        starts = [
            row
            for row in operations
            if row.kind == "start"
            and is_open(row)
            and ("start", row.id) not in self._pauses
            and not (row.status == "failed" and row.id in self._failing.for_key)
        ]
        if not starts:
            return
        place = ("start", activity.id)
        if self._jobs.running("start") >= self._most and place not in self._jobs:
            self._later[activity.id] = None
            return
        self._jobs.begin(
            place,
            lambda: self._run(app, activity, starts[0]),
            partition=activity.partition,
            operations=starts[:1],
        )
        if len(starts) > 1:
            self._jobs.again(place)

    def ended(self) -> None:
        """Look at the next that waits: a start is done."""
        if self._later:
            self._backlog.add(later := next(iter(self._later)))
            del self._later[later]

    def leave(self, partitions: frozenset[int]) -> None:
        """Forget starts of partitions that are left: another worker may go on with them."""
        self.begun = {row: begun for row, begun in self.begun.items() if begun[1] not in partitions}

    def pause_over(self, operation: int) -> None:
        """Try a start again that was refused."""
        if operation in self.begun:
            self._backlog.add(self.begun[operation][0])

    async def _run(self, app: App, activity: Row[Any], operation: Row[Any]) -> None:
        async with (
            self._allowed,
            self._failing.carrier(app, activity.environment, [operation]) as carrier,
        ):
            if carrier is None:
                return
            further, without = read_further(operation), ""
            if not operation.cursor:
                term = self._setting.ownership.terms.get(activity.partition, NOT_HELD)
                terms = {activity.partition: term}
                activity, without = await self.give_channel(app, activity, further, terms)
            kind = HandOverFanOut if further.hand_over else StartFanOut
            fan_out = kind(
                self._setting,
                app,
                activity,
                operation,
                carrier,
                resumed=operation.id not in self.begun,
            )
            try:
                whole = await fan_out.run()
            except InvalidInput as error:
                await self._failing.fail([operation], str(error), final=True)
                return
            finally:
                if fan_out.taken_over and fan_out.ours and not fan_out.left:
                    self.begun[operation.id] = activity.id, activity.partition
        place = ("start", operation.id)
        if not await self._failing.settle(self._pauses, place, operation, fan_out, final=False):
            if not fan_out.refused:
                self.begun.pop(operation.id, None)
            return
        self.begun.pop(operation.id, None)
        if operation.reason and not whole and not fan_out.accepted and not operation.accepted:
            # It ended before anybody could be started.
            await self._failing.fail([operation], operation.reason, final=True)
            return
        persons = None
        status = "done" if whole or fan_out.sent or operation.cursor else "superseded"
        if status == "done":
            async with self._setting.database.read() as connection:
                persons = await persons_reached(connection, operation.id)
        nobody = status == "done" and not fan_out.sent and not operation.cursor
        reason = fan_out.nobody.format(type=activity.attributes_type) if nobody else None
        if nobody and fan_out.left_out:
            reason = LEFT_OUT.format(count=fan_out.left_out)
        reason = reason or without[:255] or None
        await self._failing.note(operation, status, reason, final=True, persons=persons)
