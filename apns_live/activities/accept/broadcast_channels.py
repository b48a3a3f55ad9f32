"""Creates, deletes and compares Apple's broadcast channels of an app, and stores them.

Apple's list has only ids. Names, storage policies and dates are known only for channels that were
created or read here. Source: Apple, "Sending channel management requests to APNs".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...channels import MAX_CHANNELS
from ...client import Client
from ...errors import ChannelError, Conflict, InvalidInput, NotFound
from ...payload import check_channel
from .. import checks
from ..apps import App
from ..core import Core, Part
from ..store import schema
from ..store.statements import chunks, insert_into, row_of, rows_of, view_of
from .idempotency import KEPT_MILLISECONDS, Key, Once, answered, once

PAGE = 100
UNKNOWN_POLICY = -1
"""Stored for a channel that is known only from Apple's list; callers see None."""
_FULL = "CannotCreateChannelConfig"
_GONE = frozenset({"BadChannelId", "ChannelNotRegistered"})

ClientFor = Callable[[App, str], AbstractAsyncContextManager[Client]]
"""Holds the client that pushes for an app in an environment."""


class CreateChannel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request for a new channel.

    With ``storage_policy`` 1 APNs stores the newest message for up to 8 hours; with 0 it stores
    nothing and allows more pushes. The policy cannot be changed.
    """

    storage_policy: int = 1
    environment: str | None = None
    name: str | None = None


class ChannelView(msgspec.Struct, frozen=True, kw_only=True):
    """A broadcast channel. ``storage_policy`` is None if it is unknown.

    ``created_at`` is when it was stored here, in milliseconds since 1970.
    """

    id: str
    environment: str
    storage_policy: int | None
    name: str | None
    created_at: int

    @classmethod
    def of(cls, row: Row[Any]) -> ChannelView:
        """Return the channel of a database row."""
        policy = None if row.storage_policy == UNKNOWN_POLICY else row.storage_policy
        return view_of(cls, row, id=row.channel_id, storage_policy=policy)


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a comparison with Apple's list: added ids and removed ids."""

    channels: int
    added: list[str]
    removed: list[str]


class Channels(Part):
    """Creates, lists and deletes channels through the app's own client.

    Raises `ChannelError` if Apple refuses, `ManagementUnreachable` or `ConnectFailed` if Apple cannot
    be reached, and `ActivitiesError` without a provider key.
    """

    def __init__(self, core: Core, client_for: ClientFor) -> None:
        super().__init__(core)
        self.client_for = client_for

    async def create(
        self, app: App, request: CreateChannel | None = None, *, key: Key | None = None
    ) -> Once[ChannelView]:
        """Create a channel at Apple and store it.

        Two concurrent calls with the same key may create two channels; the second is deleted
        again. Raises `InvalidInput`, and as the class says. If Apple's answer is lost, the channel
        may exist; `reconcile` finds it.
        """
        request = request or CreateChannel()
        checks.conform(request)
        environment = _environment(app, request.environment)
        if request.name is not None:
            checks.identifier(request.name, "name", limit=200)
        if request.storage_policy not in (0, 1):
            problem = f"{request.storage_policy!r:.20} is not a valid storage policy"
            remedy = "Give 1 (the newest message is stored) or 0 (nothing is stored)."
            raise InvalidInput(problem, "storage_policy", remedy)
        if key is not None:
            checks.identifier(key.key, "idempotency_key")
            since = self.now - KEPT_MILLISECONDS
            async with self.database.read() as connection:
                known = await answered(connection, app, key, request, ChannelView, since)
            if known is not None:
                return known
        view = await self.make(app, environment, request.name, request.storage_policy)

        async def noted() -> ChannelView:
            await remember(connection, app, [view])
            return view

        now = view.created_at
        async with self.database.write() as connection:
            done = await once(connection, app, key, request, ChannelView, noted, now=now)
        if done.answer.id != view.id:
            async with self.client_for(app, environment) as client:
                await client.channels.delete(view.id)
        return done

    async def make(
        self, app: App, environment: str, name: str | None, storage_policy: int = 1
    ) -> ChannelView:
        """Create a channel at Apple without storing it. Raises the errors of the class."""
        try:
            async with self.client_for(app, environment) as client:
                made = str(await client.channels.create(storage_policy))
        except ChannelError as error:
            if error.reason != _FULL:
                raise
            query = select(func.count()).where(*_here(app, environment))
            [(known,)] = await self.database.rows(query)
            remedy = (
                "Delete channels that no activity follows; reconcile first, so that all of them are "
                "known. Many activities of one match can share one channel."
            )
            raise ChannelError(
                f"the app {app.id!r} has the {MAX_CHANNELS:,} channels that Apple allows in "
                f"{environment} ({known:,} of them are known here). {remedy}",
                status=error.status,
                reason=error.reason,
                remedy=remedy,
                request_id=error.request_id,
            ) from error
        return ChannelView(
            id=made,
            environment=environment,
            storage_policy=storage_policy,
            name=None if name is None else name[:200],
            created_at=self.now,
        )

    async def list(
        self,
        app: App,
        *,
        environment: str | None = None,
        after: str | None = None,
        limit: int = PAGE,
    ) -> list[ChannelView]:
        """Return a page of the stored channels, by id; ``after`` is the id of the last one.

        Does not ask Apple; see `reconcile`. Raises `InvalidInput`.
        """
        table = schema.channels
        query = select(table).where(*_here(app, _environment(app, environment)))
        if after is not None:
            query = query.where(table.c.channel_id > after)
        query = query.order_by(table.c.channel_id).limit(checks.page_limit(limit))
        return [ChannelView.of(row) for row in await self.database.rows(query)]

    async def get(self, app: App, channel: str, *, environment: str | None = None) -> ChannelView:
        """Return a channel. If it or its policy is not stored, it is read from Apple.

        Raises `InvalidInput`, `NotFound`, and as the class says.
        """
        channel, environment = str(check_channel(channel)), _environment(app, environment)
        query = select(schema.channels).where(*_here(app, environment, channel))
        row = await self.database.row(query)
        if row is not None and row.storage_policy != UNKNOWN_POLICY:
            return ChannelView.of(row)
        try:
            async with self.client_for(app, environment) as client:
                found = await client.channels.read(channel)
        except ChannelError as error:
            if error.status == 404 or error.reason in _GONE:
                gone = f"the app {app.id!r} has no channel {channel!r} in {environment}"
                raise NotFound(gone) from error
            raise
        view = ChannelView(
            id=channel,
            environment=environment,
            storage_policy=found.storage_policy,
            name=None if row is None else row.name,
            created_at=self.now if row is None else row.created_at,
        )
        async with self.database.write() as connection:
            await remember(connection, app, [view])
        return view

    async def delete(self, app: App, channel: str, *, environment: str | None = None) -> bool:
        """Delete a channel permanently; return whether it existed at Apple.

        Activities on it get no more updates. Raises `InvalidInput`, and as the class says.
        """
        channel, environment = str(check_channel(channel)), _environment(app, environment)
        async with self.client_for(app, environment) as client:
            was_there = await client.channels.delete(channel)
        async with self.database.write() as connection:
            await self._forget(connection, app, environment, [channel])
        return was_there

    async def reconcile(self, app: App, *, environment: str | None = None) -> Reconciled:
        """Synchronize with Apple's list: add new channels, remove deleted ones.

        Raises `InvalidInput`, and as the class says.
        """
        environment = _environment(app, environment)
        begun = self.now
        async with self.client_for(app, environment) as client:
            listed = {str(channel) for channel in await client.channels.list()}
        table = schema.channels
        async with self.database.write() as connection:
            query = select(table.c.channel_id, table.c.created_at)
            rows = await rows_of(connection, query.where(*_here(app, environment)))
            # A channel created while Apple compiled its list may be missing from the list.
            removed = sorted({row.channel_id for row in rows if row.created_at < begun} - listed)
            added = sorted(listed - {row.channel_id for row in rows})
            await self._forget(connection, app, environment, removed)
            values: dict[str, Any] = {"environment": environment, "created_at": begun}
            values |= {"storage_policy": None, "name": None}
            await remember(connection, app, [ChannelView(id=one, **values) for one in added])
        return Reconciled(channels=len(listed), added=added, removed=removed)

    async def _forget(
        self, connection: AsyncConnection, app: App, environment: str, channels: Iterable[str]
    ) -> None:
        gone = update(schema.channels).values(deleted_at=self.now)
        for part in chunks(channels):
            await connection.execute(gone.where(*_here(app, environment, *part)))


