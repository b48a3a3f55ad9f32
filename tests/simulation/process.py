"""One process of a simulated world: a client, a delivery over it, and the tasks of its callers."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import ssl
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from apns_live import Client, Endpoint, ProviderKey
from apns_live.delivery import Delivery, SqliteJournal
from apns_live.testing.state import RegisteredKey

if TYPE_CHECKING:
    from .world import World

BUNDLE_ID = "com.example.scores"
TEAM_ID = "DEF123GHIJ"
KEY_ID = "ABC123DEFG"

_private = ec.generate_private_key(ec.SECP256R1())
_KEY = ProviderKey.from_pem(
    _private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ),
    key_id=KEY_ID,
    team_id=TEAM_ID,
)
REGISTERED = RegisteredKey(KEY_ID, TEAM_ID, _private.public_key(), None, None, frozenset())
_TLS = ssl.create_default_context()
current: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)
"""The process that runs now."""


class Journal(SqliteJournal):
    """The real journal over a database that outlives a crash of its process."""

    def __init__(self, disk: sqlite3.Connection) -> None:
        super().__init__("simulated.db")
        self._disk = disk

    def _open(self) -> None:
        self._connection = self._disk

    async def close(self) -> None:
        self._connection, self._thread = None, None


class Life:
    """One process: a client, a delivery over it, and the tasks of its callers."""

    def __init__(self, world: World, number: int) -> None:
        settings = world.plan.settings
        self.number = number
        self.tasks: set[asyncio.Task[Any]] = set()
        self.ended = self.closing = False
        self.client = Client(
            _KEY,
            bundle_id=BUNDLE_ID,
            environment=Endpoint("apns.test", 443),
            clock=world.clock,
            ssl_context=_TLS,
            max_connections=settings["max_connections"],
            waiting_room=settings["waiting_room"],
            resolver=world.resolve,
            uniform=world.die.random,
        )
        self.journal = Journal(world.disk) if settings["journal"] else None
        self.delivery = Delivery(
            self.client,
            journal=self.journal,
            clock=world.clock,
            minimum_interval=settings["minimum_interval"],
            commit_interval=settings["commit_interval"],
        )
