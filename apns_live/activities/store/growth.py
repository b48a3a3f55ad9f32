"""Keep PostgreSQL's statistics of fast-growing tables fresh.

Autovacuum updates the statistics once a minute. Until it does, the planner takes a table that has just
grown to 100,000 rows for empty, and every batch of registrations scans the whole table. So a writer of
many rows runs ANALYZE when a table has doubled since its last ANALYZE.
"""

from sqlalchemy import text

from .database import Database

FIRST_LOOK = 1_000
"""Rows after which a writer checks for the first time; then at twice as many, and so on."""
TABLES = ("devices", "start_tokens", "device_tokens", "activity_devices", "users", "attributes")
# relpages is the planner's last known size; a fresh table has 0 there.
_OUTGROWN = text(
    "SELECT relname FROM pg_class "
    "WHERE oid = to_regclass(relname) AND relname = ANY(:names) "
    "AND pg_relation_size(oid) > 2 * 8192 * relpages + 8192"
)


class Growth:
    """Counts rows that a writer stored, and checks the tables now and then. Not needed on SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stored = 0
        self._next = FIRST_LOOK

    async def stored(self, rows: int) -> None:
        """Report stored rows. Call it outside a transaction."""
        self._stored += rows
        if self._database.is_sqlite or self._stored < self._next:
            return
        while self._next <= self._stored:
            self._next *= 2
        await analyse_outgrown(self._database)


async def analyse_outgrown(database: Database) -> list[str]:
    """Run ANALYZE on tables that have doubled since the last ANALYZE; return their names."""
    async with database.read() as connection:
        found = (await connection.execute(_OUTGROWN, {"names": list(TABLES)})).scalars().all()
    names = sorted(found)
    for name in names:
        async with database.write() as connection:
            await connection.exec_driver_sql(f"ANALYZE {name}")
    return names
