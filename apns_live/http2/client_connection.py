"""The client side of an HTTP/2 connection, optimized for many small requests."""

import collections
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import pack
from typing import cast

from apns_live.errors import Http2ConnectionError, Http2Error, Http2StreamError
from apns_live.http2 import frames
from apns_live.http2.answer_forms import AnswerRun, AnswerRuns, form_of
from apns_live.http2.connection import MAX_HEADER_LIST, Connection
from apns_live.http2.events import AnswersReceived, Event, Headers, ResponseReceived
from apns_live.http2.field_rules import content_length, split_response
from apns_live.http2.frames import (
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    ErrorCode,
    FrameType,
    Setting,
)
from apns_live.http2.headers import (
    PATH,
    EncodedString,
    Prefix,
    PreparedHeaders,
    RequestEncoder,
    encode_integer,
)
from apns_live.http2.state import Ending, ReceiveWindow, Stream

_CONNECTION_WINDOW = 1_048_576
_RESET = 4 << 8 | FrameType.RST_STREAM
_WHOLE_RESPONSE = END_STREAM | END_HEADERS
_BODILESS = (204, 304)


@dataclass(slots=True)
class _Template:
    """The shared part of requests of equal sizes, which differ only in stream, path and id."""

    key: tuple[object, ...] = ()
    body: bytes = b""
    parts: tuple[str, ...] = ()
    """Nine texts, of which four are filled in for each request."""

    def prepare(
        self,
        headers: PreparedHeaders,
        prefix: Prefix,
        sizes: tuple[int, int],
        folder: str,
        body: bytes,
    ) -> None:
        """Become the template of requests whose path and id have these ``sizes``."""
        key = (headers, prefix.generation, sizes, folder)
        if self.key == key and self.body is body:
            return
        self.key, self.body = key, body
        path_size, id_size = (encode_integer(size, 7) for size in sizes)
        before_path = PATH + path_size
        before_id = prefix.shared + prefix.id_head + id_size
        block_length = len(before_path) + len(before_id) + sum(sizes)
        head = FRAME_HEADER.pack(block_length << 8 | 1, END_HEADERS, 0)[:5]
        data_head = FRAME_HEADER.pack(len(body) << 8, END_STREAM, 0)[:5]
        parts = (head, before_path + folder.encode("latin-1"), before_id, data_head, body)
        first, *rest = (part.decode("latin-1") for part in parts)
        self.parts = (first, *(text for part in rest for text in ("", part)))

    def filled(self, first: int, names: Sequence[str], request_ids: Sequence[str]) -> bytes:
        """Return the frames of requests from stream ``first`` on, joined as text and encoded once."""
        count = len(names)
        packed = pack(f">{count}L", *range(first, first + 2 * count, 2)).decode("latin-1")
        text = list(self.parts) * count
        text[1::9] = text[7::9] = [packed[at : at + 4] for at in range(0, 4 * count, 4)]
        text[3::9] = names
        text[5::9] = request_ids
        return "".join(text).encode("latin-1")


def _check_length(declared: int, length: int, status: int) -> None:
    if declared not in {-1, length} and not (length == 0 and status in _BODILESS):
        raise Http2StreamError(f"content-length is {declared}, the body has {length} bytes")


def _check_bodiless(status: int, headers: Headers) -> None:
    """Check a response that ends with its first HEADERS frame."""
    if status < 200:
        raise Http2StreamError(f"an interim response {status} that HTTP/2 does not allow")
    _check_length(content_length(headers), 0, status)


