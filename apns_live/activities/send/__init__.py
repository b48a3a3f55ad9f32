"""Between the store and APNs: what was accepted is sent, what came back is written down."""

from .courier import Courier, CourierStatistics
from .poll import Poll

__all__ = ["Courier", "CourierStatistics", "Poll"]
