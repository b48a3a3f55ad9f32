"""Settings: one table of them, the sources that they are read from, and what a client is made from."""

from __future__ import annotations

from .client import Settings, pem_of
from .sources import DEFAULT_FILE, FILE_VARIABLE, Found, read, suggestion
from .table import NAMES, PREFIX, TABLE, Setting

__all__ = [
    "DEFAULT_FILE",
    "FILE_VARIABLE",
    "NAMES",
    "PREFIX",
    "TABLE",
    "Found",
    "Setting",
    "Settings",
    "pem_of",
    "read",
    "suggestion",
]
