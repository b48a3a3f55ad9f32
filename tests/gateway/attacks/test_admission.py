"""Callers that hold things up: bodies that do not come, slow handlers, followers, a stalled database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator

import httpx
import pytest

from apns_live.gateway import GatewaySettings
from apns_live.gateway.admission import Admission, Visit
from tests.gateway.native.conftest import Live

from .conftest import size

UNFINISHED = (
    b"POST /v1/activities/m1/update HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    b"Content-Length: 500\r\n"
)


@contextlib.asynccontextmanager
async def unfinished(
    live: Live, count: int, key: str = ""
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open requests whose bodies do not come."""
    host, _, port = live.url.removeprefix("http://").rpartition(":")
    head = UNFINISHED + (f"Authorization: Bearer {key}\r\n".encode() if key else b"") + b"\r\n{"
    readers, writers = [], []
    for _ in range(count):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        readers.append(reader)
        writers.append(writer)
    try:
        yield readers
    finally:
        for writer in writers:
            writer.close()


async def status(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(10):
        return int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])


async def test_bodies_without_a_key_are_refused_unread(live: Live) -> None:
    """200 of them took every place there was, /healthz included, for 32 seconds."""
    async with unfinished(live, size(2_000, 200)) as readers:
        assert {await status(reader) for reader in readers} <= {401, 429}
        assert live.gateway.admission.bodies == 0
        assert (await live.http.get("/v1/apps")).status_code == 200


class TestBodies:
    """Bodies of a known app that do not come."""

    @pytest.fixture
    def settings(self) -> GatewaySettings:
        return GatewaySettings(requests=2, bodies=20)

    async def test_they_hold_no_place_and_leave_room_for_another_app(self, live: Live) -> None:
        async with unfinished(live, 12, live.key) as readers:
            await live.until(lambda: live.gateway.admission.bodies == 10)
            refused = [asyncio.create_task(status(reader)) for reader in readers]
            done, waiting = await asyncio.wait(refused, return_when=asyncio.FIRST_COMPLETED)
            assert {task.result() for task in done} == {503}
            assert live.gateway.admission.under_way == 0
            async with live.caller(live.other_key) as http:
                answer = await http.put("/v1/groups/x", json={"name": "X"})
                # The address has as many as it may have, the app has none.
                assert answer.status_code in {204, 503}
            assert (await live.http.get("/v1/apps")).status_code == 200
            assert (await live.http.get("/healthz")).status_code == 200
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        await live.until(lambda: live.gateway.admission.bodies == 0)


class TestTime:
    """What takes too long ends."""

    @pytest.fixture
    def settings(self) -> GatewaySettings:
        return GatewaySettings(body_seconds=0.05, call_seconds=0.3)

    async def test_a_body_that_does_not_come(self, live: Live) -> None:
        async with unfinished(live, 1, live.key) as (reader,):
            assert await status(reader) == 408

    async def test_a_stalled_database(self, live: Live, caplog: pytest.LogCaptureFixture) -> None:
        """Every write ends in 503 and Retry-After, reads and health go on, and the log stays short."""
        await live.start()
        path = live.service.database.url.database
        stall = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
        caplog.clear()
        caplog.set_level(logging.WARNING)
        try:
            await asyncio.to_thread(stall.execute, "BEGIN IMMEDIATE")
            body = {"content_state": {"home": 1}}
            answers = await asyncio.gather(
                *(live.http.post("/v1/activities/m1/update", json=body) for _ in range(20))
            )
            assert {answer.status_code for answer in answers} == {503}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
            assert (await live.http.get("/v1/activities/m1")).status_code == 200
            assert (await live.http.get("/healthz")).status_code == 200
        finally:
            stall.close()
        await live.until(lambda: live.gateway.admission.under_way == 0)
        # What stood in the queue goes first.
        async with asyncio.timeout(20):
            while (await live.http.post("/v1/activities/m1/update", json=body)).status_code != 202:
                pass
        ours = [one for one in caplog.records if one.name == "apns_live.gateway"]
        assert len(ours) < 6
        assert not any(one.exc_info for one in ours)


class TestPlaces:
    """One app's slow calls."""

    @pytest.fixture
    def settings(self) -> GatewaySettings:
        return GatewaySettings(requests=4, waiting_requests=8, events=4)

    async def test_they_leave_places_to_another_app(
        self, live: Live, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release = asyncio.Event()
        plain = live.service.activities.get

        async def slow(app: object, activity: str) -> object:
            if app == live.app:
                await release.wait()
            return await plain(live.app, activity)

        await live.start()
        monkeypatch.setattr(live.service.activities, "get", slow)
        calls = [asyncio.create_task(live.http.get("/v1/activities/m1")) for _ in range(12)]
        await live.until(lambda: live.gateway.admission.under_way == 3)
        async with live.caller(live.other_key) as http:
            assert (await http.get("/v1/activities/m1")).status_code == 200
        release.set()
        assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200, 503}
        await live.until(lambda: live.gateway.admission.under_way == 0)

    async def test_followers_too(self, live: Live) -> None:
        await live.start()
        async with contextlib.AsyncExitStack() as stack:
            found = []
            for _ in range(4):
                answer = await stack.enter_async_context(
                    live.http.stream("GET", "/v1/activities/m1/events")
                )
                found.append(answer.status_code)
            assert found == [200, 200, 200, 503]


class TestExpired:
    """A match day: 300 phones behind one carrier's address, whose credentials have just ended."""

    @pytest.fixture
    def settings(self) -> GatewaySettings:
        return GatewaySettings(refused_per_minute=3, trusted_proxies=frozenset({"127.0.0.0/8"}))

    async def test_they_are_told_to_renew(
        self, live: Live, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        minted = (await live.http.post("/v1/devices/p/credentials", json={"seconds": 1})).json()
        ends = live.gateway.clock.time() + 2
        monkeypatch.setattr(live.gateway.credentials._clock, "time", lambda: ends)
        async with live.caller(minted["credential"]) as phone:
            for _ in range(size(300, 10)):
                answer = await phone.post("/v1/device/tokens", json={"tokens": []})
                assert answer.status_code == 401

    async def test_the_address_behind_a_trusted_proxy_counts(self, live: Live) -> None:
        async def guess(http: httpx.AsyncClient, address: str) -> int:
            answer = await http.get("/v1/apps", headers={"x-forwarded-for": address})
            return answer.status_code

        async with live.caller("wrong") as http:
            assert [await guess(http, "198.51.100.7") for _ in range(4)] == [401, 401, 401, 429]
            assert await guess(http, "203.0.113.9, 127.0.0.2") == 401


class TestStranger:
    """A caller that says it is a proxy."""

    @pytest.fixture
    def settings(self) -> GatewaySettings:
        return GatewaySettings(refused_per_minute=3)

    async def test_it_is_not_believed(self, live: Live) -> None:
        async with live.caller("wrong") as http:
            answers = [
                await http.get("/v1/apps", headers={"x-forwarded-for": f"198.51.100.{number}"})
                for number in range(5)
            ]
        assert [answer.status_code for answer in answers][3:] == [429, 429]


async def test_a_place_taken_before_the_app_was_known_is_given_back() -> None:
    admission = Admission(GatewaySettings())
    for _ in range(2 * admission.settings.requests):
        scope = {"method": "POST", "headers": [], "client": ("10.0.0.1", 4242)}
        visit = Visit(admission, scope, lambda: asyncio.sleep(0), lambda: None)  # type: ignore[arg-type, return-value]
        await visit.enter()
        visit.app = 7
        visit.end()
    assert admission.under_way == 0
