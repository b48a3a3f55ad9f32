"""Serves the app: HTTP/1.1 and HTTP/2 on one port, with or without TLS.

uvicorn handles HTTP/1.1, our own code HTTP/2 (docs/decisions/0017). This module sets connection limits,
timeouts and the shutdown.
"""

import asyncio
import contextlib
import errno
import gc
import itertools
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from ipaddress import ip_network
from typing import Any, cast

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import ServerState

from ..errors import ApnsLiveError, InvalidSetting
from .context import Gateway
from .wire.certificates import Certificates
from .wire.door import BUSY, Arrival, Door, DoorLimits, DoorStatistics
from .wire.http1 import Http1
from .wire.http2 import Http2

_BACKLOG = 2_048
_AT_ONCE = 32
"""Connections that are accepted before other tasks get their turn."""
_MOST_FILES = 65_536
_OTHER_FILES = 256
"""Descriptors reserved for the database, APNs and files."""


@asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    host: str = "localhost",
    port: int = 0,
    certificates: Certificates | None = None,
    gateway: Gateway | None = None,
    limits: DoorLimits | None = None,
    statistics: DoorStatistics | None = None,
    drain: float = 5.0,
) -> AsyncIterator[str]:
    """Serve an app until the block ends; yields its URL once the port listens.

    The ``gateway`` of the app sets the limits and counts connections; without one, ``limits`` and
    ``statistics`` do. Running requests have ``drain`` seconds to finish. HTTP/2 is selected by ALPN, or by
    prior knowledge without TLS (RFC 9113, 3.3). Raises `InvalidSetting` if the address cannot be used.
    """
    if gateway is not None:
        settings, statistics = gateway.settings, gateway.door
        limits = limits or DoorLimits(
            connections=settings.connections,
            per_address=settings.connections_per_address,
            proxies=[ip_network(one) for one in settings.trusted_proxies],
        )
    config = Config(
        cast("Any", app),
        http=Http1,
        ws="none",
        lifespan="auto",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    config.load()
    loop, state, lifespan = asyncio.get_running_loop(), ServerState(), LifespanOn(config)
    door = Door(_fitting(limits or DoorLimits()), statistics)
    parts = (config, state, lifespan.state, door)
    http2 = partial(Http2, *parts)
    arriving: set[asyncio.Task[None]] = set()
    tasks: list[asyncio.Task[None]] = []

    async def accept(listener: socket.socket) -> None:
        """Accept connections until cancelled. Turn those over a limit away."""
        for number in itertools.count(1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError:  # no descriptor is free, or the peer has closed
                await asyncio.sleep(0.1)
                continue
            context = None if certificates is None else certificates.context
            if not door.enter(address[0]):
                if context is None:
                    with contextlib.suppress(OSError):
                        connection.send(BUSY)
                connection.close()
                continue
            arrival = Arrival(
                door, address[0], lambda agreed: http2() if agreed == "h2" else Http1(*parts, http2)
            )
            task = loop.create_task(arrival.welcome(connection, context))
            arriving.add(task)
            task.add_done_callback(arriving.discard)

    async def tick() -> None:
        while True:
            leaving = gateway is not None and gateway.leaving
            closing = [(b"connection", b"close")] if leaving else []
            date = formatdate(time.time(), usegmt=True).encode()
            state.default_headers[:] = [(b"date", date), *closing]
            door.sweep()
            if certificates is not None:
                certificates.look()
            await asyncio.sleep(1.0)

    listeners = _listeners(host, port)
    try:
        await lifespan.startup()
        if lifespan.should_exit:
            raise ApnsLiveError("the app did not start; the log says why")
        # The first tick runs before the first connection, so that every answer has a date.
        tasks += map(loop.create_task, (tick(), *map(accept, listeners)))
        scheme = "http" if certificates is None else "https"
        name = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{name}:{listeners[0].getsockname()[1]}"
        if gateway is not None:
            gateway.address = url
        yield url
    finally:
        # Accept no more connections, let running requests finish, and abort the rest.
        for task in tasks[1:]:
            task.cancel()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            _, late = await asyncio.wait(state.tasks, timeout=drain)
            for request in late:
                request.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in list(state.connections):
            connection.transport.abort()
        waiting = [*tasks, *arriving]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        if tasks and not lifespan.error_occurred:
            await lifespan.shutdown()
        for listener in listeners:
            listener.close()


def raise_descriptor_limit() -> int:
    """Raise the limit of open files as far as the system allows, and return it. Call at start-up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _fitting(limits: DoorLimits) -> DoorLimits:
    """Return limits that leave enough descriptors for other uses."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return limits
    most = min(limits.connections, max(16, files - min(_OTHER_FILES, files // 2)))
    return replace(limits, connections=most, per_address=min(limits.per_address, most * 4 // 5))


@contextmanager
def calm_collector() -> Iterator[None]:
    """Exclude existing objects from garbage collection. Call it when start-up is complete.

    Modules, routes and statements are half a million objects that stay. Collecting them would stop all
    requests for a tenth of a second.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _listeners(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets on every address of a host, all on one port."""
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
    except socket.gaierror:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise InvalidSetting(f"{host!r} is not a valid address ({error})", "host") from None
    listeners: list[socket.socket] = []
    with contextlib.ExitStack() as opened:
        for family, _, protocol, _, address in dict.fromkeys(found):
            chosen = listeners[0].getsockname()[1] if listeners else port
            # asyncio sets TCP_NODELAY only if the socket's protocol is named TCP.
            listener = socket.socket(family, socket.SOCK_STREAM, protocol)
            opened.callback(listener.close)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind((address[0], chosen, *address[2:]))
            except OSError as error:
                if listeners and error.errno in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
                    listener.close()
                    continue
                text = f"{host}:{chosen} cannot be listened on ({error.strerror})"
                remedy = "Choose another port, or 0 for a free one."
                raise InvalidSetting(text, "port", remedy) from None
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            listeners.append(listener)
        opened.pop_all()
    return listeners
