"""Readiness checks for /readyz, at most once a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select, text

from ..activities.store import schema
from ..activities.store.ownership import lock_is_lost
from ..errors import ApnsLiveError

if TYPE_CHECKING:
    from ..activities import Service

logger = logging.getLogger("apns_live.gateway")

_WITHIN = 2.0
_TRUSTED_SECONDS = 1.0
_PAGES_EVERY = 60.0
_PAGES_SHARE = 100


class Readiness:
    """Checks the database, its lock, the leases and the provider keys. A problem is a sentence."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._clock = service.clock
        self._lock = asyncio.Lock()
        self._problems: list[str] = []
        self._asked = -_TRUSTED_SECONDS
        self._pages: asyncio.Task[None] | None = None
        self._pages_due = 0.0
        self._damage = ""

    async def problems(self) -> list[str]:
        """Return what keeps the gateway from serving; an empty list if it can serve."""
        async with self._lock:
            if self._clock.monotonic() - self._asked >= _TRUSTED_SECONDS:
                self._problems = [one async for one in self._ask()]
                self._asked = self._clock.monotonic()
            return self._problems

    async def aclose(self) -> None:
        """Cancel a running check of the database file."""
        if self._pages is not None:
            self._pages.cancel()
            await asyncio.gather(self._pages, return_exceptions=True)

    async def _ask(self) -> AsyncIterator[str]:
        service, database = self._service, self._service.database
        table, apps, sealer = schema.credentials, schema.apps, service.apps.sealer
        service.scheduler.time.look()
        try:
            async with asyncio.timeout(_WITHIN):
                async with database.write() as connection:
                    # Write and commit one page, because only that fails on a full or read-only disk.
                    await connection.execute(
                        text("UPDATE alembic_version SET version_num = version_num")
                    )
                query = select(table.c.sealed_key, table.c.key_id, apps.c.public_id)
                keys = await database.rows(query.join(apps, table.c.app_id == apps.c.id))
        except TimeoutError:
            yield "the database does not take a write in time"
            return
        except Exception as error:  # noqa: BLE001 - whatever it says, it cannot be used
            yield f"the database cannot be used ({_first_line(error)})"
            return
        try:
            for row in keys:
                sealer.open(bytes(row.sealed_key), app=row.public_id, key_id=row.key_id)
        except ApnsLiveError as error:
            yield str(error)
        if lock_is_lost(database):
            yield "the lock beside the database is gone: another service may send everything again"
        if service.ownership.lapsed:
            yield "the leases of this process ran out, so it sends nothing: the database did not renew them"
        due = database.is_sqlite and self._clock.monotonic() >= self._pages_due
        if due and (self._pages is None or self._pages.done()):
            self._pages = asyncio.get_running_loop().create_task(self._check_pages())
        if self._damage:
            yield self._damage

    async def _check_pages(self) -> None:
        """Let SQLite check its file, in at most a hundredth of the time."""
        began = self._clock.monotonic()
        try:
            said = str(await self._service.database.scalar(text("PRAGMA quick_check(1)")))
        except Exception as error:  # noqa: BLE001 - a damaged file says so in many ways
            said = _first_line(error)
        if said != "ok":
            file = Path(self._service.database.url.database or "").name
            self._damage = f"the database file {file} is damaged ({said:.200}): restore a backup"
            logger.error("%s", self._damage)
        took = self._clock.monotonic() - began
        self._pages_due = self._clock.monotonic() + max(_PAGES_EVERY, _PAGES_SHARE * took)


def _first_line(error: Exception) -> str:
    text_of = str(getattr(error, "orig", None) or error).splitlines()
    return (text_of[0] if text_of else type(error).__name__)[:200]
