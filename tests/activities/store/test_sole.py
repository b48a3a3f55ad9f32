"""One courier at a time over one database, and the next one as soon as it is gone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from apns_live.activities.store.database import Database
from apns_live.activities.store.sole import sole
from apns_live.errors import Conflict

HOLDER = """
import asyncio, sys
from apns_live.activities.store.database import Database
from apns_live.activities.store.sole import sole

async def main():
    async with Database.open(sys.argv[1]) as database, sole(database):
        print("held", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_second_is_told_and_the_first_goes_on(database: Database) -> None:
    async with sole(database):
        with pytest.raises(Conflict, match="another service sends"):
            async with sole(database, patience=0.0):
                raise AssertionError("two at once")


async def test_the_next_one_follows_when_the_first_is_done(database: Database) -> None:
    async with sole(database):
        waiting = asyncio.ensure_future(_hold(database))
        await asyncio.sleep(0)
        assert not waiting.done()
    assert await waiting == "held"


async def test_an_error_within_lets_go(database: Database) -> None:
    with pytest.raises(LookupError):
        async with sole(database):
            raise LookupError
    assert await _hold(database) == "held"


async def test_a_killed_process_lets_go(database: Database) -> None:
    url = database.url.render_as_string(hide_password=False)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Conflict):
            async with sole(database, patience=0.0):
                raise AssertionError("two at once")
        process.send_signal(signal.SIGKILL)
        assert await _hold(database) == "held"


async def _hold(database: Database) -> str:
    async with sole(database, patience=60.0):
        return "held"
