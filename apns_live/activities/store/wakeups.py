"""Notifies the other processes of commits, and receives their notifications.

One NOTIFY covers all commits within 20 ms. Correctness does not depend on it: receivers also poll the database
(`apns_live.activities.send.poll`, `Watchers.remind`). A lost notification, or a pooler that cannot LISTEN,
costs 250 ms.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock
from ..times import milliseconds
from . import schema
from .database import Database
from .failures import STORE_FAILURES
from .statements import json_text

CHANNEL = "apns_live"
RELEASED = "leases released"
"""The notification of a worker that releases leases."""
TOGETHER = 0.02
"""Seconds for which notifications are collected."""
POLL = 0.25
"""Seconds between two polls of the store."""
_POLL_BESIDE = 2.0
"""The same for watchers, while notifications arrive."""
_LISTEN_AGAIN = 1.0
_MOST = 400
"""Rows in a notification: PostgreSQL allows 8,000 bytes. Above this all processes look."""
_NOTIFY = text("SELECT pg_notify(:channel, :payload)")

_Payload = tuple[str, bool, tuple[list[int], list[int]] | None]
Heard = Callable[[bool, Sequence[Sequence[int]] | None], object]
"""Called with True if there is work elsewhere, and with the changed activities and operations, None
for any.
"""


class Wakeups:
    """One for each process. ``origin`` is its id."""

    def __init__(
        self, database: Database, clock: Clock, origin: str, heard: Heard, *, alone: bool
    ) -> None:
        self._database = database
        self._clock = clock
        self._origin = origin
        self._heard = heard
        self.alone = alone
        """Whether no other process uses the database, so that notifications are not needed."""
        self._changed: tuple[set[int], set[int]] = (set(), set())
        self._work = False
        self._left: list[tuple[int, str]] = []
        self._due = asyncio.Event()
        self.listening = False
        self.released: Callable[[], object] = lambda: None
        """Called when a worker has released leases."""

    def tell(
        self, activities: Iterable[int], operations: Iterable[int], *, work: bool = False
    ) -> None:
        """Report changed rows after the commit, and whether there is something to send."""
        if not self.alone:
            self._changed[0].update(activities)
            self._changed[1].update(operations)
            self._work |= work
            self._due.set()

    def left(self, activity: int, token: str) -> None:
        """Report after the commit that a token gets no more pushes."""
        if not self.alone:
            self._left.append((activity, token))
            self._work = True
            self._due.set()

    async def joined(self, connection: AsyncConnection, activities: Mapping[int, bool]) -> None:
        """Store in the caller's transaction which activities got tokens.

        The value is True if one of them lacks the newest state.
        """
        if not self.alone:
            changes = [(activity, None, activities[activity]) for activity in sorted(activities)]
            await self._note(connection, changes)

    async def _note(
        self, connection: AsyncConnection, changes: Sequence[tuple[int, str | None, bool]]
    ) -> None:
        common = {"origin": self._origin, "created_at": milliseconds(self._clock)}
        names = ("activity_id", "token", "behind")
        values = [{**common, **dict(zip(names, change, strict=True))} for change in changes]
        if values:
            await connection.execute(insert(schema.token_changes), values)

    async def run(self) -> None:
        """Send and receive notifications until cancelled."""
        if self.alone:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            group.create_task(self._remind())
            if not self._database.is_sqlite and not self._database.transaction_pooling:
                group.create_task(self._listen())

    async def _tell(self) -> None:
        while True:
            await self._due.wait()
            await asyncio.sleep(TOGETHER)
            try:
                await self.flush()
            except STORE_FAILURES as error:
                self._database.outage.failed("other processes could not be notified", error)
                await asyncio.sleep(_LISTEN_AGAIN)
                self._due.set()

    async def flush(self) -> None:
        """Send waiting notifications at once."""
        self._due.clear()
        left, self._left = self._left, []
        named, self._changed = self._changed, (set(), set())
        work, self._work = self._work, False
        rows = None if sum(map(len, named)) > _MOST else named
        payload = json_text((self._origin, work, rows))
        try:
            if left:
                async with self._database.write() as connection:
                    await self._note(connection, [(*each, False) for each in left])
            if not self._database.is_sqlite:
                await self._database.row(_NOTIFY, {"channel": CHANNEL, "payload": payload})
        except BaseException:
            self._left = left + self._left
            raise

    async def _remind(self) -> None:
        """Let watchers look periodically, even without notifications."""
        while True:
            await asyncio.sleep(_POLL_BESIDE if self.listening else POLL)
            self._heard(False, None)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(*STORE_FAILURES):
                await self._listen_once()
            self.listening = False
            await asyncio.sleep(_LISTEN_AGAIN)

    async def _listen_once(self) -> None:
        """Listen until the connection ends."""
        ended = asyncio.Event()
        async with self._database.own_connection() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            driver.add_termination_listener(lambda _: ended.set())
            await driver.add_listener(CHANNEL, self._on_notification)
            self.listening = True
            await ended.wait()

    def _on_notification(self, _: Any, __: int, ___: str, payload: str) -> None:
        if payload == RELEASED:
            self.released()
            return
        try:
            origin, work, rows = msgspec.json.decode(payload, type=_Payload)
        except msgspec.MsgspecError:
            return  # not our notification
        if origin != self._origin:
            self._heard(work, rows)

    async def aclose(self) -> None:
        """Send the remaining notifications."""
        if not self.alone:
            with contextlib.suppress(*STORE_FAILURES):
                await self.flush()
