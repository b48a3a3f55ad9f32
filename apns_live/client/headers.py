"""The request headers of one client's messages, made once for each combination of values."""

from __future__ import annotations

from ..http2 import Indexing
from ..payload import EncodedMessage
from ..pool import HeaderSet

_KEPT = 1024


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
        # Indexing follows Apple's "Sending notification requests to APNs".
        fields = [(b"apns-push-type", encoded.push_type.encode(), Indexing.VALUE)]
        if channel is None:
            topic = (self._bundle_id + encoded.topic_suffix).encode()
            fields.insert(0, (b"apns-topic", topic, Indexing.VALUE))
        else:
            fields.append((b"apns-channel-id", channel.encode(), Indexing.NAME))
        fields.append((b"apns-priority", str(encoded.priority).encode(), Indexing.VALUE))
        fields.append((b"apns-expiration", str(encoded.expiration).encode(), Indexing.NAME))
        if encoded.collapse_id is not None:
            fields.append((b"apns-collapse-id", encoded.collapse_id.encode(), Indexing.NAME))
        return HeaderSet(
            tuple(fields),
            id_name=b"apns-id" if channel is None else b"apns-request-id",
            never_index_authorization=self._never_index,
        )
