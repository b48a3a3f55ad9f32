"""The journal in one SQLite file, written by its own thread.

Write-ahead logging, one transaction a batch. ``synchronous="normal"`` survives the death of the
process (kill -9); ``"full"`` also survives loss of power, at the price of a disk flush a batch
(SQLite, "PRAGMA synchronous").
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from ..errors import InvalidSetting, JournalError
from ..refusals import refused
from .journal import ALL, Entry, Journal

_VERSION = 2
_TABLES = """
CREATE TABLE entry (kind TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, value BLOB NOT NULL,
                    PRIMARY KEY (kind, name, number));
"""
_KEEP = "INSERT OR REPLACE INTO entry VALUES (?,?,?,?)"
_REMOVE = "DELETE FROM entry WHERE kind=? AND name=? AND number=?"
_REMOVE_ALL = "DELETE FROM entry WHERE kind=? AND name=?"
_Answer = TypeVar("_Answer")


class SqliteJournal(Journal):
    """A `Journal` in the SQLite file at ``path``, which is made when it is not there (mode 0600).

    ``synchronous`` is "normal" or "full". ``busy_timeout`` is how many seconds a lock by another
    process is waited for. One process at a time delivers from a journal; a second one is refused
    with JournalError. Raises InvalidSetting for a setting that cannot be.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Literal["normal", "full"] = "normal",
        busy_timeout: float = 5.0,
    ) -> None:
        if synchronous not in ("normal", "full"):
            raise refused(InvalidSetting, "synchronous", "synchronous", synchronous=synchronous)
        self.path = Path(path)
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    @property
    def _file(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalError(f"the journal {self.path} is not open")
        return self._connection

    def __repr__(self) -> str:
        state = "open" if self._connection else "closed"
        return f"<SqliteJournal {self.path} {self._synchronous} {state}>"

    async def open(self) -> None:
        """Open or make the file."""
        if self._thread is not None:
            raise JournalError(f"the journal {self.path} is open already")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="apns-live-journal")
        try:
            await self._do(self._open)
        except JournalError:
            self._thread.shutdown(wait=False)
            self._thread = None
            raise

    def _open(self) -> None:
        if not self.path.exists():
            self.path.touch(mode=0o600)
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                connection.executescript(
                    f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={_VERSION}; COMMIT;"
                )
            elif version != _VERSION:
                raise JournalError(
                    f"{self.path} has version {version}; this release reads {_VERSION}. "
                    "Finish its fan-outs with the release that wrote it, or use another file."
                )
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    async def close(self) -> None:
        """Close the file; without effect when it is closed."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.get_running_loop().run_in_executor(thread, connection.close)
        thread.shutdown(wait=True)

    async def _do(self, work: Callable[[], _Answer]) -> _Answer:
        if self._thread is None:
            raise JournalError(f"the journal {self.path} is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError, msgspec.DecodeError) as error:
            raise JournalError(
                f"{self.path}: {error}. Nothing leaves without its intent; check the disk and the file's rights."
            ) from error

    async def commit(self, entries: Sequence[Entry]) -> None:
        """Keep the entries in one transaction."""
        await self._do(lambda: self._commit(entries))

    def _commit(self, entries: Sequence[Entry]) -> None:
        connection = self._file
        connection.execute("BEGIN IMMEDIATE")
        try:
            for kind, name, number, value in entries:
                if value is not None:
                    connection.execute(_KEEP, (kind, name, number, value))
                elif number == ALL:
                    connection.execute(_REMOVE_ALL, (kind, name))
                else:
                    connection.execute(_REMOVE, (kind, name, number))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    async def read(
        self, kind: str, name: str | None, after: tuple[str, int], limit: int
    ) -> list[Entry]:
        """Return entries of a kind, in order."""
        question = "SELECT * FROM entry WHERE kind=? AND (name, number)>(?,?)"
        values: list[Any] = [kind, *after]
        if name is not None:
            question += " AND name=?"
            values.append(name)
        question += " ORDER BY name, number LIMIT ?"
        rows = await self._do(lambda: self._file.execute(question, [*values, limit]).fetchall())
        return [Entry(*row) for row in rows]
