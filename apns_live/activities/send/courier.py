"""The courier: finds states in the database that phones do not have yet, and sends them.

It is notified of a write after its commit (`written`, `joined`, `left`, `key_added`) and then reads the
database. A notification carries no other information, so a lost one does no harm: after a crash the
unfinished operations and the versions that tokens have acknowledged show what remains to be sent.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Row, Select, func, select
from sqlalchemy.exc import SQLAlchemyError

from ...client import Client, Endpoint
from ...client.statistics import Times
from ...errors import ApnsLiveError, InvalidInput
from ..apps import App, Apps
from ..core import Core
from ..people.audience import Audiences
from ..read.operations import Watchers
from ..requests import Member
from ..requests.notify import KIND as NOTIFICATION
from ..store import schema
from ..store.failures import STORE_FAILURES
from ..store.ownership import PARTITIONS
from .apns_clients import Carriers, CarrierStatistics, KnownApps
from .backlog import ActivityBacklog
from .broadcasting import Broadcasting
from .failing import Failing, open_changes
from .fan_out import ROOM
from .helping import Helping
from .jobs import TRY_AGAIN, Jobs, Place, Reading
from .kind import Allowance, SharedParts
from .limits import Limits
from .live import Live, Takes
from .lives import Lives
from .notifying import Notifier
from .recorder import Recorder
from .refusals import Pauses
from .results import Batch, Written
from .starting import Starts

logger = logging.getLogger("apns_live.activities")

AT_ONCE = 200
"""Activities that are read together."""
_LEAVE_PATIENCE = 0.5
"""Seconds for storing the results of partitions that this worker gives up."""
_ANSWERS = 0.01
"""Seconds between two checks whether all pushes in flight were answered."""
_CLOSE_PATIENCE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CourierStatistics:
    """A snapshot of what this process is doing."""

    waiting: int
    """Activities that wait to be looked at."""
    starting: int
    """Starts that are being fanned out."""
    living: int
    """Activities in memory."""
    tokens: int
    """Activity tokens in memory."""
    unwritten: int
    """Results that are not yet stored."""
    batches: int
    """Batches of results written since the start."""
    results: int
    """Results written since the start."""
    state_ages: Times
    """The age of the newest state when APNs accepted it, for devices that waited for it."""
    operations: Mapping[str, Times]
    """The time from accepting an operation until all its pushes were answered, by kind."""
    watchers: int
    carriers: tuple[CarrierStatistics, ...]
    """The client's and delivery's own figures for each app and environment in use."""


class Courier:
    """Sends what was accepted, for every app of one database."""

    def __init__(
        self,
        core: Core,
        apps: Apps,
        audiences: Audiences,
        watchers: Watchers,
        endpoints: Mapping[str, str | Endpoint],
    ) -> None:
        database, clock, ownership = core.database, core.clock, core.ownership
        settings = core.settings
        self._watchers = watchers
        self.apps = KnownApps(apps)
        self._backlog = ActivityBacklog(database, ownership, clock)
        self._backlog.emptied = self._moved
        self._recorder = Recorder(
            database,
            clock,
            ownership,
            closing=lambda: self._lives.close_settled(),  # noqa: PLW0108 - it is not there yet
            wrote=self._wrote,
            dropped=self._dropped,
        )
        self.carriers = Carriers(
            apps=apps,
            clock=clock,
            endpoints=endpoints,
            settings=settings,
            shut=lambda: self._recorder.full or ownership.fenced,
        )
        self._recorder.flushed += [self.carriers.wake, self.carriers.shrink, self._moved]
        self.limits = Limits(
            database,
            clock,
            self.carriers,
            settings,
            ownership,
            left=self.left,
            changed=lambda activities: watchers.changed(activities=activities),
        )
        self.shared = SharedParts(
            database, clock, audiences, self._recorder, Allowance(ROOM), self.limits, ownership
        )
        """What all fan-outs share."""
        ownership.shards.lost = self._lost_shards
        self._lives = Lives(
            database=database,
            clock=clock,
            carriers=self.carriers,
            recorder=self._recorder,
            most=settings.tokens_in_memory,
            refused=self._changes_refused,
        )
        self.carriers.release = lambda carrier: self._lives.release(carrier.delivery)
        self._broadcasting = Broadcasting(
            database, clock, self.carriers, self._recorder, ownership, self._lives.broadcast
        )
        self._lives.on_channel = self._broadcasting.result
        self._pauses = Pauses(clock, self._pause_over)
        self._jobs = Jobs(clock, ownership, database.outage, ended=self._ended, broken=self._broken)
        self.failing = Failing(self._recorder, self.carriers, self._backlog, self._pauses)
        self.notifier = Notifier(self.shared, self._jobs, self.apps, self.failing, self._moved)
        self.starts = Starts(
            self.shared, self._jobs, self.failing, self._backlog, settings.starts_at_once
        )
        self.helping = Helping(self.shared, self._jobs, self.apps, self.carriers, self._pauses)
        self._reading = Reading(
            self._lives, self.failing, self._backlog, self._jobs, clock, self._moved
        )
        self.told_left: Callable[[int, str], object] = lambda activity, token: None
        """Called with tokens that left an activity, to notify other processes."""
        self._waiters: list[asyncio.Future[None]] = []

    # Notifications after a commit.

    def written(self, app: App, row: int) -> None:
        """Notify that an activity has a new state, a start or an end."""
        self.apps.note(app)
        self._backlog.add(row)
        self._watchers.changed(activities=(row,))

    def joined(self, app: App, row: int, version: int, members: Sequence[Member]) -> None:
        """Notify that devices registered tokens for an activity, whose newest version is given."""
        self.apps.note(app)
        if self._lives.join(app, row, members):
            return
        if any(member.acknowledged < version for member in members) or self._lives.lacks(row):
            self._backlog.add_behind(row)

    def accepted(self, activity: int, version: int) -> None:
        """Notify that the database has a version that another process may have accepted."""
        if version > self._lives.known([activity]).get(activity, (0, 0))[0]:
            self._backlog.add(activity)

    def heard(self, activity: int, token: str | None, *, behind: bool) -> None:
        """Notify that another process removed a token from an activity, or with None added some.

        ``behind``: an added one lacked the newest state. Otherwise it may lack a state that was
        sent before this notification arrived.
        """
        if token is not None:
            self._lives.leave(activity, token)
            return
        self._lives.grew(activity)
        (self._backlog.add_behind if behind else self._backlog.ask)(activity)

    def left(self, activity: int, token: str) -> None:
        """Notify that a token must not be used any more."""
        self._lives.leave(activity, token)
        self.told_left(activity, token)

    def key_added(self, app: App) -> None:
        """Notify that an app has a new key."""
        self.apps.note(app)
        self._use_keys_of(app.row)

    @asynccontextmanager
    async def client(self, app: App, environment: str) -> AsyncIterator[Client]:
        """Hold the APNs client of an app. Raises as `Carriers.get`."""
        async with self.carriers.use(app, environment) as carrier:
            yield carrier.client

    # Life cycle.

    async def gained(self, partitions: frozenset[int]) -> None:
        """Start work on partitions, including unfinished work of an earlier owner."""
        self._backlog.take_over(partitions)
        self.notifier.backlog.take_over(partitions)
        self.carriers.wake()

    async def lost(self, partitions: frozenset[int]) -> bool:
        """Stop work on partitions; return when their results are stored, or after a time limit.

        Returns True if every push that was sent is answered and stored.
        """
        left = self._leave(partitions)
        ended = await self._jobs.leave(partitions)
        try:
            async with asyncio.timeout(_LEAVE_PATIENCE):
                # The next owner sends unanswered pushes again.
                while any(live.in_flight for live in left):  # noqa: ASYNC110 - at most half a second
                    await asyncio.sleep(_ANSWERS)
                for live in (each for each, is_new in left.items() if is_new and each.groups):
                    self._recorder.noting(live.partition).stamps.append(live.stamp())
                await self._recorder.flush()
        except TimeoutError:
            ended = False
        for live in left:
            live.takes = Takes.NOTHING
        return ended

    def _leave(self, partitions: frozenset[int]) -> dict[Live, bool]:
        """Stop sending for partitions; return their activities as `Lives.abandon` does."""
        left = self._lives.abandon(partitions)
        for fan_out in self.shared.running:
            if fan_out.leads and fan_out.partition in partitions:
                fan_out.leave()
        return left

    def _lost_shards(self, shards: frozenset[int]) -> None:
        """Stop sending shards that another worker now owns."""
        logger.error("%d shards have another owner now", len(shards))
        for fan_out in self.shared.running:
            fan_out.lose(shards)

    def _dropped(self, partitions: frozenset[int]) -> None:
        """Drop partitions from memory, because results were discarded and memory is out of date."""
        for live in self._leave(partitions):
            live.takes = Takes.NOTHING
        if self._jobs.group is not None:
            self._jobs.group.create_task(self._begin_again(partitions))

    async def _begin_again(self, partitions: frozenset[int]) -> None:
        self.shared.ownership.handed_over -= partitions  # the discarded results may be lost
        await self.lost(partitions)
        await self.gained(partitions & self.shared.ownership.partitions)

    async def run(self) -> None:
        """Work until cancelled."""
        # Also after a failure and restart: interrupted work is resumed.
        for live in self._lives.abandon(frozenset(range(PARTITIONS))):
            live.takes = Takes.NOTHING
            self.shared.ownership.handed_over -= {live.partition}
        self._backlog.take_over(self.shared.ownership.partitions)
        self.notifier.backlog.take_over(self.shared.ownership.partitions)
        async with asyncio.TaskGroup() as group:
            self._jobs.group = group
            group.create_task(self._recorder.run())
            group.create_task(self._look_after_keys())
            group.create_task(self.notifier.run())
            try:
                await self._look()
            finally:
                self._jobs.group = None

    @property
    def busy(self) -> bool:
        """Whether accepted work waits to be sent, or results wait to be stored."""
        return bool(
            not self._backlog.empty
            or len(self._jobs)
            or len(self._reading)
            or len(self.starts)
            or self._recorder.busy
            or self._lives.busy
            or not self.notifier.backlog.empty
        )

    async def settled(self) -> None:
        """Return when no accepted work waits to be sent."""
        while self.busy:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(future)
            await future

    def _moved(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def aclose(self) -> None:
        """Stop sending and store the results. The next process continues the rest."""
        self._pauses.close()
        await self.carriers.aclose()
        if not await self._recorder.aclose(_CLOSE_PATIENCE):
            logger.warning("the last results could not be stored; they are sent again")

    def statistics(self) -> CourierStatistics:
        """Return a frozen snapshot."""
        state_ages, operations = self._recorder.observed.times()
        return CourierStatistics(
            waiting=len(self._backlog),
            starting=self._jobs.running("start"),
            living=len(self._lives),
            tokens=self._lives.tokens,
            unwritten=len(self._recorder),
            batches=self._recorder.totals["batches"],
            results=self._recorder.totals["rows"],
            watchers=len(self._watchers),
            state_ages=state_ages,
            operations=operations,
            carriers=self.carriers.statistics(),
        )

    # Looking at activities in the store.

    async def _look(self) -> None:
        while True:
            rows: list[int] = []
            try:
                rows = await self._backlog.take(AT_ONCE)
                terms = self.shared.ownership.terms
                activities, operations = await self._backlog.read(rows, self._lives.known(rows))
                to_read: list[Live] = []
                for activity in activities:
                    if self.shared.ownership.terms.get(activity.partition) != terms.get(
                        activity.partition
                    ):
                        # The rows read may be older than what another worker has sent since.
                        if activity.partition in self.shared.ownership.partitions:
                            self._backlog.add_behind(activity.id)
                        continue
                    live = await self._look_safely(activity, operations.get(activity.id, []))
                    if live is not None and live not in self._reading:
                        to_read.append(live)
                if to_read:
                    await self._reading.begin(to_read)
            except STORE_FAILURES as error:
                self.shared.database.outage.failed("activities could not be read", error)
                for row in rows:
                    self._backlog.add(row)
                await self.shared.clock.sleep(TRY_AGAIN)

    async def _look_safely(self, activity: Row[Any], operations: Sequence[Row[Any]]) -> Live | None:
        """Process an activity; an error in its rows does not affect others."""
        try:
            return await self._look_at(activity, operations)
        except STORE_FAILURES:
            raise
        except Exception as error:
            logger.exception("the activity %r cannot be sent", activity.public_id)
            await self.failing.fail_unreadable(activity.id, error)
            return None

    async def _look_at(self, activity: Row[Any], operations: Sequence[Row[Any]]) -> Live | None:
        """Start the work for an activity; return it if its tokens must be read."""
        if (
            activity.status == "scheduled"
            or activity.partition not in self.shared.ownership.partitions
        ):
            self._backlog.behind.discard(activity.id)  # Its owner finds it.
            return None
        if (app := await self.apps.get(activity.app_id)) is None:
            return None
        self.starts.begin(app, activity, operations)
        wanted = open_changes(operations)
        if activity.retired_at is not None and not wanted:
            self._lives.forget(activity.id)
            return None
        if ("changes", activity.id) in self._pauses:
            return None
        if (
            activity.channel_id is not None
            and (wanted or self._lives.known([activity.id]))
            and self._broadcasting.result(activity) is None
        ):
            self._jobs.begin(
                ("broadcast", activity.id),
                lambda: self._broadcast(app, activity),
                partition=activity.partition,
            )
        if activity.id in self._backlog.behind:
            self._backlog.behind.discard(activity.id)
            self._lives.grew(activity.id)
        elif not (wanted or self._lives.lacks(activity.id)):
            return None
        try:
            return self._lives.advance(
                app, activity, operations, recovered=self._is_in_doubt(activity)
            )
        except InvalidInput as error:
            await self.failing.fail_changes(activity.id, str(error), final=True)
            return None

    def _is_in_doubt(self, activity: Row[Any]) -> bool:
        """Return True if an earlier process may have sent pushes for this activity without storing it."""
        if activity.id not in self._backlog.found:
            return False
        self._backlog.found.discard(activity.id)
        return activity.partition not in self.shared.ownership.handed_over

    # Long-running work.

    def _ended(self, place: Place, again: bool) -> None:
        kind, row = place
        if kind == NOTIFICATION:
            self.notifier.ended(row, again=again)
            self._watchers.changed(operations=[row])
        elif kind == "start":
            self.starts.ended()
        if again and kind == "key":
            self._use_keys_of(row)
        elif again and kind not in {"shards", NOTIFICATION}:  # Shards will be found again.
            self._backlog.add(row)
        self._moved()

    async def _broken(self, place: Place, operations: Sequence[Row[Any]], error: Exception) -> None:
        if place[0] == "broadcast":
            await self.failing.fail_unreadable(place[1], error)
        elif place[0] == NOTIFICATION:
            await self.notifier.broken(place[1], error)
        elif operations:
            await self.failing.fail(operations, f"it cannot be sent: {error}", final=True)

    async def _broadcast(self, app: App, activity: Row[Any]) -> None:
        wait = self._broadcasting.not_before(activity) - self.shared.clock.time()
        if wait > 0:
            await self.shared.clock.sleep(wait)
        # The newest state may have changed meanwhile.
        rows, operations = await self._backlog.read([activity.id])
        wanted = open_changes(operations.get(activity.id, []))
        if not rows or not wanted:
            return
        async with self.failing.carrier(app, rows[0].environment, wanted) as carrier:
            if carrier is None:
                self._lives.put_off(activity.id)
                return
            refused = await self._broadcasting.send(app, rows[0], wanted)
        if refused:
            self._lives.put_off(activity.id)
            self._changes_refused(app, activity.id, refused)
        else:
            self._pauses.done(("changes", activity.id))

    # Refused credentials.

    def _changes_refused(self, app: App, row: int, refusal: str) -> None:
        reason = self._pauses.put_off(app.row, ("changes", row), refusal)
        self._jobs.begin(("refused", row), lambda: self._say_why(app, row, reason))

    async def _say_why(self, app: App, row: int, reason: str) -> None:
        """Store on the open updates and ends of an activity why they wait."""
        logger.warning("updates of the activity %d of the app %r wait: %s", row, app.id, reason)
        operations = await self._backlog.put_off(row, reason)
        self._watchers.changed(activities=(row,), operations=operations)

    def _pause_over(self, place: Hashable) -> None:
        kind, row = cast("tuple[str, int]", place)
        if kind == "start":
            self._backlog.add(row)
        elif kind == "changes":
            self._backlog.add_behind(row)
        elif kind == NOTIFICATION:
            self.notifier.backlog.add(row)

    # Provider keys.

    async def _look_after_keys(self) -> None:
        seen: dict[int, int] = {}
        while True:
            await self.shared.clock.sleep(self.limits.settings.key_check)
            self.carriers.make_room()
            self.apps.clear()  # another process may have changed their settings
            for app in {carrier.app.row: carrier.app for carrier in self.carriers}.values():
                await self._refresh(app)
            try:
                rows = await self.shared.database.rows(self._newer_keys())
            except STORE_FAILURES as error:
                self.shared.database.outage.failed("provider keys could not be read", error)
                continue
            found = {row.app_id: row.newest for row in rows}
            for row, _ in found.items() - seen.items():
                self._use_keys_of(row)
            seen = found

    def _newer_keys(self) -> Select[Any]:
        """Return the query for apps with a key that is newer than an operation which failed for now.

        Another process may have stored it.
        """
        keys, operations = schema.credentials.c, schema.operations
        query = select(keys.app_id, func.max(keys.created_at).label("newest"))
        query = query.group_by(keys.app_id).join(operations, operations.c.app_id == keys.app_id)
        failed = operations.c.status == "failed", operations.c.finished_at.is_(None)
        newer = keys.created_at > operations.c.created_at
        return query.where(*failed, newer, self.shared.ownership.mine(operations))

    def _use_keys_of(self, row: int) -> None:
        self._jobs.begin(("key", row), lambda: self._use_key(row))

    async def _use_key(self, row: int) -> None:
        """Use a new key, and retry operations that failed for lack of one."""
        if (app := await self.apps.get(row)) is None:
            return
        await self._refresh(app)
        self._pauses.end_those_of(app.row)
        self.failing.for_key.clear()
        await self._backlog.try_again(app)
        await self.notifier.backlog.try_again(app)

    async def _refresh(self, app: App) -> None:
        try:
            await self.carriers.refresh_keys(app)
        except (ApnsLiveError, SQLAlchemyError, OSError) as error:
            self.shared.database.outage.failed("provider keys could not be read", error)

    # Stored results.

    def _wrote(self, batch: Batch, written: Written) -> None:
        self._lives.wrote(batch, written)
        if self._pauses:
            for row, _, _ in batch.finished:
                self._pauses.done(("changes", row))
        self._watchers.changed(
            activities=self._lives.rows_of(batch), operations={*batch.counts, *written.operations}
        )
