"""No secret in logs and representations of a gateway in this process."""

from __future__ import annotations

import logging

import pytest

from .conftest import TYPE, Live


async def test_no_secret_is_in_the_logs_at_debug_level(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    [phone] = await live.add_phones(1)
    minted = (await live.http.post(f"/v1/devices/{phone.id}/credentials")).json()["credential"]
    made = (await live.http.post("/v1/keys", json={"name": "n", "scopes": ["admin"]})).json()
    pem = live.fake.key_file.read_text()
    await live.http.post(
        "/v1/apps/a/provider-keys",
        json={"pem": pem, "key_id": live.fake.key_id, "team_id": live.fake.team_id},
    )
    await live.start()
    await live.hand_in()
    async with live.caller(live.key[:-4] + "beef") as wrong:
        await wrong.get("/v1/apps")
    await live.service.settled()
    text = "\n".join(
        f"{record.getMessage()} {record.__dict__}"
        for record in caplog.records
        # What the test's own client says of its requests is not ours.
        if not record.name.startswith(("httpcore", "httpx", "hpack", "aiosqlite"))
    )
    secrets = [live.key, made["secret"], minted, minted.split(".")[2], live.key[:-4] + "beef"]
    secrets += [line for line in pem.splitlines() if "-----" not in line]
    secrets += [phone.token_of("start", TYPE).text, phone.token_of("device", None).text]
    for secret in secrets:
        assert secret not in text


async def test_statements_in_a_log_of_the_database_show_no_secret(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="aiosqlite")
    made = (await live.http.post("/v1/keys", json={"name": "n", "scopes": ["admin"]})).json()
    assert made["secret"] not in caplog.text


def test_reprs_show_no_secret() -> None:
    from apns_live.activities.store.sealing import Sealer, new_key

    key = new_key()
    assert key not in repr(Sealer(key))
