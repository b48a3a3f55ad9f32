"""Flow control (RFC 9113, section 5.2): our windows, and bodies that wait for the peer's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from apns_live.http2.events import Headers
from apns_live.http2.frames import data_header

_PIECES = 64


class ReceiveWindow:
    """How much the peer may send. Refilled when an eighth of it is used.

    A grant takes half a round trip to arrive. If granted late, a distant sender cannot use most of
    the window.
    """

    __slots__ = ("available", "target")

    def __init__(self, size: int) -> None:
        self.target = size
        """Bytes that the window has after a refill."""
        self.available = size
        """Bytes that the peer may send now; below 0 the peer has broken the rules."""

    def refill(self) -> int:
        """Return the increment to grant now, or 0 while more than seven eighths are left."""
        if self.available * 8 > self.target * 7:
            return 0
        increment = self.target - self.available
        self.available = self.target
        return increment


@dataclass(slots=True)
class Stream:
    """The state of a stream: its windows, and the incoming message."""

    window: ReceiveWindow
    sent: int = 0
    """Bytes of DATA sent minus the WINDOW_UPDATE received."""
    headers: Headers = field(default_factory=list)
    declared: int = -1
    """The content-length, -1 when there is none."""
    body: list[bytes] = field(default_factory=list)
    length: int = 0
    status: int = 0
    """A client's stream: the response's status, 0 before its HEADERS."""
    ended: bool = False
    """A server's stream: the client has ended it, and the request was reported."""
    responded: bool = False
    """A server's stream: the response has begun."""

    def add(self, content: bytes) -> None:
        """Add the content of one DATA frame to the body, with little overhead for tiny frames."""
        self.body.append(content)
        if len(self.body) >= _PIECES:
            self.body[:] = (b"".join(self.body),)

    def whole_body(self) -> bytes:
        """Return all added content."""
        return self.body[0] if len(self.body) == 1 else b"".join(self.body)


class SendQueue:
    """Bodies, or the rest of bodies, that did not fit the windows when their stream began.

    Streams take turns of one frame, so that a large body does not delay small ones. Each stream has
    at most one waiting body.
    """

    def __init__(self) -> None:
        self._ready: OrderedDict[int, memoryview] = OrderedDict()
        self._stalled: dict[int, memoryview] = {}
        """Bodies whose stream's window is used up: they are skipped until it grows."""
        self.waiting_bytes = 0
        """Bytes of all waiting bodies."""

    def __len__(self) -> int:
        return len(self._ready) + len(self._stalled)

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._ready or stream_id in self._stalled

    def add(self, stream_id: int, body: memoryview) -> None:
        """Queue a body, which must not be empty."""
        self._ready[stream_id] = body
        self.waiting_bytes += len(body)

    def discard(self, stream_id: int) -> None:
        """Drop the waiting body of a stream that has ended."""
        body = self._ready.pop(stream_id, None) or self._stalled.pop(stream_id, None)
        if body is not None:
            self.waiting_bytes -= len(body)

    def window_grew(self, stream_id: int) -> None:
        """Include a stream again whose window was used up."""
        if stream_id in self._stalled:
            self._ready[stream_id] = self._stalled.pop(stream_id)

    def all_windows_grew(self) -> None:
        """Include every stream again."""
        self._ready.update(self._stalled)
        self._stalled.clear()

    def flush(
        self,
        connection_window: int,
        max_frame_size: int,
        stream_window: Callable[[int], int],
        sent: Callable[[int, int], None],
        out: list[bytes],
    ) -> list[int]:
        """Append to ``out`` the bytes that the windows allow, and return the finished streams.

        ``stream_window`` returns a stream's send window, ``sent`` is called with the bytes sent on
        it.
        """
        finished: list[int] = []
        while self._ready and connection_window > 0:
            stream_id, body = self._ready.popitem(last=False)
            size = min(len(body), max_frame_size, connection_window, stream_window(stream_id))
            if size <= 0:
                self._stalled[stream_id] = body
                continue
            last = size == len(body)
            out += (data_header(stream_id, size, end_stream=last), bytes(body[:size]))
            connection_window -= size
            self.waiting_bytes -= size
            sent(stream_id, size)
            if last:
                finished.append(stream_id)
            else:
                self._ready[stream_id] = body[size:]
        return finished
