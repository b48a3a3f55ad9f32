"""The client: sends pushes to tokens and channels, and returns outcomes."""

from ..pool import Endpoint, Hooks, LinkStatistics, PoolOptions, RequestIds, Sendable
from .attachment import Acceptances, Alike, AlikeSource, Attachment, WorkItem, WorkSource
from .client import Client
from .run import Run
from .statistics import Report, Statistics
from .workers import SharedRun

__all__ = [
    "Acceptances",
    "Alike",
    "AlikeSource",
    "Attachment",
    "Client",
    "Endpoint",
    "Hooks",
    "LinkStatistics",
    "PoolOptions",
    "Report",
    "RequestIds",
    "Run",
    "Sendable",
    "SharedRun",
    "Statistics",
    "WorkItem",
    "WorkSource",
]
