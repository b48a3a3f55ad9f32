"""Shards: parts of a start or notification, each sent by whichever worker claims it.

A shard is a range of token rows. Its steps::

    put       by the operation's owner, in the transaction that moves the operation's cursor
    claim     by any worker, under a lease with an epoch that grows with each claim
    address   by that worker: stores the devices to which it is about to send
    done      in the transaction that stores the last results: deletes the row

The worker renews the lease together with those of its partitions (`extend`), so it has one deadline for all. When
a worker dies, its leases expire, and others claim its shards. ``devices`` are those to which a push may have been
sent; their outcomes show which are settled.

Results of a shard are stored under `guard`, so a worker that lost the shard cannot store anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from . import schema
from .database import Database
from .statements import change_row, rows_of

NOW = "(SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT))"
"""PostgreSQL's clock in milliseconds since 1970: one moment for a whole statement, however long it runs."""
_table, _operations = schema.shards, schema.operations
_COLUMNS = (_table.c.id, _table.c.epoch, _table.c.after, _table.c.until, _table.c.devices)
_GUARD = (
    select(_table.c.id, _table.c.epoch)
    .where(_table.c.id.in_(bindparam("shards", expanding=True)), _table.c.owner == bindparam("me"))
    .order_by(_table.c.id)
    # A renewal may go on beside it, a new owner may not.
    .with_for_update(read=True, key_share=True)
)
_sent_still = _operations.c.status == schema.SHARDED


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as its worker claimed it. ``devices`` are those that an earlier worker addressed; None for none."""

    row: int
    epoch: int
    after: int
    until: int
    devices: bytes | None


class ShardQueue:
    """The shards of a database, as one worker sees them. ``lease`` is seconds.

    ``held`` has those that this worker may store results of, with their epochs. ``lost`` is called with
    shards that others claimed meanwhile, ``told`` with operations that have shards for other workers.
    """

    def __init__(self, owner: str = "", lease: float = 0.0) -> None:
        self._owner = owner
        self._lease = int(lease * 1000)
        self._over: set[int] = set()
        self.held: dict[int, int] = {}
        self.lost: Callable[[frozenset[int]], object] = lambda shards: None
        self.told: Callable[[int], object] = lambda operation: None

    async def put(
        self,
        connection: AsyncConnection,
        operation: int,
        ranges: Sequence[tuple[int, int]],
        devices: bytes | None = None,
        *,
        mine: bool = False,
    ) -> list[Shard]:
        """Add shards of ranges of token rows; return those that are ``mine`` from the beginning.

        Those are held once `hold` is called, after the commit.
        """
        values = [
            {"operation_id": operation, "after": after, "until": until, "devices": devices}
            for after, until in ranges
        ]
        if not mine:
            if values:
                await connection.execute(insert(_table), values)
            return []
        lease = {"owner": self._owner, "epoch": 1, "expires_at": self._end(connection)}
        [one] = values
        row = await connection.scalar(insert(_table).values(**one, **lease).returning(_table.c.id))
        return [Shard(row, 1, *ranges[0], devices)]

    def hold(self, shard: Shard) -> None:
        """Note that a shard is this worker's."""
        self.held[shard.row] = shard.epoch

    async def claim(self, database: Database, operation: int) -> Shard | None:
        """Return a shard of an operation that nobody holds, or None. It is held from here on."""
        async with database.write() as connection:
            free = (
                select(_table.c.id)
                .join(_operations, _operations.c.id == _table.c.operation_id)
                .where(_table.c.operation_id == operation, _sent_still, self._free(database))
                .order_by(_table.c.id)
                .limit(1)
                .with_for_update(of=_table, skip_locked=True)
            )
            claimed = (
                update(_table)
                .where(_table.c.id == free.scalar_subquery())
                .values(
                    owner=self._owner, epoch=_table.c.epoch + 1, expires_at=self._end(connection)
                )
                .returning(*_COLUMNS)
            )
            row = (await connection.execute(claimed)).one_or_none()
        if row is None:
            return None
        shard = Shard(*row)
        self.hold(shard)
        return shard

    async def address(self, connection: AsyncConnection, shard: Shard, devices: bytes) -> None:
        """Write down whom a push is about to leave to. The lease begins anew: a renewal may have passed this row over."""
        end = self._end(connection)
        await change_row(connection, _table, shard.row, devices=devices, expires_at=end)

    async def guard(self, connection: AsyncConnection, shards: Mapping[int, int]) -> frozenset[int]:
        """Keep shards until the transaction ends; return those whose epoch, which is given, is over."""
        if connection.dialect.name == "sqlite":
            return frozenset()
        rows = await connection.execute(_GUARD, {"shards": sorted(shards), "me": self._owner})
        held = {row.id: row.epoch for row in rows}
        return frozenset(row for row, epoch in shards.items() if held.get(row) != epoch)

    async def extend(self, connection: AsyncConnection) -> frozenset[int]:
        """Renew the leases of what is held; return what is lost. For `Leases`, with those of partitions.

        A row that a transaction of this worker's own is just changing is passed over: it is extended by that
        one, or is over.
        """
        before = dict(self.held)
        if not before:
            return frozenset()
        mine = (_table.c.id.in_(before), _table.c.owner == self._owner)
        unlocked = select(_table.c.id).where(*mine)
        unlocked = unlocked.with_for_update(key_share=True, skip_locked=True)
        renewed = update(_table).where(_table.c.id.in_(unlocked))
        await connection.execute(renewed.values(expires_at=self._end(connection)))
        found = await rows_of(connection, select(_table.c.id, _table.c.epoch).where(*mine))
        still = {row.id: row.epoch for row in found}
        return frozenset(row for row, epoch in before.items() if still.get(row) != epoch)

    def lose(self, shards: Iterable[int]) -> None:
        """Note that shards are others' by now."""
        gone = frozenset(row for row in shards if row in self.held and row not in self._over)
        self.forget(gone)
        if gone:
            self.lost(gone)

    def close(self, shard: Shard) -> None:
        """Note that nothing of a shard leaves any more, and that its row is about to be removed or released."""
        self._over.add(shard.row)

    def forget(self, shards: Iterable[int]) -> None:
        """Note that shards are not held any more."""
        for row in shards:
            self.held.pop(row, None)
            self._over.discard(row)

    async def left(self, database: Database, operation: int) -> int:
        """Return how many shards of an operation are not over; 0 when it failed."""
        count = select(func.count()).select_from(_table)
        count = count.join(_operations, _operations.c.id == _table.c.operation_id)
        query = count.where(_table.c.operation_id == operation, _sent_still)
        return int(await database.scalar(query))

    async def waiting(
        self, database: Database, partitions: Collection[int], *, limit: int
    ) -> Sequence[int]:
        """Return operations of other partitions than these with shards that may be claimed."""
        query = select(_table.c.operation_id).distinct()
        query = query.join(_operations, _operations.c.id == _table.c.operation_id)
        others = _operations.c.partition.not_in(partitions)
        query = query.where(self._free(database), _sent_still, others).limit(limit)
        return [row[0] for row in await database.rows(query)]

    async def drop(self, connection: AsyncConnection, operation: int) -> None:
        """Remove the shards of an operation that nobody ever claimed: it goes no further."""
        unclaimed = (_table.c.operation_id == operation, _table.c.epoch == 0)
        await connection.execute(delete(_table).where(*unclaimed, _table.c.devices.is_(None)))

    async def release(self, connection: AsyncConnection) -> None:
        """Let others claim everything that is held, at once."""
        mine = update(_table).where(_table.c.owner == self._owner)
        await connection.execute(mine.values(owner="", expires_at=0))

    def _free(self, database: Database) -> ColumnElement[bool]:
        """Return the condition that a shard may be claimed."""
        if database.is_sqlite:  # there is no other worker
            return _table.c.id.not_in(list(self.held))
        return _table.c.expires_at <= literal_column(NOW, BigInteger)

    def _end(self, connection: AsyncConnection) -> object:
        """Return the end of a lease that begins now."""
        if connection.dialect.name == "sqlite":
            return 0
        return literal_column(NOW, BigInteger) + self._lease


def encode_devices(devices: Iterable[int]) -> bytes:
    """Return row ids as bytes: in ascending order, each as its distance to the one before.

    A distance takes seven bits a byte, the lowest first; the eighth says that more follow.
    """
    coded, before = bytearray(), 0
    for device in sorted(set(devices)):
        rest, before = device - before, device
        while rest > 127:
            coded.append(rest & 127 | 128)
            rest >>= 7
        coded.append(rest)
    return bytes(coded)


def decode_devices(coded: bytes) -> list[int]:
    """Return what `encode_devices` was given, in ascending order."""
    devices, device, distance, shift = [], 0, 0, 0
    for byte in coded:
        distance |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            device += distance
            devices.append(device)
            distance = shift = 0
    return devices
