"""Ownership of partitions: leases decide which process sends, and fence its writes.

Every activity and operation belongs to one of 256 partitions. On PostgreSQL each has a lease: an owner, an
epoch that grows with each new owner, and an expiry by the database's clock. A worker renews all of its leases,
including those of its shards, at once. It measures their time by its own monotonic clock from *before* the
request, so it stops earlier than the database expects. `Ownership.guard` checks the epochs in the transaction
that stores results, and locks the rows, so a former owner cannot store anything. No state is kept in a session, so
PgBouncer in transaction mode works.

On SQLite one process owns all partitions. It holds a file lock on a file next to the database, so the file
system must support locks; some network shares do not.
"""

import asyncio
import contextlib
import logging
import math
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from sqlalchemy import ColumnElement, FromClause, bindparam, select, text, true
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import SystemClock
from ...errors import Conflict, StoreError
from . import schema
from .database import Database
from .failures import STORE_FAILURES
from .shards import EXTEND, HELD, NOW, ShardQueue
from .statements import among
from .wakeups import CHANNEL, RELEASED

try:
    import fcntl
except ImportError:  # Windows: there the file is not protected by a lock
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("apns_live.activities")

PARTITIONS = 256
LEASE = 5.0
"""Seconds that a lease lasts by default."""
PATIENCE = 5.0
"""Seconds that a killed process may need to disappear, on SQLite."""
_RENEWALS = 4
"""Renewals within one lease."""
_SPARE = 0.2
"""The share of a lease that must remain for a push to be sent."""
_LATE, _HUNG = 0.35, 5.0
"""The shares of a lease after which a renewal is late, so that the other thread renews, and after which
it does not: the process hangs, and others must take over."""
_BETWEEN = 0.05
_SOON = 0.05
"""The share of a lease between two looks while expired leases of others cannot be taken yet."""
_PRECISE, _JITTER = 0.2, 0.05
"""Maximum seconds for an answer with the time, and the smallest difference that counts."""

Gained = Callable[[frozenset[int]], Awaitable[None]]
Lost = Callable[[frozenset[int]], Awaitable[bool]]
Monotonic = Callable[[], float]


class NotOwner(StoreError):
    """Another worker owns the named partitions or shards now. Nothing was stored."""

    def __init__(
        self, partitions: frozenset[int] = frozenset(), shards: frozenset[int] = frozenset()
    ) -> None:
        what = f"{len(shards)} shards" if shards else f"{len(partitions)} partitions"
        super().__init__(f"{what} have another owner by now")
        self.partitions = partitions
        self.shards = shards


def partition_of(app: int, public_id: str) -> int:
    """Return the partition of an app's activity, or of an operation that has none."""
    return zlib.crc32(f"{app}\n{public_id}".encode()) % PARTITIONS


_FOR_EVER_OURS: Mapping[int, int] = dict.fromkeys(range(PARTITIONS), 0)


async def _nothing(_: frozenset[int]) -> None:
    """Do nothing."""


async def _nothing_sent(_: frozenset[int]) -> bool:
    """Return True: everything that was sent is stored."""
    return True


class Ownership:
    """Owns every partition permanently. Used with SQLite, and the base class of `Leases`.

    ``gained`` is called with new partitions, ``lost`` with lost ones; ``lost`` returns once sending
    for them has stopped, with True if all results are stored. If another worker had a partition in
    between, ``lost`` is always called before ``gained``, because what is in memory is out of date.
    """

    def __init__(
        self, terms: Mapping[int, int] | None = None, shards: ShardQueue | None = None
    ) -> None:
        self.shards = shards or ShardQueue()
        """The shards that are held here."""
        self.gained: Gained = _nothing
        self.lost: Lost = _nothing_sent
        self.handed_over: frozenset[int] = frozenset()
        """Owned partitions whose former owner stored all results: none of their pushes is in doubt."""
        self.offset = 0.0
        """Seconds by which the database's clock is ahead of this machine's."""
        self.terms: Mapping[int, int] = _FOR_EVER_OURS if terms is None else terms
        """The owned partitions, also those about to be released, with their epochs. Never changed in place.
        """
        self.partitions = frozenset(self.terms)
        """The partitions for which this process does the work."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.partitions)} partitions>"

    @property
    def whole(self) -> bool:
        """Whether this process owns every partition."""
        return len(self.partitions) == PARTITIONS

    @property
    def lapsed(self) -> bool:
        """Whether the leases have expired, because they were not renewed in time."""
        return False

    @property
    def fenced(self) -> bool:
        """Whether nothing may be sent now, because no lease is valid for long enough."""
        return not self.terms

    def holds(self, partition: int) -> bool:
        """Whether a push of this partition may be sent now."""
        return partition in self.partitions and not self.fenced

    def mine(self, table: FromClause) -> ColumnElement[bool]:
        """Return the SQL condition for rows of activities or operations in owned partitions."""
        return true() if self.whole else among(table.c.partition, self.partitions)

    async def guard(self, connection: AsyncConnection, terms: Mapping[int, int]) -> None:
        """Lock partitions until the transaction ends. ``terms`` has the epoch of each.

        Raises `NotOwner` if an epoch is out of date, also if this worker owns the partition again.
        """

    async def open(self) -> None:
        """Start to own partitions."""
        await self.gained(self.partitions)

    async def run(self) -> None:
        """Renew the ownership until cancelled."""

    def look(self) -> None:
        """Take over partitions that another worker has just released."""

    async def leave(self) -> None:
        """Release the partitions once their results are stored. No more work is begun.

        Shards stay until `aclose`: pushes of theirs may be unanswered.
        """

    async def aclose(self) -> None:
        """Release everything, so that other workers take over at once."""

    def _measured(self, before: float, now: int, after: float) -> None:
        """Store the database's time in milliseconds, with the local times of request and answer."""
        offset = now / 1000 - (before + after) / 2
        if after - before < _PRECISE and abs(offset - self.offset) > _JITTER:
            self.offset = offset


