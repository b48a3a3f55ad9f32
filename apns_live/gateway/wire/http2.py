"""HTTP/2: our own frames (`ServerConnection`), each stream an ASGI request.

A client may have `STREAMS` open requests. A request that it resets still counts until the app has
finished with it, and too many resets end the connection. So "rapid reset" (opening and resetting
streams, CVE-2023-44487) causes only the work of normal requests.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.server import ServerState

from ...errors import Http2ConnectionError
from ...http2.events import DataReceived, RequestReceived, RequestStarted, StreamReset
from ...http2.frames import ErrorCode, Setting
from ...http2.server_connection import ServerConnection
from .door import DRAIN_BYTES, DRAIN_SECONDS, STUCK_SECONDS, Door, Impatient

logger = logging.getLogger("apns_live.gateway")

STREAMS = 128
RUNNING = 2 * STREAMS
"""Requests that the app may hold. A client opens its next stream when it has an answer, which may be before
the app has finished with the request."""
FLOOD_BUDGET = 1_000
_FORBIDDEN = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)


class Http2(Impatient):
    """One HTTP/2 connection."""

    def __init__(
        self, config: Config, state: ServerState, app_state: dict[str, Any], door: Door
    ) -> None:
        self.address = ""
        self.deadline = 0.0
        self.transport: asyncio.Transport
        self.wire = ServerConnection(
            settings={Setting.MAX_CONCURRENT_STREAMS: STREAMS},
            flood_budget=FLOOD_BUDGET,
            in_pieces=True,
        )
        self.state = state
        self.writable = asyncio.Event()
        self.writable.set()
        self._app = config.loaded_app
        self._app_state = app_state
        self._door = door
        self._exchanges: dict[int, Exchange] = {}
        self._drained: dict[int, int] = {}
        self._running = 0
        self._ends = False
        self._base: dict[str, Any] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the server's settings."""
        self.transport = transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        name = transport.get_extra_info("sockname")
        self.address = str(peer[0]) if peer else ""
        self._base = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "server": name[:2] if name else None,
            "client": peer[:2] if peer else None,
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
            "root_path": "",
        }
        self.state.connections.add(self)  # type: ignore[arg-type]
        self._door.waits(self)
        self.wire.start()
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Feed received frames."""
        try:
            events = self.wire.receive(data)
        except Http2ConnectionError as error:
            self._take(error.events)
            self.flush()
            self.transport.close()
            self._door.waits(self, 1.0)  # the peer may not read our GOAWAY
            return
        self._take(events)
        for exchange in self._exchanges.values():
            exchange.room.set()  # the client may have granted room
        self.flush()

    def _take(self, events: Iterable[object]) -> None:
        for event in events:
            if isinstance(event, RequestStarted):
                if self._running >= RUNNING or self._ends:
                    self.wire.reset_stream(event.stream_id, ErrorCode.REFUSED_STREAM)
                    continue
                scope = {**_scope(event, self._base), "state": self._app_state.copy()}
                exchange = self._exchanges[event.stream_id] = Exchange(self, event.stream_id, scope)
                if self._running == 0:
                    self._door.works(self)
                self._running += 1
                task = asyncio.get_running_loop().create_task(exchange.run(self._app))
                self.state.tasks.add(task)
                task.add_done_callback(self._ended)
                continue
            if not isinstance(event, DataReceived | RequestReceived | StreamReset):
                continue
            known = self._exchanges.get(event.stream_id)
            if known is None:
                self._drain(event)
            elif isinstance(event, DataReceived):
                known.feed(event.content, event.size)
            elif isinstance(event, RequestReceived):
                known.more_body = False
                known.news.set()
            else:
                del self._exchanges[event.stream_id]
                known.disconnect()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.state.tasks.discard(task)
        self._running -= 1
        if self._running == 0 and not self.transport.is_closing():
            if self._ends:
                self.shutdown()
            else:
                self._door.waits(self)

    def done(self, stream_id: int, *, more_body: bool) -> None:
        """Remove an exchange whose answer is complete, and read the rest of its request."""
        self._exchanges.pop(stream_id, None)
        self.state.total_requests += 1
        if more_body:
            self._drained[stream_id] = 0
            asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._cut_off, stream_id)

    def _drain(self, event: DataReceived | RequestReceived | StreamReset) -> None:
        drained = self._drained.pop(event.stream_id, None)
        if drained is None or not isinstance(event, DataReceived):
            return
        self._drained[event.stream_id] = drained = drained + len(event.content)
        if drained > DRAIN_BYTES:
            self._cut_off(event.stream_id)
        else:
            self.wire.grant_window(event.stream_id, event.size)

    def _cut_off(self, stream_id: int) -> None:
        """Stop reading a request that was answered (RFC 9113, section 8.1)."""
        if self._drained.pop(stream_id, None) is not None:
            self.wire.reset_stream(stream_id, ErrorCode.NO_ERROR)
            self.flush()

    def flush(self) -> None:
        """Write the frames that wait to be sent."""
        data = self.wire.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def shutdown(self) -> None:
        """Accept no new requests, and close when the running ones are answered."""
        self._ends = True
        self.wire.goaway()
        self.flush()
        if self._running == 0:
            self.transport.close()

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read."""
        super().pause_writing()
        self.writable.clear()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Continue: the peer reads again."""
        super().resume_writing()
        self.writable.set()
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the running requests and the door."""
        self.resume_writing()
        self.state.connections.discard(self)
        self._door.leave(self)
        for exchange in self._exchanges.values():
            exchange.disconnect()
        self._exchanges.clear()

    def close_now(self) -> None:
        """Close without waiting for the peer. An idle connection sends GOAWAY first."""
        if self._running == 0 and not self.transport.is_closing():
            self.shutdown()
        if self.transport.get_write_buffer_size():
            self.transport.abort()


