"""A device that takes part in an activity."""

from __future__ import annotations

import msgspec


class Member(msgspec.Struct, frozen=True, gc=False):
    """A device with an activity token, and the newest version that it has."""

    device: int
    token: str
    environment: str
    acknowledged: int
    language: str | None
    frequent_updates: bool | None
