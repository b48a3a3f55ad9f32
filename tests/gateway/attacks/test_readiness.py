"""/readyz says what keeps a gateway from serving, and /healthz goes on."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from apns_live.activities import Sealer
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import new_key
from apns_live.gateway.readiness import ClockWatch, Readiness
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
        patch.setattr(live.service.apps, "_sealer", Sealer(new_key()))
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


class Clock:
    """A wall clock that is set, beside a monotonic one."""

    def __init__(self) -> None:
        self.wall, self.mono = 1_000_000.0, 50.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    async def sleep(self, seconds: float) -> None:
        self.mono += seconds


def test_a_clock_that_is_set_is_told_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clock = Clock()
    watch = ClockWatch(clock)
    clock.wall, clock.mono = clock.wall + 15, clock.mono + 15
    watch.look()
    assert (watch.warning(), caplog.records) == ("", [])
    clock.wall, clock.mono = clock.wall + 86_415, clock.mono + 15
    watch.look()
    watch.look()
    assert watch.warning() == "the clock was set by +86400 s"
    assert len(caplog.records) == 1
    clock.mono += 901
    assert watch.warning() == ""
