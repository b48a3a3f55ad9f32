"""The native API: ``/v1``, health and metrics."""

# Each registers its operations. The busiest come first: paths are tried in order.
# isort: off
from . import activities, devices, operations, people, imports, admin, health  # noqa: F401

# isort: on
from .face import NATIVE, describe

__all__ = ["NATIVE", "describe"]
