"""No secret in the log of the program, with every logger at debug level, whatever is asked of it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from apns_live.activities.store.database import Database
from apns_live.gateway.logs import LOGGERS, keep_secrets_out

from .test_program import START, ended, until

NOISY = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(name)s %(message)s")
from apns_live.cli import main
import aiosqlite, hpack, sqlalchemy, hypercorn, httpx
for name in ("aiosqlite", "hpack", "hpack.hpack", "hpack.table", "hypercorn", "asyncio"):
    logging.getLogger(name).setLevel(logging.DEBUG)
for name in ("sqlalchemy", "sqlalchemy.engine", "sqlalchemy.engine.Engine"):
    logging.getLogger(name).setLevel(logging.DEBUG)
main()
"""


def test_nothing_secret_is_logged_at_debug_level(tmp_path: Path) -> None:
    words = ["gateway", "--with-fake", "--dir", str(tmp_path), "--port", "0", "--json"]
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", NOISY, *words],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            secrets = drive(ready)
            ended(process)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
    secrets |= {"store key": (tmp_path / "store.key").read_text().strip()}
    pem = Path(ready["fake"]["key_file"]).read_text()
    secrets |= {line: line for line in pem.splitlines() if "-----" not in line}
    said = log.read_text()
    assert "sqlalchemy.engine" in said, "the log is not at debug level"
    for name, secret in secrets.items():
        assert len(secret) > 12
        assert secret not in said, name
    # A provider token is a JWT; no part of one is there.
    assert "eyJ" not in said


def drive(ready: dict[str, Any]) -> dict[str, str]:
    """Use every API once; return what must not be in the log."""
    keys: dict[str, str] = ready["keys"]
    secrets = dict(keys)
    bearer = {name: {"authorization": f"Bearer {secret}"} for name, secret in keys.items()}
    with (
        httpx.Client(base_url=ready["url"], timeout=30, http1=False, http2=True) as http,
        httpx.Client(base_url=ready["inspector"], timeout=30) as fake,
    ):
        native = bearer["native"]
        minted = http.post("/v1/devices/phone-1/credentials", headers=native).json()
        secrets["credential"] = minted["credential"]
        secrets["signature"] = minted["credential"].rpartition(".")[2]
        http.get("/v1/device", headers={"authorization": f"Bearer {minted['credential']}"})
        made = http.post(
            "/v1/keys", json={"name": "n", "scopes": ["activities:read"]}, headers=native
        ).json()
        secrets["made"] = made["secret"]
        turned = http.post(f"/v1/keys/{made['id']}/rotate", headers=native).json()
        secrets["turned"] = turned["secret"]
        secrets["wrong"] = keys["native"][:-4] + "beef"
        http.get("/v1/apps", headers={"authorization": f"Bearer {secrets['wrong']}"})
        secrets["imported"] = "ab54" * 16
        http.post(
            "/v1/imports/tokens",
            content=f"device,attributes_type,token\nd,T,{secrets['imported']}\n",
            headers={**native, "content-type": "text/csv"},
        )
        secrets["bad token"] = "zz54" * 16
        http.post(
            "/v1/imports/tokens",
            content=f"device,attributes_type,token\nd,T,{secrets['bad token']}\n",
            headers={**native, "content-type": "text/csv"},
        )
        assert http.post("/v1/activities", json=START, headers=native).status_code == 202
        until(lambda: http.get("/v1/activities/m1", headers=native).json()["devices"] == 5)
        http.post("/v1/activities/m1/update", json={"content_state": {"home": 1}}, headers=native)
        for name, path in (
            ("activitysmith", "/live-activity/start"),
            ("braze", "/messages/live_activity/start"),
            ("onesignal", f"/apps/{ready['app_id']}/activities/activity/DemoAttributes"),
        ):
            http.post(path, json={"x": 1}, headers=bearer[name])
            http.post(path, content=b"{", headers=bearer[name])
        http.post("/v1/activities/m1/end", headers=native)
        for number in range(1, 6):
            for token in fake.get(f"/v1/devices/phone-{number}").json()["tokens"]:
                secrets[f"token {number} {token['kind']}"] = token["token"]
        until(
            lambda: (
                [one["state"] for one in fake.get("/v1/activities").json()["items"]]
                == ["ended"] * 5
            )
        )
    return secrets


async def test_an_error_of_the_database_shows_no_values(tmp_path: Path) -> None:
    """The error of a statement ends in the log, and its values are tokens."""
    async with Database.open(tmp_path / "x.db") as database:
        with pytest.raises(DBAPIError) as caught:
            async with database.read() as connection:
                await connection.execute(
                    text("SELECT :token FROM nowhere"), {"token": "80e1ad44" * 8}
                )
    assert "80e1ad44" not in str(caught.value)


def test_only_debugging_lines_of_others_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    keep_secrets_out()
    keep_secrets_out()
    caplog.set_level(logging.DEBUG)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        logger.debug("a token")
        logger.info("it is up")
        logger.setLevel(logging.NOTSET)
    assert [record.getMessage() for record in caplog.records] == ["it is up"] * len(LOGGERS)
