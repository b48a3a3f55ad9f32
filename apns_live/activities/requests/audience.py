"""The audience of a request. `apns_live.activities.people.audience` finds the devices."""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import InvalidInput


class Audience(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A set of devices: all that match any given part, minus the excluded ones.

    ``users`` are external ids, ``user_ids`` internal user ids, ``devices`` device ids,
    ``segments`` names or ids, ``groups`` slugs, ``filter`` a tree of conditions (JSON).
    """

    everyone: bool = False
    users: tuple[str, ...] = ()
    user_ids: tuple[str, ...] = ()
    aliases: dict[str, tuple[str, ...]] = {}
    devices: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    filter: dict[str, Any] | None = None
    exclude_users: tuple[str, ...] = ()
    exclude_devices: tuple[str, ...] = ()
    exclude_segments: tuple[str, ...] = ()
    exclude_groups: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no part is given."""
        named = (self.users, self.user_ids, self.devices, self.segments, self.groups)
        return not (self.everyone or any(named) or any(self.aliases.values()) or self.filter)

    def check(self) -> None:
        """Raise `InvalidInput` for an empty audience."""
        if self.is_empty:
            raise InvalidInput(
                "names nobody",
                field="audience",
                remedy="Name users, devices, groups, segments or a filter; or say everyone.",
            )
