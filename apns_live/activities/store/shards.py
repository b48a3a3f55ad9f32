"""Shards: parts of a start or notification, each sent by whichever worker claims it.

A shard is a range of token rows. Its steps::

    put       by the operation's owner, in the transaction that moves the operation's cursor
    claim     by any worker, under a lease with an epoch that grows with each claim
    address   by that worker: stores the devices to which it is about to send
    done      in the transaction that stores the last results: deletes the row

The worker renews the lease together with those of its partitions (`EXTEND`), so it has one deadline for all. When
a worker dies, its leases expire, and others claim its shards. ``devices`` are those to which a push may have been
sent; their outcomes show which are settled. The others are in doubt, so no other worker sends to them, unless the
owner is `RELEASED`: then a worker stored that it has not sent to them.

Results of a shard are stored under `guard`, so a worker that lost the shard cannot store anything.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import sub
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from . import schema
from .database import Database
from .statements import among, json_text, run

NOW = "(SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT))"
"""PostgreSQL's clock in milliseconds since 1970, the same throughout a statement."""
RELEASED = "released"
"""The owner of a shard whose devices without an outcome certainly got no push."""
_table = schema.shards
_OF = "FROM shards JOIN operations ON operations.id = shards.operation_id AND operations.status = 'sharded'"
_FREE = f"shards.expires_at <= {NOW}"
_FIRST = f"{_OF} WHERE shards.operation_id = :operation AND {{free}} ORDER BY shards.id LIMIT 1"
_free = _FIRST.format(free=_FREE)
_CLAIM = text(
    f"WITH free AS (SELECT shards.id, shards.owner {_free} FOR UPDATE OF shards SKIP LOCKED) "  # noqa: S608
    f"UPDATE shards SET owner = :owner, epoch = epoch + 1, expires_at = {NOW} + :lease "
    "FROM free WHERE shards.id = free.id "
    'RETURNING shards.id, epoch, "after", until, devices, free.owner'
)
_free = _FIRST.format(free="shards.id NOT IN (SELECT value FROM json_each(:held))")
_CLAIM_SQLITE = text(
    f"UPDATE shards SET epoch = epoch + 1 WHERE id = (SELECT shards.id {_free}) "  # noqa: S608
    'RETURNING id, epoch, "after", until, devices, owner'
)
_MOVED = f"""
UPDATE operations SET targeted = targeted + :more, cursor = :until, status = '{schema.SHARDED}'
WHERE id = :operation
"""  # noqa: S608
_MINE = """
INSERT INTO shards (operation_id, "after", until, devices, owner, epoch, expires_at)
VALUES (:operation, :until, :until, :devices, :owner, 1, {} + :lease) RETURNING id
"""
_PUT = f"WITH moved AS ({_MOVED}) {_MINE.format(NOW)}"
_PUT_SQLITE = _MINE.format(0)
_ADDRESSED = """
UPDATE shards SET devices = :devices, owner = :owner, expires_at = {} + :lease
WHERE id = :shard AND epoch = :epoch RETURNING operation_id
"""
_ADDED = "UPDATE operations SET targeted = targeted + :more WHERE id = "
_ADDRESS = f"WITH held AS ({_ADDRESSED.format(NOW)}) {_ADDED} (SELECT operation_id FROM held)"  # noqa: S608
_ADDRESS_SQLITE = _ADDRESSED.format(0)
_GUARD = (
    select(_table.c.id, _table.c.epoch)
    .where(among(_table.c.id, bindparam("shards")), _table.c.owner == bindparam("owner"))
    .order_by(_table.c.id)
    # A renewal may run in parallel; a change of owner may not.
    .with_for_update(read=True, key_share=True)
)
_HELD = "FROM shards WHERE id = ANY(CAST(:shards AS BIGINT[])) AND owner = :owner"
# Skips a row that another transaction of this worker is changing: that one renews or deletes it.
EXTEND = (
    f"UPDATE shards SET expires_at = {NOW} + :lease "  # noqa: S608
    f"WHERE id IN (SELECT id {_HELD} FOR NO KEY UPDATE SKIP LOCKED)"
)
"""Renews the leases of an owner's shards; `Leases` does it together with its own."""
HELD = f"SELECT array_agg(ARRAY[id, epoch]) {_HELD}"
"""Reads the shards among those given that the owner still holds, with their epochs."""
_LEFT = text(f"SELECT count(*) {_OF} WHERE shards.operation_id = :operation")
_operations = schema.operations.c
CLAIMABLE = (
    select(_table.c.operation_id)
    .distinct()
    .join(schema.operations)
    .where(
        _operations.status == schema.SHARDED,
        text(_FREE),
        ~among(_operations.partition, bindparam("partitions")),
    )
    .limit(100)
)
"""Operations outside of ``partitions`` with shards that can be claimed now."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A claimed shard. ``devices`` are those that an earlier worker addressed; None for none.

    ``before`` is the earlier owner.
    """

    row: int
    epoch: int
    after: int
    until: int
    devices: bytes | None
    before: str = ""


