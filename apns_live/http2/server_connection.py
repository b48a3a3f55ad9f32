"""The server side of an HTTP/2 connection, for fakes and tests: complete requests and answers."""

from collections.abc import Iterable, Mapping, Sequence

from apns_live.errors import Http2ConnectionError, Http2StreamError
from apns_live.http2 import frames
from apns_live.http2.connection import MAX_HEADER_LIST, Connection
from apns_live.http2.events import DataReceived, Event, RequestReceived, RequestStarted
from apns_live.http2.field_rules import check_request, list_size
from apns_live.http2.frames import ErrorCode, Setting
from apns_live.http2.headers import ResponseEncoder
from apns_live.http2.state import FLOOD_BUDGET, Ending, ReceiveWindow, Stream

_TOLERATED_BEFORE_SETTINGS = 100


class ServerConnection(Connection):
    """A server connection without I/O: bytes in, requests out; responses in, bytes out.

    ``settings`` go into the first SETTINGS. ``max_request_body`` (bytes) limits the stored part of
    one body: the rest is counted and dropped, and the request is marked ``truncated``. With
    ``automatic_windows=False`` only ``grant_window`` grants window to the client.
    ``connection_window`` (bytes) is what a client may send in all before a new grant.

    ``in_pieces`` is for a server that must refuse a request by its header block, or that follows
    events: it reports `RequestStarted`, `DataReceived` and, at the end, `RequestReceived` without a
    body. A stream's window is then refilled only by ``grant_window``.
    """

    def __init__(
        self,
        *,
        settings: Mapping[int, int] | None = None,
        max_request_body: int = 65_536,
        in_pieces: bool = False,
        automatic_windows: bool = True,
        connection_window: int = frames.DEFAULT_WINDOW,
        flood_budget: int = FLOOD_BUDGET,
    ) -> None:
        self._responses = ResponseEncoder()
        super().__init__(
            client=False,
            encoder=self._responses,
            connection_window=connection_window,
            flood_budget=flood_budget,
        )
        self._automatic_windows = automatic_windows
        self._first_settings = dict(settings or {})
        self._max_request_body = 0 if in_pieces else max_request_body
        self._in_pieces = in_pieces
        self._preface_left = frames.CLIENT_PREFACE
        self._streams = {}
        self._goaway_last_id = -1
        self._acknowledged = False
        self._initial_window = frames.DEFAULT_WINDOW
        self._list_limit = MAX_HEADER_LIST

    def start(self) -> None:
        """Queue the first SETTINGS, and a WINDOW_UPDATE if the connection's window is larger."""
        self.change_settings(self._first_settings)
        self._list_limit = self._ours.latest(Setting.MAX_HEADER_LIST_SIZE)
        increment = self._receive_window.target - frames.DEFAULT_WINDOW
        if increment:
            self._out.append(frames.window_update_frame(0, increment))

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Process bytes read from the client; see ``Connection.receive``."""
        if self._preface_left and self._error is None:
            wanted = self._preface_left
            head = bytes(data[: len(wanted)])
            if not wanted.startswith(head):
                events: list[Event] = []
                self._fail(Http2ConnectionError("the client's preface is not HTTP/2's"), events)
            self._preface_left = wanted[len(head) :]
            data = data[len(head) :]
        return super().receive(data)

    @property
    def open_streams(self) -> int:
        """Streams on which the request or the response is not complete."""
        return len(self._streams)

    def open_requests(self) -> list[int]:
        """Return the streams whose request is not complete."""
        return [number for number, stream in self._streams.items() if not stream.ended]

    def goaway(
        self, code: int = ErrorCode.NO_ERROR, debug: bytes = b"", last_stream_id: int | None = None
    ) -> None:
        """Queue GOAWAY. Streams above ``last_stream_id`` are dropped, later ones ignored.

        Without ``last_stream_id`` every stream so far is still served.
        """
        last = self.last_stream_id if last_stream_id is None else last_stream_id
        self._goaway_last_id = last if self._goaway_last_id < 0 else min(last, self._goaway_last_id)
        self._out.append(frames.goaway_frame(last, code, debug))
        for stream_id in [number for number in self._streams if number > last]:
            self._forget_stream(stream_id)
            self._closed.remember(stream_id, Ending.OURS)

    def grant_window(self, stream_id: int, increment: int) -> None:
        """Queue WINDOW_UPDATE for a stream, or with 0 for the connection."""
        if increment == 0:
            return
        if stream_id == 0:
            window = self._receive_window
        elif (stream := self._streams.get(stream_id)) and not (self._in_pieces and stream.ended):
            window = stream.window
        else:
            return
        window.available += increment
        self._out.append(frames.window_update_frame(stream_id, increment))

    def send_response(
        self,
        stream_id: int,
        status: int,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
    ) -> None:
        """Queue a complete response; bytes that the client's windows do not allow follow later.

        Ignored if the stream has ended or was answered.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.responded:
            return
        stream.responded = True
        self._send_headers(stream_id, status, headers, end_stream=not body)
        if body:
            self._queue.add(stream_id, memoryview(body))
            self._flush()
        else:
            self._body_sent(stream_id)

    def start_response(
        self, stream_id: int, status: int, headers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """Queue the header block of an answer; ``send_data`` sends its body."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.responded:
            stream.responded = True
            self._send_headers(stream_id, status, headers, end_stream=False)

    def send_data(self, stream_id: int, data: bytes, *, end: bool) -> int:
        """Queue as much of a piece as the client's windows allow; return the number of bytes.

        All of it counts as sent if the stream has ended. ``end`` ends the answer with the piece.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return len(data)
        at, whole = 0, memoryview(data)
        while at < len(data) or (end and not data):
            size = self._send_piece(stream_id, whole[at:], end=end)
            if size == 0 and data:
                break
            at += size
            # The client answers each piece with WINDOW_UPDATE, which must not count as a flood.
            self._floods.earn()
            if end and at == len(data):
                self._body_sent(stream_id)
                break
        return at

    def _send_headers(
        self, stream_id: int, status: int, headers: Iterable[tuple[bytes, bytes]], end_stream: bool
    ) -> None:
        block = self._responses.response_block(status, headers)
        self._out += frames.header_frames(
            stream_id, block, self._max_frame_size, end_stream=end_stream
        )

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id & 1 == 0 or stream_id > self.last_stream_id

    def _headers_complete(
        self, stream_id: int, block: bytes, ends_stream: bool, events: list[Event]
    ) -> None:
        if stream_id & 1 == 0:
            raise Http2ConnectionError(f"HEADERS on stream {stream_id}: a client's streams are odd")
        stream = self._streams.get(stream_id)
        if stream is not None:
            if stream.ended:
                self._decoder.decode(block)
                problem = "HEADERS after the end of the request"
                raise Http2StreamError(problem, ErrorCode.STREAM_CLOSED)
            self._trailers(stream_id, stream, block, ends_stream, events)
            return
        if stream_id <= self.last_stream_id:
            self._ignore_headers(stream_id, block)
            return
        self.last_stream_id = stream_id
        fields = self._decoder.decode(block)
        if self._closing or 0 <= self._goaway_last_id < stream_id:
            self._floods.spend("HEADERS after GOAWAY")
            self._closed.remember(stream_id, Ending.OURS)
            return
        if self._acknowledged:
            limit = self._ours.largest(Setting.MAX_CONCURRENT_STREAMS)
        else:
            # The client may not have seen them yet. RFC 9113, 6.5.2 recommends at least 100.
            announced = self._ours.latest(Setting.MAX_CONCURRENT_STREAMS)
            limit = max(announced, _TOLERATED_BEFORE_SETTINGS)
        if len(self._streams) >= limit:
            self._closed.remember(stream_id, Ending.OURS)
            self._reply(frames.reset_frame(stream_id, ErrorCode.REFUSED_STREAM), "refused HEADERS")
            return
        declared = check_request(fields, self._passed)
        if ends_stream and declared > 0:
            raise Http2StreamError("a request without its body")
        if self._list_limit < MAX_HEADER_LIST and list_size(fields) > self._list_limit:
            problem = "the header list is larger than we allow"
            raise Http2StreamError(problem, ErrorCode.ENHANCE_YOUR_CALM)
        stream = self._streams[stream_id] = Stream(
            ReceiveWindow(self._initial_window), headers=fields, declared=declared
        )
        if self._in_pieces:
            stream.window.target = 0  # nothing is refilled before the application reads
            events.append(RequestStarted(stream_id, fields))
        if ends_stream:
            self._message_complete(stream_id, stream, events)

    def _take_content(
        self, stream_id: int, stream: Stream, content: bytes, size: int, events: list[Event]
    ) -> None:
        if stream.ended:
            problem = "DATA after the end of the request"
            raise Http2StreamError(problem, ErrorCode.STREAM_CLOSED)
        if content and stream.length - len(content) < self._max_request_body:
            stream.add(content)
        if self._in_pieces:
            events.append(DataReceived(stream_id, content, size))

    def _message_complete(self, stream_id: int, stream: Stream, events: list[Event]) -> None:
        if stream.declared not in {-1, stream.length}:
            problem = f"content-length is {stream.declared}, the body has {stream.length} bytes"
            raise Http2StreamError(problem)
        stream.ended = True
        body = stream.whole_body()
        stream.body = []
        truncated = stream.length > self._max_request_body
        if truncated:
            body = body[: self._max_request_body]
        events.append(RequestReceived(stream_id, stream.headers, body, truncated))
        if stream.responded and stream_id not in self._queue:
            del self._streams[stream_id]

    def _body_sent(self, stream_id: int) -> None:
        self._floods.earn()
        if self._streams[stream_id].ended:
            del self._streams[stream_id]

    def _settings_in_force(self, changes: Mapping[int, int]) -> None:
        if Setting.HEADER_TABLE_SIZE in changes:
            self._decoder.allow_table_size(changes[Setting.HEADER_TABLE_SIZE])
        self._acknowledged = True
        if Setting.MAX_HEADER_LIST_SIZE in changes:
            self._list_limit = changes[Setting.MAX_HEADER_LIST_SIZE]
        if Setting.INITIAL_WINDOW_SIZE in changes:
            window = changes[Setting.INITIAL_WINDOW_SIZE]
            difference = window - self._initial_window
            self._initial_window = window
            for stream in self._streams.values():
                stream.window.available += difference
                stream.window.target += difference
