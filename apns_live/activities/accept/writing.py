"""The one way in which a call is written: one transaction, done once, and told after its commit.

Idempotency, the look at what is there, the checks, the write: all inside. What is to be heard of
afterwards (rows that somebody sends) is noted in the `Writing` and told when it is committed, also
when the caller has gone away meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from .. import observed
from ..apps import App
from ..store import schema
from ..store.commit import GroupCommit
from ..store.database import Database
from .idempotency import Answer, Key, Once, once

Result = TypeVar("Result")
Written = Callable[[App, int], object]
"""Called with the app and a row (an activity's, or a notification's operation) after a commit."""
CheckKey = Callable[[App, str], Awaitable[None]]
"""Raises `StoreError` when an app's key for an environment is there and does not open."""


class Writing(msgspec.Struct):
    """A call inside its transaction. ``now`` is milliseconds since 1970; ``rows`` are told of after it."""

    connection: AsyncConnection
    app: App
    now: int
    key: Key | None = None
    rows: list[int] = []

    @property
    def caller(self) -> str:
        """Who calls; empty where the call has no idempotency key."""
        return "" if self.key is None else self.key.caller

    async def add_operation(self, public_id: str, kind: str, partition: int, **values: Any) -> int:
        """Add what was accepted to the operations; return its row."""
        table = schema.operations
        statement = insert(table).values(
            {
                "app_id": self.app.row,
                "public_id": public_id,
                "kind": kind,
                "partition": partition,
                "caller": self.caller,
                "status": "accepted",
                "created_at": self.now,
                **values,
            }
        )
        found = await self.connection.execute(statement.returning(table.c.id))
        return int(found.scalar_one())


class Writes:
    """Writes calls. Those that are given the same ``commits`` share transactions."""

    def __init__(
        self,
        database: Database,
        commits: GroupCommit | None,
        written: Written,
        operation: str = "operation",
    ) -> None:
        self.commits = GroupCommit(database) if commits is None else commits
        self.written = written
        self._operation = operation
        """The name under which an answer holds the operation's id."""

    async def run(
        self,
        app: App,
        now: int,
        work: Callable[[Writing], Awaitable[Result]],
        key: Key | None = None,
    ) -> Result:
        """Run ``work`` in a transaction; return its result after the commit. Raises as `GroupCommit.run`."""

        async def store(connection: AsyncConnection) -> tuple[Result, Writing]:
            writing = Writing(connection, app, now, key)
            return await work(writing), writing

        def tell(done: tuple[Result, Writing]) -> None:
            for row in done[1].rows:
                self.written(app, row)

        return (await self.commits.run(store, tell))[0]

    async def once(
        self,
        app: App,
        now: int,
        key: Key | None,
        request: msgspec.Struct,
        kind: type[Answer],
        work: Callable[[Writing], Awaitable[Answer]],
    ) -> Once[Answer]:
        """Run ``work`` unless ``key`` was used before. Raises also `KeyReused`."""

        async def store(writing: Writing) -> Once[Answer]:
            return await once(
                writing.connection, app, key, request, kind, lambda: work(writing), now=now
            )

        done = await self.run(app, now, store, key)
        observed.accepted(getattr(done.answer, self._operation))
        return done
