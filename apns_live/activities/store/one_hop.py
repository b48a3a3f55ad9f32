"""Runs each SQLite statement with a single visit to the connection's thread.

With aiosqlite a statement needs four visits to the connection's thread: cursor, execute, fetch, close.
Under load each visit waits twice for the GIL, while the transaction blocks other writers. Here a
statement is executed and fetched in one visit. A read-only transaction begins together with its first
statement. A rollback is queued without waiting; the thread runs it before the next statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import aiosqlite
from aiosqlite.core import set_exception, set_result

from ...portal import native_work

_CHUNK = 64


class OneHopCursor:
    """The cursor methods that SQLAlchemy uses. Rows are in memory once `execute` returns."""

    def __init__(self, connection: OneHopConnection) -> None:
        self._connection = connection
        self._done: sqlite3.Cursor | None = None
        self._rows: list[Any] = []

    async def __aenter__(self) -> OneHopCursor:
        return self

    @property
    def description(self) -> Any:
        """The columns; None if the statement returns no rows."""
        return None if self._done is None else self._done.description

    @property
    def rowcount(self) -> int:
        """The number of changed rows; -1 if unknown."""
        return -1 if self._done is None else self._done.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The row id of the last insert."""
        return None if self._done is None else self._done.lastrowid

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> OneHopCursor:
        """Run a statement and fetch its rows. Raises `sqlite3.Error`."""

        def work(connection: sqlite3.Connection) -> tuple[sqlite3.Cursor, list[Any]]:
            cursor = connection.execute(sql, parameters)
            return cursor, cursor.fetchall() if cursor.description else []

        self._done, self._rows = await self._connection.visit(work)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> OneHopCursor:
        """Run a statement for each of the parameters. Raises `sqlite3.Error`."""
        self._done = await self._connection.visit(
            lambda connection: connection.executemany(sql, parameters)
        )
        self._rows = []
        return self

    async def fetchall(self) -> list[Any]:
        """Return all rows."""
        return self._rows

    async def close(self) -> None:
        """Do nothing: all rows were fetched."""


class OneHopConnection(aiosqlite.Connection):
    """An aiosqlite connection with faster cursors, and with a thread that survives a closed loop."""

    def __init__(
        self, open_file: Callable[[], sqlite3.Connection], settings: Sequence[str]
    ) -> None:
        self._open_file = open_file
        self._settings = settings
        self._opened: sqlite3.Connection | None = None
        self._begin = ""
        super().__init__(self._open, _CHUNK)
        # A daemon: the program does not wait for it when it ends.
        self._thread = threading.Thread(target=_serve, args=(self._tx,), daemon=True)

    def _open(self) -> sqlite3.Connection:
        self._opened = self._open_file()
        for setting in self._settings:
            self._opened.execute(f"PRAGMA {setting}")
        return self._opened

    def _end(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self._connection = None

    def stop(self) -> asyncio.Future[Any] | None:
        """End the thread. Closes a connection that was opened for a cancelled caller."""
        self._running = False
        try:
            done: asyncio.Future[Any] | None = asyncio.get_running_loop().create_future()
        except RuntimeError:
            done = None
        self._tx.put_nowait((done, self._end))
        self._tx.put_nowait((None, _last))
        return done

    def cursor(self) -> Any:
        """Return a cursor; the thread is not used before its first statement."""
        return OneHopCursor(self)

    async def create_function(self, *details: Any, **options: Any) -> None:
        """Add a function, before the next statement on this connection."""
        self._tx.put_nowait((None, partial(self._conn.create_function, *details, **options)))

    def begin_with_next(self, statement: str) -> None:
        """Begin a transaction with this statement in the next visit."""
        self._begin = statement

    async def visit(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run work on the connection's thread, in the transaction that is about to begin."""
        begin, self._begin = self._begin, ""

        def begun(connection: sqlite3.Connection) -> Any:
            connection.execute(begin)
            return work(connection)

        return await self._execute(begun if begin else work, self._conn)  # type: ignore[no-untyped-call]

    async def commit(self) -> None:
        """Commit the transaction that has begun."""
        if self._begin:
            self._begin = ""
        else:
            await super().commit()

    async def rollback(self) -> None:
        """Roll back the transaction, before the next statement on this connection."""
        if self._begin:
            self._begin = ""
        else:
            self._tx.put_nowait((None, self._conn.rollback))


def _last() -> None:
    """Mark the end of a thread in its queue."""


def _serve(queue: aiosqlite.core._TxQueue) -> None:
    """Run the queued work as aiosqlite's own thread does, but survive a closed event loop.

    aiosqlite's thread dies, with the file still open, when it answers a call whose event loop was
    closed. That answer is not needed, but the rest of the queue must run. A fork waits for the work in
    progress, because the child would inherit SQLite's locks.
    """
    while (item := queue.get())[1] is not _last:
        future, work = item
        setter: Callable[..., None] = set_result
        try:
            with native_work():
                answer = work()
        except BaseException as error:  # noqa: BLE001 - the caller gets it, whatever it is
            answer, setter = error, set_exception
        if future is not None:
            with contextlib.suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(setter, future, answer)


async def connect(*place: Any, settings: Sequence[str] = (), **options: Any) -> OneHopConnection:
    """Open a connection and set pragmas in one visit; other arguments are for `sqlite3.connect`."""
    connection = OneHopConnection(partial(sqlite3.connect, *place, **options), settings)
    await connection
    return connection
