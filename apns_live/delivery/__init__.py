"""Ordered delivery over a client: latest state wins, priority budgets, an optional journal."""

from .activity import LiveActivity, Version
from .budget import DEFAULT, FREQUENT, OBSERVED, OBSERVED_FREQUENT, Budget, Law, Urgency
from .delivery import Delivery
from .journal import Entry, Journal, SqliteJournal
from .pacing import SpikeGuard
from .run import Run, RunReport
from .sources import FileTokens, TokenPage, TokenSource
from .state import Ticket
from .statistics import ActivityReport, DeliveryStatistics

__all__ = [
    "DEFAULT",
    "FREQUENT",
    "OBSERVED",
    "OBSERVED_FREQUENT",
    "ActivityReport",
    "Budget",
    "Delivery",
    "DeliveryStatistics",
    "Entry",
    "FileTokens",
    "Journal",
    "Law",
    "LiveActivity",
    "Run",
    "RunReport",
    "SpikeGuard",
    "SqliteJournal",
    "Ticket",
    "TokenPage",
    "TokenSource",
    "Urgency",
    "Version",
]
