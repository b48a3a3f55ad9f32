"""A small app behind the gateway's own server, over TCP and over TLS, and the gateway itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from apns_live.gateway import GatewaySettings
from apns_live.gateway.serving import serving
from apns_live.gateway.wire.certificates import Certificates
from apns_live.gateway.wire.door import DoorLimits, DoorStatistics
from tests.gateway.native.conftest import Live, opened
from tests.servers import make_certificate

FULL = bool(os.environ.get("APNS_LIVE_ATTACKS"))
"""``make soak`` runs the attacks at the size of the issue."""


def size(full: int, usual: int) -> int:
    """How many of something this run makes."""
    return full if FULL else usual


def descriptors() -> int:
    """Open files of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Wire:
    """The server: where it listens, how to trust it, what it counted."""

    def __init__(self, host: str, port: int, statistics: DoorStatistics) -> None:
        self.host = host
        self.port = port
        self.statistics = statistics
        self.tls: ssl.SSLContext | None = None
        self.ca_file = ""
        self.started = 0
        self.running = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, alpn: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        if self.tls is not None:
            self.tls.set_alpn_protocols([alpn] if alpn else ["http/1.1"])
        pair = await asyncio.open_connection(
            self.host, self.port, ssl=self.tls, server_hostname="localhost" if self.tls else None
        )
        self.writers.append(pair[1])
        return pair

    async def close(self) -> None:
        """Close what was opened."""
        for writer in self.writers:
            writer.close()
        for writer in self.writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def until(self, holds: Any) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.01)


def small_app(wire: list[Wire]) -> Starlette:
    """Routes that echo, follow and wait."""

    async def echo(request: Request) -> Response:
        body = await request.body()
        return JSONResponse(
            {
                "path": request.url.path,
                "query": request.url.query,
                "size": len(body),
                "host": request.headers.get("host"),
                "version": request.scope["http_version"],
            }
        )

    async def large(request: Request) -> Response:
        return Response(b"x" * int(request.path_params["size"]))

    async def early(request: Request) -> Response:
        return Response("too large", 413)

    async def follow(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(2_000):
                yield b"data: %d\n\n" % number

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def wait(request: Request) -> Response:
        wire[0].started += 1
        wire[0].running += 1
        try:
            while not await request.is_disconnected():
                await asyncio.sleep(0.01)
        finally:
            wire[0].running -= 1
        return Response()

    return Starlette(
        routes=[
            Route("/large/{size:int}", large),
            Route("/early", early, methods=["POST"]),
            Route("/follow", follow),
            Route("/wait", wait),
            Route("/{rest:path}", echo, methods=["GET", "POST", "HEAD"]),
        ]
    )


@pytest.fixture
def door_limits() -> DoorLimits:
    """To be replaced."""
    return DoorLimits()


@pytest.fixture
async def plain(door_limits: DoorLimits) -> AsyncIterator[Wire]:
    """The server without TLS."""
    statistics = DoorStatistics()
    wires: list[Wire] = []
    async with serving(
        small_app(wires), host="127.0.0.1", limits=door_limits, statistics=statistics, drain=0.2
    ) as url:
        wires.append(Wire("127.0.0.1", int(url.rpartition(":")[2]), statistics))
        yield wires[0]
        await wires[0].close()


@pytest.fixture
async def secure(door_limits: DoorLimits, tmp_path: Path) -> AsyncIterator[Wire]:
    """The server with TLS."""
    statistics = DoorStatistics()
    wires: list[Wire] = []
    certificate, key = make_certificate(tmp_path)
    async with serving(
        small_app(wires),
        host="127.0.0.1",
        limits=door_limits,
        statistics=statistics,
        certificates=Certificates(certificate, key),
        drain=0.2,
    ) as url:
        wire = Wire("127.0.0.1", int(url.rpartition(":")[2]), statistics)
        wires.append(wire)
        wire.ca_file = str(certificate)
        wire.tls = ssl.create_default_context(cafile=str(certificate))
        yield wire
        await wire.close()


@pytest.fixture
def settings() -> GatewaySettings:
    """To be replaced."""
    return GatewaySettings()


@pytest.fixture
async def live(
    settings: GatewaySettings, sqlite_template: Path, tmp_path: Path
) -> AsyncIterator[Live]:
    """The gateway over SQLite."""
    shutil.copy(sqlite_template, tmp_path / "live.db")
    async for one in opened(str(tmp_path / "live.db"), settings, tmp_path):
        yield one
