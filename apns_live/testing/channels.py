"""Broadcast channels: at most 10,000 an app, ids that are never issued twice.

Source: Apple, "Sending channel management requests to APNs". The id itself shows whether this
fake issued it. So a deleted channel can be distinguished from one that never existed, without a growing
list of deleted channels.
"""

import base64
import binascii
from dataclasses import dataclass
from hashlib import blake2b

LIMIT = 10_000
"""Channels of one app in one environment."""
LONGEST_ID = 64
"""Bytes of text; an id seen on the wire has 24. Apple: do not assume the size."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel. ``storage_policy`` 0 stores nothing, 1 keeps the newest message for 8 hours.

    ``created_at`` is epoch seconds.
    """

    channel_id: str
    bundle_id: str
    storage_policy: int
    created_at: float = 0.0


class Channels:
    """The channels of every app in one environment. ``seed`` makes the ids repeatable."""

    def __init__(self, *, environment: str = "development", seed: int = 0) -> None:
        self._environment = environment
        self._seed = seed
        self._live: dict[str, dict[str, Channel]] = {}
        self._issued = 0

    def create(self, bundle_id: str, storage_policy: int, *, now: float = 0.0) -> Channel | None:
        """Create a channel; None when the app has its 10,000."""
        live = self._live.setdefault(bundle_id, {})
        if len(live) >= LIMIT:
            return None
        self._issued += 1
        channel_id = self._make(self._issued, bundle_id)
        channel = Channel(channel_id, bundle_id, storage_policy, now)
        live[channel_id] = channel
        return channel

    def get(self, bundle_id: str, channel_id: str) -> Channel | None:
        """Return the live channel with this id, or None."""
        live = self._live.get(bundle_id)
        return live.get(channel_id) if live else None

    def of(self, bundle_id: str) -> list[Channel]:
        """Return an app's live channels, oldest first."""
        return list(self._live.get(bundle_id, {}).values())

    def delete(self, bundle_id: str, channel_id: str) -> bool:
        """Delete a channel permanently. Return False if it does not exist."""
        return self._live.get(bundle_id, {}).pop(channel_id, None) is not None

    def was_issued(self, bundle_id: str, channel_id: str) -> bool:
        """Whether the id is, or was, an app's channel here, or is one of the other environment."""
        serial = self._serial_of(channel_id, bundle_id, self._environment)
        other = "production" if self._environment == "development" else "development"
        return (serial is not None and serial <= self._issued) or (
            self._serial_of(channel_id, bundle_id, other) is not None
        )

    def _make(self, serial: int, bundle_id: str) -> str:
        mark = self._hash(b"mark", serial.to_bytes(6, "big"), bundle_id, self._environment, 10)
        mask = int.from_bytes(self._hash(b"mask", mark, "", "", 6), "big")
        return base64.b64encode((serial ^ mask).to_bytes(6, "big") + mark).decode("ascii")

    def _serial_of(self, channel_id: str, bundle_id: str, environment: str) -> int | None:
        try:
            raw = base64.b64decode(channel_id, validate=True)
        except (binascii.Error, ValueError):
            return None
        if len(raw) != 16:
            return None
        mask = int.from_bytes(self._hash(b"mask", raw[6:], "", "", 6), "big")
        serial = int.from_bytes(raw[:6], "big") ^ mask
        expected = self._hash(b"mark", serial.to_bytes(6, "big"), bundle_id, environment, 10)
        return serial if expected == raw[6:] else None

    def _hash(self, kind: bytes, data: bytes, bundle_id: str, environment: str, size: int) -> bytes:
        text = f"{self._seed}|{bundle_id}|{environment}|".encode() + data
        return blake2b(text, digest_size=size, person=kind).digest()


def is_well_formed(channel_id: str) -> bool:
    """Whether the text is base64 of an allowed length."""
    if not channel_id or len(channel_id) > LONGEST_ID:
        return False
    try:
        base64.b64decode(channel_id, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
