"""SETTINGS of both sides: limits, values in force, values not acknowledged yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from apns_live.errors import Http2ConnectionError, InvalidSetting
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
_LIMITS = {
    Setting.ENABLE_PUSH: (0, 1, ErrorCode.PROTOCOL_ERROR),
    Setting.INITIAL_WINDOW_SIZE: (0, MAXIMUM_WINDOW, ErrorCode.FLOW_CONTROL_ERROR),
    Setting.MAX_FRAME_SIZE: (DEFAULT_FRAME_SIZE, MAXIMUM_FRAME_SIZE, ErrorCode.PROTOCOL_ERROR),
    Setting.NO_RFC7540_PRIORITIES: (0, 1, ErrorCode.PROTOCOL_ERROR),
}


def setting_error(identifier: int, value: int, *, from_server: bool) -> Http2ConnectionError | None:
    """Return the connection error for a setting outside its limits (RFC 9113, 6.5.2)."""
    low, high, code = _LIMITS.get(identifier, (0, value, 0))  # type: ignore[call-overload]
    if identifier == Setting.ENABLE_PUSH and from_server:
        high = 0
    if low <= value <= high:
        return None
    name = Setting(identifier).name
    return Http2ConnectionError(f"SETTINGS_{name} {value} is not {low} to {high}", code)


class OurSettings:
    """What we told the peer: in force once acknowledged (RFC 9113, section 6.5.3)."""

    def __init__(self, *, client: bool) -> None:
        self.client = client
        self.values = DEFAULT_SETTINGS.copy()
        """In force: acknowledged by the peer."""
        self._waiting: deque[dict[int, int]] = deque()

    def announce(self, changes: Mapping[int, int]) -> None:
        """Note what a SETTINGS frame is about to tell the peer. Raises InvalidSetting."""
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
        """Return the most generous value that the peer may still be acting on."""
        return max(self._values(identifier))

    def latest(self, identifier: int) -> int:
        """Return the value announced last, acknowledged or not."""
        return self._values(identifier)[-1]

    def _values(self, identifier: int) -> list[int]:
        waiting = [changes[identifier] for changes in self._waiting if identifier in changes]
        return [self.values[identifier], *waiting]