class ShardQueue:
    """The shards of a database, as one worker sees them. ``lease`` is seconds.

    ``held`` has the shards whose results this worker may store, with their epochs. ``lost`` is
    called with shards that others claimed meanwhile, ``told`` with operations that have shards for
    other workers.
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
    ) -> None:
        """Add shards for ranges of token rows, for any worker."""
        values = [
            {"operation_id": operation, "after": after, "until": until, "devices": devices}
            for after, until in ranges
        ]
        if values:
            await connection.execute(insert(_table), values)

    async def put_mine(
        self, connection: AsyncConnection, operation: int, until: int, devices: bytes, more: int
    ) -> Shard:
        """Add a shard that this worker has addressed, and ``more`` devices to the operation's target.

        The operation's cursor moves to ``until``. This worker holds the shard once `hold` is called,
        after the commit.
        """
        mine: dict[str, Any] = {"operation": operation, "until": until, "devices": devices}
        mine |= {"owner": self._owner, "lease": self._lease}
        if connection.dialect.name == "sqlite":
            await advance(connection, operation, more=more, cursor=until)
            put = await run(connection, _PUT_SQLITE, **mine)
        else:
            put = await run(connection, _PUT, more=more, **mine)
        return Shard(put.scalar_one(), 1, until, until, devices)

    def hold(self, shard: Shard) -> None:
        """Note that this worker holds a shard."""
        self.held[shard.row] = shard.epoch

    async def claim(self, database: Database, operation: int) -> Shard | None:
        """Claim a free shard of an operation and return it, or None. It is held from here on."""
        if database.is_sqlite:  # there is no other worker
            async with database.write() as connection:
                given: dict[str, object] = {"operation": operation}
                given["held"] = json_text(list(self.held))
                row = (await connection.execute(_CLAIM_SQLITE, given)).one_or_none()
        else:
            given = {"owner": self._owner, "lease": self._lease, "operation": operation}
            row = await database.row(_CLAIM, given)
        if row is None:
            return None
        shard = Shard(*row)
        self.hold(shard)
        return shard

    async def address(
        self, connection: AsyncConnection, shard: Shard, devices: bytes, more: int
    ) -> bool:
        """Store the devices that are about to get a push; return False if another worker has the shard.

        Adds ``more`` devices to the operation's target. Renews the lease: a renewal may have
        skipped it.
        """
        given: dict[str, Any] = {"shard": shard.row, "epoch": shard.epoch, "devices": devices}
        given |= {"owner": self._owner, "lease": self._lease}
        if connection.dialect.name == "sqlite":
            if held := (await run(connection, _ADDRESS_SQLITE, **given)).scalar():
                await advance(connection, held, more=more)
            return held is not None
        return bool((await run(connection, _ADDRESS, more=more, **given)).rowcount)

    async def guard(self, connection: AsyncConnection, shards: Mapping[int, int]) -> frozenset[int]:
        """Lock shards until the transaction ends; return those whose given epoch is out of date."""
        if connection.dialect.name == "sqlite":
            return frozenset()
        rows = await connection.execute(_GUARD, {"shards": list(shards), "owner": self._owner})
        held = {row.id: row.epoch for row in rows}
        return frozenset(row for row, epoch in shards.items() if held.get(row) != epoch)

    def missing(
        self, before: Mapping[int, int], found: Sequence[Sequence[int]] | None
    ) -> frozenset[int]:
        """Return the shards that were held ``before`` and that `HELD` did not find, unless they are closed."""
        gone = before.items() - dict(found or ()).items()  # type: ignore[arg-type]
        return frozenset(row for row, _ in gone) - self._over

    def lose(self, shards: Iterable[int]) -> None:
        """Note that other workers now hold shards."""
        gone = frozenset(row for row in shards if row in self.held and row not in self._over)
        self.forget(gone)
        if gone:
            self.lost(gone)

    def close(self, shard: Shard) -> None:
        """Note that a shard sends nothing more, and that its row is about to be deleted or released."""
        self._over.add(shard.row)

    def forget(self, shards: Iterable[int]) -> None:
        """Note that this worker no longer holds shards."""
        for row in shards:
            self.held.pop(row, None)
            self._over.discard(row)

    async def left(self, database: Database, operation: int) -> int:
        """Return the number of unfinished shards of an operation; 0 if it failed."""
        async with database.read(once=True) as connection:
            return int(await connection.scalar(_LEFT, {"operation": operation}) or 0)

    async def drop(self, connection: AsyncConnection, operation: int) -> None:
        """Delete the unclaimed shards of an operation that is being stopped."""
        unclaimed = (_table.c.operation_id == operation, _table.c.epoch == 0)
        await connection.execute(delete(_table).where(*unclaimed, _table.c.devices.is_(None)))

    async def release(self, connection: AsyncConnection) -> None:
        """Let others claim all held shards at once. Devices without an outcome are in doubt."""
        mine = update(_table).where(_table.c.owner == self._owner)
        await connection.execute(mine.values(expires_at=0))


async def advance(
    connection: AsyncConnection, operation: int, *, more: int = 0, cursor: int | None = None
) -> None:
    """Add ``more`` devices to a fan-out's target, and store up to which row shards are cut."""
    if cursor is not None:
        await run(connection, _MOVED, operation=operation, more=more, until=cursor)
    elif more:
        await run(connection, f"{_ADDED} :operation", operation=operation, more=more)


def encode_devices(devices: Iterable[int]) -> bytes:
    """Return row ids as bytes: in ascending order, each as its distance to the one before.

    A distance takes seven bits a byte, the lowest first; the eighth says that more follow.
    """
    given = sorted(set(devices))
    steps = [*map(sub, given, [0, *given])]
    if steps and max(steps[1:], default=0) < 128:
        return _seven_bits(steps[0]) + bytes(steps[1:])
    return b"".join(map(_seven_bits, steps))


def _seven_bits(number: int) -> bytes:
    coded = bytearray()
    while number > 127:
        coded.append(number & 127 | 128)
        number >>= 7
    coded.append(number)
    return bytes(coded)


def decode_devices(coded: bytes) -> list[int]:
    """Return the row ids that were encoded, in ascending order."""
    devices, device, distance, shift = [], 0, 0, 0
    for byte in coded:
        distance |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            device += distance
            devices.append(device)
            distance = shift = 0
    return devices
