"""Random choices without a generator: a hash of the seed and of what is chosen.

So a choice does not depend on other events, and a run can be repeated.
"""

from __future__ import annotations

from hashlib import blake2b, shake_128

DEVICE_TOKEN_BYTES = 32
"""Ordinary device tokens of iPhones have 64 hex digits."""
ACTIVITY_TOKEN_BYTES = 80
"""Push-to-start and activity tokens of a real iPhone were seen with 160 hex digits."""


def draw(seed: int, what: str, who: str, nth: int = 0) -> float:
    """Return a number in [0, 1) for the ``nth`` time that ``what`` is drawn for ``who``."""
    digest = blake2b(f"{seed}\0{what}\0{who}\0{nth}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / (1 << 56)


def draw_between(
    seed: int, what: str, who: str, bounds: tuple[float, float], nth: int = 0
) -> float:
    """Return a number between the two bounds; no draw is made when they are equal."""
    low, high = bounds
    return low if low == high else low + (high - low) * draw(seed, what, who, nth)


def make_token(seed: int, what: str, who: str, nth: int = 0, size: int = DEVICE_TOKEN_BYTES) -> str:
    """Return ``size`` bytes as lower-case hex: the ``nth`` token of its kind for ``who``."""
    return shake_128(f"{seed}\0token\0{what}\0{who}\0{nth}".encode()).hexdigest(size)


def short_id(seed: int, what: str, who: str, nth: int = 0) -> str:
    """Return twelve hex digits that name something."""
    return blake2b(f"{seed}\0id\0{what}\0{who}\0{nth}".encode(), digest_size=6).hexdigest()
