"""Accepts ordinary pushes to an audience: alerts, badges and silent background pushes.

One transaction stores the operation and its idempotency record. Sending follows, and continues
after a restart (see `apns_live.activities.send.notifying`).
"""

from functools import partial

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import Conflict
from ..apps import App
from ..finding import find
from ..people.audience import Audiences
from ..requests import Accepted
from ..requests.notify import KIND, Notify, checked_notification
from ..store import schema
from ..store.ownership import partition_of
from ..store.statements import json_text
from .idempotency import Key, Once, Writer, Writing


class Notifications(Writer):
    """Accepts notifications."""

    def written(self, app: App, row: int) -> None:
        """Wake the sender after a commit."""
        self.core.hooks.accepted(app, row)

    async def send(self, app: App, request: Notify, *, key: Key | None = None) -> Once[Accepted]:
        """Accept a notification. The answer's ``operation`` is the id for its progress and outcomes.

        It is sent to the active device tokens of devices with pushes enabled. Raises
        `InvalidInput` or `InvalidPayload`; with ``replaces`` also `NotFound`, and `Conflict` while
        that one is still being sent or cannot be replaced.
        """
        request = checked_notification(request, self.clock.time())
        await self.core.hooks.check_key(app, request.environment or app.environment)

        return await self.once(app, key, request, Accepted, partial(self._accept, request=request))

    async def _accept(self, writing: Writing, request: Notify) -> Accepted:
        app, public_id = writing.app, self.core.new_id()
        if request.replaces is not None:
            collapse = await _collapse_id_of(writing.connection, app, request.replaces)
        else:
            # An empty audience, or an unknown segment or group, is refused now.
            await Audiences(self.core).clause(writing.connection, app, request.audience)
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
