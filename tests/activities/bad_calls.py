"""What the tables of bad calls share: a store with something in it, and what a call is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import event, select

from apns_live.activities.accept.notifications import Notifications
from apns_live.activities.accept.receipts import Receipts
from apns_live.activities.accept.tokens import Joining
from apns_live.activities.people.imports import Imports
from apns_live.activities.requests import Audience, End
from apns_live.activities.store import schema
from tests.activities.world import Rooms, a_start

NOW = 1_800_000_000
MILLISECONDS = NOW * 1000
EVERYONE = Audience(everyone=True)


class World(Rooms):
    """Every room that writes, over a store with something in it."""

    _same = False
    _dumped: dict[str, list[tuple[Any, ...]]]

    async def open(self) -> None:
        await self.fill(3)
        await self.activities.start(self.app, a_start(id="running", revision=5))
        await self.activities.start(self.app, a_start(id="over"))
        await self.activities.end(self.app, End(id="over"))
        await self.streams.put(self.app, a_start(id=None, stream_key="nightly"))
        await self.people.add_user(self.app, "ada", aliases={"crm": "7"})
        await self.people.set_tags(self.app, "user", "ada", {"team": "red"})
        await self.people.add_group(self.app, "fans")
        await self.segments.save(
            self.app, "English", {"field": "language", "relation": "=", "value": "en"}
        )
        self.notifications = Notifications(self.core)
        self.receipts = Receipts(self.core)
        self.joining = Joining(self.core)
        self.imports = Imports(self.core)
        event.listen(self.database._writer.sync_engine, "before_cursor_execute", self._see)

    def _see(self, connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        """Note whether a statement may change the store: else there is no need to read it again."""
        self._same = self._same and statement.startswith(("SELECT", "BEGIN"))

    async def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table."""
        if self._same:
            return self._dumped
        self._dumped = await self._read()
        self._same = True
        return self._dumped

    async def _read(self) -> dict[str, list[tuple[Any, ...]]]:
        found: dict[str, list[tuple[Any, ...]]] = {}
        async with self.database.read() as connection:
            for table in schema.apps.metadata.sorted_tables:
                query = select(table).order_by(*table.primary_key.columns)
                found[table.name] = [tuple(row) for row in await connection.execute(query)]
        return found


Call = Callable[[World], Awaitable[Any]]
Entry = tuple[str, Call]
"""How the field begins that is named, and the call."""


class Custom:
    """Something that is no JSON."""


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value
