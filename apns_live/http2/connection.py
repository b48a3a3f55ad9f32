"""Common to both roles: parses frames, answers control frames, turns errors into GOAWAY."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from apns_live.errors import Http2ConnectionError, Http2StreamError
from apns_live.http2 import frames
from apns_live.http2.events import (
    Event,
    GoAwayReceived,
    PingAcknowledged,
    SettingsAcknowledged,
    SettingsReceived,
    StreamReset,
)
from apns_live.http2.field_rules import check_trailers
from apns_live.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    PADDED,
    ErrorCode,
    FrameType,
    Setting,
)
from apns_live.http2.headers import HeaderDecoder, HeaderEncoder
from apns_live.http2.state import (
    DEFAULT_SETTINGS,
    FLOOD_BUDGET,
    ClosedStreams,
    Ending,
    FloodGuard,
    OurSettings,
    ReceiveWindow,
    SendQueue,
    Stream,
    setting_error,
)

MAX_HEADER_LIST = 65_536
_CONTINUATION_LIMIT = 256
_LARGEST_BLOCK = 65_536


@dataclass(slots=True)
class _Unfinished:
    """A header block that waits for CONTINUATION."""

    stream_id: int
    block: bytearray
    ends_stream: bool
    frames: int = 0


class Connection(ABC):
    """One HTTP/2 connection without I/O. See ``ClientConnection`` and ``ServerConnection``."""

    _streams: dict[int, Stream]
    last_stream_id = 0
    """The highest stream id that the peer has opened."""

    def __init__(
        self,
        *,
        client: bool,
        encoder: HeaderEncoder,
        connection_window: int,
        flood_budget: int = FLOOD_BUDGET,
    ) -> None:
        self._out: list[bytes] = []
        self._rest = b""
        self._encoder = encoder
        self._decoder = HeaderDecoder(MAX_HEADER_LIST)
        self._passed: set[tuple[bytes, bytes]] = set()
        self._ours = OurSettings(client=client)
        self._peers = DEFAULT_SETTINGS.copy()
        self.ready = False
        """Whether the peer's first SETTINGS arrived."""
        self._error: Http2ConnectionError | None = None
        self._closing = False
        # Flow control: our grants, and the peer's grants minus the bytes that wait in the queue.
        self._receive_window = ReceiveWindow(max(connection_window, frames.DEFAULT_WINDOW))
        self._automatic_windows = True
        self._send_window = frames.DEFAULT_WINDOW
        self._queue = SendQueue()
        self._flush_needed = False
        self._closed = ClosedStreams()
        self._unfinished: _Unfinished | None = None
        self._floods = FloodGuard(flood_budget)

    def data_to_send(self) -> bytes:
        """Return, and remove, all bytes to be written."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        self._floods.written()
        return data

    def send_raw(self, data: bytes) -> None:
        """Queue bytes unchanged, for tests and fakes that break the rules on purpose."""
        self._out.append(data)

    def ping(self, data: bytes) -> None:
        """Queue a PING with eight bytes of data. Raises ValueError for another length."""
        if len(data) != 8:
            raise ValueError(f"PING carries 8 bytes, not {len(data)}")
        if self._error is None:
            self._out.append(frames.ping_frame(data))

    def change_settings(self, changes: Mapping[int, int]) -> None:
        """Queue SETTINGS. They bind the peer once it has acknowledged them.

        Raises InvalidSetting for values outside their limits.
        """
        self._ours.announce(changes)
        self._out.append(frames.settings_frame(changes))

    def reset_stream(self, stream_id: int, code: int = ErrorCode.CANCEL) -> None:
        """Reset an open stream; no effect on one that has ended. Its slot is free at once."""
        if self._forget_stream(stream_id):
            self._closed.remember(stream_id, Ending.OURS)
            self._out.append(frames.reset_frame(stream_id, code))
            self._floods.earn()  # an answer in transit must not count as a flood

    @property
    def closed(self) -> bool:
        """Whether the connection ended because of the peer's error."""
        return self._error is not None

    @property
    def _max_frame_size(self) -> int:
        return self._peers[Setting.MAX_FRAME_SIZE]

    @property
    def connection_window(self) -> int:
        """Bytes of DATA that we may send now, minus those that wait for their stream's window."""
        return self._send_window - self._queue.waiting_bytes

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Process bytes read from the peer and return the events, in order.

        Raises Http2ConnectionError when the peer broke a rule of the connection. A GOAWAY is then
        among the bytes to send, and ``events`` has the earlier events. Later calls raise it too.
        """
        if self._error is not None:
            raise Http2ConnectionError(str(self._error), self._error.code)
        whole = bytes(data) if type(data) is not bytes else data
        if self._rest:
            whole = self._rest + whole
        self._floods.heard()
        events: list[Event] = []
        try:
            used = self._take_frames(whole, events)
            if self._flush_needed:
                self._flush_needed = False
                self._flush()
        except Http2ConnectionError as error:
            self._fail(error, events)
        self._rest = whole[used:] if used < len(whole) else b""
        if self._automatic_windows:
            increment = self._receive_window.refill()
            if increment:
                self._out.append(frames.window_update_frame(0, increment))
        return events

    def _fail(self, error: Http2ConnectionError, events: list[Event]) -> NoReturn:
        error.events = tuple(events)
        self._error = error
        self._closing = True
        self._rest = b""
        debug = str(error).encode()[:200]
        self._out.append(frames.goaway_frame(self.last_stream_id, error.code, debug))
        raise error

    def _take_frames(self, data: bytes, events: list[Event]) -> int:
        """Handle all complete frames in ``data`` and return how many bytes were used."""
        at, end = 0, len(data)
        while end - at >= 9:
            word, flags, stream_id = FRAME_HEADER.unpack_from(data, at)
            behind = at + 9 + (word >> 8)
            if behind > end:
                self._check_unfinished(word)
                break
            self._take_frame(word, flags, stream_id & 0x7FFFFFFF, data[at + 9 : behind], events)
            at = behind
        return at

    def _check_unfinished(self, word: int) -> None:
        """Refuse an invalid frame before all of it has arrived, so that none is buffered."""
        if not self.ready and word & 0xFF != FrameType.SETTINGS:
            self._refuse_greeting(word)
        if word >> 8 > self._ours.largest(Setting.MAX_FRAME_SIZE):
            problem = f"a frame of {word >> 8} bytes is larger than we allow"
            raise Http2ConnectionError(problem, ErrorCode.FRAME_SIZE_ERROR)

    def _refuse_greeting(self, word: int) -> NoReturn:
        if word.to_bytes(4, "big") == b"HTTP":
            raise Http2ConnectionError("the peer speaks HTTP/1, not HTTP/2")
        raise Http2ConnectionError("the peer's first frame is not SETTINGS")

    def _take_frame(
        self, word: int, flags: int, stream_id: int, payload: bytes, events: list[Event]
    ) -> None:
        """Handle one frame of any kind; stream errors become RST_STREAM and an event."""
        frame_type = word & 0xFF
        if not self.ready and (frame_type != FrameType.SETTINGS or flags & ACK):
            self._refuse_greeting(word)
        if word >> 8 > frames.DEFAULT_FRAME_SIZE:
            self._check_unfinished(word)
        unfinished = self._unfinished
        if unfinished is not None and (
            frame_type != FrameType.CONTINUATION or stream_id != unfinished.stream_id
        ):
            raise Http2ConnectionError("another frame came inside a header block")
        frames.check_frame(frame_type, stream_id, len(payload))
        try:
            if frame_type == FrameType.HEADERS:
                self._take_headers(flags, stream_id, payload, events)
            elif frame_type == FrameType.DATA:
                self._take_data(flags, stream_id, payload, events)
            elif frame_type == FrameType.CONTINUATION:
                self._take_continuation(flags, stream_id, payload, events)
            elif frame_type == FrameType.WINDOW_UPDATE:
                self._take_window_update(stream_id, payload)
            elif frame_type == FrameType.RST_STREAM:
                self._take_reset(stream_id, payload, events)
            elif frame_type == FrameType.SETTINGS:
                self._take_settings(flags, payload, events)
            elif frame_type == FrameType.PING and flags & ACK:
                self._floods.spend("PING acknowledgement")
                events.append(PingAcknowledged(payload))
            elif frame_type == FrameType.PING:
                self._reply(frames.ping_frame(payload, ack=True), "PING")
            elif frame_type == FrameType.GOAWAY:
                self._take_goaway(payload, events)
            elif frame_type == FrameType.PUSH_PROMISE:
                raise Http2ConnectionError("PUSH_PROMISE is not allowed here")
            else:  # an unknown frame is ignored (RFC 9113, section 5.5), and so is PRIORITY
                self._floods.spend("PRIORITY" if frame_type == FrameType.PRIORITY else "unknown")
        except Http2StreamError as error:
            self._stream_error(stream_id, error, events)

    def _reply(self, data: bytes, what: str) -> None:
        """Queue a reply that the peer caused."""
        self._floods.reply(what)
        self._out.append(data)

    def _take_headers(
        self, flags: int, stream_id: int, payload: bytes, events: list[Event]
    ) -> None:
        padded = flags & (PADDED | frames.PRIORITY)
        block = frames.strip_padding(payload, flags, "HEADERS") if padded else payload
        ends_stream = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._headers_complete(stream_id, block, ends_stream, events)
            return
        self._unfinished = _Unfinished(stream_id, bytearray(block), ends_stream)

    def _take_continuation(
        self, flags: int, stream_id: int, payload: bytes, events: list[Event]
    ) -> None:
        unfinished = self._unfinished
        if unfinished is None:
            raise Http2ConnectionError("CONTINUATION without HEADERS")
        unfinished.block += payload
        unfinished.frames += 1
        if unfinished.frames > _CONTINUATION_LIMIT or len(unfinished.block) > _LARGEST_BLOCK:
            problem = "a header block is larger than we allow"
            raise Http2ConnectionError(problem, ErrorCode.ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            self._unfinished = None
            block = bytes(unfinished.block)
            self._headers_complete(stream_id, block, unfinished.ends_stream, events)

    def _ignore_headers(self, stream_id: int, block: bytes) -> None:
        """Update the decoder for a stream that has ended, then apply the rules of section 5.1."""
        self._decoder.decode(block)
        self._floods.spend("late HEADERS")
        self._late_frame(stream_id, "HEADERS")

    def _late_frame(self, stream_id: int, what: str) -> None:
        ending = self._closed.ending(stream_id)
        if ending is Ending.COMPLETE:
            problem = f"{what} on stream {stream_id}, which is closed"
            raise Http2ConnectionError(problem, ErrorCode.STREAM_CLOSED)
        if ending is Ending.PEERS:
            self._closed.remember(stream_id, Ending.OURS)
            self._reply(frames.reset_frame(stream_id, ErrorCode.STREAM_CLOSED), f"late {what}")

    def _take_data(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if self._is_idle(stream_id):
            raise Http2ConnectionError(f"DATA on stream {stream_id}, which is idle")
        size = len(payload)  # padding counts (RFC 9113, section 6.1)
        window = self._receive_window
        window.available -= size
        if window.available < 0:
            problem = "more DATA than the connection's window"
            raise Http2ConnectionError(problem, ErrorCode.FLOW_CONTROL_ERROR)
        content = frames.strip_padding(payload, flags, "DATA") if flags & PADDED else payload
        if not content and not flags & END_STREAM:
            self._floods.spend("empty DATA")
        self._data_received(stream_id, size, content, bool(flags & END_STREAM), events)

    def _data_received(
        self, stream_id: int, size: int, content: bytes, ends_stream: bool, events: list[Event]
    ) -> None:
        """Process the content of DATA; ``size`` is what it counts against the stream's window."""
        stream = self._stream(stream_id)
        if stream is None:
            self._floods.spend("late DATA")
            self._late_frame(stream_id, "DATA")
            return
        window = stream.window
        window.available -= size
        if window.available < 0:
            problem = "more DATA than the stream's window"
            raise Http2StreamError(problem, ErrorCode.FLOW_CONTROL_ERROR)
        stream.length += len(content)
        self._take_content(stream_id, stream, content, size, events)
        if ends_stream:
            self._message_complete(stream_id, stream, events)
        elif self._automatic_windows and (increment := window.refill()):
            self._out.append(frames.window_update_frame(stream_id, increment))

    def _trailers(
        self, stream_id: int, stream: Stream, block: bytes, ends: bool, events: list[Event]
    ) -> None:
        """Process a second header block, which must end the message."""
        check_trailers(self._decoder.decode(block), self._passed)
        if not ends:
            raise Http2StreamError("a second header block that does not end the stream")
        self._message_complete(stream_id, stream, events)

    def _take_window_update(self, stream_id: int, payload: bytes) -> None:
        increment = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if stream_id == 0:
            if increment == 0:
                raise Http2ConnectionError("WINDOW_UPDATE by 0 on the connection")
            self._send_window += increment
            if self._send_window > frames.MAXIMUM_WINDOW:
                problem = "the connection's window is above 2^31-1"
                raise Http2ConnectionError(problem, ErrorCode.FLOW_CONTROL_ERROR)
            if self._queue:
                self._flush_needed = True
            else:  # it unblocked nothing; each exchange has a few of them
                self._floods.spend("WINDOW_UPDATE")
            return
        if self._is_idle(stream_id):
            raise Http2ConnectionError(f"WINDOW_UPDATE on stream {stream_id}, which is idle")
        if increment == 0:
            if self._stream(stream_id) is not None:
                raise Http2StreamError("WINDOW_UPDATE by 0")
            return
        self._stream_window_grew(stream_id, increment)

    def _flush(self) -> None:
        """Send the waiting bodies as far as the windows allow, in turns of one frame."""
        queue = self._queue
        while queue.ready and self._send_window > 0:
            stream_id, body = queue.ready.popitem(last=False)
            size = self._send_piece(stream_id, body, end=True)
            queue.waiting_bytes -= size
            if size == len(body):
                self._body_sent(stream_id)
            else:
                (queue.ready if size else queue.stalled)[stream_id] = body[size:]

    def _send_piece(self, stream_id: int, data: memoryview, *, end: bool) -> int:
        """Queue a DATA frame as large as the windows allow, if any; return the bytes of data in it.

        With ``end``, the frame that has all of the data ends the stream.
        """
        stream = self._streams[stream_id]
        window = min(self._send_window, self._peers[Setting.INITIAL_WINDOW_SIZE] - stream.sent)
        size = max(0, min(len(data), window, self._max_frame_size))
        if size or not data:
            last = end and size == len(data)
            head = FRAME_HEADER.pack(size << 8, END_STREAM if last else 0, stream_id)
            self._out += (head, bytes(data[:size]))
            self._send_window -= size
            stream.sent += size
        return size

    def _sent_on_streams(self) -> Iterable[int]:
        """Return, for each open stream, the bytes sent minus those granted."""
        return (stream.sent for stream in self._streams.values())

    def _check_send_window(self, sent: int) -> None:
        if self._peers[Setting.INITIAL_WINDOW_SIZE] - sent > frames.MAXIMUM_WINDOW:
            problem = "the stream's window is above 2^31-1"
            raise Http2StreamError(problem, ErrorCode.FLOW_CONTROL_ERROR)

    def _take_reset(self, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if self._is_idle(stream_id):
            raise Http2ConnectionError(f"RST_STREAM on stream {stream_id}, which is idle")
        self._floods.spend("RST_STREAM")
        code = int.from_bytes(payload, "big")
        processed = code != ErrorCode.REFUSED_STREAM and stream_id not in self._queue
        if self._forget_stream(stream_id):
            self._closed.remember(stream_id, Ending.PEERS)
            events.append(StreamReset(stream_id, code, processed))

    def _take_settings(self, flags: int, payload: bytes, events: list[Event]) -> None:
        if flags & ACK:
            if payload:
                problem = "an acknowledgement of SETTINGS has a payload"
                raise Http2ConnectionError(problem, ErrorCode.FRAME_SIZE_ERROR)
            changes = self._ours.acknowledge()
            if changes is None:
                self._floods.spend("SETTINGS acknowledgement")
                return
            self._settings_in_force(changes)
            events.append(SettingsAcknowledged(changes))
            return
        if len(payload) % 6:
            problem = "the length of SETTINGS is not a multiple of 6"
            raise Http2ConnectionError(problem, ErrorCode.FRAME_SIZE_ERROR)
        before = self._peers[Setting.INITIAL_WINDOW_SIZE]
        changed: dict[int, int] = {}
        for identifier, value in frames.SETTING.iter_unpack(payload):
            error = setting_error(identifier, value, from_server=self._ours.client)
            if error is not None:
                raise error
            if identifier in self._peers:  # unknown settings are ignored
                changed[identifier] = self._peers[identifier] = value
            if identifier == Setting.HEADER_TABLE_SIZE:
                self._encoder.limit_table(value)
        initial = self._peers[Setting.INITIAL_WINDOW_SIZE]
        if initial > before:
            if initial - min(self._sent_on_streams(), default=0) > frames.MAXIMUM_WINDOW:
                problem = "SETTINGS_INITIAL_WINDOW_SIZE makes a stream's window larger than 2^31-1"
                raise Http2ConnectionError(problem, ErrorCode.FLOW_CONTROL_ERROR)
            self._queue.all_windows_grew()
            self._flush_needed = bool(self._queue)
        self.ready = True
        self._reply(frames.SETTINGS_ACK, "SETTINGS")
        events.append(SettingsReceived(changed))

    def _take_goaway(self, payload: bytes, events: list[Event]) -> None:
        if len(payload) < 8:
            raise Http2ConnectionError("GOAWAY is shorter than 8 bytes", ErrorCode.FRAME_SIZE_ERROR)
        self._floods.spend("GOAWAY")
        last_stream_id, code = frames.TWO_WORDS.unpack_from(payload)
        last_stream_id &= 0x7FFFFFFF
        unprocessed = self._peer_goes_away(last_stream_id)
        events.append(GoAwayReceived(last_stream_id, code, payload[8:], unprocessed))

    def _stream_error(self, stream_id: int, error: Http2StreamError, events: list[Event]) -> None:
        """Reset a stream on which the peer broke a rule (RFC 9113, section 5.4.2).

        A stream that was refused before it was opened is reset too, without an event.
        """
        known = self._forget_stream(stream_id)
        self._closed.remember(stream_id, Ending.OURS)
        self._reply(frames.reset_frame(stream_id, error.code), "malformed")
        if known:
            events.append(
                StreamReset(stream_id, error.code, processed=True, local=True, message=str(error))
            )

    @abstractmethod
    def _is_idle(self, stream_id: int) -> bool:
        """Tell whether neither side has opened this stream yet."""

    @abstractmethod
    def _headers_complete(
        self, stream_id: int, block: bytes, ends_stream: bool, events: list[Event]
    ) -> None:
        """Process a complete header block."""

    def _stream(self, stream_id: int) -> Stream | None:
        """Return the state of an open stream."""
        return self._streams.get(stream_id)

    @abstractmethod
    def _take_content(
        self, stream_id: int, stream: Stream, content: bytes, size: int, events: list[Event]
    ) -> None:
        """Store the content of DATA, which is already counted."""

    @abstractmethod
    def _message_complete(self, stream_id: int, stream: Stream, events: list[Event]) -> None:
        """Report a message that the peer has ended."""

    @abstractmethod
    def _body_sent(self, stream_id: int) -> None:
        """Note that a waiting body is finished."""

    def _forget_stream(self, stream_id: int) -> bool:
        """Drop all state of a stream; tell whether there was any."""
        self._queue.discard(stream_id)
        return self._streams.pop(stream_id, None) is not None

    def _stream_window_grew(self, stream_id: int, increment: int) -> None:
        """Add to a stream's send window; ended streams are ignored."""
        stream = self._streams.get(stream_id)
        if stream is None:
            self._floods.spend("WINDOW_UPDATE")
            return
        stream.sent -= increment
        if stream_id in self._queue:
            self._queue.window_grew(stream_id)
            self._flush_needed = True
        else:
            self._floods.spend("WINDOW_UPDATE")
        self._check_send_window(stream.sent)

    def _settings_in_force(self, changes: Mapping[int, int]) -> None:  # noqa: B027 - a client has none
        """Apply our acknowledged settings, if new streams do not use them from the start."""

    def _peer_goes_away(self, last_stream_id: int) -> list[int]:
        """Forget our streams above ``last_stream_id`` and return them."""
        del last_stream_id
        return []
