"""HTTP/1.1: uvicorn's protocol on httptools (llhttp), with a limited head and timeouts."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .door import DRAIN_BYTES, DRAIN_SECONDS, Door, Impatient

logger = logging.getLogger("apns_live.gateway")

HEAD_BYTES = 32_768
"""Of request line and header fields together."""
_HOST = re.compile(rb"[\w.~%!$&'()*+,;=:\[\]-]*\Z")
_PREFACE = b"PRI * HTTP/2.0"
_UNREADABLE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
)


class _HeadTooLargeError(Exception):
    """More than `HEAD_BYTES`."""


class _Cycle(RequestResponseCycle):
    """A request and its answer. A body that was cut short can still be answered."""

    cut = False
    """True if the rest of the request will not come."""
    _read = False

    async def run_asgi(self, app: Any) -> None:
        """Run the app. Close the connection if the answer is incomplete, so that the client notices."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            logger.exception("an exception escaped the app's error handling")
        finally:
            self.on_response = lambda: None  # the answer is incomplete
            if not self.response_complete and not self.disconnected:
                self.transport.close()

    async def receive(self) -> Any:
        """Return the next piece of the body, or a disconnect after the last one."""
        if self.cut and not self.body and (self.more_body or self._read):
            return {"type": "http.disconnect"}
        message = await super().receive()
        self._read = not message.get("more_body", False)
        return message


class _Outlet:
    """The transport of one answer. Writes head and body together if the app sends them together.

    Writing them separately takes two system calls and two segments, a large part of a call's cost.
    """

    __slots__ = ("_closes", "_head", "_protocol", "_transport", "is_closing")

    def __init__(self, protocol: Http1, *, closes: bool) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._closes = closes
        self._head: bytes | None = None
        self.is_closing = protocol.transport.is_closing

    def write(self, data: bytes) -> None:
        """Write a piece. The first one is sent with the next one, or in the loop's next turn."""
        if self._head is None:
            self._head = data
            self._protocol.loop.call_soon(self._write_head)
        elif self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        else:
            self._transport.write(data)

    def _write_head(self) -> None:
        if self._head and not self.is_closing():
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        """Close the connection, after the rest of the request if the answer ends the connection."""
        self._write_head()
        if self._closes and self._protocol.cycle.more_body:
            self._protocol.closes = True  # closing earlier could lose the answer
        else:
            self._transport.close()


