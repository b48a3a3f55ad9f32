"""Everything at once: idle connections, slow heads, bodies that do not come, and a caller with a key."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest

from apns_live.gateway import GatewaySettings
from apns_live.gateway.serving import serving
from tests.gateway.native.conftest import Live

from .conftest import FULL, size
from .test_admission import UNFINISHED

SLOW = b"GET /v1/apps HTTP/1.1\r\nHost: h\r\nX-Slow: "


@pytest.fixture
def settings() -> GatewaySettings:
    return GatewaySettings(bodies=1_000)


async def test_a_caller_with_a_key_is_served_all_the_same(live: Live) -> None:
    async with serving(live.api, host="127.0.0.1", gateway=live.gateway, drain=0.2) as url:
        port = int(url.rpartition(":")[2])
        authorization = f"Authorization: Bearer {live.key}\r\n\r\n".encode()
        writers: list[asyncio.StreamWriter] = []

        async def attack(count: int, data: bytes) -> None:
            for _ in range(count):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(data)
                writers.append(writer)

        try:
            await attack(size(5_000, 60), b"")
            await attack(size(1_500, 30), SLOW)
            await attack(size(200, 20), UNFINISHED + authorization)
            await live.until(lambda: live.gateway.admission.bodies >= size(200, 20))
            took = []
            async with live.caller(live.key) as http:
                for number in range(size(300, 10)):
                    began = time.perf_counter()
                    answer = await http.put(f"{url}/v1/users/u{number}", json={})
                    assert answer.status_code in {200, 204}
                    assert (await http.get(f"{url}/healthz")).status_code == 200
                    took.append((time.perf_counter() - began) / 2)
            assert live.gateway.door.open >= size(200, 20)
            assert not live.gateway.door.refused
            if FULL:
                assert statistics.quantiles(took, n=100)[98] < 0.25
        finally:
            for writer in writers:
                writer.close()
