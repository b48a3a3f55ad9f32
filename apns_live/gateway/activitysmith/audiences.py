"""Who is meant: channels of a request against the channels of its key.

What this dialect calls channels are groups everywhere else here; Apple's broadcast channels are
another thing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...activities.requests.audience import Audience
from ..keys import ApiKey
from .refusals import CHANNELS, Refused

_BEYOND = (
    "This API key can only target assigned channels. "
    "Requested channels include channels outside this key scope."
)


def effective(key: ApiKey, requested: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the channels that a request reaches; None is everyone. Raises `Refused` (403)."""
    if key.groups is None:
        return None if requested is None else tuple(requested)
    if requested is None:
        return tuple(sorted(key.groups))
    if not set(requested) <= key.groups:
        raise Refused(403, CHANNELS, _BEYOND)
    return tuple(requested)


def audience_of(slugs: Sequence[str] | None) -> Audience:
    """Return the audience of effective channels."""
    return Audience(everyone=True) if slugs is None else Audience(groups=tuple(slugs))


def slugs_of(audience: Audience) -> list[str] | None:
    """Return the channels of a stored audience, as answers name them; None for any other."""
    return list(audience.groups) if audience.groups else None
