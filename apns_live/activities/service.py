"""The `Service`: the entry point for the gateway, programs and tests.

::

    async with Service.open("sqlite:///live.db", sealing=Sealer(key)) as service:
        app = await service.apps.get("scores")
        await service.activities.start(app, Start(...))
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from ..client import Endpoint
from ..clock import Clock, SystemClock
from .accept.activities import Activities
from .accept.broadcast_channels import Channels
from .accept.notifications import Notifications
from .accept.own_channels import OwnChannels
from .accept.receipts import Receipts
from .accept.streams import Streams
from .accept.tokens import Joining
from .apps import App, Apps
from .core import Core, Hooks
from .due.pruning import Pruning
from .due.scheduler import Scheduler
from .people.audience import Audiences, Segments
from .people.devices import Devices
from .people.directory import Directory
from .people.imports import Imports
from .people.people import People
from .read.operations import Followed, Operations, Watchers
from .requests import Member
from .send.courier import Courier, CourierStatistics
from .send.poll import Poll
from .settings import ServiceSettings
from .store.database import Database
from .store.failures import STORE_FAILURES
from .store.ownership import DatabaseClock, Onlooker, Ownership, owning
from .store.sealing import Sealer
from .store.upgrade import check
from .store.wakeups import Wakeups

logger = logging.getLogger("apns_live.activities")

ENDPOINTS: Mapping[str, str | Endpoint] = {"production": "production", "sandbox": "sandbox"}
_RESTART_AFTER = 1.0
_CHECKPOINT_SECONDS = 1.0

Work = Callable[[], Awaitable[None]]


class Known(Core):
    """Access to the stored facts of each app: devices, people, audiences, operations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.devices = Devices(self)
        self.people = People(self)
        self.directory = Directory(self)
        self.operations = Operations(self)
        self.imports = Imports(self)
        self.segments = Segments(self)
        self.audiences = Audiences(self)


async def _keep(work: Work, known: Known) -> None:
    """Run ``work`` until it returns, and again after an error."""
    while True:
        try:
            return await work()
        except Exception as error:  # noqa: BLE001 - it is logged
            known.database.outage.failed(f"{getattr(work, '__qualname__', work)} failed", error)
            await known.clock.sleep(_RESTART_AFTER)


