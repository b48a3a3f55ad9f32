"""Caches of a client: the last encoded message, and the headers of each kind of message."""

from collections.abc import Callable

import msgspec

from ..http2 import Indexing
from ..payload import EncodedMessage, Message
from ..pool import HeaderSet, Sendable

_KEPT = 1024
_ALIKE = frozenset({"apns-topic", "apns-push-type", "apns-priority"})
"""Headers with recurring values (Apple, "Sending notification requests to APNs")."""


class RecentMessage:
    """Keeps one encoded message while it would be encoded alike, for example for a thousand `send`.

    That holds within one second of the clock, which sets the timestamp, and while the object is
    unchanged. The caller may change its mappings, so its plain JSON is compared.
    """

    def __init__(self, encode: Callable[[Message, float], Sendable]) -> None:
        self._encode = encode
        self._kept: tuple[Message, int, bytes | None, Sendable] | None = None

    def sendable(self, message: Message, now: float) -> Sendable:
        """Return the encoded message, from the cache if possible. ``now`` is seconds since 1970."""
        kept, second, said = self._kept, int(now), None
        if kept is not None and kept[0] is message:
            # Only a repeated message is compared.
            said = _print(message)
            if said is not None and kept[1:3] == (second, said):
                return kept[3]
        sendable = self._encode(message, now)
        self._kept = (message, second, said, sendable)
        return sendable


def _print(message: Message) -> bytes | None:
    """Return a value that identifies the message's content; None if only `encode` understands it."""
    try:
        return msgspec.json.encode(message)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return None


class HeaderBook:
    """Keeps `HeaderSet` objects, so that links find their fields in the header table again."""

    def __init__(self, bundle_id: str, never_index_authorization: bool) -> None:
        self._bundle_id = bundle_id
        self._never_index = never_index_authorization
        self._kept: dict[tuple[object, ...], HeaderSet] = {}

    def of(self, encoded: EncodedMessage, channel: str | None = None) -> HeaderSet:
        """Return the headers of a message to device tokens or to a channel."""
        key = (
            channel,
            encoded.topic_suffix,
            encoded.push_type,
            encoded.priority,
            encoded.expiration,
            encoded.collapse_id,
        )
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            values = encoded.headers(self._bundle_id)
            if channel is not None:
                del values["apns-topic"]
                values["apns-channel-id"] = channel
            fields = [
                (name.encode(), value.encode(), Indexing.VALUE if name in _ALIKE else Indexing.NAME)
                for name, value in values.items()
            ]
            found = self._kept[key] = HeaderSet(
                tuple(fields),
                id_name=b"apns-id" if channel is None else b"apns-request-id",
                never_index_authorization=self._never_index,
            )
        return found

    def forget_tokens(self) -> None:
        """Drop the headers with provider tokens, because the key was replaced."""
        for headers in self._kept.values():
            headers.forget()