class Exchange:
    """One request and its answer, as ASGI has them."""

    def __init__(self, connection: Http2, stream_id: int, scope: dict[str, Any]) -> None:
        self._connection = connection
        self._wire = connection.wire
        self._stream_id = stream_id
        self._scope = scope
        self._body = bytearray()
        self._unread = 0
        self.more_body = True
        self.news = asyncio.Event()
        self.room = asyncio.Event()
        self._gone = False
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._started = False
        self._answered = False

    async def run(self, app: Any) -> None:
        """Run the app. Reset the stream if the answer is incomplete."""
        try:
            await app(self._scope, self.receive, self.send)
        except Exception:
            logger.exception("an exchange failed")
        finally:
            if not self._answered and not self._gone:
                self._wire.reset_stream(self._stream_id, ErrorCode.INTERNAL_ERROR)
                self._connection.done(self._stream_id, more_body=False)
                self._connection.flush()

    def feed(self, content: bytes, size: int) -> None:
        """Store a piece of the body."""
        self._body += content
        self._unread += size
        self.news.set()

    def disconnect(self) -> None:
        """Note that the client is gone or has reset the stream."""
        self._gone = True
        self.news.set()
        self.room.set()

    async def receive(self) -> dict[str, Any]:
        """Return the next piece of the body, or that the client is gone."""
        if not self._gone and not self._answered:
            await self.news.wait()
            self.news.clear()
        if self._gone or self._answered:
            return {"type": "http.disconnect"}
        body = bytes(self._body)
        self._body.clear()
        self._wire.grant_window(self._stream_id, self._unread)
        self._unread = 0
        self._connection.flush()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a piece of the answer."""
        if not self._connection.writable.is_set():
            await self._connection.writable.wait()
        if self._gone or self._answered:
            return
        if message["type"] == "http.response.start":
            given = (*self._connection.state.default_headers, *message.get("headers", ()))
            headers = [(name.lower(), value) for name, value in given]
            headers = [field for field in headers if field[0] not in _FORBIDDEN]
            self._head = int(message["status"]), headers
            return
        if message["type"] != "http.response.body" or self._head is None:
            raise RuntimeError(f"{message['type']} is not expected here")
        body = b"" if self._scope["method"] == "HEAD" else bytes(message.get("body", b""))
        more = bool(message.get("more_body", False))
        status, headers = self._head
        if not self._started and not more:
            self._wire.send_response(self._stream_id, status, headers, body)
        else:
            if not self._started:
                self._wire.start_response(self._stream_id, status, headers)
                self._started = True
            await self._send_piece(body, end=not more)
        if not more:
            self._answered = True
            self.news.set()
            self._wire.grant_window(self._stream_id, self._unread)
            self._connection.done(self._stream_id, more_body=self.more_body)
        self._connection.flush()

    async def _send_piece(self, data: bytes, *, end: bool) -> None:
        try:
            async with asyncio.timeout(STUCK_SECONDS):
                while True:
                    self.room.clear()
                    sent = self._wire.send_data(self._stream_id, data, end=end)
                    self._connection.flush()
                    data = data[sent:]
                    if not data or self._gone:
                        return
                    await self.room.wait()
        except TimeoutError:
            self._wire.reset_stream(self._stream_id)
            self.disconnect()


def _scope(event: RequestStarted, base: Mapping[str, Any]) -> dict[str, Any]:
    headers: list[tuple[bytes, bytes]] = []
    pseudo: dict[bytes, bytes] = {}
    cookies: list[bytes] = []
    for name, value in event.headers:
        if name[:1] == b":":
            pseudo[name] = value
        elif name == b"cookie":
            cookies.append(value)
        elif name != b"host" or b":authority" not in pseudo:
            headers.append((name, value))
    if b":authority" in pseudo:
        headers.insert(0, (b"host", pseudo[b":authority"]))
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))
    target, _, query = pseudo.get(b":path", b"*").partition(b"?")
    return {
        **base,
        "method": pseudo[b":method"].decode("latin-1"),
        "path": unquote(target.decode("latin-1")),
        "raw_path": target,
        "query_string": query,
        "headers": headers,
    }