class Service(Known):
    """Accepts calls, sends pushes and stores outcomes, over one database. See `Service.open`."""

    def __init__(
        self,
        database: Database,
        *,
        sealing: Sealer,
        endpoints: Mapping[str, str | Endpoint],
        clock: Clock,
        new_id: Callable[[], str],
        settings: ServiceSettings,
        ownership: Ownership,
        origin: str,
    ) -> None:
        super().__init__(database, clock, new_id, settings, ownership)
        self.sends = not isinstance(ownership, Onlooker)
        """Whether this process sends; otherwise it accepts calls, and other processes send."""
        alone = database.is_sqlite and self.sends
        self.wakeups = Wakeups(database, clock, origin, self._heard, alone=alone)
        self.watchers = Watchers(self)
        self.apps = Apps(database, sealing, clock, new_id)
        self.courier = Courier(self, self.apps, self.audiences, self.watchers, endpoints)
        limits = self.courier.limits
        self.hooks = Hooks(
            check_key=self.apps.check_key,
            written=self._written,
            due=self.courier.written,
            accepted=self._accepted,
            joined=self._joined,
            note_tokens=self.wakeups.joined,
            left=self.courier.left,
            changed=self.watchers.changed,
            evict=limits.within,
            evicted=limits.tell,
            owes_end=limits.wake,
        )
        if self.sends:
            self.apps.key_added = self.courier.key_added
        self.activities = Activities(self)
        self.streams = Streams(self, self.activities)
        self.tokens = Joining(self)
        self.channels = Channels(self, self.courier.client)
        own = OwnChannels(self, self.channels)
        self.courier.starts.give_channel = own.give
        self.receipts = Receipts(self)
        self.notifications = Notifications(self)
        self.scheduler = Scheduler(self, self.activities)
        self.pruning = Pruning(self, self.scheduler.time)
        self.watchers.told = self.wakeups.tell
        self.courier.told_left = self.wakeups.left
        self.poll = Poll(database, origin, ownership, self.courier, self._time_may_bring)
        ownership.gained, ownership.lost = self._gained, self.courier.lost
        self.wakeups.released = ownership.look
        ownership.shards.told = lambda row: self.wakeups.tell((), (row,), work=True)
        self.background: list[asyncio.Task[None]] = []
        self._works: list[Work] = [self.wakeups.run, ownership.run]
        if database.is_sqlite:
            self._works.append(self._checkpoints)
        if self.sends:
            self._works += [limits.run, self.courier.run, own.run]
            self._works += [self.scheduler.run, self.pruning.run, self.poll.run]

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        database: Database | str | Path,
        *,
        sealing: Sealer | None = None,
        endpoints: Mapping[str, str | Endpoint] | None = None,
        clock: Clock | None = None,
        new_id: Callable[[], str] | None = None,
        settings: ServiceSettings | None = None,
        send: bool = True,
    ) -> AsyncIterator[Service]:
        """Open the service over a `Database` or the address of one.

        Several processes may share one PostgreSQL database. With ``send=False`` this process
        accepts calls and lets others send.

        ``sealing`` decrypts the stored provider keys; by default `Sealer.from_environment`.
        ``endpoints`` replaces Apple's ``production`` and ``sandbox``, each by an `Endpoint`.
        Work that an earlier process did not finish continues at once; after a crash on PostgreSQL
        when its lease has expired (``settings.lease``). Raises `StoreError` if the database
        cannot be reached or has an unsupported version, `Conflict` if another process sends for
        a SQLite file, and `InvalidSetting`.
        """
        settings, origin = settings or ServiceSettings(), uuid.uuid4().hex
        async with AsyncExitStack() as stack:
            if not isinstance(database, Database):
                database = await stack.enter_async_context(Database.open(database))
            await check(database)
            ownership: Ownership = Onlooker(database)
            if send:
                leases = owning(database, origin, lease=settings.lease)
                ownership = await stack.enter_async_context(leases)
            if clock is None and not database.is_sqlite:
                clock = DatabaseClock()
                clock.ownership = ownership
            service = cls(
                database,
                sealing=sealing or Sealer.from_environment(),
                endpoints={**ENDPOINTS, **(endpoints or {})},
                clock=clock or SystemClock(),
                new_id=new_id or (lambda: str(uuid.uuid4())),
                settings=settings,
                ownership=ownership,
                origin=origin,
            )
            await ownership.open()
            for work in service._works:
                service.background.append(asyncio.create_task(_keep(work, service)))
            try:
                yield service
            finally:
                await service._close()

    def __repr__(self) -> str:
        return f"<Service over {self.database!r}>"

    def watch(
        self, app: App, *, operation: str | None = None, activity: str | None = None
    ) -> AsyncIterator[Followed]:
        """Yield the state of an operation or an activity now, then its newest state after changes.

        Ends when the operation is finished or the activity has ended. Raises `NotFound`, and
        `InvalidInput` unless exactly one of the two is given.
        """
        return self.watchers.watch(app, operation=operation, activity=activity)

    async def settled(self) -> None:
        """Return when every accepted call has been sent.

        It does not wait for devices without an activity token.
        """
        await self.courier.settled()

    def statistics(self) -> CourierStatistics:
        """Return a frozen snapshot of what this process is doing."""
        return self.courier.statistics()

    # Hooks: they notify the senders, in this process and others.

    def _written(self, app: App, row: int) -> None:
        if self.sends:
            self.courier.written(app, row)
            self.scheduler.wake()
        self.watchers.heard((row,), ())
        self.wakeups.tell((row,), (), work=True)

    def _accepted(self, app: App, row: int) -> None:
        if self.sends:
            self.courier.notifier.accepting(app, row)
        self.wakeups.tell((), (row,), work=True)

    def _joined(self, app: App, row: int, version: int, members: Sequence[Member]) -> None:
        if self.sends:
            self.courier.joined(app, row, version, members)
        self.wakeups.tell((row,), (), work=True)

    def _heard(self, work: bool, changed: Sequence[Sequence[int]] | None) -> None:
        """Handle a message of another process: there is work, or rows have changed; None for any rows."""
        if changed is None:
            self.watchers.remind()
        else:
            self.watchers.heard(*changed)
        if work and self.sends:
            self.poll.wake()
            self._time_may_bring()

    def _time_may_bring(self) -> None:
        """Wake sleeping timers: another process may have set an earlier due time."""
        self.scheduler.wake()
        self.courier.limits.wake()

    async def _checkpoints(self) -> None:
        """Copy SQLite's log into its file once a second, so that no commit has to."""
        while True:
            await asyncio.sleep(_CHECKPOINT_SECONDS)
            with contextlib.suppress(*STORE_FAILURES):  # reads and writes report it
                await self.database.checkpoint()

    async def _gained(self, partitions: frozenset[int]) -> None:
        await self.courier.gained(partitions)
        self._time_may_bring()

    async def _drain(self, seconds: float) -> None:
        """Wait until all accepted calls are sent and their results stored, ``seconds`` at most."""
        if seconds <= 0:
            return
        settling = asyncio.ensure_future(self.settled())
        timer = self.clock.call_later(seconds, settling.cancel)
        try:
            await asyncio.wait([settling])
        finally:
            timer.cancel()
            settling.cancel()

    async def _close(self) -> None:
        try:
            await self._drain(self.settings.drain)
            await self.ownership.leave()
        finally:
            for task in self.background:
                task.cancel()
            await asyncio.gather(*self.background, return_exceptions=True)
            await self.courier.aclose()
            await self.wakeups.aclose()
            self.watchers.close()