NOT_HELD = -1
"""The epoch of a partition that is not owned."""

_ROWS = text(
    "INSERT INTO leases (partition, owner, epoch, expires_at) "
    "SELECT generate_series(0, :most), '', 0, 0 ON CONFLICT DO NOTHING"
)
# One statement without a transaction, so that a busy or stopped process holds no row between two.
_EXTENDED = (
    f"renewed AS (UPDATE leases SET expires_at = {NOW} + :lease WHERE owner = :owner "  # noqa: S608
    f"RETURNING partition, epoch), extended AS ({EXTEND}) "
)
_OWNED = (
    "SELECT (SELECT array_agg(ARRAY[partition, epoch]) FROM renewed) AS owned, "  # noqa: S608
    f"({HELD}) AS shards, {NOW} AS now"
)
_EXTEND = text(f"WITH {_EXTENDED} {_OWNED}")
_RENEW = text(
    f"WITH here AS (INSERT INTO workers (id, expires_at) VALUES (:owner, {NOW} + :lease) "  # noqa: S608
    "ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at), "
    "gone AS (DELETE FROM workers WHERE id IN (SELECT id FROM workers "
    f"WHERE id <> :owner AND expires_at <= {NOW} FOR UPDATE SKIP LOCKED)), {_EXTENDED} {_OWNED}, "
    f"(SELECT count(*) FROM workers WHERE id <> :owner AND expires_at > {NOW}) + 1 AS workers, "
    # Leases that others did not renew: those of a dead process end when the first of them does.
    "(SELECT min(expires_at) FROM leases WHERE owner <> :owner) AS ends"
)
_GONE = text("DELETE FROM workers WHERE id = :owner")
_CLOCK = text(f"SELECT {NOW}")
# FOR UPDATE also waits for a process that locked a row by `guard`; those rows are skipped.
_CLAIM = text(
    "WITH free AS (SELECT partition, owner FROM leases "  # noqa: S608
    f"WHERE expires_at <= {NOW} ORDER BY random() LIMIT :most FOR UPDATE SKIP LOCKED) "
    f"UPDATE leases SET owner = :owner, epoch = epoch + 1, expires_at = {NOW} + :lease "
    "FROM free WHERE leases.partition = free.partition "
    "RETURNING leases.partition, leases.epoch, free.owner AS before"
)
STORED = "stored"
"""The owner of a partition that was released with all results stored; otherwise it is empty."""
_RELEASE = text(
    "UPDATE leases SET owner = :stored, expires_at = 0 "
    "WHERE owner = :owner AND partition = ANY(CAST(:partitions AS INTEGER[]))"
)
_RELEASE_ALL = text("UPDATE leases SET owner = :stored, expires_at = 0 WHERE owner = :owner")
# Without LISTEN, workers look when they renew.
_TELL = text(f"SELECT pg_notify('{CHANNEL}', '{RELEASED}')")
_leases = schema.leases
_GUARD = (
    select(_leases.c.partition, _leases.c.epoch)
    .where(among(_leases.c.partition, bindparam("partitions")), _leases.c.owner == bindparam("me"))
    .order_by(_leases.c.partition)
    # A renewal may run in parallel; a change of owner may not.
    .with_for_update(read=True, key_share=True)
)


class DatabaseClock(SystemClock):
    """A clock that follows the database's time, so that all processes agree on the time."""

    def __init__(self) -> None:
        self.ownership = Ownership()

    def time(self) -> float:
        """Return the database's time in seconds since 1970."""
        return time.time() + self.ownership.offset


