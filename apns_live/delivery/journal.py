"""The journal: records that must survive a crash, and the interface that stores them.

After a crash the journal shows the state of each token of a fan-out:

    no intent                  not sent: it is sent
    intent and an outcome      done: it is not sent again
    intent without outcome     it may have been sent. An update or end is sent again, a start is
                               reported as UNKNOWN unless the caller says otherwise

So an intent is committed before a push is sent, and outcomes follow in batches. A `Journal` stores
`Entry` values, each batch in one transaction. `SqliteJournal` stores them in a file. To use your own
database, implement the four methods of `Journal`.

An entry's kind says what it is: "run", "tokens" and "verdicts" (a shard of a run: SHARD tokens from
``number * SHARD`` on, and a byte for each), "problem", "lane", "activity", "members" and "progress" (a
shard of an activity's tokens), "wakeup" (a device whose token has not arrived).
"""

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from ..errors import InvalidSetting, JournalError
from ..outcome import Verdict
from ..payload import EncodedMessage
from ..refusals import refused

SHARD = 1000
"""Tokens per shard, which are read, intended and settled together."""

PENDING = 0
"""The byte of a token without outcome; the others are 1 + the position in `Verdict`, where a new one goes last."""
UNSENT = 255
"""The byte of a token whose intent was withdrawn, or whose push was certainly not processed."""
CODE: dict[Verdict, int] = {verdict: number for number, verdict in enumerate(Verdict, 1)}


def in_doubt(position: int, intended: int, code: int) -> bool:
    """Return True if the token at ``position`` may have been sent and has no outcome.

    ``intended`` is the position below which intents were committed, ``code`` the verdict byte.
    """
    return code == PENDING and position < intended


class RunRecord(msgspec.Struct, kw_only=True):
    """A named fan-out. Written when it starts, when more tokens are read, and for each intent."""

    name: str
    message: EncodedMessage
    deadline: float | None = None
    read: int = 0
    """Tokens that were read from the source."""
    shards: int = 0
    """Shards filled with them; the next shard gets this number."""
    after: str | None = None
    """Where a `TokenSource` continues."""
    digest: bytes = b""
    """A running digest of the tokens read, to recognize a plain iterable."""
    exhausted: bool = False
    intended: int = 0
    """Every push below this position may have been sent."""
    counts: dict[str, int] = {}
    """Outcomes by verdict of finished shards, which are no longer stored."""
    finished: bool = False


class ProblemRecord(NamedTuple):
    """A complete outcome other than an acceptance, so that tokens to delete survive a crash."""

    run: str
    position: int
    outcome: bytes


class LaneRecord(msgspec.Struct, kw_only=True):
    """The lane of an activity token, of a live activity, or of a device whose token has not arrived."""

    token: str = ""
    last_timestamp: int = 0
    revision: int | None = None
    window_start: float = 0.0
    used: float = 0
    """The budget's account, see `apns_live.delivery.budget.Account`."""
    device: str = ""
    """The phone whose activities share that account; "" if not shared."""
    left_at: float = 0.0
    ended: bool = False
    frequent: bool | None = None
    urgency: int = 1
    deadline: float | None = None
    message: EncodedMessage | None = None
    """The state without an outcome; None if there is none."""
    intended: bool = False
    """Whether that state may have been sent."""


class ActivityRecord(msgspec.Struct, kw_only=True):
    """A live activity: its publishing lane and its newest version."""

    activity: str
    lane: LaneRecord
    version: int = 0
    current: EncodedMessage | None = None
    alert: EncodedMessage | None = None
    alert_version: int = 0
    ten_version: int = 0
    deadline: float | None = None


class MembersRecord(msgspec.Struct, kw_only=True):
    """A shard of a live activity's tokens; "" is an empty place."""

    activity: str
    number: int
    tokens: tuple[str, ...]


class ProgressRecord(msgspec.Struct, kw_only=True):
    """Versions confirmed and intended for a shard of a live activity, 4 bytes each, little endian."""

    activity: str
    number: int
    confirmed: bytes
    intended: bytes


ALL = -1
"""In place of an entry's number: all numbers of its name."""


class Entry(NamedTuple):
    """A value and its place. Entries of a kind are ordered by name, then number."""

    kind: str
    name: str
    number: int
    value: bytes | None
    """None deletes the entry; with the number `ALL`, all entries of that name."""


_Kept = TypeVar("_Kept", bound=msgspec.Struct)
_PAGE = 1000


