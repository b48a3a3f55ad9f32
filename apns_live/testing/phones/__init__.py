"""Simulated phones: a believable iOS behind each token of the fake APNs."""

from .model import Activity, Device, Token
from .population import SimulatedPhones
from .settings import BudgetLaw, PhoneSettings, StartBudgetLaw

__all__ = [
    "Activity",
    "BudgetLaw",
    "Device",
    "PhoneSettings",
    "SimulatedPhones",
    "StartBudgetLaw",
    "Token",
]
