"""Broadcast channels that the service makes itself, for starts that go to many devices.

Apple recommends channels for hundreds of viewers or more, and allows 10,000 for an app in an environment. So a
start with a large audience creates a channel. The channel is deleted when its activity has ended and Apple stores
no push of it any more. A start waits at most `PATIENCE` for a channel, and uses tokens if there is none.

A crash between creating a channel and storing its id leaves an unknown channel, and Apple's list has only ids. So
Apple's list is read and the time of the request is stored before the request. Channels that are new on the list ten
minutes after an answer was lost are logged, and never deleted (`OwnChannels.find_lost`).
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, and_, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ... import payload
from ...errors import (
    ApnsLiveError,
    ChannelError,
    ConnectFailed,
    InvalidInput,
    ManagementUnreachable,
    StoreError,
)
from ...payload.encode import LIMITS
from ..apps import App, apps_of
from ..checks import has_channels
from ..core import Core, Part
from ..people.audience import Audiences
from ..requests import Audience
from ..requests.messages import Further, Started, broadcast_warning, start_alert_of, start_message
from ..store import schema
from ..store.statements import change_row, rows_of
from .broadcast_channels import UNKNOWN_POLICY, Channels, ChannelView, remember

logger = logging.getLogger("apns_live.activities")

PATIENCE = 10.0
"""Seconds that a start waits for its channel."""
EVERY = 600.0
"""Seconds between two searches for unused or lost channels."""
KEPT_MILLISECONDS = 8 * 3_600_000
"""How long Apple keeps a push on a channel for offline phones."""
LOST_MILLISECONDS = 600_000
"""Milliseconds after which an answer from Apple can no longer arrive."""
_MOST_READ = 20_000
"""Start tokens of an audience that are searched for devices with channels."""
_BATCH = 100
_PLACES_KEPT = 10_000
_ID_ROOM = 128
"""Bytes reserved in a start for the channel's id. Apple does not document its length; 24 was seen.
"""
_REFUSED_FOR, _FAILED_FOR = 3600.0, 300.0
"""Seconds until the next try after Apple refused channels to the app, and after no answer."""
_NOT_ASKED = (ManagementUnreachable, ConnectFailed)
LOST = "Apple's answer to the request for one was lost"

_activities, _channels = schema.activities, schema.channels


class OwnChannels(Part):
    """Creates, deletes and finds the service's own channels; ``run`` deletes and finds."""

    def __init__(self, core: Core, channels: Channels) -> None:
        super().__init__(core)
        self.channels = channels
        self.settings = core.settings
        self._pauses: dict[tuple[int, str], tuple[float, str]] = {}
        """The end (monotonic seconds) and reason of each pause in requests, by app and environment."""

    async def give(
        self, app: App, activity: Row[Any], further: Further, terms: Mapping[int, int]
    ) -> tuple[Row[Any], str]:
        """Create a channel for an activity before its start is sent, if it is to have one.

        Returns the activity's row afterwards, and why it got no channel although it should have
        one, else an empty text. ``terms`` is as `Ownership.guard` takes it. Raises `NotOwner` and
        the errors of the store.
        """
        least = self._least(app, activity)
        started = Started(activity, further)
        limited = app.settings.get("device_limit", self.settings.device_limit) is not None
        # An end may be sent before phones follow the channel.
        is_over = activity.status != "active"
        if not least or further.hand_over or activity.channel_id is not None or is_over:
            return activity, ""
        if activity.channel_asked_at is not None:
            return activity, _without(LOST)
        # A broadcast has one text, and a card on a channel cannot be ended on one device.
        if broadcast_warning(app, "any", start_alert_of(started)) or limited:
            return activity, ""
        if not self._fits(started):
            return activity, _without("its start has no room left for a channel's id")
        if not await self._has_many(app, activity, further, least):
            return activity, ""
        until, why = self._pauses.get((app.row, activity.environment), (0.0, ""))
        if until > self.clock.monotonic():
            return activity, _without(why)
        try:
            async with asyncio.timeout(None) as limit:
                timer = self.clock.call_later(PATIENCE, lambda: limit.reschedule(0.0))
                try:
                    return await self._make(app, activity, terms), ""
                finally:
                    timer.cancel()
        except StoreError:
            raise
        except (ApnsLiveError, TimeoutError) as error:
            return activity, _without(self._pause(app, activity, error))

    def _least(self, app: App, activity: Row[Any]) -> int:
        """Return the number of devices from which an activity gets a channel; 0 for never."""
        given = app.settings.get("channel_from")
        if isinstance(given, Mapping):
            given = given.get(activity.attributes_type)
        if given is None and (activity.dialect == "native" or activity.stream_key is not None):
            given = self.settings.channel_from
        return int(given or 0)

    def _fits(self, started: Started) -> bool:
        now = self.clock.time()
        message = start_message(started, "en", by_channel=False, now=now)
        try:
            return len(payload.encode(message, now=now).body) <= LIMITS["device"] - _ID_ROOM
        except InvalidInput:  # the start reports it
            return False

    async def _has_many(self, app: App, activity: Row[Any], further: Further, least: int) -> bool:
        """Return True if a start goes to at least ``least`` devices that support channels."""
        audience = further.audience or msgspec.json.decode(activity.audience, type=Audience)
        named = (*audience.users, *audience.user_ids, *audience.devices)
        open_ended = audience.everyone or audience.segments or audience.groups or audience.filter
        if not open_ended and not audience.aliases and len(named) < least:
            return False
        all_have = app.settings.get("channel_devices", self.settings.channel_devices) == "all"
        place = {"environment": activity.environment, "attributes_type": activity.attributes_type}
        try:
            query = await Audiences(self.core).start_tokens(app, audience, **place)
        except InvalidInput:  # the start reports it
            return False
        version = query.limit(_MOST_READ).subquery().c.os_version
        counts = select(version, func.count().label("devices")).group_by(version)
        found = await self.database.rows(counts)
        able: int = sum(row.devices for row in found if all_have or has_channels(row.os_version))
        return able >= least

    async def _make(self, app: App, activity: Row[Any], terms: Mapping[int, int]) -> Row[Any]:
        """Request a channel from Apple and store its id; return the activity's row with it."""
        # Unknown channels that appear on the list after this moment were created since.
        await self.channels.reconcile(app, environment=activity.environment)
        await self._note(app, activity, terms, channel_asked_at=self.now)
        try:
            view = await self.channels.make(app, activity.environment, activity.public_id)
        except (ChannelError, *_NOT_ASKED) as error:
            if isinstance(error, _NOT_ASKED) or 400 <= error.status < 500:
                await self._note(app, activity, terms, channel_asked_at=None)
            raise
        row = await self._note(app, activity, terms, view, channel_id=view.id)
        logger.info("the activity %r got a broadcast channel", activity.public_id)
        return row

    async def _note(
        self,
        app: App,
        activity: Row[Any],
        terms: Mapping[int, int],
        *made: ChannelView,
        **values: Any,
    ) -> Row[Any]:
        """Set columns of an activity, and store the channel that was made for it; return its row."""
        changed = update(_activities).where(_activities.c.id == activity.id).values(**values)
        async with self.database.write() as connection:
            await self.core.ownership.guard(connection, terms)
            row: Row[Any] = (await connection.execute(changed.returning(_activities))).one()
            await remember(connection, app, made, activity=activity.id)
        return row

    def _pause(self, app: App, activity: Row[Any], error: BaseException) -> str:
        """Stop requesting channels for an app's environment for a while; return the reason."""
        status = error.status if isinstance(error, ChannelError) else 0
        refused = 400 <= status < 500 and status != 429
        seconds = _REFUSED_FOR if refused else _FAILED_FOR
        why = str(error) or f"Apple gave none within {PATIENCE:g} seconds"
        if len(self._pauses) >= _PLACES_KEPT:
            del self._pauses[next(iter(self._pauses))]
        place = app.row, activity.environment
        self._pauses[place] = self.clock.monotonic() + seconds, why
        said = "the app %s gets no broadcast channels in %s for %g minutes: %s"
        logger.warning(said, app.id, activity.environment, seconds / 60, why)
        return why

    async def run(self) -> None:
        """Delete unused channels and find lost ones, until cancelled."""
        while True:
            await self.find_lost()
            await self.delete_unused()
            await self.clock.sleep(EVERY)

    async def delete_unused(self) -> int:
        """Delete the service's own channels that nothing uses any more; return how many."""
        now, after, deleted = self.now, 0, 0
        failed: set[tuple[int, str]] = set()
        while True:
            async with self.database.write() as connection:
                rows = await _unused(connection, now, after)
                for row in rows:
                    # From here on no start may use it.
                    await change_row(connection, _channels, row.id, deleting_at=now)
                apps = await apps_of(connection, (row.app_id for row in rows))
            for row in rows:
                app, place = apps[row.app_id], (row.app_id, row.environment)
                if place in failed:
                    continue
                try:
                    await self.channels.delete(app, row.channel_id, environment=row.environment)
                    deleted += 1
                except ApnsLiveError as error:
                    failed.add(place)
                    said = "a broadcast channel of the app %s was not deleted; trying again: %s"
                    logger.warning(said, app.id, error)
            if len(rows) < _BATCH:
                return deleted
            after = rows[-1].id

    async def find_lost(self) -> int:
        """Log channels that Apple may have created without our storing them; return how many."""
        table, now = _activities, self.now
        place = table.c.app_id, table.c.environment
        query = select(table.c.id, table.c.channel_asked_at, *place).where(
            table.c.channel_id.is_(None), table.c.channel_asked_at <= now - LOST_MILLISECONDS
        )
        asked = await self.database.rows(query.order_by(*place).limit(_BATCH))
        async with self.database.read() as connection:
            apps = await apps_of(connection, (row.app_id for row in asked))
        found = 0
        for where, group in groupby(asked, key=lambda row: (row.app_id, row.environment)):
            app, environment = apps[where[0]], where[1]
            try:
                await self.channels.reconcile(app, environment=environment)
            except ApnsLiveError as error:
                logger.warning("the channels of the app %s cannot be listed: %s", app.id, error)
                continue
            found += await self._name(app, environment, list(group))
        return found

    async def _name(self, app: App, environment: str, asked: Sequence[Row[Any]]) -> int:
        """Log unused channels that appeared on Apple's list after an answer was lost."""
        query = select(_channels.c.channel_id).where(
            _channels.c.app_id == app.row,
            _channels.c.environment == environment,
            _channels.c.storage_policy == UNKNOWN_POLICY,
            _channels.c.activity_id.is_(None),
            _channels.c.deleted_at.is_(None),
            _channels.c.created_at >= min(row.channel_asked_at for row in asked),
            ~exists().where(_follows()).correlate(_channels),
        )
        async with self.database.write() as connection:
            new = await rows_of(connection, query)
            for row in asked:
                await change_row(connection, _activities, row.id, channel_asked_at=None)
        if new:
            logger.warning(
                "the app %s has %d new broadcast channels in %s, and Apple's answers to %d requests "
                "for one were lost: delete those that no other program uses: %s",
                app.id,
                len(new),
                environment,
                len(asked),
                ", ".join(row.channel_id for row in new[:20]),
            )
        return len(new)


