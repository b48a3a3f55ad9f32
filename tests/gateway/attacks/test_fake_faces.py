"""The fake's second face and its control API, which hypercorn serves, keep nothing of what is closed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import httpx

from apns_live.testing import FakeApns
from apns_live.testing.control import serve_control

from .conftest import descriptors, size


async def test_a_closed_connection_leaves_no_task_and_no_descriptor() -> None:
    async with FakeApns(face="asgi") as fake, serve_control(fake) as url:
        context = ssl.create_default_context(cafile=str(fake.ca_file))
        context.set_alpn_protocols(["h2"])

        async def connect() -> None:
            _, writer = await asyncio.open_connection("localhost", fake.endpoint.port, ssl=context)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        async def ask() -> None:
            async with httpx.AsyncClient(base_url=url) as http:
                assert (await http.get("/v1/fake")).status_code == 200

        await connect()
        await ask()
        await asyncio.sleep(0)
        tasks, files = len(asyncio.all_tasks()), descriptors()
        for _ in range(size(2_000, 20)):
            await connect()
            await ask()
        async with asyncio.timeout(3):
            while len(asyncio.all_tasks()) > tasks or descriptors() > files:
                await asyncio.sleep(0.02)
