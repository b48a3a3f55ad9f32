"""Ordinary pushes to an audience: alerts, badges and silent background pushes, over device tokens.

Accepting is one transaction: the operation and its idempotency record. The sending happens behind
it and goes on after a restart (see `apns_live.activities.send.notifying`).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock
from ...errors import Conflict
from .. import observed
from ..apps import App
from ..people.audience import Audiences
from ..read.operations import operation_row
from ..requests import Accepted
from ..requests.notify import KIND, Notify, checked_notification
from ..store import schema
from ..store.database import Database
from ..store.ownership import partition_of
from ..times import milliseconds
from .activities import CheckKey
from .idempotency import Key, Once, once

Accepting = Callable[[App, int], object]
"""Called with the app and the operation's row after a commit."""


class Notifications:
    """Accepts notifications. ``accepting`` wakes whoever sends them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        new_id: Callable[[], str],
        audiences: Audiences,
        accepting: Accepting = lambda app, row: None,
        check_key: CheckKey | None = None,
    ) -> None:
        self._check_key = check_key
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._audiences = audiences
        self._accepting = accepting

    async def send(self, app: App, request: Notify, *, key: Key | None = None) -> Once[Accepted]:
        """Accept a notification. The answer's ``operation`` leads to its progress and outcomes.

        It goes to the living device tokens of devices that have not switched pushes off. Raises
        `InvalidInput` or `InvalidPayload`; with ``replaces`` also `NotFound`, and `Conflict` while
        that one is still being sent or cannot be replaced.
        """
        now = milliseconds(self._clock)
        request = checked_notification(request, self._clock.time())
        if self._check_key is not None:
            await self._check_key(app, request.environment or app.environment)
        rows: list[int] = []
        async with self._database.write() as connection:
            done = await once(
                connection,
                app,
                key,
                request,
                Accepted,
                lambda: self._accept(connection, app, request, now, key, rows),
                now=now,
            )
        for row in rows:
            self._accepting(app, row)
        observed.accepted(done.answer.operation)
        return done

    async def _accept(
        self,
        connection: AsyncConnection,
        app: App,
        request: Notify,
        now: int,
        key: Key | None,
        rows: list[int],
    ) -> Accepted:
        public_id = self._new_id()
        if request.replaces is not None:
            collapse_id: str | None = await _collapse_id_of(connection, app, request.replaces)
        else:
            # Refuses what names nobody, or a segment or group that is not there.
            await self._audiences.clause(connection, app, request.audience)
            collapse_id = None if request.background else request.collapse_id or public_id
        request = msgspec.structs.replace(
            request,
            collapse_id=collapse_id or request.collapse_id,
            environment=request.environment or app.environment,
        )
        table = schema.operations
        row = (
            await connection.execute(
                insert(table)
                .values(
                    app_id=app.row,
                    public_id=public_id,
                    partition=partition_of(app.row, public_id),
                    kind=KIND,
                    caller="" if key is None else key.caller,
                    dialect=request.dialect,
                    status="accepted",
                    request=msgspec.json.encode(request).decode(),
                    created_at=now,
                )
                .returning(table.c.id)
            )
        ).scalar_one()
        rows.append(row)
        return Accepted(operation=public_id, activity="", status="accepted", version=0)


async def _collapse_id_of(connection: AsyncConnection, app: App, public_id: str) -> str:
    table = schema.operations
    row = (
        await connection.execute(
            select(table).where(table.c.id == await operation_row(connection, app, public_id))
        )
    ).one()
    if row.kind != KIND:
        raise Conflict(f"{public_id!r} is no notification but a {row.kind}: it cannot be replaced")
    if row.finished_at is None:
        raise Conflict(
            f"the notification {public_id!r} is still being sent: try again once it is done"
        )
    former = msgspec.json.decode(row.request, type=Notify)
    if former.background or former.collapse_id is None:
        raise Conflict(f"{public_id!r} was a background push: it shows nothing to be replaced")
    return former.collapse_id