async def _unused(connection: AsyncConnection, now: int, after: int) -> Sequence[Row[Any]]:
    """Return own channels that no activity uses, locked: see `check_not_deleted`."""
    query = select(_channels).where(
        _channels.c.activity_id.is_not(None),
        _channels.c.deleted_at.is_(None),
        _channels.c.created_at <= now - KEPT_MILLISECONDS,
        _channels.c.id > after,
        ~_used(now - KEPT_MILLISECONDS),
    )
    query = query.order_by(_channels.c.id).limit(_BATCH)
    return await rows_of(connection, query.with_for_update(skip_locked=True))


def _used(since: int) -> ColumnElement[bool]:
    """Return the condition that an activity follows a channel, or Apple may still keep its push."""
    operations = schema.operations
    # Counted, because PostgreSQL would read the whole table for an EXISTS here.
    late = select(func.count()).where(
        operations.c.activity_id == _activities.c.id,
        operations.c.kind != "start",
        or_(operations.c.finished_at.is_(None), operations.c.finished_at > since),
    )
    late_ones = late.correlate(_activities).scalar_subquery()
    over_lately = and_(_activities.c.retired_at.is_(None), late_ones > 0)
    uses = or_(_activities.c.status != "ended", _activities.c.ended_at > since, over_lately)
    return exists().where(_follows(), uses).correlate(_channels)


def _follows() -> ColumnElement[bool]:
    return and_(
        _activities.c.app_id == _channels.c.app_id,
        _activities.c.channel_id == _channels.c.channel_id,
    )


def _without(why: str) -> str:
    return f"there is no broadcast channel, so every device has a token: {why}"
