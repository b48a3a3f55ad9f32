"""Serving the app with hypercorn: HTTP/1.1 and HTTP/2, over TLS when there is a certificate."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

from hypercorn.asyncio import serve as serve_app
from hypercorn.config import Config
from starlette.types import ASGIApp

from ..errors import InvalidSetting

_BACKLOG = 1_024


@asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    host: str = "localhost",
    port: int = 0,
    certificate: Path | None = None,
    key: Path | None = None,
    drain: float = 5.0,
) -> AsyncIterator[str]:
    """Serve an app until the block ends; yields its URL once the port listens.

    ``drain`` is how many seconds requests under way have to finish. Raises `InvalidSetting` when
    the address cannot be used. Without TLS, HTTP/2 is spoken with prior knowledge (RFC 9113, 3.3).
    """
    listeners = _listeners(host, port)
    bound = listeners[0].getsockname()[1]
    config = Config()
    # Hypercorn makes sockets of its own of the numbers, and closes those.
    numbers = [f"fd://{listener.detach()}" for listener in listeners]
    config.bind = numbers
    if certificate is not None:
        config.certfile = str(certificate)
        config.keyfile = None if key is None else str(key)
    config.backlog = _BACKLOG
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = drain
    config.shutdown_timeout = drain + 5.0
    config.keep_alive_timeout = 75.0
    config.h11_max_incomplete_size = 32_768
    stop = asyncio.Event()
    task = asyncio.create_task(
        serve_app(cast("Any", app), config, shutdown_trigger=cast("Any", stop.wait), mode="asgi")
    )
    scheme = "http" if certificate is None else "https"
    name = f"[{host}]" if ":" in host else host
    try:
        yield f"{scheme}://{name}:{bound}"
    finally:
        stop.set()
        await task


@contextmanager
def calm_collector() -> Iterator[None]:
    """Let the garbage collector leave alone what is there now; for a program, once all is open.

    Modules, routes and statements are half a million objects that never go. Looking at them again
    and again stops every request for a tenth of a second.
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
            raise InvalidSetting(f"{host!r} is no address ({error})", field="host") from None
    listeners: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            chosen = listeners[0].getsockname()[1] if listeners else port
            listener = socket.socket(family, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind((address[0], chosen, *address[2:]))
            except OSError as error:
                if len(listeners) > 1 and error.errno in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
                    listeners.pop().close()
                    continue
                raise InvalidSetting(
                    f"{host}:{chosen} cannot be listened on ({error.strerror})",
                    field="port",
                    remedy="Choose another port, or 0 for a free one.",
                ) from None
            listener.listen(_BACKLOG)
            listener.setblocking(False)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners
