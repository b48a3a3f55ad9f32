"""Order, latest state wins, priority budgets, nothing lost: above the client, below everything else."""

from .activity import LiveActivity, Version
from .activity_report import ActivityReport
from .budget import DEFAULT, FREQUENT, Budget, Urgency
from .delivery import Delivery
from .journal import Journal
from .pacing import SpikeGuard
from .run import Run, RunReport
from .sources import FileTokens, TokenPage, TokenSource
from .sqlite_journal import SqliteJournal
from .statistics import DeliveryStatistics
from .tickets import Ticket

__all__ = [
    "DEFAULT",
    "FREQUENT",
    "ActivityReport",
    "Budget",
    "Delivery",
    "DeliveryStatistics",
    "FileTokens",
    "Journal",
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
