"""The audit log: who changed keys, credentials, provider keys or settings, or ran an import."""

import json
from collections.abc import Mapping
from typing import Any, TypedDict

from sqlalchemy import delete, insert, select

from ..activities.apps import App
from ..activities.store import schema
from ..activities.store.database import Database
from ..activities.store.statements import view_of
from ..activities.times import milliseconds
from ..clock import Clock

_PRUNED_AT_ONCE = 1_000


class AuditView(TypedDict):
    """One line of the audit log: who did what."""

    row: int
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    address: str
    created_at: int


class Audit:
    """Writes and reads the audit log of each app."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def note(
        self,
        app: App,
        *,
        actor: str,
        action: str,
        subject: str,
        detail: Mapping[str, Any] | None = None,
        address: str = "",
    ) -> None:
        """Write one line. ``actor`` is ``key ID``, ``device ID``, ``cli`` or ``address``; no secrets."""
        line = {
            "app_id": app.row,
            "actor": actor[:128],
            "action": action[:64],
            "subject": subject[:255],
            "detail": json.dumps(dict(detail or {})),
            "address": address[:64],
            "created_at": milliseconds(self._clock),
        }
        await self._database.change(insert(schema.audit_log), line)

    async def page(self, app: App, *, after: int = 0, limit: int = 100) -> list[AuditView]:
        """Return a page, the oldest first; ``after`` is the last line's ``row``."""
        table = schema.audit_log
        query = select(table).where(table.c.app_id == app.row, table.c.id > after)
        query = query.order_by(table.c.id).limit(min(limit, 1_000))
        return [view_of(AuditView, row) for row in await self._database.rows(query)]

    async def prune(self, days: float) -> int:
        """Delete lines older than ``days``, in bounded batches; return how many."""
        table = schema.audit_log
        before = milliseconds(self._clock) - int(days * 86_400_000)
        some = select(table.c.id).where(table.c.created_at < before).limit(_PRUNED_AT_ONCE)
        gone, batch = 0, _PRUNED_AT_ONCE
        while batch == _PRUNED_AT_ONCE:
            batch = await self._database.change(delete(table).where(table.c.id.in_(some)))
            gone += batch
        return gone
