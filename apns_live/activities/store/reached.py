"""Accepted pushes of a shard, as one row of ``outcomes`` for all of its devices.

Such a row has their row ids in ``devices`` (see `encode_devices`), and the smallest and largest of them beside it. Each
push was accepted at its ``priority``, and its apns-id is ``apns_id`` followed by the device's row id in hexadecimal. All
other outcomes, and few of an operation at a time, have a row each.

Callers see an outcome for each device. Its place in an operation's listing is the row's id, and for all but the
row's last device also its number in the row, from 1 on, times `PLACES`.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import BigInteger, ColumnElement, LargeBinary, String, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from .schema import outcomes
from .shards import decode_devices, encode_devices
from .statements import chunks, rows_of, with_rows

LEAST = 32
"""The number of devices from which on they share a row."""
MOST = 2_000
"""Devices per row. Numbers of devices, times `PLACES`, are exact in JavaScript."""
PLACES = 1 << 42
_columns = outcomes.c
_is_packed = _columns.devices.is_not(None)
_INSERT = text("""
INSERT INTO outcomes (app_id, operation_id, device_id, verdict, status, reason, apns_id, priority,
    created_at, devices, first_device, last_device)
SELECT app_id, id, -1, 'accepted', 200, '', :apns_id, :priority, :now, :devices, :first, :last
FROM operations WHERE id = :operation
""").bindparams(
    bindparam("apns_id", type_=String),
    *(bindparam(name, type_=BigInteger) for name in ("priority", "now", "first", "last")),
    bindparam("devices", type_=LargeBinary),
)
_DEVICES = (
    "SELECT devices.id, devices.public_id FROM {*device} JOIN devices ON devices.id = given.device"
)


class Place(NamedTuple):
    """One outcome in an operation's listing. ``source`` has the columns that the devices of a row share."""

    row: int
    source: Any
    device: int | None
    """The device's row id, if it shares its row with others."""


async def store(
    connection: AsyncConnection,
    operation: int,
    apns_id: str,
    priority: int,
    devices: Iterable[int],
    now: int,
) -> None:
    """Store accepted pushes to devices; ``now`` is milliseconds since 1970."""
    common = {"operation": operation, "apns_id": apns_id, "priority": priority, "now": now}
    rows = [
        {**common, "devices": encode_devices(some), "first": some[0], "last": some[-1]}
        for some in chunks(sorted(devices), MOST)
    ]
    if rows:
        await connection.execute(_INSERT, rows)


async def rows_of_many(
    connection: AsyncConnection, *conditions: ColumnElement[bool]
) -> Sequence[Any]:
    """Return the rows for several devices that meet the conditions."""
    query = select(_columns.first_device, _columns.last_device, _columns.devices)
    return await rows_of(connection, query.where(_is_packed, *conditions))


def among(rows: Iterable[Any], devices: Collection[int]) -> set[int]:
    """Return the devices that occur in the rows."""
    found: set[int] = set()
    if devices:
        first, last = min(devices), max(devices)
        for row in rows:
            if row.first_device <= last and row.last_device >= first:
                found.update(decode_devices(row.devices))
    return found.intersection(devices)


async def sharing(
    connection: AsyncConnection, devices: Collection[int], *conditions: ColumnElement[bool]
) -> set[int]:
    """Return the devices that share a row with others, under conditions."""
    if not devices:
        return set()
    near = _columns.first_device <= max(devices), _columns.last_device >= min(devices)
    return among(await rows_of_many(connection, *conditions, *near), devices)


async def places(
    connection: AsyncConnection, operation: int, after: int, limit: int
) -> list[Place]:
    """Return a page of an operation's outcomes after a place, in order of arrival."""
    number, row = divmod(after, PLACES)
    shared = [column for column in _columns if column is not _columns.devices]
    page = select(*shared, _is_packed.label("is_packed"))
    page = page.where(_columns.operation_id == operation, _columns.id > row - (number > 0))
    sources = await rows_of(connection, page.order_by(_columns.id).limit(limit))
    packed = [source.id for source in sources if source.is_packed][: limit // LEAST + 2]
    coded = {}
    if packed:
        devices = select(_columns.id, _columns.devices).where(_columns.id.in_(packed))
        coded = {source.id: source.devices for source in await rows_of(connection, devices)}
    found: list[Place] = []
    for source in sources:
        if len(found) >= limit:
            break
        if not source.is_packed:
            found.append(Place(source.id, source, None))
            continue
        of_row = decode_devices(coded[source.id])
        begin = number if source.id == row else 0
        for index, device in enumerate(of_row[begin : begin + limit - len(found)], begin + 1):
            place = source.id + (index * PLACES if index < len(of_row) else 0)
            found.append(Place(place, source, device))
    return found


async def names(connection: AsyncConnection, devices: Sequence[int]) -> dict[int, str]:
    """Return the public ids of devices by their rows; deleted devices are left out."""
    if not devices:
        return {}
    return {row.id: row.public_id for row in await with_rows(connection, _DEVICES, devices)}


async def of_device(connection: AsyncConnection, app: int, device: int, limit: int) -> list[Any]:
    """Return the newest outcomes of a device, the newest first; at most ``limit`` rows."""
    newest = select(outcomes).order_by(_columns.id.desc()).limit(limit)
    single = await rows_of(connection, newest.where(_columns.device_id == device))
    around = _columns.first_device <= device, _columns.last_device >= device
    shared = await rows_of(connection, newest.where(_columns.app_id == app, _is_packed, *around))
    found = [*single, *(row for row in shared if device in decode_devices(row.devices))]
    return sorted(found, key=lambda row: row.id, reverse=True)[:limit]


_PERSONS = """
SELECT count(*) - count(devices.user_id), CAST(AGGREGATE(DISTINCT devices.user_id) AS TEXT)
FROM {*device} LEFT JOIN devices ON devices.id = given.device
"""


async def persons(connection: AsyncConnection, operation: int) -> tuple[int, set[int]]:
    """Return how many devices of an operation's shared rows have no user, and the users of the others."""
    sqlite = connection.dialect.name == "sqlite"
    statement = _PERSONS.replace("AGGREGATE", "json_group_array" if sqlite else "json_agg")
    alone = 0
    users: set[Any] = set()
    for shared in await rows_of_many(connection, _columns.operation_id == operation):
        found = await with_rows(connection, statement, decode_devices(shared.devices))
        row: Any = found.one()
        alone += row[0]
        users.update(msgspec.json.decode(row[1]))
    return alone, users - {None}
