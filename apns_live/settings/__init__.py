"""Settings: their table, their sources, and creating a client from them."""

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
