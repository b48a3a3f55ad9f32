"""One connection of the wire face: the sans-I/O HTTP/2 server on an asyncio transport.

The callback that receives a request's bytes also answers it: no task, no future, and one write for all
answers of a read. Delayed answers wait on a timer wheel that they share.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import msgspec

from apns_live.errors import Http2ConnectionError, InvalidSetting
from apns_live.http2 import ErrorCode, RequestReceived, ServerConnection, Setting
from apns_live.http2.frames import END_HEADERS, END_STREAM, PADDED, FrameType, frame, header_frames
from apns_live.http2.headers import encode_string

from .clock import Timer
from .engine import Engine, Plan
from .faults import ActiveFault, Fault
from .log import ConnectionChange
from .state import ConnectionIdentity, Effect, Face, Request, Response

_REMEMBERED = 200
"""Closed connections of which a snapshot is kept."""
WINDOW = 65_535
FIRST_SETTINGS: dict[int, int] = {
    Setting.HEADER_TABLE_SIZE: 4096,
    Setting.INITIAL_WINDOW_SIZE: WINDOW,
    Setting.MAX_FRAME_SIZE: 16_384,
    Setting.MAX_HEADER_LIST_SIZE: 8_000,
}
"""As seen on APNs; the number of streams comes with them."""

_GRANT_INTERVAL = 0.05
_PIECES = 5


@dataclass(frozen=True, slots=True)
class ConnectionSnapshot:
    """One connection at a moment. Times are epoch seconds on the fake's clock.

    ``max_streams`` is the last announced limit. ``window`` is how many bytes of bodies the client
    may still send (None if the face does not know). ``bound_key`` is the key id of its first
    accepted provider token.
    """

    connection_id: int
    face: Face
    peer: str
    opened_at: float
    closed_at: float | None = None
    state: Literal["open", "going away", "silent", "closed"] = "open"
    open_streams: int | None = None
    max_streams: int | None = None
    window: int | None = None
    bound_key: str | None = None
    team_id: str | None = None
    accepted: int = 0
    refused: int = 0
    last_stream_id: int | None = None

    @classmethod
    def of(
        cls, identity: ConnectionIdentity, peer: str, opened_at: float, **more: Any
    ) -> ConnectionSnapshot:
        """Return a snapshot of a connection, with the fields that the face adds."""
        if (key := identity.key) is not None:
            more |= {"bound_key": key.key_id, "team_id": key.team_id}
        more |= {"accepted": identity.accepted, "refused": identity.refused}
        return cls(identity.connection_id, identity.face, peer, opened_at, **more)


@dataclass(frozen=True, slots=True)
class FaceOptions:
    """How connections of a face behave; ``idle_timeout`` is seconds, None for none.

    ``first_streams`` is the stream limit until a provider token was accepted, ``max_streams`` the
    one after. ``connection_limit`` bounds the connections open at once.
    """

    first_streams: int = 1
    max_streams: int = 1000
    idle_timeout: float | None = None
    connection_limit: int = 5000
    handshake_timeout: float = 10.0


@dataclass(eq=False)
class Connections:
    """The connections of one port: the open ones, and snapshots of the last closed ones."""

    engine: Engine
    kind: Face
    options: FaceOptions
    connections: dict[int, WireConnection] = field(default_factory=dict, init=False)
    _closed: deque[ConnectionSnapshot] = field(
        default_factory=lambda: deque(maxlen=_REMEMBERED), init=False
    )

    def forget(self, connection: WireConnection) -> None:
        """Replace a lost connection by its snapshot."""
        if self.connections.pop(connection.identity.connection_id, None) is not None:
            self._closed.append(connection.snapshot())

    def snapshots(self) -> list[ConnectionSnapshot]:
        """Return the last closed connections and all open ones."""
        return [*self._closed, *(each.snapshot() for each in self.connections.values())]

    def forget_closed(self) -> None:
        """Delete the snapshots of closed connections."""
        self._closed.clear()


@dataclass(slots=True)
class SlowWindow:
    """Grants windows at the rate of a fault, never more than was received."""

    fault: Fault
    received: int = 0
    granted: int = 0

    def grant(self, http: ServerConnection) -> None:
        """Grant the bytes of one interval."""
        amount = min(int(self.fault.rate * _GRANT_INTERVAL), self.received - self.granted)
        if amount > 0:
            self.granted += amount
            http.grant_window(0, amount)
            for stream_id in http.open_requests():
                http.grant_window(stream_id, amount)


class WireConnection(asyncio.Protocol):
    """The connection of one client. ``faults`` are those that struck it when it was opened."""

    def __init__(
        self, face: Connections, connection_id: int, faults: tuple[ActiveFault, ...]
    ) -> None:
        self.face = face
        self.identity = ConnectionIdentity(connection_id, face.kind)
        self.silent = False
        self.closing = False
        self.closed_at: float | None = None
        self.peer = ""
        self.max_streams = face.options.first_streams
        self._engine = face.engine
        self._transport: asyncio.Transport | None = None
        self._last_served: int | None = None
        self._flush_planned = False
        self._heard_at = 0.0
        self._idle_timer: Timer | None = None
        self._slow: SlowWindow | None = None
        settings = {**FIRST_SETTINGS, Setting.MAX_CONCURRENT_STREAMS: self.max_streams}
        for active in faults:
            if active.fault.action == "slow_window":
                self._slow = SlowWindow(active.fault)
                settings[Setting.INITIAL_WINDOW_SIZE] = active.fault.window
            elif active.fault.action == "settings":
                settings.update(active.fault.settings)
        self.max_streams = settings[Setting.MAX_CONCURRENT_STREAMS]
        self.http = ServerConnection(settings=settings, automatic_windows=self._slow is None)
        self.opened_at = self._engine.clock.time()

    # --- the transport's calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our SETTINGS."""
        # uvloop's transports do not inherit from asyncio.Transport.
        self._transport = transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if peer else ""
        self.face.connections[self.identity.connection_id] = self
        self._tell("opened", self.peer)
        self.http.start()
        self.flush()
        self._heard_at = self._engine.clock.monotonic()
        if self.face.options.idle_timeout is not None:
            self._watch_idleness(self.face.options.idle_timeout)
        if self._slow is not None and self._slow.fault.rate:
            self._engine.clock.call_later(_GRANT_INTERVAL, self._grant)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._transport = None
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self.closed_at = self._engine.clock.time()
        self.face.forget(self)
        self._tell("closed", type(exc).__name__ if exc is not None else "")

    def data_received(self, data: bytes) -> None:
        """Serve the requests that these bytes complete."""
        if self.silent:
            return
        if self._slow is not None:
            self._slow.received += len(data)
        self._heard_at = self._engine.clock.monotonic()
        try:
            events = self.http.receive(data)
        except Http2ConnectionError as error:
            self._tell("goaway", str(error))
            self.flush()
            self.close()
            return
        for event in events:
            if type(event) is RequestReceived:
                self._serve(event)
                if self.silent or self._transport is None:
                    return
        self.flush()

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read our answers."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Continue: the client reads again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # --- requests ------------------------------------------------------------------------------

    def _serve(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        if self._last_served is not None and stream_id > self._last_served:
            return
        request = Request(event.headers, event.body, self.face.kind)
        plan = self._engine.answer(request, self.identity)
        fault, act = plan.fault, plan.act
        if act == "silence":
            self.silence()
            return
        if act == "disconnect":
            self.abort()
            return
        if act == "goaway" and fault is not None:
            last = stream_id if plan.response is not None else max(0, stream_id - 2)
            self.go_away(fault.reason, debug=fault.debug, code=fault.error_code or 0, last=last)
            if fault.close:
                self.closing = True
        if plan.delay > 0:
            self._engine.clock.call_later(plan.delay, lambda: self._finish(stream_id, plan))
        else:
            self._finish(stream_id, plan)

    def _finish(self, stream_id: int, plan: Plan) -> None:
        if self._transport is None or self.silent:
            return
        fault, response = plan.fault, plan.response
        if plan.act == "reset" and fault is not None:
            code = ErrorCode.REFUSED_STREAM if fault.action == "refuse_stream" else fault.error_code
            self.http.reset_stream(stream_id, ErrorCode.INTERNAL_ERROR if code is None else code)
        elif plan.act == "stall":
            self.http.send_raw(_half_a_response(stream_id, response or Response(200, ())))
        elif response is not None and plan.act in ("answer", "goaway"):
            self._apply(response.effects, stream_id)
            if fault is not None and fault.in_pieces:
                self.http.send_raw(_response_in_pieces(stream_id, response))
                # The client has closed the stream; this closes it in the server as well.
                self.http.reset_stream(stream_id, ErrorCode.NO_ERROR)
            else:
                self.http.send_response(stream_id, response.status, response.headers, response.body)
        if self.closing and not self.http.open_streams:
            self.flush()
            self.close()
        self._flush_soon()

    def _apply(self, effects: tuple[Effect, ...], stream_id: int) -> None:
        options = self.face.options
        for effect in effects:
            if effect is Effect.RAISE_STREAMS:
                self.allow_streams(options.max_streams)
            elif effect is Effect.CUT_STREAMS:
                self.allow_streams(1)
            elif effect is Effect.MALFORMED:
                self.http.reset_stream(stream_id, ErrorCode.PROTOCOL_ERROR)
            else:
                self.go_away(None, last=stream_id)
                self.closing = True

    # --- calls from outside ------------------------------------------------------

    def allow_streams(self, streams: int) -> None:
        """Announce how many streams the client may have open from now on."""
        if streams != self.max_streams:
            self.change_settings({Setting.MAX_CONCURRENT_STREAMS: streams})

    def change_settings(self, changes: Mapping[int, int]) -> None:
        """Send SETTINGS in the middle of the connection."""
        try:
            self.http.change_settings(changes)
        except InvalidSetting:
            # Stop after a thousand SETTINGS that the client has not acknowledged.
            self.abort()
            return
        if (streams := changes.get(Setting.MAX_CONCURRENT_STREAMS)) is not None:
            self.max_streams = streams
            self._tell("streams", str(streams))
        self._flush_soon()

    def go_away(
        self,
        reason: str | None = None,
        *,
        debug: str | None = None,
        code: int = 0,
        last: int | None = None,
        timestamp: int | None = None,
    ) -> None:
        """Send GOAWAY: with Apple's JSON if there is a ``reason``, or ``debug`` as it is.

        ``last`` is the last stream that was or will be served; by default every one so far. Later
        streams are ignored. The connection stays open until the client closes it.
        """
        data = debug.encode("utf-8") if debug is not None else b""
        if debug is None and reason is not None:
            content: dict[str, object] = {"reason": reason}
            if timestamp is not None:
                content["timestamp"] = timestamp
            data = msgspec.json.encode(content)
        served = self.http.last_stream_id if last is None else last
        if self._last_served is not None:
            served = min(served, self._last_served)
        self._last_served = served
        self.http.goaway(code, data, served)
        self._tell("goaway", data.decode("utf-8", "replace"))
        self._flush_soon()

    def silence(self) -> None:
        """Neither read nor write again, as if every packet were lost."""
        self.silent = True
        self._tell("silent")

    def abort(self) -> None:
        """Abort the connection without sending anything."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close once everything is written."""
        if self._transport is not None:
            self._transport.close()

    def flush(self) -> None:
        """Write all pending bytes now."""
        self._flush_planned = False
        data = self.http.data_to_send()
        if data and self._transport is not None and not self.silent:
            self._transport.write(data)

    def snapshot(self) -> ConnectionSnapshot:
        """Return a snapshot of this connection."""
        slow = self._slow
        state: Literal["open", "going away", "silent", "closed"] = "open"
        if self.closed_at is not None:
            state = "closed"
        elif self.silent:
            state = "silent"
        elif self._last_served is not None:
            state = "going away"
        return ConnectionSnapshot.of(
            self.identity,
            self.peer,
            self.opened_at,
            closed_at=self.closed_at,
            state=state,
            open_streams=self.http.open_streams if self.closed_at is None else 0,
            max_streams=self.max_streams,
            window=WINDOW if slow is None else WINDOW + slow.granted - slow.received,
            last_stream_id=self.http.last_stream_id,
        )

    # --- inside --------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._flush_planned:
            self._flush_planned = True
            asyncio.get_running_loop().call_soon(self.flush)

    def _watch_idleness(self, limit: float) -> None:
        clock = self._engine.clock
        idle = clock.monotonic() - self._heard_at
        if self._transport is None:
            return
        if idle >= limit - 1e-6 and not self.http.open_streams and not self.silent:
            self.go_away("IdleTimeout")
            self.flush()
            self.close()
            return
        wait = limit - idle if idle < limit else limit
        self._idle_timer = clock.call_later(wait, lambda: self._watch_idleness(limit))

    def _grant(self) -> None:
        if self._slow is None or self._transport is None or self.silent:
            return
        self._slow.grant(self.http)
        self.flush()
        self._engine.clock.call_later(_GRANT_INTERVAL, self._grant)

    def _tell(
        self, kind: Literal["opened", "closed", "streams", "goaway", "silent"], detail: str = ""
    ) -> None:
        self._engine.recorder.record(
            ConnectionChange(kind, self.identity.connection_id, self._engine.clock.time(), detail)
        )


# Frames for answers that no HTTP/2 library would send. They are legal HTTP/2, but unusual
# (RFC 9113, sections 4 and 6). Header fields are literals without indexing (RFC 7541, 6.2.2): they need
# no table.


def _header_block(response: Response) -> bytes:
    """Return a header block that uses and changes no table."""
    fields = [(b":status", str(response.status).encode("ascii")), *response.headers]
    return b"".join(b"\x00" + encode_string(name) + encode_string(value) for name, value in fields)


def _response_in_pieces(stream_id: int, response: Response) -> bytes:
    """Return a response with its headers in CONTINUATION frames and a padded body in pieces."""
    block, body = _header_block(response), response.body
    out = header_frames(stream_id, block, max(1, len(block) // 3), end_stream=not body)
    if body:
        step = max(1, -(-len(body) // _PIECES))
        for start in range(0, len(body), step):
            padding = 1 + start % 7
            payload = bytes((padding,)) + body[start : start + step] + bytes(padding)
            out.append(frame(FrameType.DATA, PADDED, stream_id, payload))
        out.append(frame(FrameType.DATA, END_STREAM, stream_id, b""))
    return b"".join(out)


def _half_a_response(stream_id: int, response: Response) -> bytes:
    """Return the headers and the first half of the body; the rest never comes."""
    half = response.body[: len(response.body) // 2] or b'{"reas'
    head = frame(FrameType.HEADERS, END_HEADERS, stream_id, _header_block(response))
    return head + frame(FrameType.DATA, 0, stream_id, half)
