"""The state that a connection keeps: settings, windows, streams, and bounds on what a peer may do.

Sources: RFC 9113, sections 5.1 (streams), 5.2 (flow control), 6.5 (settings) and 10.5 (floods).
"""

import enum
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from apns_live.errors import Http2ConnectionError, InvalidSetting
from apns_live.http2.events import Headers
from apns_live.http2.frames import (
    DEFAULT_FRAME_SIZE,
    DEFAULT_HEADER_TABLE_SIZE,
    DEFAULT_WINDOW,
    MAXIMUM_FRAME_SIZE,
    MAXIMUM_WINDOW,
    UNLIMITED_STREAMS,
    ErrorCode,
    Setting,
)
from apns_live.refusals import refused

DEFAULT_SETTINGS: dict[int, int] = {
    Setting.HEADER_TABLE_SIZE: DEFAULT_HEADER_TABLE_SIZE,
    Setting.ENABLE_PUSH: 1,
    Setting.MAX_CONCURRENT_STREAMS: UNLIMITED_STREAMS,
    Setting.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW,
    Setting.MAX_FRAME_SIZE: DEFAULT_FRAME_SIZE,
    Setting.MAX_HEADER_LIST_SIZE: 2**32 - 1,
}
_MAXIMUM_UNACKNOWLEDGED = 1000
FLOOD_BUDGET = 10_000
"""Useless frames that a peer may send beyond the useful ones."""
_PER_EXCHANGE = 4
_REMEMBERED = 10_000
_LIMITS = {
    Setting.ENABLE_PUSH: (0, 1, ErrorCode.PROTOCOL_ERROR),
    Setting.INITIAL_WINDOW_SIZE: (0, MAXIMUM_WINDOW, ErrorCode.FLOW_CONTROL_ERROR),
    Setting.MAX_FRAME_SIZE: (DEFAULT_FRAME_SIZE, MAXIMUM_FRAME_SIZE, ErrorCode.PROTOCOL_ERROR),
    Setting.NO_RFC7540_PRIORITIES: (0, 1, ErrorCode.PROTOCOL_ERROR),
}
_PIECES = 64


def setting_error(identifier: int, value: int, *, from_server: bool) -> Http2ConnectionError | None:
    """Return the connection error for a setting outside its limits (RFC 9113, 6.5.2)."""
    low, high, code = _LIMITS.get(identifier, (value, value, 0))  # type: ignore[call-overload]
    if identifier == Setting.ENABLE_PUSH and from_server:
        high = 0
    if low <= value <= high:
        return None
    name = Setting(identifier).name
    return Http2ConnectionError(f"SETTINGS_{name} {value} is not {low} to {high}", code)


class OurSettings:
    """Our announced settings: in force once acknowledged (RFC 9113, section 6.5.3)."""

    def __init__(self, *, client: bool) -> None:
        self.client = client
        self.values = DEFAULT_SETTINGS.copy()
        """In force: acknowledged by the peer."""
        self._waiting: deque[dict[int, int]] = deque()

    def announce(self, changes: Mapping[int, int]) -> None:
        """Note the settings that a SETTINGS frame is about to announce. Raises InvalidSetting."""
        if len(self._waiting) >= _MAXIMUM_UNACKNOWLEDGED:
            raise InvalidSetting("the peer has not acknowledged 1000 SETTINGS", field="settings")
        for identifier, value in changes.items():
            error = setting_error(identifier, value, from_server=not self.client)
            if error is not None or not 0 <= value < 2**32:
                raise InvalidSetting(
                    str(error or f"{value} does not fit 32 bits"), field=f"settings[{identifier}]"
                )
            if identifier == Setting.HEADER_TABLE_SIZE and value > DEFAULT_HEADER_TABLE_SIZE:
                raise refused(InvalidSetting, "header_table", "settings[HEADER_TABLE_SIZE]")
        self._waiting.append(dict(changes))

    def acknowledge(self) -> dict[int, int] | None:
        """Put the oldest waiting changes in force and return them; None if nothing waits."""
        if not self._waiting:
            return None
        changes = self._waiting.popleft()
        self.values.update(changes)
        return changes

    def largest(self, identifier: int) -> int:
        """Return the most generous value that the peer may still be using."""
        return max(self._values(identifier))

    def latest(self, identifier: int) -> int:
        """Return the last announced value, acknowledged or not."""
        return self._values(identifier)[-1]

    def _values(self, identifier: int) -> list[int]:
        waiting = [changes[identifier] for changes in self._waiting if identifier in changes]
        return [self.values[identifier], *waiting]


