"""A server connection that reports a request before its body, and sends answers piece by piece.

`ServerConnection` speaks in whole requests and whole answers. A server that must refuse a request by
its header block, or that follows events, needs the pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

from apns_live.http2.constants import END_HEADERS
from apns_live.http2.events import DataReceived, Event, RequestStarted
from apns_live.http2.frames import data_header, window_update_frame
from apns_live.http2.server_connection import ServerConnection


class StreamingServerConnection(ServerConnection):
    """Reports `RequestStarted`, `DataReceived` and, at the end, `RequestReceived` without a body.

    The connection's window is refilled by itself, a stream's only by ``grant_window``.
    """

    def __init__(self, *, settings: dict[int, int], flood_budget: int) -> None:
        super().__init__(settings=settings, max_request_body=0, flood_budget=flood_budget)

    def _headers_complete(
        self, stream_id: int, block: bytes, ends_stream: bool, events: list[Event]
    ) -> None:
        is_new = stream_id > self.last_stream_id
        at = len(events)
        super()._headers_complete(stream_id, block, ends_stream, events)
        stream = self._streams.get(stream_id)
        if is_new and stream is not None:
            stream.window.target = 0  # nothing is refilled before somebody reads
            events.insert(at, RequestStarted(stream_id, stream.headers))

    def _data_received(
        self, stream_id: int, size: int, content: bytes, ends_stream: bool, events: list[Event]
    ) -> None:
        is_open = stream_id in self._streams
        at = len(events)
        super()._data_received(stream_id, size, content, ends_stream, events)
        if is_open:
            events.insert(at, DataReceived(stream_id, content, size))

    def grant_window(self, stream_id: int, increment: int) -> None:
        """Queue WINDOW_UPDATE for a stream on which more of the request is to come."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.ended and increment > 0:
            stream.window.grant(increment)
            self._out.append(window_update_frame(stream_id, increment))

    def start_response(
        self, stream_id: int, status: int, headers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """Queue the header block of an answer whose body follows by ``send_data``."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.responded:
            stream.responded = True
            self._send_headers(
                stream_id, self._responses.response_block(status, headers), END_HEADERS
            )

    def send_data(self, stream_id: int, data: bytes, *, end: bool) -> int:
        """Queue as much of a piece as the client's windows allow; return how many bytes that was.

        All of it counts as sent when the stream is gone. ``end`` ends the answer with the piece.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return len(data)
        at = 0
        while at < len(data) or (end and not data):
            room = min(self._send_window, self._stream_send_window(stream_id), self._max_frame_size)
            size = max(0, min(len(data) - at, room))
            if size == 0 and data:
                break
            last = end and at + size == len(data)
            self._out.append(data_header(stream_id, size, end_stream=last))
            self._out.append(data[at : at + size])
            self._data_sent(stream_id, size)
            at += size
            # The client answers each piece with WINDOW_UPDATE: those do not count as a flood.
            self._floods.earn()
            if last:
                self._body_sent(stream_id)
                break
        return at
