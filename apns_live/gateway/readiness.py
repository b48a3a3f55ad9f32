"""Readiness checks for /readyz, at most once a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select, text

from ..activities.store import schema
from ..errors import ApnsLiveError

try:
    import fcntl
except ImportError:  # Windows has no fcntl, so the lock is not used there
    fcntl = None  # type: ignore[assignment]

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

    def warnings(self) -> list[str]:
        """Return warnings; the gateway can serve all the same."""
        warning = self._service.scheduler.time.warning()
        return [warning] if warning else []

    async def aclose(self) -> None:
        """Cancel a running check of the database file."""
        if self._pages is not None:
            self._pages.cancel()
            await asyncio.gather(self._pages, return_exceptions=True)

    async def _ask(self) -> AsyncIterator[str]:
        self._service.scheduler.time.look()
        try:
            async with asyncio.timeout(_WITHIN):
                async with self._service.database.write() as connection:
                    # Write and commit one page, because only that fails on a full or read-only disk.
                    await connection.execute(
                        text("UPDATE alembic_version SET version_num = version_num")
                    )
                key = await self._unopened_key()
        except TimeoutError:
            yield "the database does not take a write in time"
            return
        except Exception as error:  # noqa: BLE001 - whatever it says, it cannot be used
            yield f"the database cannot be used ({_first_line(error)})"
            return
        if key:
            yield key
        if self._lock_is_lost():
            yield "the lock beside the database is gone: another service may send everything again"
        if self._service.ownership.lapsed:
            yield "the leases of this process ran out, so it sends nothing: the database did not renew them"
        due = self._service.database.is_sqlite and self._clock.monotonic() >= self._pages_due
        if due and (self._pages is None or self._pages.done()):
            self._pages = asyncio.get_running_loop().create_task(self._check_pages())
        if self._damage:
            yield self._damage

    async def _unopened_key(self) -> str:
        """Return the error of the first provider key that the sealing key cannot decrypt, or ""."""
        table, apps, sealer = schema.credentials, schema.apps, self._service.apps.sealer
        query = select(table.c.sealed_key, table.c.key_id, apps.c.public_id)
        query = query.join(apps, table.c.app_id == apps.c.id)
        for row in await self._service.database.rows(query):
            try:
                sealer.open(bytes(row.sealed_key), app=row.public_id, key_id=row.key_id)
            except ApnsLiveError as error:
                return str(error)
        return ""

    def _lock_is_lost(self) -> bool:
        """Whether this service has lost the lock file that excludes a second one (SQLite only)."""
        database = self._service.database
        if fcntl is None or not database.is_sqlite:
            return False
        path = Path(database.url.database or "").resolve()
        try:
            with path.with_name(path.name + "-serving").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

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
