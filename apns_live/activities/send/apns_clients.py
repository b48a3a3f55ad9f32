"""Opens and closes the APNs clients: one for each app and environment, with its delivery.

Each client has its own connections, so their number is limited. A client that was idle for a while is
closed, and above the limit the one that was idle for longest. A client in use is never closed, so there
may be more than the limit for a moment.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ...client import Attachment, Client, Endpoint
from ...client.statistics import Statistics
from ...clock import Clock
from ...credentials import ProviderKey
from ...delivery import Delivery, DeliveryStatistics
from ...errors import ActivitiesError, ApnsLiveError
from ..apps import App, Apps
from ..settings import ServiceSettings

logger = logging.getLogger("apns_live.activities")


class NoKey(ActivitiesError):
    """The app's provider key for an environment is missing or cannot be decrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarrierStatistics:
    """The figures of one app in one environment."""

    app: str
    environment: str
    client: Statistics
    delivery: DeliveryStatistics


class GatedClient(Client):
    """A client whose sources pause while the store is behind."""

    def __init__(self, key: ProviderKey, *, shut: Callable[[], bool], **options: Any) -> None:
        super().__init__(key, **options)
        self._shut = shut
        self._attachments: list[Attachment] = []

    def attach(self, source: Any, **options: Any) -> Attachment:
        """Take work from ``source`` while the store has room for its results; see `Client.attach`."""

        def take(limit: int) -> Any:
            return () if self._shut() else source.take(limit)

        gate: Any = SimpleNamespace(take=take, settled=source.settled)
        gate.accepted = getattr(source, "accepted", None)
        attachment = super().attach(gate, **options)
        self._attachments = [known for known in self._attachments if not known.detached]
        self._attachments.append(attachment)
        return attachment

    def wake(self) -> None:
        """Continue: the store has caught up."""
        for attachment in self._attachments:
            attachment.wake()


@dataclass(eq=False, repr=False, slots=True)
class Carrier:
    """One app's client and delivery for one environment."""

    app: App
    environment: str
    client: GatedClient
    delivery: Delivery
    holders: int = 0
    """The number of tasks that use it."""
    used_at: float = 0.0
    """The time of its last use (monotonic seconds)."""

    async def aclose(self) -> None:
        """Close at once; the caller has already waited for pending work."""
        await self.delivery.aclose(drain=0.0)
        await self.client.aclose(drain=0.0)