class Onlooker(Ownership):
    """Owns nothing, for a process that only accepts calls."""

    def __init__(self, database: Database, *, wall: Callable[[], float] = time.time) -> None:
        super().__init__({})
        self._database = database
        self._wall = wall

    async def open(self) -> None:
        """Read the database's clock. Raises `StoreError`."""
        if self._database.is_sqlite:
            return
        before = self._wall()
        async with self._database.read() as connection:
            now = await connection.scalar(_CLOCK)
        self._measured(before, now, self._wall())

    async def run(self) -> None:
        """Read the clock periodically, until cancelled."""
        while not self._database.is_sqlite:
            await asyncio.sleep(LEASE)
            try:
                await self.open()
            except STORE_FAILURES as error:
                self._database.outage.failed("the database's clock could not be read", error)


class Leases(Ownership):
    """Owns a fair share of the partitions of a PostgreSQL database. ``lease`` is seconds."""

    def __init__(
        self,
        database: Database,
        owner: str,
        *,
        lease: float = LEASE,
        monotonic: Monotonic = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__({}, ShardQueue(owner, lease))
        self._database = database
        self._owner = owner
        self._lease = lease
        self._monotonic = monotonic
        self._wall = wall
        self._leaving: frozenset[int] = frozenset()
        self._deadline = 0.0
        self._asked = -math.inf
        """When the last renewal was asked for (monotonic seconds)."""
        self._due = asyncio.Event()
        self._closing = threading.Event()
        self._next_look = lease / _RENEWALS

    def _own(self, terms: Mapping[int, int]) -> None:
        self.terms = terms
        self.partitions = frozenset(terms) - self._leaving

    @property
    def lapsed(self) -> bool:
        """Whether the leases have expired."""
        return self._monotonic() >= self._deadline

    @property
    def fenced(self) -> bool:
        """Whether nothing may be sent now."""
        return self._monotonic() >= self._deadline - self._lease * _SPARE

    async def guard(self, connection: AsyncConnection, terms: Mapping[int, int]) -> None:
        """See `Ownership.guard`. Costs one statement."""
        rows = await connection.execute(_GUARD, {"partitions": sorted(terms), "me": self._owner})
        held = {row.partition: row.epoch for row in rows}
        if lost := frozenset(each for each, epoch in terms.items() if held.get(each) != epoch):
            raise NotOwner(lost)

    async def open(self) -> None:
        """Take free partitions. Raises `StoreError`."""
        async with self._database.write() as connection:
            await connection.execute(_ROWS, {"most": PARTITIONS - 1})
        await self._renew()

    async def run(self) -> None:
        """Renew leases, and balance partitions among the workers, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                # Not wait_for: it loses a cancellation that arrives at the same moment.
                async with asyncio.timeout(self._next_look):
                    await self._due.wait()
            self._due.clear()
            try:
                async with asyncio.timeout(self._lease):
                    await self._renew()
            except STORE_FAILURES as error:
                self._database.outage.failed("leases could not be renewed", error)
            if self.terms and self.lapsed:
                gone = frozenset(self.terms)
                self._own({})
                logger.error("%d partitions were lost: their leases have expired", len(gone))
                await self.lost(gone)

    def look(self) -> None:
        """Renew now."""
        self._due.set()

    async def _renew(self) -> None:
        if self._closing.is_set():
            return
        asked, before, held = self._monotonic(), self._wall(), dict(self.shards.held)
        named = {"owner": self._owner, "lease": int(self._lease * 1000)}
        async with self._database.read(once=True) as connection:
            found = (await connection.execute(_RENEW, {**named, "shards": list(held)})).one()
        answered = self._wall()
        owned = dict(found.owned or ())
        share = -(-PARTITIONS // found.workers)
        kept = {each: epoch for each, epoch in self.terms.items() if owned.get(each) == epoch}
        handed_over = frozenset() if self.lapsed else self.handed_over & kept.keys()
        if (most := share - len(owned)) > 0:
            async with self._database.read(once=True) as connection:
                claimed = (await connection.execute(_CLAIM, {**named, "most": most})).all()
            owned |= {row.partition: row.epoch for row in claimed}
            handed_over |= {row.partition for row in claimed if row.before == STORED}
        self._measured(before, found.now, answered)
        # When the first lease of a dead process ends, and not a whole interval later.
        ends_in = math.inf if found.ends is None else (found.ends - found.now) / 1000
        self._next_look = min(self._lease / _RENEWALS, max(ends_in, self._lease * _SOON))
        was_fenced, had_lapsed = self.fenced, self.lapsed
        self.handed_over = frozenset(handed_over)
        gone = self.terms.keys() - kept.keys() - self._leaving
        # Work on gained partitions begins only after all work on lost ones has stopped.
        self._own(kept)
        self.shards.lose(self.shards.missing(held, found.shards))
        self._asked, self._deadline = asked, asked + self._lease
        if gone:
            logger.error("%d partitions have another owner now", len(gone))
            await self.lost(frozenset(gone))
        self._own(owned)
        # Partitions that expired here and that no other worker took are read again too.
        fresh = owned.keys() if had_lapsed else owned.keys() - kept.keys()
        if fresh or was_fenced:
            await self.gained(frozenset(fresh))
        if len(self.partitions) > share:
            await self._leave(frozenset(sorted(self.partitions)[share:]))

    def keep(self, address: str) -> None:
        """Renew the leases while the service's event loop is too busy for it. Runs in another thread.

        A process with little CPU may need seconds for a turn of its event loop. Only `_renew` takes
        and gives up partitions. An event loop that hangs loses them.
        """
        with asyncio.Runner() as runner:
            database = Database.open(address, pool_size=1, timeout=self._lease)
            while not self._closing.wait(self._lease / _RENEWALS):
                if _LATE < (self._monotonic() - self._asked) / self._lease < _HUNG:
                    try:
                        runner.run(self._extend(database))
                    except STORE_FAILURES:  # `_renew` reports it
                        continue
            runner.run(database.aclose())

    async def _extend(self, database: Database) -> None:
        asked, terms, held = self._monotonic(), self.terms, dict(self.shards.held)
        given = {"owner": self._owner, "lease": int(self._lease * 1000), "shards": list(held)}
        async with asyncio.timeout(self._lease), database.read(once=True) as connection:
            found = (await connection.execute(_EXTEND, given)).one()
        # If something was lost, nothing may be sent until `_renew` has seen it.
        lost = terms.items() - dict(found.owned or ()).items()
        if not lost and not self.shards.missing(held, found.shards):
            self._deadline = max(self._deadline, asked + self._lease)

    async def _leave(self, partitions: frozenset[int]) -> None:
        """Release partitions once their results are stored."""
        self._leaving |= partitions
        self._own(self.terms)
        try:
            stored = STORED if await self.lost(partitions) else ""
            released = {"partitions": sorted(partitions), "owner": self._owner, "stored": stored}
            async with self._database.write() as connection:
                await connection.execute(_RELEASE, released)
                await connection.execute(_TELL)
        finally:
            self._leaving -= partitions
            self._own({k: v for k, v in self.terms.items() if k not in partitions})

    async def leave(self) -> None:
        """See `Ownership.leave`."""
        self._closing.set()
        self._leaving = frozenset(self.terms)
        self._own(self.terms)
        await self._release_all(STORED if await self.lost(self._leaving) else "")

    async def aclose(self) -> None:
        """See `Ownership.aclose`."""
        self._closing.set()
        await self._release_all("", shards=True)

    async def _release_all(self, stored: str, *, shards: bool = False) -> None:
        try:
            async with self._database.write() as connection:
                await connection.execute(_RELEASE_ALL, {"owner": self._owner, "stored": stored})
                if shards:
                    await self.shards.release(connection)
                await connection.execute(_GONE, {"owner": self._owner})
                await connection.execute(_TELL)
        except STORE_FAILURES as error:
            logger.warning("leases could not be released and will expire: %.200s", error)
        self._own({})


@asynccontextmanager
async def owning(
    database: Database, owner: str, *, lease: float = LEASE, patience: float = PATIENCE
) -> AsyncIterator[Ownership]:
    """Yield the ownership for a database; it starts with `Ownership.open`.

    On SQLite it waits up to ``patience`` seconds for an earlier process to end, and raises `Conflict`
    if that process continues.
    """
    if not database.is_sqlite:
        # A separate connection: a renewal must not wait behind other work.
        address = database.url.render_as_string(hide_password=False)
        async with Database.open(address, pool_size=1, timeout=lease) as own:
            own.outage = database.outage
            leases = Leases(own, owner, lease=lease)
            keeper = threading.Thread(target=leases.keep, args=(address,), daemon=True)
            keeper.start()
            try:
                yield leases
            finally:
                await leases.aclose()
                await asyncio.to_thread(keeper.join)
        return
    if fcntl is None:
        yield Ownership()
        return
    with _lock_file(database).open("a") as file:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience
        while not _take(file):
            if loop.time() >= give_up:
                raise Conflict(
                    f"another service sends for {database!r} already: end it first, or open this "
                    "one with send=False. Two would send everything twice"
                )
            await asyncio.sleep(_BETWEEN)
        yield Ownership()


def _lock_file(database: Database) -> Path:
    path = Path(database.url.database or "").resolve()
    return path.with_name(path.name + "-serving")


def lock_is_lost(database: Database) -> bool:
    """Return True if no process holds the lock file of an SQLite database, or it was deleted."""
    if fcntl is None or not database.is_sqlite:
        return False
    try:
        with _lock_file(database).open() as file:
            return _take(file)
    except OSError:
        return True


def _take(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
