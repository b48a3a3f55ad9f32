"""Simulated phones behind the tokens of the fake APNs."""

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
