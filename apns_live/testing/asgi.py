"""The ASGI face: the fake's rules behind hypercorn, a third-party HTTP/2 server.

It is slower and cannot send broken frames. It shows that the rules do not depend on our own HTTP/2. ASGI
does not identify connections, so the client's address and port do. Calls that ASGI cannot do (SETTINGS,
GOAWAY, resets) raise an error. hypercorn ends an answer without a body by an empty DATA frame, which is
legal, but aioapns 4.0 does not accept it.
"""

import asyncio
import socket
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from hypercorn.asyncio import run as hypercorn_run
from hypercorn.asyncio import serve
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from starlette.types import Receive, Scope, Send

from apns_live.errors import FakeError

from .certificates import Certificates
from .engine import Engine
from .listener import listening_sockets
from .state import ConnectionIdentity, Effect, Face, Request, Response
from .wire import ConnectionSnapshot, FaceOptions


class _LettingGo(TCPServer):
    """A hypercorn connection that ends when its client closes it.

    hypercorn (0.17, 0.18) keeps the connection, and without TLS its descriptor, until the time for idle
    connections is over, because its timer is not stopped.
    """

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()


hypercorn_run.TCPServer = _LettingGo  # type: ignore[attr-defined]

MAX_REQUESTS = sys.maxsize
"""Requests of one connection: APNs publishes no limit. At its own limit, 1,000, hypercorn would also
drop the answers of the streams that are open then."""

_REMEMBERED = 5000
_LARGEST_BODY = 65_536


class Served:
    """Runs hypercorn on sockets that listen already, until `close`. ``settings`` are hypercorn's."""

    def __init__(self, app: Any, listeners: Sequence[socket.socket], **settings: Any) -> None:
        config = Config()
        # Hypercorn creates its own sockets from the descriptors, and closes them.
        config.bind = [f"fd://{listener.detach()}" for listener in listeners]
        config.include_server_header = False
        config.errorlog = None
        for name, value in settings.items():
            setattr(config, name, value)
        self._stop = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(
            serve(app, config, shutdown_trigger=self._stop.wait, mode="asgi")
        )

    async def started(self) -> None:
        """Wait for the start. Raise FakeError for a wrong certificate or option."""
        await asyncio.sleep(0)
        if self._task.done():
            raise FakeError("hypercorn did not start") from self._task.exception()

    async def close(self) -> None:
        """Stop."""
        self._stop.set()
        await self._task


class AsgiFace:
    """One listening port (``kind``): the rules as an ASGI application, served by hypercorn."""

    def __init__(
        self, engine: Engine, kind: Face, certificates: Certificates, options: FaceOptions
    ) -> None:
        self.kind: Face = kind
        self.port = 0
        self._engine = engine
        self._certificates = certificates
        self._options = options
        self._known: OrderedDict[tuple[str, int], tuple[ConnectionIdentity, float]] = OrderedDict()
        self._served: Served | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen. Port 0 takes a free one."""
        listeners = listening_sockets(host, port)
        self.port = listeners[0].getsockname()[1]
        self._served = Served(
            self,
            listeners,
            certfile=str(self._certificates.certificate_file),
            keyfile=str(self._certificates.key_file),
            alpn_protocols=["h2"],
            h2_max_concurrent_streams=self._options.max_streams,
            include_date_header=False,
            # Closing takes up to this time. A shorter limit would leave sockets open.
            graceful_timeout=5.0,
            keep_alive_max_requests=MAX_REQUESTS,
            keep_alive_timeout=self._options.idle_timeout or 3600.0,
        )
        await self._served.started()

    async def close(self) -> None:
        """Stop."""
        if self._served is not None:
            await self._served.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    def snapshots(self) -> list[ConnectionSnapshot]:
        """Return snapshots of the connections. ASGI tells only their address and age."""
        return [
            ConnectionSnapshot.of(identity, f"{address[0]}:{address[1]}", since)
            for address, (identity, since) in self._known.items()
        ]

    def forget_closed(self) -> None:
        """Do nothing: ASGI does not report closed connections."""

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if len(body) <= _LARGEST_BODY:
                body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        request = Request(_fields(scope), bytes(body), self.kind)
        plan = self._engine.answer(request, self._identity(scope))
        if plan.delay > 0:
            arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._engine.clock.call_later(
                plan.delay, lambda: None if arrived.done() else arrived.set_result(None)
            )
            await arrived
        if plan.act == "answer" and plan.response is not None:
            await _answer(plan.response, send)
            return
        if plan.act == "stall":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b'{"reas', "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    def _identity(self, scope: Scope) -> ConnectionIdentity:
        address = tuple(scope.get("client") or ("", 0))
        if (found := self._known.pop(address, None)) is None:
            identity = ConnectionIdentity(self._engine.next_connection_id(), self.kind)
            found = (identity, self._engine.clock.time())
        self._known[address] = found
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found[0]


def _fields(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the header fields, with the pseudo-header fields rebuilt from the ASGI scope."""
    path = scope.get("raw_path") or scope["path"].encode("utf-8")
    if scope.get("query_string"):
        path += b"?" + scope["query_string"]
    fields = [(b":method", scope["method"].encode("ascii")), (b":path", path)]
    for name, value in scope["headers"]:
        fields.append((b":authority" if name == b"host" else bytes(name), bytes(value)))
    return fields


async def _answer(response: Response, send: Send) -> None:
    headers = [] if Effect.MALFORMED in response.effects else list(response.headers)
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        if (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
