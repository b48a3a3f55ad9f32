"""The request headers of one client's messages, made once for each combination of values."""

from __future__ import annotations

from ..http2 import Indexing
from ..payload import EncodedMessage
from ..pool import HeaderSet

_KEPT = 1024
_ALIKE = frozenset({"apns-topic", "apns-push-type", "apns-priority"})
"""Headers whose values come again and again (Apple, "Sending notification requests to APNs")."""


class HeaderBook:
    """Keeps `HeaderSet` objects, so that links find their fields in the header table again."""

    def __init__(self, bundle_id: str, *, never_index_authorization: bool) -> None:
        self._bundle_id = bundle_id
        self._never_index = never_index_authorization
        self._kept: dict[tuple[object, ...], HeaderSet] = {}

    def of(self, encoded: EncodedMessage, channel: str | None = None) -> HeaderSet:
        """Return the headers of a message, to device tokens or to a channel."""
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
            found = self._kept[key] = self._make(encoded, channel)
        return found

    def forget_tokens(self) -> None:
        """Drop what was prepared with provider tokens: the key was replaced."""
        for headers in self._kept.values():
            headers.forget()

    def _make(self, encoded: EncodedMessage, channel: str | None) -> HeaderSet:
        values = encoded.headers(self._bundle_id)
        if channel is not None:
            del values["apns-topic"]
            values["apns-channel-id"] = channel
        fields = [
            (name.encode(), value.encode(), Indexing.VALUE if name in _ALIKE else Indexing.NAME)
            for name, value in values.items()
        ]
        return HeaderSet(
            tuple(fields),
            id_name=b"apns-id" if channel is None else b"apns-request-id",
            never_index_authorization=self._never_index,
        )
