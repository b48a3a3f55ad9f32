"""The courier: sees what the store holds that phones do not have yet, and brings it to them.

It is told of a write after its commit (`written`, `joined`, `left`, `key_added`) and looks at the
store then; nothing that it is told matters beyond that. So it may forget all of it in a crash: the
operations that are not finished say where to look, and the versions that tokens have acknowledged
say who is behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from ...client import Client, Endpoint
from ...client.histogram import Times
from ...clock import Clock
from ...errors import ApnsLiveError, InvalidInput
from ..apps import App, Apps
from ..people.audience import Audiences
from ..read.operations import persons_reached
from ..read.watch import Watchers
from ..requests import Presentation
from ..requests.member import Member
from ..settings import ServiceSettings
from ..store.database import Database
from ..store.failures import STORE_FAILURES
from ..store.ownership import NotOwner, Ownership
from .apns_clients import Carrier, Carriers, CarrierStatistics, NoKey
from .backlog import Backlog, is_open
from .broadcasting import Broadcasting
from .limits import Limits
from .live import Live
from .lives import Lives
from .recorder import Recorder
from .refusals import Pauses
from .results import Batch, Written
from .starting import Room, Setting, StartFanOut

logger = logging.getLogger("apns_live.activities")

AT_ONCE = 200
"""Activities that are read together."""
_READS = 4
"""Sets of activities whose tokens are read side by side."""
_TRY_AGAIN = 1.0
_LEAVE_PATIENCE = 0.5
"""Seconds that work of partitions which are left may take to end, twice."""
_CLOSE_PATIENCE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CourierStatistics:
    """What this process is doing at the moment of asking."""

    waiting: int
    """Activities that are to be looked at."""
    starting: int
    """Starts that are being fanned out."""
    living: int
    """Activities in memory."""
    tokens: int
    """Activity tokens in memory."""
    unwritten: int
    """Results that are not in the store yet."""
    batches: int
    """Batches of results written since the start."""
    results: int
    """Results written since the start."""
    state_ages: Times
    """How old the newest state was when APNs accepted it, for devices that were waiting for it."""
    operations: Mapping[str, Times]
    """From accepting an operation until every push of it was answered, by its kind."""
    watchers: int
    carriers: tuple[CarrierStatistics, ...]
    """The client's and delivery's own figures for each app and environment in use."""


class Courier:
    """Brings what was accepted to phones, for every app of one database."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        apps: Apps,
        audiences: Audiences,
        endpoints: Mapping[str, str | Endpoint],
        settings: ServiceSettings,
        watchers: Watchers,
        ownership: Ownership,
    ) -> None:
        self._ownership = ownership
        self._clock = clock
        self._apps = apps
        self._settings = settings
        self._watchers = watchers
        self._known_apps: dict[int, App] = {}
        self._backlog = Backlog(database, ownership)
        self._backlog.emptied = self._moved
        self._recorder = Recorder(
            database, clock, ownership, closing=self._closing, wrote=self._wrote
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
        self._setting = Setting(
            database, clock, audiences, self._recorder, Room(), self.limits, ownership
        )
        self._lives = Lives(
            database=database,
            clock=clock,
            carriers=self.carriers,
            recorder=self._recorder,
            most=settings.tokens_in_memory,
            refused=self._changes_refused,
        )
        self.carriers.release = lambda carrier: self._lives.release(carrier.delivery)
        self._broadcasting = Broadcasting(database, clock, self.carriers, self._recorder)
        self._pauses = Pauses(clock, self._pause_over)
        self._starts_allowed = asyncio.Semaphore(settings.starts_at_once)
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._partition_of: dict[tuple[str, int], int] = {}
        """The partition of each task's activity."""
        self._again: set[tuple[str, int]] = set()
        self._awaited: set[int] = set()
        """Activities that a device waits for which has just joined."""
        self._begun: dict[int, int] = {}
        """The activity of each start that was begun in this process and is not finished."""
        self._for_key: set[int] = set()
        """Starts that failed here for now: they go on when a key is added, and not before."""
        self._later: dict[int, None] = {}
        """Activities whose start waits until others are done."""
        self._reading: set[int] = set()
        """Activities whose tokens are being read."""
        self._reads = asyncio.Semaphore(_READS)
        self.told_left: Callable[[int, str], object] = lambda activity, token: None
        """Called with tokens that left, for other processes."""
        self._looking = False
        self._waiters: list[asyncio.Future[None]] = []

    # What it is told, after a commit.

    def written(self, app: App, row: int) -> None:
        """Say that an activity has a new state, or is to be started or ended."""
        self._known_apps[app.row] = app
        self._backlog.add(row)
        self._watchers.changed(activities=(row,))

    def joined(self, app: App, row: int, version: int, members: Sequence[Member]) -> None:
        """Say that devices handed in their token for an activity whose newest version is given."""
        self._known_apps[app.row] = app
        if not self._lives.join(app, row, members) and any(
            member.acknowledged < version for member in members
        ):
            self._awaited.add(row)
            self._backlog.add(row)

    def accepted(self, activity: int, version: int) -> None:
        """Say that the store has a version which another process may have accepted."""
        if version > self._lives.known([activity]).get(activity, 0):
            self._backlog.add(activity)

    def heard(self, activity: int, token: str | None, *, behind: bool) -> None:
        """Say that another process took a token out of an activity, or with None some in.

        ``behind``: one of those lacks the newest state.
        """
        if token is not None:
            self._lives.leave(activity, token)
        elif self._lives.grew(activity, behind=behind):
            self._awaited.add(activity)
            self._backlog.add(activity)

    def left(self, activity: int, token: str) -> None:
        """Say that a token is to be sent to no more."""
        self._lives.leave(activity, token)
        self.told_left(activity, token)

    def key_added(self, app: App) -> None:
        """Say that an app has another key."""
        self._known_apps[app.row] = app
        self._spawn("key", app.row, lambda: self._use_key(app))

    @property
    def setting(self) -> Setting:
        """What everything that fans out shares."""
        return self._setting

    @asynccontextmanager
    async def client(self, app: App, environment: str) -> AsyncIterator[Client]:
        """Hold the client that pushes for an app. Raises as `Carriers.get`."""
        async with self.carriers.use(app, environment) as carrier:
            yield carrier.client

    # Its life.

    async def gained(self, partitions: frozenset[int]) -> None:
        """Take up partitions, with what an earlier owner left."""
        self._backlog.take_over(partitions)
        self.carriers.wake()

    async def lost(self, partitions: frozenset[int]) -> None:
        """Leave partitions; return when their results are stored, or after a while anyway."""
        self._lives.abandon(partitions)
        for fan_out in self._setting.running:
            fan_out.wake()
        tasks = [
            task
            for place, task in self._tasks.items()
            if self._partition_of.get(place) in partitions
        ]
        if tasks:  # they see that they are not the owner any more, and stop
            _, late = await asyncio.wait(tasks, timeout=_LEAVE_PATIENCE)
            for task in late:
                task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_PATIENCE):
                await self._recorder.flush()

    async def run(self) -> None:
        """Work until cancelled."""
        # Also when it is started again after a failure: what was cut off is taken up.
        self._backlog.add_all()
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._recorder.run())
            group.create_task(self._look_after_keys())
            await self._look()

    @property
    def busy(self) -> bool:
        """Whether something that was accepted waits to be sent or written down."""
        return bool(
            not self._backlog.empty
            or self._looking
            or self._tasks
            or self._reading
            or self._later
            or self._recorder.busy
            or self._lives.busy
        )

    async def settled(self) -> None:
        """Return when nothing that was accepted waits."""
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
        """Stop sending and write down what is known. What is left goes on in the next life."""
        self._pauses.close()
        await self.carriers.aclose()
        if not await self._recorder.aclose(_CLOSE_PATIENCE):
            logger.warning("the last results could not be stored; they are sent again")

    def statistics(self) -> CourierStatistics:
        """Return a frozen snapshot."""
        state_ages, operations = self._recorder.observed.times()
        return CourierStatistics(
            waiting=len(self._backlog),
            starting=sum(kind == "start" for kind, _ in self._tasks),
            living=len(self._lives),
            tokens=self._lives.tokens,
            unwritten=len(self._recorder.batch),
            batches=self._recorder.batches,
            results=self._recorder.rows,
            watchers=len(self._watchers),
            state_ages=state_ages,
            operations=operations,
            carriers=self.carriers.statistics(),
        )

    # Looking at the store.

    async def _look(self) -> None:
        while True:
            rows = await self._backlog.take(AT_ONCE)
            self._looking = True
            try:
                activities, operations = await self._backlog.read(rows, self._lives.known(rows))
                to_read: list[Live] = []
                for activity in activities:
                    live = await self._look_safely(activity, operations.get(activity.id, []))
                    if live is not None and live.row not in self._reading:
                        to_read.append(live)
                if to_read:
                    await self._begin_to_read(to_read)
            except STORE_FAILURES:
                logger.exception("the store could not be read; trying again")
                for row in rows:
                    self._backlog.add(row)
                await self._clock.sleep(_TRY_AGAIN)
            finally:
                self._looking = False
                self._moved()

    async def _look_safely(self, activity: Row[Any], operations: Sequence[Row[Any]]) -> Live | None:
        """Look at an activity. What is wrong with its rows is its own: others go on."""
        try:
            return await self._look_at(activity, operations)
        except STORE_FAILURES:
            raise
        except Exception as error:
            logger.exception("the activity %r cannot be sent", activity.public_id)
            await self._fail_unreadable(activity.id, error)
            return None

    async def _look_at(self, activity: Row[Any], operations: Sequence[Row[Any]]) -> Live | None:
        """Begin what is to be done for an activity; return it if its tokens are to be read."""
        if activity.status == "scheduled" or activity.partition not in self._ownership.partitions:
            return None
        app = await self._app(activity.app_id)
        if app is None:
            return None
        starts = [
            row
            for row in operations
            if row.kind == "start"
            and is_open(row)
            and ("start", row.id) not in self._pauses
            and not (row.status == "failed" and row.id in self._for_key)
        ]
        if starts and not self._starts_full(activity.id):
            self._partition_of["start", activity.id] = activity.partition
            self._spawn(
                "start", activity.id, lambda: self._start(app, activity, starts[0]), starts[:1]
            )
            if len(starts) > 1:
                self._again.add(("start", activity.id))
        wanted = _open_changes(operations)
        if activity.retired_at is not None and not wanted:
            self._lives.forget(activity.id)
            return None
        if ("changes", activity.id) in self._pauses:
            return None
        if activity.channel_id is not None:
            if wanted:
                self._partition_of["broadcast", activity.id] = activity.partition
                self._spawn("broadcast", activity.id, lambda: self._broadcast(app, activity))
            return None
        awaited = activity.id in self._awaited or activity.id in self._backlog.behind
        self._awaited.discard(activity.id)
        self._backlog.behind.discard(activity.id)
        if not (wanted or awaited or self._lives.lacks(activity.id)):
            return None
        try:
            return self._lives.advance(
                app, activity, operations, recovered=self._was_open(activity.id)
            )
        except InvalidInput as error:
            await self._fail(await self._open_changes(activity.id), str(error), final=True)
            return None

    def _starts_full(self, row: int) -> bool:
        """Whether a start must wait for others; it is looked at again when one of them is done."""
        running = sum(kind == "start" for kind, _ in self._tasks)
        if running < 2 * self._settings.starts_at_once or ("start", row) in self._tasks:
            return False
        self._later[row] = None
        return True

    def _was_open(self, row: int) -> bool:
        """Whether an earlier process may have sent something of this activity a moment ago."""
        found = self._backlog.found
        if row not in found:
            return False
        found.discard(row)
        return True

    async def _app(self, row: int) -> App | None:
        if row not in self._known_apps:
            self._known_apps.update((app.row, app) for app in await self._apps.list())
        return self._known_apps.get(row)

    # Work that takes a while: one task for each activity and kind.

    def _spawn(
        self,
        kind: str,
        row: int,
        work: Callable[[], Any],
        operations: Sequence[Row[Any]] = (),
    ) -> None:
        """Begin a piece of work; ``operations`` fail if it is broken."""
        place = (kind, row)
        if place in self._tasks:
            self._again.add(place)
            return
        if self._group is not None:
            self._tasks[place] = self._group.create_task(self._keep(place, work, operations))

    async def _keep(
        self, place: tuple[str, int], work: Callable[[], Any], operations: Sequence[Row[Any]]
    ) -> None:
        """Do one piece of work. Its errors are its own: others go on."""
        try:
            await work()
        except NotOwner:
            logger.info("a %s goes on with another worker", place[0])
        except (SQLAlchemyError, ApnsLiveError, OSError):
            logger.exception("a %s failed for now; trying again", place[0])
            await self._clock.sleep(_TRY_AGAIN)
            self._again.add(place)
        except Exception as error:
            logger.exception("a %s failed", place[0])
            if place[0] == "broadcast":
                await self._fail_unreadable(place[1], error)
            elif operations:
                await self._fail(operations, f"it cannot be sent: {error}", final=True)
        finally:
            if place[0] == "start" and self._later:
                self._backlog.add(later := next(iter(self._later)))
                del self._later[later]
            del self._tasks[place]
            self._partition_of.pop(place, None)
            if place in self._again:
                self._again.discard(place)
                self._backlog.add(place[1])
            self._moved()

    async def _start(self, app: App, activity: Row[Any], operation: Row[Any]) -> None:
        async with self._starts_allowed, self._carrier(app, activity, [operation]) as carrier:
            if carrier is None:
                return
            fan_out = StartFanOut(
                self._setting,
                app,
                activity,
                operation,
                carrier,
                resumed=operation.id not in self._begun,
            )
            try:
                whole = await fan_out.run()
            except InvalidInput as error:
                await self._fail([operation], str(error), final=True)
                return
            finally:
                if fan_out.taken_over:
                    self._begun[operation.id] = activity.id
        if fan_out.refused:
            place = ("start", operation.id)
            reason = self._pauses.put_off(app.row, place, fan_out.refused)
            logger.warning("operation %s waits: %s", operation.public_id, reason)
            self._recorder.batch.partitions.add(operation.partition)
            self._recorder.batch.started.append((operation.id, "running", reason, False))
            await self._recorder.written()
            return
        self._pauses.done(("start", operation.id))
        self._begun.pop(operation.id, None)
        if fan_out.stopped:
            # Refused for ever as it is: a setting must change first.
            await self._fail([operation], fan_out.stopped, final=False)
            return
        if operation.reason and not whole and not fan_out.accepted and not operation.accepted:
            # It ended before anybody could be started.
            await self._fail([operation], operation.reason, final=True)
            return
        status = "done" if whole or fan_out.sent or operation.cursor else "superseded"
        if status == "done":
            async with self._setting.database.read() as connection:
                persons = await persons_reached(connection, operation.id)
            self._recorder.batch.persons.append((operation.id, persons))
        self._recorder.batch.partitions.add(operation.partition)
        self._recorder.batch.started.append((operation.id, status, None, True))
        await self._recorder.written()

    async def _broadcast(self, app: App, activity: Row[Any]) -> None:
        wait = self._broadcasting.not_before(activity) - self._clock.time()
        if wait > 0:
            await self._clock.sleep(wait)
        # What is newest by now.
        rows, operations = await self._backlog.read([activity.id])
        wanted = _open_changes(operations.get(activity.id, []))
        if not rows or not wanted:
            return
        async with self._carrier(app, rows[0], wanted) as carrier:
            if carrier is None:
                return
            refused = await self._broadcasting.send(app, rows[0], wanted)
        if refused:
            self._changes_refused(app, activity.id, refused)
        else:
            self._pauses.done(("changes", activity.id))

    async def _begin_to_read(self, lives: Sequence[Live]) -> None:
        """Begin to read the tokens of activities, once fewer others are being read."""
        await self._reads.acquire()
        if self._group is not None:
            self._reading.update(live.row for live in lives)
            self._group.create_task(self._read(lives))

    async def _read(self, lives: Sequence[Live]) -> None:
        try:
            try:
                failed, large = await self._lives.read_together(lives)
            finally:
                self._reads.release()
            for live in large:
                failed |= await self._lives.read(live)
            for row, error in failed.items():
                if isinstance(error, NoKey | InvalidInput):
                    await self._fail(await self._open_changes(row), str(error), final=False)
                else:
                    logger.error("the activity %d cannot be sent", row, exc_info=error)
                    await self._fail_unreadable(row, error)
        except (SQLAlchemyError, ApnsLiveError, OSError):
            logger.exception("the tokens of %d activities could not be read; again", len(lives))
            await self._clock.sleep(_TRY_AGAIN)
            for live in lives:
                self._backlog.add(live.row)
        finally:
            for live in lives:
                self._reading.discard(live.row)
                if live.to_read:  # a state came meanwhile
                    self._backlog.add(live.row)
            self._moved()

    async def _fail_unreadable(self, row: int, error: Exception) -> None:
        """Let the changes of an activity fail that do not decode; all of them if its state does not."""
        changes = await self._open_changes(row)
        broken = [operation for operation in changes if not _decodes(operation)]
        await self._fail(broken or changes, f"it cannot be sent: {error}", final=True)
        if broken:
            self._backlog.add(row)

    async def _open_changes(self, row: int) -> list[Row[Any]]:
        """Return all open updates and ends of an activity, also those that memory knows of."""
        _, operations = await self._backlog.read([row])
        return _open_changes(operations.get(row, []))

    @asynccontextmanager
    async def _carrier(
        self, app: App, activity: Row[Any], operations: Sequence[Row[Any]]
    ) -> AsyncIterator[Carrier | None]:
        """Hold the carrier, or None when its key is not there: the operations have failed then."""
        async with AsyncExitStack() as stack:
            try:
                carrier = await stack.enter_async_context(
                    self.carriers.use(app, activity.environment)
                )
            except (NoKey, InvalidInput) as error:
                await self._fail(operations, str(error), final=False)
                yield None
                return
            yield carrier

    async def _fail(self, operations: Sequence[Row[Any]], reason: str, *, final: bool) -> None:
        """Let operations fail; those that are not final are tried again when a key is added."""
        self._recorder.batch.partitions.update(row.partition for row in operations)
        if not final:
            self._for_key.update(row.id for row in operations)
        self._recorder.batch.started.extend(
            (row.id, "failed", reason[:255], final) for row in operations
        )
        for row in operations:
            logger.warning("operation %s failed: %s", row.public_id, reason)
        await self._recorder.written()

    # Credentials that APNs refuses.

    def _changes_refused(self, app: App, row: int, refusal: str) -> None:
        reason = self._pauses.put_off(app.row, ("changes", row), refusal)
        self._spawn("refused", row, lambda: self._say_why(app, row, reason))

    async def _say_why(self, app: App, row: int, reason: str) -> None:
        """Say on the open updates and ends of an activity why they wait."""
        logger.warning("updates of the activity %d of the app %r wait: %s", row, app.id, reason)
        operations = await self._backlog.put_off(row, reason)
        self._watchers.changed(activities=(row,), operations=operations)

    def _pause_over(self, place: Hashable) -> None:
        kind, row = cast("tuple[str, int]", place)
        if kind == "start":
            self._backlog.add(self._begun[row])
        else:
            self._awaited.add(row)
            self._backlog.add(row)

    # Keys.

    async def _look_after_keys(self) -> None:
        while True:
            await self._clock.sleep(self._settings.key_check)
            self.carriers.make_room()
            self._known_apps.clear()  # another process may have changed their settings
            for app in {carrier.app.row: carrier.app for carrier in self.carriers}.values():
                await self._refresh(app)

    async def _use_key(self, app: App) -> None:
        """Sign with a key that was just added, and try again what failed for want of one."""
        await self._refresh(app)
        self._pauses.end_those_of(app.row)
        self._for_key.clear()
        await self._backlog.try_again(app)

    async def _refresh(self, app: App) -> None:
        try:
            await self.carriers.refresh_keys(app)
        except (ApnsLiveError, SQLAlchemyError, OSError):
            logger.exception("the keys of the app %s could not be read", app.id)

    # What is written.

    def _closing(self, batch: Batch) -> None:
        self._lives.close_settled(batch)

    def _wrote(self, batch: Batch, written: Written) -> None:
        self._lives.wrote(batch, written)
        if self._pauses:
            for row, _, _ in batch.finished:
                self._pauses.done(("changes", row))
        self._watchers.changed(
            activities=self._lives.rows_of(batch),
            operations={*batch.counts, *written.operations},
        )


def _decodes(operation: Row[Any]) -> bool:
    try:
        msgspec.json.decode(operation.request, type=Presentation)
    except msgspec.MsgspecError:
        return False
    return True


def _open_changes(operations: Sequence[Row[Any]]) -> list[Row[Any]]:
    return [row for row in operations if row.kind != "start" and is_open(row)]
