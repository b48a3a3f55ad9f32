"""How often a long loop goes round: less in ``make test`` than in ``make soak``."""

from __future__ import annotations

import os

SOAK = os.environ.get("APNS_LIVE_HYPOTHESIS_PROFILE") == "soak"


def count(usual: int, *, soak: int) -> int:
    """Return the count of this run."""
    return soak if SOAK else usual
