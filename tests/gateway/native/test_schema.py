"""The description and the server agree: generated requests find no 5xx and no undocumented answer."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from apns_live.gateway import GatewaySettings
from apns_live.gateway.native import NATIVE, describe
from apns_live.gateway.problems import TITLES
from tests.counts import SOAK, count

from .conftest import Live, opened

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
)


class Served:
    """A gateway in a thread of its own: the generated requests are made by blocking code."""

    def __init__(self, database: str, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self.url = ""
        self.key = ""
        self.phone = ""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        chosen = GatewaySettings(heartbeat=0.2, device_per_minute=10**6)
        try:
            async for live in opened(self._database, chosen, self._folder):
                await self._fill(live)
                self._ready.set()
                await self._stop.wait()
        finally:
            self._ready.set()

    async def _fill(self, live: Live) -> None:
        self.url, self.key = live.url, live.key
        minted = await live.http.post("/v1/devices/p/credentials", json={"seconds": 604_800})
        self.phone = minted.json()["credential"]


@pytest.fixture(scope="module")
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("schema")
    if ON_POSTGRES:
        server = request.getfixturevalue("postgres_server")
        database = server.create("schema", newest=True)
    else:
        database = str(folder / "live.db")
        shutil.copy(request.getfixturevalue("sqlite_template"), database)
    with Served(database, folder) as one:
        yield one


EXAMPLES = int(os.environ.get("APNS_LIVE_SCHEMA_EXAMPLES") or count(12, soak=300))
"""Requests for each operation; the soak runs more of them, and every bound of every field."""
ON_POSTGRES = os.environ.get("APNS_LIVE_SCHEMA_STORE") == "postgresql"


@schemathesis.serializer("text/csv", "application/jsonl", "application/x-ndjson")
def lines(_: Any, value: Any) -> bytes:
    """What is generated for a body of lines goes as it is."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


SCHEMA = schemathesis.openapi.from_dict(describe("0"))
SCHEMA.config.phases.coverage.enabled = SOAK  # 5,400 requests, made while tests are collected


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
def test_generated_requests(case: Any, served: Served) -> None:
    phone = case.path.startswith("/v1/device") and not case.path.startswith("/v1/devices")
    if case.path.endswith("/events"):
        # A stream that exists does not end by itself; what is generated does not exist.
        assert case.path_parameters
    secret = served.phone if phone else served.key
    case.call_and_validate(
        base_url=served.url,
        headers={"authorization": f"Bearer {secret}"},
        checks=CHECKS,
        timeout=20,
    )


def test_every_operation_is_described() -> None:
    description = describe("0")
    described = {
        (method.upper(), path)
        for path, methods in description["paths"].items()
        for method in methods
    }
    assert len(described) == len(NATIVE.operations)
    names = [one.handler.__name__ for one in NATIVE.operations]
    assert len(names) == len(set(names))
    for path, methods in description["paths"].items():
        for method, one in methods.items():
            assert one["summary"], path
            assert one["description"], path
            if "requestBody" in one:
                for content in one["requestBody"]["content"].values():
                    assert content["schema"], (method, path)


def test_examples_fit_their_schemas() -> None:
    import msgspec

    for one in NATIVE.operations:
        for example in one.examples.values():
            msgspec.convert(example, one.body, strict=True)


def test_codes_are_known() -> None:
    assert set(
        describe("0")["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    ) == set(TITLES)
