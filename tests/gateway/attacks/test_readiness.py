"""/readyz says what keeps a gateway from serving, and /healthz goes on."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from apns_live.activities import Sealer
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import new_key
from apns_live.gateway.readiness import Readiness
from tests.gateway.native.conftest import Live


async def readiness(live: Live) -> tuple[int, str]:
    live.gateway.readiness._asked = -10.0
    answer = await live.http.get("/readyz")
    assert (await live.http.get("/healthz")).status_code == 200
    return answer.status_code, answer.json().get("detail", "")


async def test_a_full_disk_a_strange_key_and_a_lost_lock(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await readiness(live) == (200, "")

    with monkeypatch.context() as patch:
        patch.setattr(live.service.apps, "sealer", Sealer(new_key()))
        status, said = await readiness(live)
        assert (status, "does not open with this store key" in said) == (503, True)

    # SQLite says the same of a disk on which nothing more fits.
    async with live.service.database.write() as connection:
        pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
        await connection.execute(text(f"PRAGMA max_page_count = {pages}"))
        await connection.execute(text("PRAGMA query_only = 1"))
    status, said = await readiness(live)
    assert (status, "cannot be used" in said) == (503, True)
    async with live.service.database.read() as connection:
        pass
    live.gateway.readiness._asked = -10.0


async def test_a_lock_that_is_lost(live: Live) -> None:
    path = Path(live.service.database.url.database or "")
    lock = path.with_name(path.name + "-serving")
    assert lock.exists()
    lock.unlink()
    status, said = await readiness(live)
    assert (status, "lock" in said) == (503, True)


async def test_leases_that_ran_out(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(live.service.ownership), "lapsed", True)
    status, said = await readiness(live)
    assert (status, "leases" in said) == (503, True)
    live.gateway.readiness._asked = -10.0


async def test_a_destroyed_page(live: Live) -> None:
    one = Readiness(live.service)
    assert await one.problems() == []
    assert one._pages is not None
    await one._pages
    assert one._damage == ""
    path = Path(live.service.database.url.database or "")
    copy = path.with_name("damaged.db")
    with (
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    data = bytearray(copy.read_bytes())
    data[4096 * 3 : 4096 * 30] = b"\xff" * (4096 * 27)
    copy.write_bytes(data)
    async with Database.open(copy) as damaged:
        live.service.database, whole = damaged, live.service.database
        try:
            await one._check_pages()
        finally:
            live.service.database = whole
    one._asked = -10.0
    assert any("damaged" in said for said in await one.problems())


async def test_a_clock_that_is_set_is_told(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await live.http.get("/readyz")).json() == {"status": "ready"}
    time = live.service.scheduler.time
    monkeypatch.setattr(time, "_seen", time._seen - 86_400)
    live.gateway.readiness._asked = -10.0
    answer = await live.http.get("/readyz")
    assert answer.json() == {"status": "ready", "warnings": ["the clock was set by +86400 s"]}
