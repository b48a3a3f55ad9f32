"""The client: sends pushes to tokens and channels, and returns outcomes."""

from ..pool import Endpoint, Hooks, LinkStatistics, PoolOptions, RequestIds, Sendable
from .attachment import Attachment, WorkItem, WorkSource
from .client import Client
from .run import Run
from .statistics import Report, Statistics
from .workers import SharedRun

__all__ = [
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
