"""Sends starts to all devices of an audience, a few in parallel.

Each shard has the newest state at its time. A start is never sent twice: after a crash, devices of a shard
without an outcome are reported as UNKNOWN. An end stops the start after the current shards. If the end comes
at once, the first page is still sent, and the end follows to each device when its token arrives. An end with
the reason "cancelled" cancels the start.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import InvalidInput
from ...outcome import Outcome, Verdict
from ..apps import App
from ..checks import has_channels
from ..people.audience import Recipient, living_tokens, recipient_pages
from ..people.suspects import Which
from ..read.operations import persons_reached
from ..requests import CANCELLED, Audience
from ..requests.messages import (
    Further,
    Started,
    languages_of,
    read_further,
    start_alert_of,
    start_message,
)
from ..store import schema
from ..store.hand_over import hand_over
from ..store.ownership import NOT_HELD
from ..store.shards import advance
from ..store.statements import chunks, hold, row_of
from .apns_clients import Carrier
from .backlog import ActivityBacklog, is_open
from .failing import Failing
from .fan_out import PAGE, FanOut
from .jobs import Jobs
from .kind import Intended, Kind, Messages, Pass, SharedParts
from .results import Batch, intend, left_open, refusal, unstarted, write

AT_ONCE = 10.0
"""Seconds after a start within which an end still lets the first page be sent."""


LEFT_OUT = "nobody was reached: the {count} push-to-start tokens of the audience are suspect"
SUSPECT_TOKEN = "suspect token"
"""The reason of an outcome for a device that was left out."""
_BEHIND = 1 << 62
"""Added to the cursor while suspect tokens are read: they come last, also in a resumed start."""


GiveChannel = Callable[[App, Row[Any], Further, Mapping[int, int]], Awaitable[tuple[Row[Any], str]]]
"""Gives an activity a channel before its start; see `OwnChannels.give`."""


class StartKind(Kind):
    """A start."""

    nobody = "nobody was reached: none of the audience has a push-to-start token for {type}"
    locks = False
    """Whether the activity is locked while devices are stored."""

    def __init__(
        self,
        shared: SharedParts,
        app: App,
        activity: Row[Any],
        operation: Row[Any],
        carrier: Carrier,
    ) -> None:
        super().__init__(shared, app, operation, carrier)
        self.activity = activity
        self._further = read_further(operation)
        query = select(schema.activities).where(schema.activities.c.id == activity.id)
        self._query = query.with_for_update() if self.locks else query
        self._shown = query.with_for_update(read=True)
        self._since = int(operation.created_at) if self._further.hand_over else 0
        """Milliseconds since 1970; earlier starts on these devices belong to another operation."""

    @property
    def _suspects(self) -> str:
        """How suspect tokens are handled: use, last or skip."""
        given = self.shared.limits.settings.suspect_tokens
        return str(self.app.settings.get("suspect_tokens", given))

    async def passes(self) -> Sequence[Pass]:
        """Return the recipients with trusted tokens, then those with suspect ones."""
        kinds: dict[str, tuple[Which, ...]] = {"use": ("all",), "skip": ("trusted",)}
        return [
            await self._pass(which) for which in kinds.get(self._suspects, ("trusted", "suspect"))
        ]

    def _whom(self) -> tuple[Audience, int | None]:
        """Return the audience, and the activity of which the devices must have a card."""
        stored = msgspec.json.decode(self.activity.audience, type=Audience)
        return self._further.audience or stored, None

    async def _pass(self, which: Which) -> Pass:
        audience, started = self._whom()
        query = await self.shared.audiences.start_tokens(
            self.app,
            audience,
            attributes_type=self.activity.attributes_type,
            environment=self.activity.environment,
            started=started,
            which=which,
            moment=self._began(self.activity),
        )
        return Pass(query, schema.start_tokens.c.id, _BEHIND if which == "suspect" else 0)

    def living(self) -> Select[Any]:
        """Return the query for all start tokens of the activity's type."""
        tokens = schema.start_tokens
        query = living_tokens(tokens, self.app, self.activity.environment)
        return query.where(tokens.c.attributes_type == self.activity.attributes_type)

    async def leave_out(self, partition: Callable[[AsyncConnection], Awaitable[None]]) -> int:
        """If so set, give suspect tokens an outcome that says why; return how many.

        ``partition`` locks the operation in a transaction.
        """
        count = 0
        if self._suspects == "skip":
            each = await self._pass("suspect")
            after = max(self.operation.cursor - _BEHIND, 0)
            pages = recipient_pages(self.shared.database, each.query, each.place, after, PAGE)
            async with aclosing(pages) as read:
                async for page in read:
                    async with self.shared.database.write() as connection:
                        await partition(connection)
                        count += await self._leave_out(connection, page)
        return count

    async def _leave_out(self, connection: AsyncConnection, page: Sequence[Recipient]) -> int:
        activity, now, batch = self.activity, self.now, Batch()
        await hold(connection, schema.activities, [activity.id])
        fresh = await unstarted(connection, activity.id, [one.device for one in page])
        for one in page:
            if one.device in fresh:
                outcome = Outcome(one.token, Verdict.NOT_SENT, reason=SUSPECT_TOKEN)
                batch.add(self.app.row, self.operation.id, one.device, outcome)
        await advance(connection, self.operation.id, more=len(fresh), cursor=page[-1].row + _BEHIND)
        await write(connection, batch, now=now)
        return len(fresh)

    async def intend(
        self, connection: AsyncConnection, page: Sequence[Recipient], *, first: bool
    ) -> Intended | None:
        """Store the devices of a page that are not started yet, and end older cards if needed."""
        shared, now = self.shared, self.shared.clock.time()
        fresh = await self._note_intent(connection, page, int(now * 1000))
        if not fresh:
            activity = await row_of(connection, self._query)
            if activity is None or not self._may_start(activity, now, first):
                return None
            if activity.status != "active":
                fresh = await self._note_intent(connection, page, int(now * 1000), ended=True)
        row = self.activity.id
        new = [(row, device) for device in fresh]
        evicted = await shared.limits.within(connection, self.app, new, int(now * 1000))

        async def messages() -> Messages | None:
            shared.limits.tell(evicted)
            # Not read under a lock above, because workers would wait for each other. An end that is
            # not visible now finds the devices, which are committed.
            activity = await shared.database.row(self._shown)
            now = shared.clock.time()
            if activity is None or not self._may_start(activity, now, first):
                return None
            return self._messages(activity, page, fresh, now)

        return Intended(list(fresh), messages)

    def _messages(
        self, activity: Row[Any], page: Sequence[Recipient], fresh: dict[int, bool], now: float
    ) -> Messages:
        if activity.status != "active":
            now = min(now, activity.ended_at / 1000)  # phones require a newer timestamp for the end
        started = Started(activity, self._further)
        languages = languages_of(start_alert_of(started))
        messages: Messages = []
        # Devices on the channel get another message than the others.
        for by_channel in sorted(set(fresh.values()), reverse=True):
            some = [one for one in page if fresh.get(one.device) is by_channel]
            message = partial(start_message, started, by_channel=by_channel, now=now)
            key = (activity.version, int(now), by_channel)
            messages += self._worded(some, key, languages, message, now)
        return messages

    async def _note_intent(
        self,
        connection: AsyncConnection,
        page: Sequence[Recipient],
        now: int,
        *,
        ended: bool = False,
    ) -> dict[int, bool]:
        """Store that a page is about to be sent; return the devices, and if they follow the channel."""
        following: set[int] = set()
        if self.activity.channel_id is not None:
            following = {one.device for one in page if self._follows(one)}
        devices = [one.device for one in page]
        fresh = await intend(
            connection, self.activity.id, devices, now=now, ended=ended, following=following
        )
        return dict.fromkeys(fresh - following, False) | dict.fromkeys(fresh & following, True)

    def _follows(self, recipient: Recipient) -> bool:
        """Return True if a device follows a channel when it is started."""
        given = self.shared.limits.settings.channel_devices
        everyone = self.app.settings.get("channel_devices", given) == "all"
        return everyone or has_channels(recipient.os_version)

    def _may_start(self, activity: Row[Any], now: float, first: bool) -> bool:
        if activity.status == "active":
            return True
        return (
            activity.status == "ended"
            and activity.end_reason != CANCELLED  # cancelled: it must not be shown at all
            and activity.retired_at is None
            and now - self._began(activity) / 1000 < AT_ONCE
            and first
        )

    def _began(self, activity: Row[Any]) -> int:
        """Return the time at which it was to begin, in milliseconds since 1970."""
        return max(activity.started_at or 0, int(self.operation.created_at))

    async def left_open(self, connection: AsyncConnection) -> Sequence[Sequence[int]]:
        """Return the devices with an intent and no outcome."""
        return list(chunks(await left_open(connection, self.activity.id, self._since), PAGE))

    def noted(self, batch: Batch, device: int, outcome: Outcome) -> None:
        """Retire a dead token; remove a device that was certainly not started."""
        if outcome.verdict is Verdict.DROP_TOKEN:
            batch.refused_starts.append(refusal(self.app.row, outcome, self.now))
        if not outcome.may_have_been_sent:
            batch.unstarted.append((self.activity.id, device))
        else:
            batch.doubtful.append((self.activity.id, device))

    def put_back(self, batch: Batch, devices: Sequence[int]) -> None:
        """Remove devices from the activity again."""
        batch.unstarted += [(self.activity.id, device) for device in devices]


