"""The size of a payload, and of each of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..errors import PayloadTooLarge
from .findings import Findings
from .values import json_bytes

LIMITS = {"device": 4096, "broadcast": 5120}
"""Bytes of JSON. Apple, "Generating a remote notification" and "Sending broadcast push notification
requests to APNs"."""
ACTIVITY_DATA_LIMIT = 4096
"""Bytes of attributes and content state together (Apple, "Displaying live data with Live
Activities"), however they travel."""


def bytes_by_key(payload: Mapping[str, Any]) -> dict[str, int]:
    """Return the bytes of each key's ``"key":value`` text, largest first.

    Paths are those of the payload. The members of ``aps`` and of its objects are listed each for
    itself, so the figures do not add up to the payload's size: an object contains its members.
    """
    sizes: dict[str, int] = {}
    for key, value in payload.items():
        sizes[key] = _size(key, value)
        if key == "aps" and isinstance(value, Mapping):
            for name, member in value.items():
                sizes[f"aps.{name}"] = _size(name, member)
                if isinstance(member, Mapping):
                    for inner, leaf in member.items():
                        sizes[f"aps.{name}.{inner}"] = _size(inner, leaf)
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def check_size(
    payload: Mapping[str, Any], body: bytes, target: Literal["device", "broadcast"], found: Findings
) -> None:
    """Raise `PayloadTooLarge` over the target's limit; warn over the phone's own."""
    limit = LIMITS[target]
    if len(body) > limit:
        breakdown = bytes_by_key(payload)
        leaves = [
            (path, size)
            for path, size in breakdown.items()
            if not any(other.startswith(f"{path}.") for other in breakdown)
        ]
        largest = ", ".join(f"{path} {size}" for path, size in leaves[:5])
        raise PayloadTooLarge(
            f"has {len(body)} bytes, {len(body) - limit} over the limit of {limit}",
            field="payload",
            remedy=f"Shorten the largest keys (bytes): {largest}.",
            size=len(body),
            limit=limit,
            breakdown=breakdown,
        )
    aps = payload.get("aps")
    if isinstance(aps, Mapping) and len(body) > ACTIVITY_DATA_LIMIT:
        check_activity_data(aps, found)


def check_activity_data(aps: Mapping[str, Any], found: Findings) -> None:
    """Warn when attributes and content state, as JSON without their keys, are more than a phone holds."""
    size = sum(len(json_bytes(aps[key])) for key in ("attributes", "content-state") if key in aps)
    if size > ACTIVITY_DATA_LIMIT:
        words = {"size": size, "limit": ACTIVITY_DATA_LIMIT}
        found.warning("activity_data_too_large", "aps.content-state", **words)


def _size(key: str, value: Any) -> int:
    return len(json_bytes(key)) + 1 + len(json_bytes(value))