def _environment(app: App, environment: str | None) -> str:
    return app.environment if environment is None else checks.environment(environment)


def _here(app: App, environment: str, *channels: str) -> list[ColumnElement[bool]]:
    """Return the SQL conditions for these channels, or all channels, of an app's environment."""
    columns = schema.channels.c
    place = [columns.app_id == app.row, columns.environment == environment]
    named = [columns.channel_id.in_(channels)] if channels else []
    return [*place, columns.deleted_at.is_(None), *named]


async def check_not_deleted(
    connection: AsyncConnection, app: App, environment: str, channel: str
) -> None:
    """Raise `Conflict` for a channel that was deleted: a start on it fails on every phone.

    The channel's row stays locked, so that it is not deleted before the caller's transaction ends.
    """
    table = schema.channels
    query = select(table.c.deleted_at, table.c.deleting_at).where(
        table.c.app_id == app.row, table.c.environment == environment, table.c.channel_id == channel
    )
    row = await row_of(connection, query.with_for_update(read=True))
    if row is not None and (row.deleted_at or row.deleting_at):
        raise Conflict(f"the channel {channel!r} was deleted: create another, or name none")


async def remember(
    connection: AsyncConnection,
    app: App,
    views: Iterable[ChannelView],
    *,
    activity: int | None = None,
) -> None:
    """Store channels; ``activity`` is the row of the activity that the service created them for."""
    statement = insert_into(connection, schema.channels)
    new = statement.excluded
    told = ("storage_policy", "name", "deleted_at", "created_at")
    # Another start may have read it from Apple's list already.
    owner = func.coalesce(new.activity_id, schema.channels.c.activity_id)
    statement = statement.on_conflict_do_update(
        index_elements=["app_id", "environment", "channel_id"],
        set_={**{name: new[name] for name in told}, "activity_id": owner},
    )
    values = []
    for view in views:
        policy = UNKNOWN_POLICY if view.storage_policy is None else view.storage_policy
        value = {"app_id": app.row, "environment": view.environment, "channel_id": view.id}
        value |= {"storage_policy": policy, "name": view.name, "activity_id": activity}
        values.append(value | {"deleted_at": None, "created_at": view.created_at})
    for some in chunks(values):
        await connection.execute(statement, some)