class Journal(ABC):
    """Stores the records. All methods raise JournalError on failure."""

    @abstractmethod
    async def open(self) -> None:
        """Prepare for use; called once, before all other methods."""

    @abstractmethod
    async def close(self) -> None:
        """Release the resources of `open`. Written entries remain."""

    @abstractmethod
    async def commit(self, entries: Sequence[Entry]) -> None:
        """Store the entries, all or none; return once they are as durable as promised."""

    @abstractmethod
    async def read(
        self, kind: str, name: str | None, after: tuple[str, int], limit: int
    ) -> list[Entry]:
        """Return at most ``limit`` entries of a kind after a name and number, in their order.

        ``name`` None selects every name.
        """

    async def run(self, name: str) -> RunRecord | None:
        """Return a fan-out by name."""
        found = [record async for _, record in self.records("run", RunRecord, name)]
        return found[0] if found else None

    async def shards(self, run: str, first: int, limit: int) -> list[tuple[int, list[str], bytes]]:
        """Return number, tokens and verdict bytes of unfinished shards from ``first`` on, in order."""
        after = (run, first - 1)
        tokens = await self.read("tokens", run, after, limit)
        verdicts = await self.read("verdicts", run, after, limit)
        return [
            (number, _decode(kept or b"", type=list[str]), codes or b"")
            for (_, _, number, kept), (_, _, _, codes) in zip(tokens, verdicts, strict=True)
        ]

    async def problems(self, run: str, after: int, limit: int) -> list[ProblemRecord]:
        """Return at most ``limit`` problems of a run whose position is greater than ``after``."""
        kept = await self.read("problem", run, (run, after), limit)
        return [ProblemRecord(run, number, value or b"") for _, _, number, value in kept]

    async def records(
        self, kind: str, record: type[_Kept], name: str | None = None
    ) -> AsyncIterator[tuple[str, _Kept]]:
        """Yield name and record of each entry of a kind, in order."""
        after = ("", ALL)
        while entries := await self.read(kind, name, after, _PAGE):
            for entry in entries:
                yield entry.name, _decode(entry.value or b"", type=record)
            after = entries[-1].name, entries[-1].number

    async def forget_run(self, name: str) -> None:
        """Delete a fan-out and all of its entries."""
        kinds = ("problem", "tokens", "verdicts", "run")
        await self.commit([Entry(kind, name, ALL, None) for kind in kinds])


def _plain(value: object) -> str:
    """Return a token of a subclass of str (`StartToken`) as a plain str."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be kept in a journal")


pack = msgspec.msgpack.Encoder(enc_hook=_plain).encode
"""Encodes a record's value for storage."""
_decode = msgspec.msgpack.decode

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
    """A `Journal` in the SQLite file at ``path``, which is created if missing (mode 0600).

    ``synchronous`` "normal" survives the death of the process (kill -9); "full" also survives loss
    of power, at the cost of a disk flush per batch (SQLite, "PRAGMA synchronous"). ``busy_timeout``
    is how many seconds it waits for another process's lock. One process at a time may use a
    journal; a second one gets JournalError. Raises InvalidSetting for an invalid setting.
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

    def __repr__(self) -> str:
        state = "open" if self._connection else "closed"
        return f"<SqliteJournal {self.path} {self._synchronous} {state}>"

    async def open(self) -> None:
        """Open or create the file."""
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
        """Close the file; no effect if it is closed."""
        thread, self._thread = self._thread, None
        connection, self._connection = self._connection, None
        if thread is None:
            return
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

    def _file(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalError(f"the journal {self.path} is not open")
        return self._connection

    async def commit(self, entries: Sequence[Entry]) -> None:
        """Store the entries in one transaction."""
        await self._do(lambda: self._commit(entries))

    def _commit(self, entries: Sequence[Entry]) -> None:
        connection = self._file()
        connection.execute("BEGIN IMMEDIATE")
        with connection:  # commits, or rolls back a failed transaction
            for kind, name, number, value in entries:
                if value is not None:
                    connection.execute(_KEEP, (kind, name, number, value))
                elif number == ALL:
                    connection.execute(_REMOVE_ALL, (kind, name))
                else:
                    connection.execute(_REMOVE, (kind, name, number))

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
        rows = await self._do(lambda: self._file().execute(question, [*values, limit]).fetchall())
        return [Entry(*row) for row in rows]
