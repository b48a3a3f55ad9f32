"""Accepts ordinary pushes to an audience: alerts, badges and silent background pushes.

One transaction stores the operation and its idempotency record. Sending follows, and continues
after a restart (see `apns_live.activities.send.notifying`).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock
from ...errors import Conflict
from ..apps import App
from ..finding import find
from ..people.audience import Audiences
from ..requests import Accepted
from ..requests.notify import KIND, Notify, checked_notification
from ..store import schema
from ..store.commit import GroupCommit
from ..store.database import Database
from ..store.ownership import partition_of
from ..store.statements import json_text
from ..times import milliseconds
from .idempotency import CheckKey, Key, Once, Writes, Writing, Written


class Notifications:
    """Accepts notifications. ``accepting`` wakes the sender."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        new_id: Callable[[], str],
        audiences: Audiences,
        accepting: Written = lambda app, row: None,
        check_key: CheckKey | None = None,
        commits: GroupCommit | None = None,
    ) -> None:
        self._check_key = check_key
        self._clock = clock
        self._new_id = new_id
        self._audiences = audiences
        self._writes = Writes(database, commits, accepting)

    async def send(self, app: App, request: Notify, *, key: Key | None = None) -> Once[Accepted]:
        """Accept a notification. The answer's ``operation`` is the id for its progress and outcomes.

        It is sent to the active device tokens of devices with pushes enabled. Raises
        `InvalidInput` or `InvalidPayload`; with ``replaces`` also `NotFound`, and `Conflict` while
        that one is still being sent or cannot be replaced.
        """
        now = milliseconds(self._clock)
        request = checked_notification(request, self._clock.time())
        if self._check_key is not None:
            await self._check_key(app, request.environment or app.environment)

        async def work(writing: Writing) -> Accepted:
            return await self._accept(writing, request)

        return await self._writes.once(app, now, key, request, Accepted, work)

    async def _accept(self, writing: Writing, request: Notify) -> Accepted:
        app, public_id = writing.app, self._new_id()
        if request.replaces is not None:
            collapse_id: str | None = await _collapse_id_of(
                writing.connection, app, request.replaces
            )
        else:
            # Refuses what names nobody, or a segment or group that is not there.
            await self._audiences.clause(writing.connection, app, request.audience)
            collapse_id = None if request.background else request.collapse_id or public_id
        request = msgspec.structs.replace(
            request,
            collapse_id=collapse_id or request.collapse_id,
            environment=request.environment or app.environment,
        )
        row = await writing.add_operation(
            public_id,
            KIND,
            partition_of(app.row, public_id),
            dialect=request.dialect,
            request=json_text(request),
        )
        writing.rows.append(row)
        return Accepted(operation=public_id, activity="", status="accepted", version=0)


async def _collapse_id_of(connection: AsyncConnection, app: App, public_id: str) -> str:
    row = await find(connection, app, schema.operations, public_id)
    if row.kind != KIND:
        raise Conflict(
            f"{public_id!r} is not a notification but a {row.kind}: it cannot be replaced"
        )
    if row.finished_at is None:
        raise Conflict(
            f"the notification {public_id!r} is still being sent: try again once it is done"
        )
    former = msgspec.json.decode(row.request, type=Notify)
    if former.background or former.collapse_id is None:
        raise Conflict(f"{public_id!r} was a background push: it shows nothing to be replaced")
    return former.collapse_id
