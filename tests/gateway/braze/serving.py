"""The gateway behind hypercorn on loopback, for clients that need a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from hypercorn.asyncio import serve
from hypercorn.config import Config

from tests.gateway.braze.world import VendorWorld

Result = TypeVar("Result")
Run = Callable[[Callable[[], Result]], Awaitable[Result]]


@asynccontextmanager
async def served(world: VendorWorld) -> AsyncIterator[tuple[str, int, Any]]:
    """Serve the world's gateway; yields host, port, and what runs blocking work while time passes."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    port = listening.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]  # the server closes it
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 0.1
    over = asyncio.Event()
    serving = asyncio.create_task(
        serve(world.api, config, shutdown_trigger=over.wait)  # type: ignore[arg-type]
    )

    async def run(work: Callable[[], Result]) -> Result:
        return await world.result_of(asyncio.to_thread(work))

    try:
        yield "127.0.0.1", port, run
    finally:
        over.set()
        await serving
