"""The embedded journal: one SQLite file, written by a thread of its own.

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
from .journal import (
    ActivityRecord,
    LaneRecord,
    MembersRecord,
    ProblemRecord,
    ProgressRecord,
    Record,
    RunRecord,
    ShardRecord,
    WakeupRecord,
)

_VERSION = 2
_TABLES = """
CREATE TABLE run (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE shard (run TEXT NOT NULL, number INTEGER NOT NULL, tokens TEXT NOT NULL,
                    verdicts BLOB NOT NULL, PRIMARY KEY (run, number));
CREATE TABLE problem (run TEXT NOT NULL, position INTEGER NOT NULL, outcome BLOB NOT NULL,
                      PRIMARY KEY (run, position)) WITHOUT ROWID;
CREATE TABLE lane (token TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE activity (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE members (activity TEXT NOT NULL, number INTEGER NOT NULL, tokens TEXT NOT NULL,
                      PRIMARY KEY (activity, number));
CREATE TABLE progress (activity TEXT NOT NULL, number INTEGER NOT NULL, confirmed BLOB NOT NULL,
                       intended BLOB NOT NULL, PRIMARY KEY (activity, number)) WITHOUT ROWID;
CREATE TABLE wakeup (device TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
"""
_Answer = TypeVar("_Answer")
_pack = msgspec.msgpack.Encoder().encode


class SqliteJournal:
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
            raise InvalidSetting(
                f"{synchronous!r} is not known",
                field="synchronous",
                remedy='Use "normal" (survives kill -9) or "full" (survives loss of power too).',
            )
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

    def _all(self, question: str, *values: object) -> list[tuple[Any, ...]]:
        return self._file.execute(question, values).fetchall()

    async def write(self, records: Sequence[Record]) -> None:
        """Commit the records in one transaction."""
        if records:
            await self._do(lambda: self._write(records))

    def _write(self, records: Sequence[Record]) -> None:
        connection = self._file
        work: dict[str, list[tuple[object, ...]]] = {}
        for record in records:
            for statement, row in _rows(record):
                work.setdefault(statement, []).append(row)
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in work.items():
                if len(rows) == 1:
                    connection.execute(statement, rows[0])
                else:
                    connection.executemany(statement, rows)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    async def run(self, name: str) -> RunRecord | None:
        """Return a fan-out by its name."""
        rows = await self._do(lambda: self._all("SELECT record FROM run WHERE name=?", name))
        return msgspec.msgpack.decode(rows[0][0], type=RunRecord) if rows else None

    async def shards(self, run: str, first: int, limit: int) -> list[ShardRecord]:
        """Return unfinished shards in order."""
        rows = await self._do(
            lambda: self._all(
                "SELECT number, tokens, verdicts FROM shard WHERE run=? AND number>=? ORDER BY number LIMIT ?",
                run,
                first,
                limit,
            )
        )
        return [
            ShardRecord(run=run, number=number, tokens=tuple(tokens.split("\n")), verdicts=verdicts)
            for number, tokens, verdicts in rows
        ]

    async def problems(self, run: str, after: int, limit: int) -> list[ProblemRecord]:
        """Return problems in order of position."""
        rows = await self._do(
            lambda: self._all(
                "SELECT position, outcome FROM problem WHERE run=? AND position>? ORDER BY position LIMIT ?",
                run,
                after,
                limit,
            )
        )
        return [ProblemRecord(run=run, position=row[0], outcome=row[1]) for row in rows]

    async def lanes(self, after: str, limit: int) -> list[LaneRecord]:
        """Return lanes in order of token."""
        rows = await self._do(
            lambda: self._all(
                "SELECT record FROM lane WHERE token>? ORDER BY token LIMIT ?", after, limit
            )
        )
        return [msgspec.msgpack.decode(row[0], type=LaneRecord) for row in rows]

    async def activities(self) -> list[ActivityRecord]:
        """Return live activities by name."""
        rows = await self._do(lambda: self._all("SELECT record FROM activity ORDER BY name"))
        return [msgspec.msgpack.decode(row[0], type=ActivityRecord) for row in rows]

    async def members(self, activity: str) -> list[tuple[MembersRecord, ProgressRecord | None]]:
        """Return the shards of a live activity."""
        rows = await self._do(
            lambda: self._all(
                "SELECT m.number, m.tokens, p.confirmed, p.intended FROM members m LEFT JOIN progress p "
                "ON p.activity=m.activity AND p.number=m.number WHERE m.activity=? ORDER BY m.number",
                activity,
            )
        )
        return [
            (
                MembersRecord(activity=activity, number=number, tokens=tuple(tokens.split("\n"))),
                None
                if confirmed is None
                else ProgressRecord(
                    activity=activity, number=number, confirmed=confirmed, intended=intended
                ),
            )
            for number, tokens, confirmed, intended in rows
        ]

    async def wakeups(self) -> list[WakeupRecord]:
        """Return the states that wait for a token."""
        rows = await self._do(lambda: self._all("SELECT record FROM wakeup ORDER BY device"))
        return [msgspec.msgpack.decode(row[0], type=WakeupRecord) for row in rows]

    async def forget_run(self, name: str) -> None:
        """Remove a fan-out and all that belongs to it."""

        def work() -> None:
            connection = self._file
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for statement in (
                    "DELETE FROM problem WHERE run=?",
                    "DELETE FROM shard WHERE run=?",
                    "DELETE FROM run WHERE name=?",
                ):
                    connection.execute(statement, (name,))

        await self._do(work)


def _rows(record: Record) -> list[tuple[str, tuple[object, ...]]]:
    """Return the statements, with their rows, that keep one record."""
    match record:
        case RunRecord():
            return [("INSERT OR REPLACE INTO run VALUES (?,?)", (record.name, _pack(record)))]
        case ShardRecord(finished=True):
            return [("DELETE FROM shard WHERE run=? AND number=?", (record.run, record.number))]
        case ShardRecord(tokens=None):
            return [
                (
                    "UPDATE shard SET verdicts=? WHERE run=? AND number=?",
                    (record.verdicts, record.run, record.number),
                )
            ]
        case ShardRecord(tokens=tuple() as tokens):
            return [
                (
                    "INSERT OR REPLACE INTO shard VALUES (?,?,?,?)",
                    (record.run, record.number, "\n".join(tokens), record.verdicts),
                )
            ]
        case ProblemRecord():
            return [
                (
                    "INSERT OR REPLACE INTO problem VALUES (?,?,?)",
                    (record.run, record.position, record.outcome),
                )
            ]
        case LaneRecord(forgotten=True):
            return [("DELETE FROM lane WHERE token=?", (record.token,))]
        case LaneRecord():
            return [("INSERT OR REPLACE INTO lane VALUES (?,?)", (record.token, _pack(record)))]
        case ActivityRecord(finished=True):
            return [
                ("DELETE FROM members WHERE activity=?", (record.activity,)),
                ("DELETE FROM progress WHERE activity=?", (record.activity,)),
                ("DELETE FROM activity WHERE name=?", (record.activity,)),
            ]
        case ActivityRecord():
            return [
                ("INSERT OR REPLACE INTO activity VALUES (?,?)", (record.activity, _pack(record)))
            ]
        case MembersRecord():
            return [
                (
                    "INSERT OR REPLACE INTO members VALUES (?,?,?)",
                    (record.activity, record.number, "\n".join(record.tokens)),
                )
            ]
        case ProgressRecord():
            return [
                (
                    "INSERT OR REPLACE INTO progress VALUES (?,?,?,?)",
                    (record.activity, record.number, record.confirmed, record.intended),
                )
            ]
        case WakeupRecord(message=None):
            return [("DELETE FROM wakeup WHERE device=?", (record.device,))]
        case WakeupRecord():
            return [("INSERT OR REPLACE INTO wakeup VALUES (?,?)", (record.device, _pack(record)))]
    raise JournalError(f"no such record: {type(record).__name__}")
