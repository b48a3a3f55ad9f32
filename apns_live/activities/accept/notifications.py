"""Accepts ordinary pushes to an audience: alerts, badges and silent background pushes.

One transaction stores the operation and its idempotency record. Sending follows, and continues
after a restart (see `apns_live.activities.send.notifying`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(eq=False, repr=False)
class Notifications:
    """Accepts notifications. ``accepting`` wakes the sender."""

    database: Database
    clock: Clock
    new_id: Callable[[], str]
    audiences: Audiences
    accepting: Written = lambda app, row: None
    check_key: CheckKey | None = None
    commits: GroupCommit | None = None

    def __post_init__(self) -> None:
        self._writes = Writes(self.database, self.commits, self.accepting)

    async def send(self, app: App, request: Notify, *, key: Key | None = None) -> Once[Accepted]:
        """Accept a notification. The answer's ``operation`` is the id for its progress and outcomes.

        It is sent to the active device tokens of devices with pushes enabled. Raises
        `InvalidInput` or `InvalidPayload`; with ``replaces`` also `NotFound`, and `Conflict` while
        that one is still being sent or cannot be replaced.
        """
        now = milliseconds(self.clock)
        request = checked_notification(request, self.clock.time())
        if self.check_key is not None:
            await self.check_key(app, request.environment or app.environment)

        async def work(writing: Writing) -> Accepted:
            return await self._accept(writing, request)

        return await self._writes.once(app, now, key, request, Accepted, work)

    async def _accept(self, writing: Writing, request: Notify) -> Accepted:
        app, public_id = writing.app, self.new_id()
        if request.replaces is not None:
            collapse = await _collapse_id_of(writing.connection, app, request.replaces)
        else:
            # An empty audience, or an unknown segment or group, is refused now.
            await self.audiences.clause(writing.connection, app, request.audience)
            collapse = request.collapse_id or ("" if request.background else public_id)
        environment = request.environment or app.environment
        request = msgspec.structs.replace(
            request, collapse_id=collapse or None, environment=environment
        )
        values = {"dialect": request.dialect, "request": json_text(request)}
        partition = partition_of(app.row, public_id)
        writing.rows.append(await writing.add_operation(public_id, KIND, partition, **values))
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
