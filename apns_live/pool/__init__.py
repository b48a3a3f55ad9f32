"""Connections to APNs: links (one TLS connection each) and the pool of them."""

from .endpoint import Endpoint, PoolOptions
from .link_parts import LinkStatistics
from .pool import Pool
from .push import Carrier, HeaderSet, Push, PushState, RequestIds, Sendable, pushes_that_leave
from .transport import Bar, Feed, Hooks, Loss, Transport

__all__ = [
    "Bar",
    "Carrier",
    "Endpoint",
    "Feed",
    "HeaderSet",
    "Hooks",
    "LinkStatistics",
    "Loss",
    "Pool",
    "PoolOptions",
    "Push",
    "PushState",
    "RequestIds",
    "Sendable",
    "Transport",
    "pushes_that_leave",
]