class ReceiveWindow:
    """How much the peer may send. Refilled when an eighth of it is used.

    A grant takes half a round trip. If it is late, a distant sender cannot use most of the window.
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

    Streams take turns of one frame, so a large body delays no small one. Each has at most one body.
    """

    def __init__(self) -> None:
        self.ready: OrderedDict[int, memoryview] = OrderedDict()
        """Bodies whose turn comes as soon as the connection's window has room."""
        self.stalled: dict[int, memoryview] = {}
        """Bodies whose stream's window is used up: they are skipped until it grows."""
        self.waiting_bytes = 0
        """Bytes of all waiting bodies."""

    def __len__(self) -> int:
        return len(self.ready) + len(self.stalled)

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self.ready or stream_id in self.stalled

    def add(self, stream_id: int, body: memoryview) -> None:
        """Queue a body, which must not be empty."""
        self.ready[stream_id] = body
        self.waiting_bytes += len(body)

    def discard(self, stream_id: int) -> None:
        """Drop the waiting body of a stream that has ended."""
        body = self.ready.pop(stream_id, None) or self.stalled.pop(stream_id, None)
        if body is not None:
            self.waiting_bytes -= len(body)

    def window_grew(self, stream_id: int) -> None:
        """Include a stream again whose window was used up."""
        if stream_id in self.stalled:
            self.ready[stream_id] = self.stalled.pop(stream_id)

    def all_windows_grew(self) -> None:
        """Include every stream again."""
        self.ready.update(self.stalled)
        self.stalled.clear()


class FloodGuard:
    """The account of one connection: it has ``budget`` frames at the start, and never more."""

    def __init__(self, budget: int) -> None:
        self._full = self._left = budget
        self._undrained = 0
        """Replies that the peer caused and that were not yet written."""

    def spend(self, what: str, amount: int = 1) -> None:
        """Count useless frames. Raises Http2ConnectionError if there were too many."""
        self._left -= amount
        if self._left < 0:
            raise _calm(f"too many {what} frames")

    def reply(self, what: str) -> None:
        """Count a frame that requires a reply; limited even if the replies are never written."""
        self.spend(what)
        self._undrained += 1
        if self._undrained > self._full:
            raise _calm(f"too many {what} frames and none of the answers was read")

    def written(self) -> None:
        """Note that all queued replies were written."""
        self._undrained = 0

    def heard(self) -> None:
        """Note received bytes."""
        if self._left < self._full:
            self._left += 1

    def earn(self, exchanges: int = 1) -> None:
        """Count complete requests with their answers."""
        self._left = min(self._left + exchanges * _PER_EXCHANGE, self._full)


def _calm(message: str) -> Http2ConnectionError:
    return Http2ConnectionError(message, ErrorCode.ENHANCE_YOUR_CALM)


class Ending(enum.Enum):
    """How a closed stream ended, as far as it matters for later frames."""

    COMPLETE = "complete"
    """Both sides ended it: another HEADERS or DATA is an error of the connection."""
    OURS = "reset by us, or not taken"
    """The peer may not know yet: all frames are ignored."""
    PEERS = "reset by the peer"
    """The peer knows: a further frame is a stream error, answered once."""


class ClosedStreams:
    """Remembers the last 10,000 streams that were reset.

    Streams that ended normally are not remembered: a closed stream that is missing here was
    complete, unless it is older than the oldest forgotten reset.
    """

    def __init__(self) -> None:
        self._endings: dict[int, Ending] = {}
        self._forgotten_up_to = 0

    def __len__(self) -> int:
        return len(self._endings)

    def remember(self, stream_id: int, ending: Ending) -> None:
        """Note a reset."""
        self._endings[stream_id] = ending
        if len(self._endings) > _REMEMBERED:
            oldest = next(iter(self._endings))
            del self._endings[oldest]
            self._forgotten_up_to = max(self._forgotten_up_to, oldest)

    def ending(self, stream_id: int) -> Ending:
        """Return how a closed stream ended; if in doubt, that we reset it."""
        known = self._endings.get(stream_id)
        if known is not None:
            return known
        return Ending.OURS if stream_id <= self._forgotten_up_to else Ending.COMPLETE
