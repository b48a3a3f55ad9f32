"""The native API: ``/v1``, health and metrics."""

from __future__ import annotations

# Each registers its operations. The busiest come first: paths are tried in order.
# isort: off
from . import (
    activities as activities,
    devices as devices,
    operations as operations,
    people as people,
    imports as imports,
    admin as admin,
    health as health,
)

# isort: on
from .face import NATIVE, describe

__all__ = ["NATIVE", "describe"]