class HandOverKind(StartKind):
    """Second cards that replace old ones; for a stream also cards that its audience lacks."""

    nobody = "no card was left that could be handed over"
    locks = True

    def _whom(self) -> tuple[Audience, int | None]:
        if self.activity.stream_key is not None:
            return super()._whom()
        return Audience(everyone=True), self.activity.id

    async def _note_intent(
        self,
        connection: AsyncConnection,
        page: Sequence[Recipient],
        now: int,
        *,
        ended: bool = False,
    ) -> dict[int, bool]:
        activity = await row_of(connection, self._query)
        if activity is None or activity.status != "active":
            return {}
        handed = await hand_over(connection, activity, [one.device for one in page], now)
        added: dict[int, bool] = {}
        if activity.stream_key is not None:
            added = await super()._note_intent(connection, page, now)
        return handed | added

    def _may_start(self, activity: Row[Any], now: float, first: bool) -> bool:
        return bool(activity.status == "active")

    def noted(self, batch: Batch, device: int, outcome: Outcome) -> None:
        """Keep the first card if the second certainly was not started."""
        super().noted(batch, device, outcome)
        if not outcome.may_have_been_sent:
            batch.not_handed_over.append((self.activity.id, device))

    def put_back(self, batch: Batch, devices: Sequence[int]) -> None:
        """Keep the first card for now."""
        super().put_back(batch, devices)
        batch.not_handed_over += [(self.activity.id, device) for device in devices]


