"""Two processes that upgrade one new database at the same moment: one does it, both succeed."""

from __future__ import annotations

import asyncio
import sys

import pytest
from sqlalchemy import text

from apns_live.activities.store.database import Database
from apns_live.activities.store.upgrade import check, newest_version, upgrade

UPGRADER = """
import asyncio, sys
from apns_live.activities.store.database import Database
from apns_live.activities.store.upgrade import upgrade

async def main():
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    async with Database.open(sys.argv[1]) as database:
        print(await upgrade(database), flush=True)

asyncio.run(main())
"""


async def upgrader(address: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", UPGRADER, address, stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def test_processes_that_upgrade_at_once_all_succeed(empty_database: Database) -> None:
    address = empty_database.url.render_as_string(hide_password=False)
    processes = [await upgrader(address) for _ in range(3)]
    said = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [
        (process.returncode, err) for process, (_, err) in zip(processes, said, strict=True)
    ] == [(0, b"")] * 3
    assert {out.decode().strip() for out, _ in said} == {newest_version()}
    await check(empty_database)


@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
async def test_whoever_comes_second_waits_for_the_first(empty_database: Database) -> None:
    key = 0x61706E736C757067
    async with empty_database.own_connection() as holder:
        await holder.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
        waiting = asyncio.ensure_future(upgrade(empty_database))
        async with empty_database.read() as connection:
            asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while not (await connection.execute(text(asked))).scalar_one():
                assert not waiting.done()
        await holder.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
    assert await waiting == newest_version()
