"""The way to APNs: links (one TLS connection each), the pool over them, and what they carry."""

from .decision import Decision, LinkView, PoolView, decide
from .endpoint import PRODUCTION, SANDBOX, Endpoint
from .opening import Bar
from .options import PoolOptions
from .pool import Pool
from .push import (
    Carrier,
    HeaderSet,
    Push,
    PushState,
    RequestIds,
    Sendable,
    pushes_that_leave,
)
from .record import LinkStatistics
from .transport import Feed, Hooks, Loss, Transport

__all__ = [
    "PRODUCTION",
    "SANDBOX",
    "Bar",
    "Carrier",
    "Decision",
    "Endpoint",
    "Feed",
    "HeaderSet",
    "Hooks",
    "LinkStatistics",
    "LinkView",
    "Loss",
    "Pool",
    "PoolOptions",
    "PoolView",
    "Push",
    "PushState",
    "RequestIds",
    "Sendable",
    "Transport",
    "decide",
    "pushes_that_leave",
]
