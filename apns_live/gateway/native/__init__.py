"""The native API: ``/v1``, health and metrics."""

from __future__ import annotations

from typing import Any

# Each registers its operations; the busiest come first, for paths are looked through in order.
# isort: off
from . import (
    activities as activities,
    streams as streams,
    phone as phone,
    devices as devices,
    operations as operations,
    events as events,
    audiences as audiences,
    channels as channels,
    imports as imports,
    listing as listing,
    people as people,
    explaining as explaining,
    admin as admin,
    health as health,
)

# isort: on
from . import openapi
from .face import NATIVE

__all__ = ["NATIVE", "describe"]


def describe(version: str) -> dict[str, Any]:
    """Return the OpenAPI description."""
    return openapi.describe(NATIVE.operations, version)
