"""Sends what was accepted, and stores the results."""

from .courier import Courier, CourierStatistics
from .poll import Poll

__all__ = ["Courier", "CourierStatistics", "Poll"]
