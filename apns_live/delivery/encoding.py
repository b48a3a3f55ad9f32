"""Small changes to an encoded message.

A state is checked and encoded once, when submitted. Later changes by delivery (timestamp, priority,
an alert of a replaced state) are made in the encoded bytes, so the caller's objects are not kept.
"""

from typing import Any

import msgspec

from ..payload import EncodedMessage

PAYLOAD_LIMIT = 4096
"""Bytes of a payload to one device (Apple, "Generating a remote notification")."""

_replace = msgspec.structs.replace
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def restamp(encoded: EncodedMessage, timestamp: int, priority: int) -> EncodedMessage:
    """Return the message with another timestamp and priority; the same object if both match."""
    if encoded.timestamp == timestamp:
        if encoded.priority == priority:
            return encoded
        return _replace(encoded, priority=priority)
    payload = _decode(encoded.body)
    payload["aps"]["timestamp"] = timestamp
    return _replace(encoded, body=_encode(payload), timestamp=timestamp, priority=priority)


def carry_alert(newer: EncodedMessage, older: EncodedMessage) -> EncodedMessage | None:
    """Return ``newer`` with the alert of ``older``; None if that would be too large."""
    alert = _decode(older.body)["aps"].get("alert")
    payload = _decode(newer.body)
    payload["aps"]["alert"] = alert
    body = _encode(payload)
    if len(body) > PAYLOAD_LIMIT:
        return None
    return _replace(newer, body=body, has_alert=True, priority=10)


def without_alert(encoded: EncodedMessage) -> EncodedMessage:
    """Return the message without its alert, for a token that joins after the alert."""
    payload = _decode(encoded.body)
    payload["aps"].pop("alert", None)
    return _replace(encoded, body=_encode(payload), has_alert=False)


def one_spelling(token: str) -> str:
    """Return a token in lower case, as a key. Returns the same object if possible."""
    lower = token.lower()
    return token if lower == token else lower
