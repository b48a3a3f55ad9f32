"""Idempotency keys: a repeated write has no effect and gets the first answer, for 30 days.

The record is stored in the transaction of the write. So a second call finds it and gets the first
answer, also if both arrive at once, or after a crash before the first was answered. A different body
with a used key raises `KeyReused`.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import KeyReused
from .. import checks, observed
from ..apps import App
from ..core import Part
from ..store import schema
from ..store.statements import insert_into, json_text, row_of

Answer = TypeVar("Answer", bound=msgspec.Struct)

KEPT_MILLISECONDS = 30 * 24 * 3600 * 1000


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An idempotency key. Keys of different ``caller`` values are independent.

    ``digest`` replaces the digest of the request body. It is needed when the stored request
    contains the time of day or a fresh id, and so differs at each repetition.
    """

    caller: str
    key: str
    digest: bytes | None = None


class Once(msgspec.Struct, Generic[Answer], frozen=True):
    """An answer. ``replayed`` means that it repeats the answer to the first call."""

    answer: Answer
    replayed: bool


async def once(
    connection: AsyncConnection,
    app: App,
    key: Key | None,
    request: msgspec.Struct,
    kind: type[Answer],
    do: Callable[[], Awaitable[Answer]],
    *,
    now: int,
) -> Once[Answer]:
    """Run ``do`` inside the caller's transaction unless this key was used before.

    ``now`` is milliseconds since 1970. Raises `KeyReused` when the key was used with another body,
    and the errors of ``do``; then the transaction is rolled back, including the key.
    """
    if key is None:
        return Once(await do(), replayed=False)
    checks.identifier(key.key, "idempotency_key")
    table = schema.idempotency
    place = {"app_id": app.row, "caller": key.caller, "key": key.key}
    # The empty answer claims the key, even if an expired one exists. On PostgreSQL a second caller
    # waits here for our commit.
    claim = {"body_hash": key.digest or fingerprint(request), "response": "", "created_at": now}
    expired = table.c.created_at < now - KEPT_MILLISECONDS
    claimed = await connection.execute(
        insert_into(connection, table)
        .values(**place, **claim)
        .on_conflict_do_update(index_elements=list(place), set_=claim, where=expired)
    )
    if not claimed.rowcount:
        known = await answered(connection, app, key, request, kind)
        if known is not None:
            return known
    answer = await do()
    await connection.execute(update(table).filter_by(**place).values(response=json_text(answer)))
    return Once(answer, replayed=False)


async def answered(
    connection: AsyncConnection,
    app: App,
    key: Key,
    request: msgspec.Struct,
    kind: type[Answer],
    since: int = 0,
) -> Once[Answer] | None:
    """Return the first answer if this key was used after ``since`` (milliseconds). Raises `KeyReused`."""
    table = schema.idempotency
    place = {"app_id": app.row, "caller": key.caller, "key": key.key}
    query = select(table).filter_by(**place).where(table.c.created_at >= since)
    if (row := await row_of(connection, query)) is None:
        return None
    if not hmac.compare_digest(bytes(row.body_hash), key.digest or fingerprint(request)):
        raise KeyReused(
            f"the idempotency key {key.key[:16]!r} was used for another request: "
            "use a new key for each request, and the same one only to repeat it"
        )
    return Once(msgspec.json.decode(row.response, type=kind), replayed=True)


def fingerprint(request: msgspec.Struct) -> bytes:
    """Return a digest of a request in which the order of keys, and 9 or 9.0, make no difference."""
    value = checks.plain_numbers(msgspec.to_builtins(request, order="deterministic"))
    body = msgspec.json.encode([type(request).__name__, value], order="deterministic")
    return hashlib.sha256(body).digest()


Result = TypeVar("Result")


class Writing(msgspec.Struct):
    """A call in its transaction. ``now`` is milliseconds since 1970; ``rows`` are notified later."""

    connection: AsyncConnection
    app: App
    now: int
    key: Key | None = None
    rows: list[int] = []

    @property
    def caller(self) -> str:
        """The caller; empty without an idempotency key."""
        return "" if self.key is None else self.key.caller

    async def add_operation(self, public_id: str, kind: str, partition: int, **values: Any) -> int:
        """Add the accepted request to the operations; return its row."""
        row = {"app_id": self.app.row, "public_id": public_id, "kind": kind, "status": "accepted"}
        row |= {"partition": partition, "caller": self.caller, "created_at": self.now, **values}
        added = insert(schema.operations).values(row).returning(schema.operations.c.id)
        return int((await self.connection.execute(added)).scalar_one())


class Writer(Part):
    """A part of the service that accepts calls, each in one transaction."""

    operation = "operation"
    """The answer's field with the operation's id."""

    def written(self, app: App, row: int) -> None:
        """Wake the sender after a commit."""
        self.core.hooks.written(app, row)

    async def run(
        self, app: App, work: Callable[[Writing], Awaitable[Result]], key: Key | None = None
    ) -> Result:
        """Run ``work`` in a transaction; return its result after the commit. Raises as `GroupCommit.run`."""

        async def store(connection: AsyncConnection) -> tuple[Result, Writing]:
            writing = Writing(connection, app, self.now, key)
            return await work(writing), writing

        def tell(done: tuple[Result, Writing]) -> None:
            for row in done[1].rows:
                self.written(app, row)

        return (await self.core.commits.run(store, tell))[0]

    async def once(
        self,
        app: App,
        key: Key | None,
        request: msgspec.Struct,
        kind: type[Answer],
        work: Callable[[Writing], Awaitable[Answer]],
    ) -> Once[Answer]:
        """Run ``work`` unless ``key`` was used before. Raises also `KeyReused`."""

        async def store(writing: Writing) -> Once[Answer]:
            at, connection = writing.now, writing.connection
            return await once(connection, app, key, request, kind, lambda: work(writing), now=at)

        done = await self.run(app, store, key)
        observed.accepted(getattr(done.answer, self.operation))
        return done
