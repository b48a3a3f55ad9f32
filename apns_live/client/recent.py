"""The message that was encoded last: a thousand `send` of one object encode it once."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..payload import Message
from ..pool import Sendable


class RecentMessage:
    """Keeps one encoded message for as long as it would be encoded alike.

    That is within one second of the clock, which stamps it, and while the object says the same:
    its mappings are the caller's and may have changed, so its plain JSON is compared.
    """

    def __init__(self, encode: Callable[[Message, float], Sendable]) -> None:
        self._encode = encode
        self._message: object = None
        self._second = 0
        self._print: bytes | None = None
        self._sendable: Sendable | None = None

    def sendable(self, message: Message, now: float) -> Sendable:
        """Return the message encoded, anew or not. ``now`` is seconds since 1970."""
        seen_before = message is self._message
        if seen_before and self._print is not None and int(now) == self._second:
            kept = self._sendable
            if kept is not None and self._print == _print(message):
                return kept
        sendable = self._encode(message, now)
        # Who sends each message once pays nothing for this.
        self._print = _print(message) if seen_before else None
        self._message, self._second, self._sendable = message, int(now), sendable
        return sendable


def _print(message: Message) -> bytes | None:
    """Return what tells apart all that a message can say; None for what only `encode` understands."""
    try:
        return msgspec.json.encode(message)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return None
