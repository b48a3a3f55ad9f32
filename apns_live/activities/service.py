"""The service in one object: what the gateway, programs and tests talk to.

::

    async with Service.open("sqlite:///live.db", sealing=Sealer(key)) as service:
        app = await service.apps.get("scores")
        await service.activities.start(app, Start(...))
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ..client import Endpoint
from ..clock import Clock, SystemClock
from .accept.activities import Activities
from .accept.broadcast_channels import Channels
from .accept.notifications import Notifications
from .accept.receipts import Receipts
from .accept.streams import Streams
from .accept.tokens import Joining
from .apps import App, Apps
from .due.pruning import Pruning, Retention
from .due.scheduler import Scheduler
from .people.audience import Audiences, Segments
from .people.devices import Devices
from .people.directory import Directory
from .people.imports import Imports
from .people.people import People
from .read.operations import Operations
from .read.watch import Watchers
from .send import Courier, CourierStatistics, Notifier
from .settings import ServiceSettings
from .store.commit import GroupCommit
from .store.database import Database
from .store.sealing import Sealer
from .store.sole import sole
from .store.upgrade import check

logger = logging.getLogger("apns_live.activities")

ENDPOINTS: Mapping[str, str | Endpoint] = {"production": "production", "sandbox": "sandbox"}
_RESTART_AFTER = 1.0

Background = Callable[[], Awaitable[None]]


class Service:
    """Every room above delivery over one database. Made by `Service.open`."""

    def __init__(
        self,
        database: Database,
        *,
        sealing: Sealer,
        endpoints: Mapping[str, str | Endpoint],
        clock: Clock,
        new_id: Callable[[], str],
        settings: ServiceSettings,
    ) -> None:
        self.database = database
        self.clock = clock
        self.new_id = new_id
        self.settings = settings
        self.watchers = Watchers(database, clock)
        self.commits = GroupCommit(database)
        """Writes that come from callers share transactions."""
        # The courier is made further down, and these tell it what happens.
        self.apps = Apps(database, sealing, clock, new_id, key_added=self._key_added)
        self.devices = Devices(database, clock, left=self._left, commits=self.commits)
        self.people = People(database, clock)
        self.directory = Directory(database)
        self.imports = Imports(database, clock)
        self.segments = Segments(database, clock, new_id)
        self.audiences = Audiences(database, clock)
        self.courier = Courier(
            database=database,
            clock=clock,
            apps=self.apps,
            audiences=self.audiences,
            endpoints=endpoints,
            settings=settings,
            watchers=self.watchers,
        )
        self.activities = Activities(
            database, clock, new_id, self._written, self.commits, self.apps.check_key
        )
        self.streams = Streams(
            database, clock, new_id, self.activities, self._written, self.commits
        )
        self.tokens = Joining(
            database,
            clock,
            self.devices,
            joined=self.courier.joined,
            left=self.courier.left,
            limits=self.courier.limits,
            commits=self.commits,
        )
        self.channels = Channels(database, clock, self.courier.client)
        self.operations = Operations(database)
        self.receipts = Receipts(database, clock, left=self.courier.left)
        self.notifier = Notifier(
            self.courier.setting,
            self.apps,
            self.courier.carriers,
            changed=lambda rows: self.watchers.changed(operations=rows),
        )
        self.notifications = Notifications(
            database, clock, new_id, self.audiences, self.notifier.accepting, self.apps.check_key
        )
        self.scheduler = Scheduler(
            database,
            clock,
            self.activities,
            token_wait=settings.token_wait,
            written=self.courier.written,
            left=self.courier.left,
            changed=self.watchers.changed,
        )
        self.pruning = Pruning(
            database,
            clock,
            Retention(
                outcomes=settings.outcome_days,
                receipts=settings.receipt_days,
                activities=settings.activity_days,
                tokens=settings.token_days,
                audit=settings.audit_days,
            ),
        )
        self.background: list[Background] = [
            self.courier.run,
            self.courier.limits.run,
            self.notifier.run,
            self.scheduler.run,
            self.pruning.run,
        ]
        """What runs beside as long as the service is open; started again if it fails."""
        self._tasks: list[asyncio.Task[None]] = []

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
    ) -> AsyncIterator[Service]:
        """Open the service over a database, given as such or by its address.

        ``sealing`` opens the stored provider keys; by default it is taken from the environment.
        ``endpoints`` says what ``production`` and ``sandbox`` are: Apple's own, or an `Endpoint`.
        What an earlier process accepted and did not finish goes on at once. Raises `StoreError`
        when the database cannot be reached or is of another version, `Conflict` when another
        service is open over it, and `InvalidSetting`.
        """
        owned = not isinstance(database, Database)
        opened = Database.open(database) if not isinstance(database, Database) else database
        try:
            await check(opened)
            async with sole(opened):
                service = cls(
                    opened,
                    sealing=sealing or Sealer.from_environment(),
                    endpoints={**ENDPOINTS, **(endpoints or {})},
                    clock=clock or SystemClock(),
                    new_id=new_id or (lambda: str(uuid.uuid4())),
                    settings=settings or ServiceSettings(),
                )
                service._start()
                try:
                    yield service
                finally:
                    await service._close()
        finally:
            if owned:
                await opened.aclose()

    def __repr__(self) -> str:
        return f"<Service over {self.database!r}>"

    def watch(
        self, app: App, *, operation: str | None = None, activity: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Follow an operation or an activity: its state now, then each change, the newest only.

        Ends when the operation is finished or the activity has ended. Raises `NotFound`, and
        `InvalidInput` unless exactly one of the two is given.
        """
        return self.watchers.watch(app, operation=operation, activity=activity)

    async def settled(self) -> None:
        """Return when nothing that was accepted waits to be sent.

        Devices that have not handed in their token are not waited for.
        """
        while self.courier.busy or self.notifier.busy:
            await self.courier.settled()
            await self.notifier.settled()

    def statistics(self) -> CourierStatistics:
        """Return a frozen snapshot of what this process is doing."""
        return self.courier.statistics()

    def _written(self, app: App, row: int) -> None:
        self.courier.written(app, row)
        self.scheduler.wake()

    def _key_added(self, app: App) -> None:
        self.courier.key_added(app)
        self.notifier.key_added(app)

    def _left(self, activity: int, token: str) -> None:
        self.courier.left(activity, token)

    def _start(self) -> None:
        self.courier.open()
        self._tasks = [asyncio.create_task(self._keep(work)) for work in self.background]

    async def _keep(self, work: Background) -> None:
        """Run ``work`` until it returns; one bad moment must not end it for good."""
        while True:
            try:
                await work()
            except Exception:
                logger.exception(
                    "%s failed; it is started again", getattr(work, "__qualname__", work)
                )
                await self.clock.sleep(_RESTART_AFTER)
            else:
                return

    async def _drain(self, seconds: float) -> None:
        """Go on until everything is sent and written down, ``seconds`` at most."""
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
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.courier.aclose()
            self.watchers.close()
