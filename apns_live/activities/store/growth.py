"""Keep PostgreSQL's statistics of fast-growing tables fresh.

Autovacuum updates the statistics once a minute. Until it does, the planner takes a table that has just
grown to 100,000 rows for empty, and every batch of registrations scans the whole table. So a writer of
many rows runs ANALYZE when a table has doubled since its last ANALYZE.
"""

from __future__ import annotations

from sqlalchemy import text

from .database import Database

FIRST_LOOK = 1_000
"""Rows after which a writer checks for the first time; then at twice as many, and so on."""
TABLES = ("devices", "start_tokens", "device_tokens", "activity_devices", "users", "attributes")
# relpages is what the planner knew last; a fresh table has 0 there.
_OUTGROWN = text(
    "SELECT relname FROM pg_class "
    "WHERE oid = to_regclass(relname) AND relname = ANY(:names) "
    "AND pg_relation_size(oid) > 2 * 8192 * relpages + 8192"
)


class Growth:
    """Counts what one writer stored, and looks at the tables now and then. SQLite needs none of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stored = 0
        self._next = FIRST_LOOK

    async def stored(self, rows: int) -> None:
        """Say that rows were stored. Call it outside of a transaction."""
        self._stored += rows
        if self._database.is_sqlite or self._stored < self._next:
            return
        while self._next <= self._stored:
            self._next *= 2
        await analyse_outgrown(self._database)


async def analyse_outgrown(database: Database) -> list[str]:
    """Let PostgreSQL look at the tables that have doubled since it last did; return their names."""
    async with database.read() as connection:
        found = (await connection.execute(_OUTGROWN, {"names": list(TABLES)})).scalars().all()
    names = sorted(found)
    for name in names:
        async with database.write() as connection:
            await connection.exec_driver_sql(f"ANALYZE {name}")
    return names
