"""Prometheus scrapes a gateway, and every query of the dashboard and of the alerts finds data."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.programs import program

from .conftest import TYPE, Live

DEPLOY = Path(__file__).parents[3] / "deploy"
PANELS = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
QUERIES = [
    target["expr"].replace("$__rate_interval", "1m")
    for panel in PANELS
    for target in panel["targets"]
]


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[httpx.AsyncClient]:
    """Prometheus with our rules, which scrapes the target five times a second."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(DEPLOY / "alerts.yml")],
        "scrape_configs": [
            {
                "job_name": "apns-live",
                "scrape_timeout": "200ms",
                "static_configs": [{"targets": [target]}],
            }
        ],
    }
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(settings))
    process = subprocess.Popen(
        [
            program("prometheus"),
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
            yield http
    finally:
        process.kill()
        process.wait()


async def data(http: httpx.AsyncClient, path: str, **parameters: str) -> Any:
    try:
        answer = await http.get(f"/api/v1/{path}", params=parameters)
    except httpx.TransportError:  # it does not listen yet
        return None
    if answer.status_code == 503:  # it is starting
        return None
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def empty(http: httpx.AsyncClient) -> list[str]:
    """The dashboard's queries that have no figure yet."""
    found = []
    for query in QUERIES:
        answer = await data(http, "query", query=query)
        values = [float(one["value"][1]) for one in answer["result"]] if answer else []
        if not any(math.isfinite(value) for value in values):
            found.append(query)
    return found


@pytest.mark.external("prometheus")
async def test_every_query_finds_data_in_a_real_scrape(live: Live, tmp_path: Path) -> None:
    await live.add_phones(2)
    assert (await live.http.put("/v1/devices/lost", json={})).status_code == 204
    stale = {"device": "lost", "kind": "start", "attributes_type": TYPE, "token": "ab" * 32}
    assert (await live.http.post("/v1/tokens", json={"tokens": [stale]})).status_code == 200
    await live.start("m0")
    await live.hand_in()
    async with prometheus(tmp_path, live.url.removeprefix("http://")) as http:
        missing: list[str] = QUERIES
        for number in range(1, 61):
            body = {"content_state": {"n": number}}
            await live.http.post("/v1/activities/m0/update", json=body)
            if not (missing := await empty(http)):
                break
            await asyncio.sleep(0.25)
        assert missing == []
        known = await data(http, "metadata")
        groups = (await data(http, "rules"))["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        for rule in rules:
            assert rule["health"] == "ok", rule
            names = re.findall(r"\bapns_live_\w+", rule["query"])
            assert names or rule["name"] == "GatewayDown"
            assert {re.sub("_bucket$", "", name) for name in names} <= set(known)
        assert len(rules) == 12
        firing = {rule["name"] for rule in rules if rule["state"] != "inactive"}
        assert not firing & {"GatewayDown", "NobodySends", "LeasesLost", "CallsFail"}