class ClientConnection(Connection):
    """A client connection without I/O: bytes in, events out; requests in, bytes out.

    ``authority`` goes into every request. ``max_response_body`` (bytes) bounds the body of one
    response: a longer one leads to a reset with CANCEL. ``initial_window`` and
    ``connection_window`` (bytes) are what the server may send before we grant more, per stream and
    in all. ``first_stream_id`` (odd) lets a test begin near the end of the stream ids. With
    ``batch_answers`` plain answers of a known form are reported as `AnswersReceived`.
    """

    def __init__(
        self,
        *,
        authority: bytes,
        max_response_body: int = 65_536,
        initial_window: int = frames.DEFAULT_WINDOW,
        connection_window: int = _CONNECTION_WINDOW,
        first_stream_id: int = 1,
        batch_answers: bool = False,
    ) -> None:
        self._requests = RequestEncoder(authority)
        super().__init__(client=True, encoder=self._requests, connection_window=connection_window)
        self._prefixes = self._requests.prefixes
        self._template = _Template()
        self._batch_answers = batch_answers
        self._runs = AnswerRuns()
        self._initial_window = initial_window
        self._max_response_body = max_response_body
        self.next_stream_id = first_stream_id
        """The stream id of the next request."""
        # Complete requests without an answer: stream id -> bytes sent minus WINDOW_UPDATE.
        self._waiting: dict[int, int] = {}
        self._streams = {}
        self._going_away = False
        self._limit = 0
        """The number of streams that may be open: 0 before SETTINGS and once no more may start."""
        self._quick_body = 0
        """The longest body that fits into one DATA frame and a new stream's window."""

    def start(self) -> None:
        """Queue the preface, SETTINGS and the WINDOW_UPDATE of the connection."""
        self._out.append(frames.CLIENT_PREFACE)
        self._decoder.wants_none = True
        self.change_settings(
            {
                # Whatever the server puts into its table, answers must not depend on it. A server
                # that does not confirm this is accepted too: then all its blocks are decoded.
                Setting.HEADER_TABLE_SIZE: 0,
                Setting.ENABLE_PUSH: 0,
                Setting.INITIAL_WINDOW_SIZE: self._initial_window,
                Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
            }
        )
        increment = self._receive_window.target - frames.DEFAULT_WINDOW
        if increment:
            self._out.append(frames.window_update_frame(0, increment))

    @property
    def available_streams(self) -> int:
        """How many requests may start now, as far as the number of streams goes."""
        free = 0 if self._closing else self._limit - len(self._waiting) - len(self._streams)
        return max(min(free, self.stream_ids_left), 0)

    @property
    def open_streams(self) -> int:
        """Requests that have begun and were neither answered nor reset."""
        return len(self._waiting) + len(self._streams)

    @property
    def max_concurrent_streams(self) -> int:
        """The server's MAX_CONCURRENT_STREAMS; 0 before its SETTINGS arrive."""
        return self._peers[Setting.MAX_CONCURRENT_STREAMS] if self.ready else 0

    @property
    def going_away(self) -> bool:
        """Whether the server sent GOAWAY, or we did."""
        return self._going_away or self._closing

    @property
    def stream_ids_left(self) -> int:
        """Requests that this connection can still send before its stream ids are used up."""
        return max((frames.MAXIMUM_STREAM_ID - self.next_stream_id) // 2 + 1, 0)

    def room_for(self, body_length: int) -> int:
        """Return how many whole requests with bodies of so many bytes can start now.

        The connection's window holds all of them, so that no stream stays half open while it waits
        for window. (A body above 65,535 bytes could never start so: one starts when a window of
        65,535 is free.) Bytes above a stream's own window are sent as the server grants more.
        """
        room = self.available_streams
        if body_length and room:
            needed = body_length if body_length < frames.DEFAULT_WINDOW else frames.DEFAULT_WINDOW
            room = min(room, max(self.connection_window, 0) // needed)
        return min(room, 1) if body_length > frames.DEFAULT_WINDOW else room

    def send_request(
        self, headers: PreparedHeaders, path: bytes, request_id: bytes, body: bytes
    ) -> int:
        """Queue one request and return its stream id; see `send_requests`."""
        paths, ids = [path.decode("latin-1")], [request_id.decode("latin-1")]
        return self.send_requests(headers, "", paths, ids, body)

    def send_requests(
        self,
        headers: PreparedHeaders,
        folder: str,
        names: Sequence[str],
        request_ids: Sequence[str],
        body: bytes,
    ) -> int:
        """Queue one request for each name and id; return the first stream id, the rest follow by 2.

        The path of each is ``folder`` and its name. Text is ASCII (each character one byte). Raises
        Http2Error if there is no room for all of them: call ``room_for`` before.
        """
        count = len(names)
        if count > self.room_for(len(body)):
            raise Http2Error(self._why_no_room(count), ErrorCode.REFUSED_STREAM)
        first = self.next_stream_id
        done = 0
        while done < count:
            prefix = self._prefixes.get(headers)
            if (
                prefix is None
                or prefix.generation != self._requests.generation
                or not 0 < len(body) <= self._quick_body
            ):
                path = (folder + names[done]).encode("latin-1")
                self._send_slowly(headers, path, request_ids[done].encode("latin-1"), body)
                done += 1
                continue
            alike = len({*map(len, names)}) == len({*map(len, request_ids)}) == 1
            end = count if alike else done + 1
            sizes = (len(folder) + len(names[done]), len(request_ids[done]))
            template = self._template
            template.prepare(headers, prefix, sizes, folder, body)
            stream_id = self.next_stream_id
            self.next_stream_id = behind = stream_id + 2 * (end - done)
            self._out.append(template.filled(stream_id, names[done:end], request_ids[done:end]))
            self._send_window -= len(body) * (end - done)
            self._waiting.update(dict.fromkeys(range(stream_id, behind, 2), len(body)))
            done = end
        if self.next_stream_id > frames.MAXIMUM_STREAM_ID:
            self._limit = 0
        return first

    def _send_slowly(
        self, headers: PreparedHeaders, path: bytes, request_id: bytes, body: bytes
    ) -> None:
        stream_id = self.next_stream_id
        self.next_stream_id = stream_id + 2
        block = self._requests.request_block(headers, path, request_id)
        self._out += frames.header_frames(
            stream_id, block, self._max_frame_size, end_stream=not body
        )
        if not body:
            self._waiting[stream_id] = 0
            return
        self._streams[stream_id] = Stream(ReceiveWindow(self._initial_window))
        self._queue.add(stream_id, memoryview(body))
        self._flush()

    def _why_no_room(self, count: int) -> str:
        if not self.ready:
            return "no request may start before the server's SETTINGS arrived"
        if self.going_away:
            return "no request may start on a connection that is going away"
        if self.stream_ids_left == 0:
            return "the stream ids of this connection are used up"
        if self.available_streams == 0:
            return f"all {self.max_concurrent_streams} streams that the server allows are open"
        if self.available_streams < count:
            return f"{self.available_streams} streams are free, not {count}"
        return "the connection's flow-control window has no room for the whole request"

    def request_has_left(self, stream_id: int) -> bool:
        """Tell whether no part of the request waits for the server's windows."""
        return stream_id not in self._queue

    def close(self, code: int = ErrorCode.NO_ERROR, debug: bytes = b"") -> None:
        """Queue GOAWAY: no new request may start, open ones may still be answered."""
        if not self._closing:
            self._closing = True
            self._out.append(frames.goaway_frame(0, code, debug))

    def _take_frames(self, data: bytes, events: list[Event]) -> int:
        """Handle all complete frames: a run of answers at once, and resets after answers directly."""
        at = 0
        end = len(data)
        unpack = FRAME_HEADER.unpack_from
        waiting = self._waiting
        answered = 0
        while end - at >= 9:
            word, flags, stream_id = unpack(data, at)
            start = at + 9
            behind = start + (word >> 8)
            if behind > end:
                self._check_unfinished(word)
                break
            if (
                flags == _WHOLE_RESPONSE
                and stream_id in waiting
                and word & 0xFF == 1
                and word <= 0x400001
                and self._unfinished is None
            ):
                run = self._runs.at(data, at)
                if run is None:
                    answered += self._take_answer(stream_id, data[start:behind], events)
                else:
                    count, behind = self._take_run(run, data, at, events)
                    answered += count
            elif (
                word == _RESET
                and stream_id & 1
                and stream_id < self.next_stream_id
                and stream_id not in waiting
                and stream_id not in self._streams
                and self._unfinished is None
            ):
                self._floods.spend("RST_STREAM")  # after an answer; nginx sends one each time
            else:
                self._take_frame(word, flags, stream_id & 0x7FFFFFFF, data[start:behind], events)
            at = behind
        if answered:
            self._floods.earn(answered)
        return at

    def _take_run(
        self, run: AnswerRun, data: bytes, at: int, events: list[Event]
    ) -> tuple[int, int]:
        """Report answers up to the first unexpected one; return their number and their end."""
        waiting = self._waiting
        before = len(waiting)
        with contextlib.suppress(KeyError):
            collections.deque(map(waiting.__delitem__, run.stream_ids), 0)
        count = before - len(waiting)
        if not events or type(events[-1]) is not AnswersReceived:
            events.append(AnswersReceived([], []))
        batch = cast("AnswersReceived", events[-1])
        batch.stream_ids += run.stream_ids[:count]
        batch.unique_ids += map(EncodedString, run.kept[:count])
        resets = count - run.resets[:count].count(b"")
        if resets:
            self._floods.spend("RST_STREAM", resets)
        if count == len(run.stream_ids):
            return count, run.end
        for _ in range(count + resets):
            at += 9 + (FRAME_HEADER.unpack_from(data, at)[0] >> 8)
        return count, at

    def _take_answer(self, stream_id: int, block: bytes, events: list[Event]) -> bool:
        """Process a response without a body, and store its form if others are likely to share it.

        Return whether it was well formed.
        """
        fields = self._decoder.decode(block)
        try:
            status, headers = split_response(fields, self._passed)
            if headers or status < 200:
                _check_bodiless(status, headers)
        except Http2StreamError as error:
            self._stream_error(stream_id, error, events)
            return False
        del self._waiting[stream_id]
        events.append(ResponseReceived(stream_id, status, headers, b""))
        if status == 200 and self._batch_answers:
            table_is_empty = self._decoder.table_is_empty
            self._runs.learn(form_of(block, fields, table_is_empty=table_is_empty), block)
        return True

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id & 1 == 0 or stream_id >= self.next_stream_id

    def _stream(self, stream_id: int) -> Stream | None:
        """Return the stream's full state, created now if only the request was stored so far."""
        stream = self._streams.get(stream_id)
        if stream is None:
            sent = self._waiting.pop(stream_id, None)
            if sent is not None:
                stream = self._streams[stream_id] = Stream(
                    ReceiveWindow(self._initial_window), sent
                )
        return stream

    def _headers_complete(
        self, stream_id: int, block: bytes, ends_stream: bool, events: list[Event]
    ) -> None:
        if self._is_idle(stream_id):
            raise Http2ConnectionError(f"HEADERS on stream {stream_id}, which we did not open")
        stream = self._stream(stream_id)
        if stream is None:
            self._ignore_headers(stream_id, block)
            return
        if stream.status:
            self._trailers(stream_id, stream, block, ends_stream, events)
            return
        fields = self._decoder.decode(block)
        status, headers = split_response(fields, self._passed)
        if status < 200 and not (status == 101 or ends_stream):
            self._floods.spend("interim HEADERS")
            return
        if status < 200 or ends_stream:
            _check_bodiless(status, headers)
        stream.declared = content_length(headers)
        stream.status = status
        stream.headers = headers
        if ends_stream:
            self._message_complete(stream_id, stream, events)

    def _take_content(
        self, stream_id: int, stream: Stream, content: bytes, size: int, events: list[Event]
    ) -> None:
        if not stream.status:
            raise Http2StreamError("DATA before the response's HEADERS")
        if stream.length > self._max_response_body:
            problem = f"a response of more than {self._max_response_body} bytes"
            raise Http2StreamError(problem, ErrorCode.CANCEL)
        if content:
            stream.add(content)

    def _message_complete(self, stream_id: int, stream: Stream, events: list[Event]) -> None:
        _check_length(stream.declared, stream.length, stream.status)
        if self._flush_needed:
            self._flush_needed = False  # a window update before this answer counts first
            self._flush()
        del self._streams[stream_id]
        if stream_id in self._queue:
            # Answered before the request was complete: stop sending it (RFC 9113, section 8.1).
            self._queue.discard(stream_id)
            self._closed.remember(stream_id, Ending.OURS)
            self._out.append(frames.reset_frame(stream_id, ErrorCode.CANCEL))
        response = ResponseReceived(stream_id, stream.status, stream.headers, stream.whole_body())
        events.append(response)
        self._floods.earn()

    def _forget_stream(self, stream_id: int) -> bool:
        was_waiting = self._waiting.pop(stream_id, None) is not None
        return was_waiting or super()._forget_stream(stream_id)

    def _stream_window_grew(self, stream_id: int, increment: int) -> None:
        sent = self._waiting.get(stream_id)
        if sent is None:
            super()._stream_window_grew(stream_id, increment)
            return
        self._waiting[stream_id] = sent = sent - increment
        self._floods.spend("WINDOW_UPDATE")
        self._check_send_window(sent)

    def _sent_on_streams(self) -> Iterable[int]:
        return (*self._waiting.values(), *super()._sent_on_streams())

    def _body_sent(self, stream_id: int) -> None:
        stream = self._streams[stream_id]
        if not stream.status and stream.window.available == stream.window.target:
            del self._streams[stream_id]
            self._waiting[stream_id] = stream.sent

    def _take_settings(self, flags: int, payload: bytes, events: list[Event]) -> None:
        super()._take_settings(flags, payload, events)
        values = self._peers
        self._quick_body = min(values[Setting.INITIAL_WINDOW_SIZE], values[Setting.MAX_FRAME_SIZE])
        if not self.going_away and self.stream_ids_left:
            self._limit = values[Setting.MAX_CONCURRENT_STREAMS]

    def _peer_goes_away(self, last_stream_id: int) -> list[int]:
        self._going_away = True
        self._limit = 0
        unprocessed = sorted(
            number for number in (*self._waiting, *self._streams) if number > last_stream_id
        )
        for stream_id in unprocessed:
            self._forget_stream(stream_id)
            self._closed.remember(stream_id, Ending.OURS)
        return unprocessed