class Http1(Impatient, HttpToolsProtocol):
    """One HTTP/1.1 connection. ``speak_http2`` makes the protocol if HTTP/2's preface comes first."""

    cycle: _Cycle

    def __init__(
        self,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
        door: Door,
        speak_http2: Callable[[], asyncio.Protocol],
    ) -> None:
        super().__init__(config, state, app_state)
        self.address = ""
        self.deadline = 0.0
        self._door = door
        self._speak_http2 = speak_http2
        self._head_left = HEAD_BYTES
        self._in_head = False
        self._busy = False
        self._waits_for = "request"
        self._drained = 0
        self.closes = False
        self._upgrading = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._door.waits(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the running request and the door."""
        self.resume_writing()
        super().connection_lost(exc)
        self._door.leave(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser. Bytes that are not HTTP get 400, a head that is too large gets 431."""
        if self.cycle is None and data.startswith(_PREFACE):
            protocol = self._speak_http2()
            self.connections.discard(self)
            self.transport.set_protocol(protocol)
            protocol.connection_made(self.transport)
            protocol.data_received(data)
            return
        if self._in_head:
            self._head_left -= len(data)
        try:
            if self._head_left < 0:
                raise _HeadTooLargeError
            self._feed(data)
        except (httptools.HttpParserError, _HeadTooLargeError) as error:
            causes = (error, error.__context__)
            if not self._busy:
                too_large = any(isinstance(one, _HeadTooLargeError) for one in causes)
                self.transport.write(_UNREADABLE[too_large])
            self.transport.close()
        else:
            if not self._busy:
                self._now_waits()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Upgrades are ignored (RFC 9110, 7.8). The parser takes the body for another protocol, so a
            # new parser reads the request again.
            self.parser = httptools.HttpRequestParser(self)
            lines = [self._upgrading + b" " + self.url + b" HTTP/1.1"]
            for name, value in self.headers:
                if name == b"connection":
                    kept = b"close" if b"close" in value.lower() else b"keep-alive"
                    lines.append(b"connection: " + kept)
                elif name not in {b"upgrade", b"http2-settings"}:
                    lines.append(name + b": " + value)
            self._upgrading = b""
            self._feed(b"\r\n".join((*lines, b"", data[upgrade.args[0] :])))

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self._head_left = HEAD_BYTES
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Store a part of the request line."""
        self._count(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header field. Trailer fields are ignored (RFC 9110, section 6.5.1)."""
        self._count(len(name) + len(value) + 4)
        if self._in_head:
            super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head_left -= size
        if self._head_left < 0:
            raise _HeadTooLargeError

    def on_headers_complete(self) -> None:
        """Start the request, or queue it behind the previous one."""
        self._in_head = False
        parser, scope, before = self.parser, self.scope, self.cycle
        method = parser.get_method()
        if parser.should_upgrade():
            if method == b"CONNECT":
                raise httptools.HttpParserError("no proxy")
            self._upgrading = method
            return
        version = parser.get_http_version()
        # A proxy may read such a head differently (RFC 9112, sections 3.2 and 6.1).
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (version == "1.1" and not hosts) or not all(map(_HOST.match, hosts)):
            raise httptools.HttpParserError("not one Host")
        if version not in ("1.0", "1.1"):
            raise httptools.HttpParserError("no such version")
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if any(coding.lower() != b"chunked" for coding in codings):
            raise httptools.HttpParserError("not chunked alone")
        url = httptools.parse_url(self.url)
        scope["method"] = method.decode("ascii")
        scope["http_version"] = version
        scope["raw_path"] = path = url.path or b"/"
        scope["path"] = unquote(path.decode("ascii"))
        scope["query_string"] = url.query or b""
        keep_alive = version != "1.0" and parser.should_keep_alive()
        self.cycle = cycle = _Cycle(
            scope=scope,
            transport=cast("asyncio.Transport", _Outlet(self, closes=not keep_alive)),
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
        if not self._busy:
            self._busy = True
            self._waits_for = ""
            self._drained = 0
            self._door.works(self)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the answer if the client only closed its side. TLS cannot do that."""
        if not self._busy or self.scheme == "https" or self.cycle.response_started:
            return False  # the client of an event stream has closed
        self.cycle.keep_alive = False
        self.cycle.cut = True
        self.cycle.message_event.set()
        return True

    def on_body(self, body: bytes) -> None:
        """Store a part of a body. Of a refused body only a limited rest is read."""
        if self.cycle.response_complete:
            self._drained += len(body)
            if self._drained > DRAIN_BYTES:
                self.transport.abort()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        if self._upgrading:
            return
        cycle = self.cycle
        cycle.more_body = False
        cycle.message_event.set()
        if cycle.response_complete and self.closes:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Start the next request, or wait for one within the door's limits."""
        self._busy = bool(self.pipeline)
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._now_waits()

    def _now_waits(self) -> None:
        """Tell the door what this connection waits for. A running limit of a head is not renewed."""
        cycle, limits = self.cycle, self._door.limits
        if cycle is not None and cycle.response_complete and cycle.more_body:
            waits_for, seconds = "rest", DRAIN_SECONDS
        elif self._in_head:
            waits_for, seconds = "head", limits.head
        else:
            waits_for, seconds = "request", limits.idle
        if waits_for != self._waits_for:
            self._waits_for = waits_for
            self._door.waits(self, seconds)

    def close_now(self) -> None:
        """Close without waiting for the peer."""
        self.transport.abort()
