"""The release before beside this one, on this one's schema.

The release before is a recording of what it said to PostgreSQL while it made an app, devices, activities and
notifications and sent them (``fixtures/store/release-*.jsonl.gz``, made by `recording`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg

from apns_live.activities import Sealer, Service
from apns_live.activities.store.database import Database
from tests.activities.databases import Server
from tests.activities.store.recording import KEY, is_fixed, one_of_each, repeat, said
from tests.activities.store.test_upgrade import at

VERSION = "0005"
RECORDED = Path(__file__).parents[3] / "fixtures" / "store" / f"release-{VERSION}.jsonl.gz"


async def spoken(address: str, *, reads_only: bool = False) -> list[tuple[str, Any]]:
    """Let the release before speak to a database; return what it was answered each time."""
    connection = await asyncpg.connect(address)
    try:
        return [
            (statement, [await repeat(connection, (statement, rows))] if is_fixed(statement) else 0)
            for statement, rows in said(RECORDED)
            if not reads_only or statement.startswith("SELECT")
        ]
    finally:
        await connection.close()


async def test_the_release_before_hears_on_this_schema_what_it_heard_on_its_own(
    postgres_server: Server, postgres_store: str
) -> None:
    own = postgres_server.create("of_the_release_before")
    async with Database.open(own) as database:
        await at(database, VERSION)
    heard = await spoken(own)
    postgres_server.drop(own)
    assert sum(bool(rows) for _, rows in heard) > 100
    assert await spoken(postgres_store) == heard


async def test_two_releases_read_what_the_other_wrote(postgres_store: str) -> None:
    await spoken(postgres_store)
    async with Service.open(postgres_store, sealing=Sealer(KEY), send=False) as service:
        app = await service.apps.get("recorded")
        (first, second) = await service.activities.page(app)
        assert [first["status"], second["status"]] == ["ended", "active"]
        operations = await service.operations.page(app)
        assert {one["status"] for one in operations} == {"done"}
        assert {one["kind"] for one in operations} == {"start", "update", "end", "notification"}
    await one_of_each(postgres_store, "newer")
    await spoken(postgres_store, reads_only=True)