def start_kind(
    shared: SharedParts, app: App, activity: Row[Any], operation: Row[Any], carrier: Carrier
) -> StartKind:
    """Return the kind of a start operation."""
    kind = HandOverKind if read_further(operation).hand_over else StartKind
    return kind(shared, app, activity, operation, carrier)


class Starts:
    """The starts of a courier. ``at_once`` is how many are sent in parallel."""

    def __init__(
        self,
        shared: SharedParts,
        jobs: Jobs,
        failing: Failing,
        backlog: ActivityBacklog,
        at_once: int,
    ) -> None:
        self._shared = shared
        self._jobs = jobs
        self._failing = failing
        self._backlog = backlog
        self._most = 2 * at_once
        self._allowed = asyncio.Semaphore(at_once)
        self._later: dict[int, None] = {}
        """Activities whose start waits for others to finish."""
        self.give_channel: GiveChannel | None = None

    def __len__(self) -> int:
        return len(self._later)

    def begin(self, app: App, activity: Row[Any], operations: Sequence[Row[Any]]) -> None:
        """Begin the first open start of an activity, or let it wait for its turn."""
        place = ("start", activity.id)
        starts = [
            row
            for row in operations
            if row.kind == "start"
            and is_open(row)
            and not (row.status == "failed" and row.id in self._failing.for_key)
        ]
        if not starts or place in self._failing.pauses:
            return
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
        """Look at the next waiting start, because one is done."""
        if self._later:
            self._backlog.add(later := next(iter(self._later)))
            del self._later[later]

    async def _run(self, app: App, activity: Row[Any], operation: Row[Any]) -> None:
        async with (
            self._allowed,
            self._failing.carrier(app, activity.environment, [operation]) as carrier,
        ):
            if carrier is None:
                return
            without = ""
            if self.give_channel is not None and not operation.cursor:
                term = self._shared.ownership.terms.get(activity.partition, NOT_HELD)
                terms = {activity.partition: term}
                activity, without = await self.give_channel(
                    app, activity, read_further(operation), terms
                )
            kind = start_kind(self._shared, app, activity, operation, carrier)
            fan_out = FanOut(kind)
            try:
                whole = await fan_out.run()
            except InvalidInput as error:
                await self._failing.fail([operation], str(error), final=True)
                return
        place = ("start", activity.id)
        if not await self._failing.settle(place, operation, fan_out, final=False):
            return
        left_out = await kind.leave_out(fan_out.keep) if whole else 0
        table = schema.operations
        reached = await self._shared.database.row(select(table).where(table.c.id == operation.id))
        if reached is None or reached.status == "failed":  # another worker stopped it
            self._failing.for_key.add(operation.id)
            return
        if operation.reason and not whole and not reached.accepted:
            # It ended before any device could be started.
            await self._failing.fail([operation], operation.reason, final=True)
            return
        if not whole and not reached.targeted:
            await self._failing.note(operation, "superseded", None, final=True)
            return
        reason = None
        if reached.targeted <= left_out:
            reason = kind.nobody.format(type=activity.attributes_type)
            if left_out:
                reason = LEFT_OUT.format(count=left_out)
        async with self._shared.database.read() as connection:
            persons = await persons_reached(connection, operation.id)
        reason = reason or without[:255] or None
        await self._failing.note(operation, "done", reason, final=True, persons=persons)