@dataclass(eq=False, repr=False, kw_only=True)
class Carriers:
    """Opens carriers, one for each app and environment, and keeps those in use.

    ``release`` unloads idle activities from a carrier, and returns whether nothing is left on it.
    """

    apps: Apps
    clock: Clock
    endpoints: Mapping[str, str | Endpoint]
    settings: ServiceSettings
    shut: Callable[[], bool]

    def __post_init__(self) -> None:
        self._open: dict[tuple[int, str], Carrier] = {}
        self._opening: dict[tuple[int, str], asyncio.Lock] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.release: Callable[[Carrier], bool] = lambda carrier: True
        self.opened = 0
        """Carriers opened since the start."""

    def __iter__(self) -> Iterator[Carrier]:
        return iter(list(self._open.values()))

    def __len__(self) -> int:
        return len(self._open)

    def known(self, app: App, environment: str) -> Carrier | None:
        """Return the carrier if it is open."""
        carrier = self._open.get((app.row, environment))
        return None if carrier is None else self._touch(carrier)

    def _touch(self, carrier: Carrier) -> Carrier:
        """Note a use: the least recently used carrier is first."""
        carrier.used_at = self.clock.monotonic()
        place = carrier.app.row, carrier.environment
        self._open[place] = self._open.pop(place)
        return carrier

    @asynccontextmanager
    async def use(self, app: App, environment: str) -> AsyncIterator[Carrier]:
        """Hold the carrier, opened if needed: it stays open within the block. Raises as `get`."""
        carrier = await self.get(app, environment)
        carrier.holders += 1
        try:
            yield carrier
        finally:
            carrier.holders -= 1
            self.known(app, environment)
            self.shrink()

    async def get(self, app: App, environment: str) -> Carrier:
        """Return the carrier, opened if needed. Use it at once, or hold it with `use`.

        Raises `NoKey` if the app's key is missing or cannot be decrypted, `StoreError` if the
        database cannot be reached, `InvalidSetting` for invalid client settings.
        """
        place = (app.row, environment)
        if carrier := self.known(app, environment):
            return carrier
        async with self._opening.setdefault(place, asyncio.Lock()):
            if carrier := self.known(app, environment):
                return carrier
            key = await self._key(app, environment)
            client = GatedClient(
                key,
                shut=self.shut,
                bundle_id=app.bundle_id,
                environment=self.endpoints.get(environment, environment),
                clock=self.clock,
                **self.settings.client,
            )
            delivery = Delivery(
                client, budget=app.settings.get("budget", self.settings.budget), clock=self.clock
            )
            await delivery.open()
            carrier = self._open[place] = Carrier(app, environment, client, delivery)
            self.opened += 1
            self._touch(carrier)
            self.make_room(carrier)
            return carrier

    def shrink(self) -> None:
        """Close surplus carriers: some may have become idle."""
        if len(self._open) > self.settings.carriers_open:
            self.make_room()

    def make_room(self, new: Carrier | None = None) -> None:
        """Close carriers that were idle for too long and, above the limit, the longest idle."""
        too_old = self.clock.monotonic() - self.settings.carrier_idle
        too_many = len(self._open) - self.settings.carriers_open
        for place, carrier in list(self._open.items()):
            if too_many <= 0 and carrier.used_at > too_old:
                return  # All later ones were used more recently.
            if carrier is new or carrier.holders or not self.release(carrier):
                continue
            del self._open[place]
            too_many -= 1
            task = asyncio.create_task(self._close(carrier))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close(self, carrier: Carrier) -> None:
        try:
            await carrier.aclose()
        except (ApnsLiveError, OSError):
            logger.exception(
                "%s of %s could not be closed cleanly", carrier.environment, carrier.app.id
            )

    async def _key(self, app: App, environment: str) -> ProviderKey:
        try:
            return await self.apps.key(app, environment)
        except ActivitiesError as error:
            if isinstance(error.__cause__, OSError):
                raise  # The database failed, not the key.
            raise NoKey(str(error)) from error

    async def refresh_keys(self, app: App | None = None) -> None:
        """Sign with the keys that are stored now. Raises as `get`."""
        for carrier in self:
            if app is not None and carrier.app.row != app.row:
                continue
            key = await self._key(carrier.app, carrier.environment)
            if _identity(key) != _identity(carrier.client.provider_tokens.key):
                carrier.client.replace_key(key)

    def wake(self) -> None:
        """Resume sending: the store has caught up."""
        for carrier in self:
            carrier.client.wake()

    def statistics(self) -> tuple[CarrierStatistics, ...]:
        """Return a snapshot of each carrier."""
        return tuple(
            CarrierStatistics(
                app=carrier.app.id,
                environment=carrier.environment,
                client=carrier.client.statistics(),
                delivery=carrier.delivery.statistics(),
            )
            for carrier in self
        )

    async def aclose(self) -> None:
        """Close every carrier."""
        carriers = list(self._open.values())
        self._open.clear()
        await asyncio.gather(*(carrier.aclose() for carrier in carriers), *self._closing)


def _identity(key: ProviderKey) -> tuple[str, ...]:
    return key.key_id, key.team_id, key.fingerprint


class KnownApps:
    """Apps by their row, as last read."""

    def __init__(self, apps: Apps) -> None:
        self._apps = apps
        self._known: dict[int, App] = {}

    def note(self, app: App) -> None:
        """Store an app."""
        self._known[app.row] = app

    async def get(self, row: int) -> App | None:
        """Return an app; None if it was deleted."""
        if row not in self._known:
            self._known.update((app.row, app) for app in await self._apps.list())
        return self._known.get(row)

    def clear(self) -> None:
        """Forget all apps: another process may have changed their settings."""
        self._known.clear()
