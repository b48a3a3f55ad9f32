"""Statements that differ between SQLite and PostgreSQL, and statements with many rows.

Rows are passed as one JSON text. With one parameter set per row, Python's SQLite driver releases and
reacquires the GIL for each row, which next to a busy event loop takes longer than the row itself. A
statement with all rows in one parameter is one step. Reading is the same: the database aggregates a page
to one JSON text.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Executable,
    LargeBinary,
    Row,
    Select,
    String,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    func,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncConnection

from .schema import SHARDED

Item = TypeVar("Item")
View = TypeVar("View")
# The maximum number of parameters is 32,766 in SQLite, 32,767 in PostgreSQL's driver.
CHUNK = 500
_encode = msgspec.json.Encoder().encode

Insert = sqlite.Insert | postgresql.Insert


def insert_into(connection: AsyncConnection, table: Table) -> Insert:
    """Return an INSERT with ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def among(column: ColumnElement[Any], values: BindParameter[Any] | Iterable[int]) -> Any:
    """Return the condition that a column has one of many numbers. Only for PostgreSQL.

    The numbers are one parameter. IN would need one per number, each of which costs SQLAlchemy 10
    us.
    """
    if not isinstance(values, BindParameter):
        values = bindparam(None, sorted(values), unique=True)
    return column == any_(type_coerce(values, postgresql.ARRAY(column.type)))


async def rows_of(connection: AsyncConnection, query: Executable) -> Sequence[Row[Any]]:
    """Return all rows of a query."""
    return (await connection.execute(query)).all()


async def row_of(connection: AsyncConnection, query: Executable) -> Row[Any] | None:
    """Return the one row of a query, or None."""
    return (await connection.execute(query)).one_or_none()


_JSON = frozenset(
    {"attributes", "content_state", "detail", "filter", "groups", "metadata", "scopes", "tags"}
)


_COLUMNS = {"row": "id", "id": "public_id", "channel": "channel_id"}
"""Columns whose name in a view is another."""


def view_of(kind: type[View], source: Row[Any], /, **given: Any) -> View:
    """Return a view with the fields of ``kind``: the given values, else the row's columns by name.

    ``row`` is the internal row id and ``id`` the public one. JSON text is decoded, and tokens are
    shortened to eight digits.
    """

    def entry(name: str) -> Any:
        value = getattr(source, _COLUMNS.get(name, name))
        if name == "status" and value == SHARDED:
            return "running"
        if value is not None and name == "token":
            return f"{value[:8]}…"
        return msgspec.json.decode(value) if value is not None and name in _JSON else value

    names = getattr(kind, "__struct_fields__", None) or kind.__annotations__
    return kind(**{name: given[name] if name in given else entry(name) for name in names})


def json_text(value: object) -> str:
    """Return a value as JSON text, as columns hold it."""
    return _encode(value).decode()


async def change_row(connection: AsyncConnection, table: Table, row: int, /, **values: Any) -> None:
    """Set columns of one row."""
    await connection.execute(update(table).where(table.c.id == row).values(values))


async def hold(connection: AsyncConnection, table: Table, rows: Iterable[int]) -> None:
    """Lock rows until the transaction ends, in the order that all writers use.

    Activities come before operations, operations before devices and tokens; another order could
    deadlock. SQLite has one writer at a time anyway.
    """
    wanted = set(rows)
    if wanted and connection.dialect.name == "postgresql":
        query = select(table.c.id).where(table.c.id.in_(wanted)).order_by(table.c.id)
        await connection.execute(query.with_for_update(key_share=True))


def chunks(items: Iterable[Item], size: int = CHUNK) -> Iterator[list[Item]]:
    """Cut a sequence into lists of at most ``size`` items."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


_GIVEN = re.compile(r"\{(\*?)([^}]*)\}(\s+JOIN\b)?")
_SOURCES = {
    "sqlite": "json_each(:rows)",
    "postgresql": "jsonb_array_elements(CAST(CAST(:rows AS TEXT) AS JSONB))",
}
_NUMBERS = {
    "sqlite": "json_each(:rows)",
    "postgresql": "unnest(CAST(CAST(:rows AS TEXT) AS BIGINT[])) AS value",
}
_TYPES: dict[type, Any] = {int: BigInteger, bool: BigInteger, str: String, bytes: LargeBinary}


async def with_rows(
    connection: AsyncConnection,
    statement: str,
    rows: Iterable[Sequence[object]] | Iterable[int],
    **parameters: int | str,
) -> CursorResult[Any]:
    """Execute a statement over rows, which are the table ``given`` in it.

    In the statement the table is written as its columns in braces: ``FROM {device, token TEXT}``.
    Columns are BIGINT by default. With ``{*device}`` the rows are numbers, not sequences.
    """
    encoded = json_text(rows if isinstance(rows, list) else list(rows))
    if "{*" in statement and connection.dialect.name == "postgresql":
        encoded = f"{{{encoded[1:-1]}}}"  # the text of an array, which the driver need not encode
    return await run(connection, statement, rows=encoded, **parameters)


async def numbers_with_rows(
    connection: AsyncConnection, statement: str, rows: Iterable[int], **parameters: int | str
) -> list[int]:
    """Execute a statement over rows, and return the one number of each row of its result.

    PostgreSQL returns them as one JSON text, because its driver makes an object of each row.
    """
    if connection.dialect.name == "sqlite":
        return [*(await with_rows(connection, statement, rows, **parameters)).scalars()]
    whole = f"WITH found(number) AS ({statement}) SELECT CAST(json_agg(number) AS TEXT) FROM found"  # noqa: S608
    found = (await with_rows(connection, whole, rows, **parameters)).scalar()
    return msgspec.json.decode(found or "[]", type=list[int])


async def run(
    connection: AsyncConnection, statement: str, **parameters: int | str | bytes
) -> CursorResult[Any]:
    """Execute a statement that both databases understand."""
    kinds = tuple((name, type(value)) for name, value in parameters.items())
    prepared = _prepared(connection.dialect.name, statement, kinds)
    result: CursorResult[Any] = await connection.execute(prepared, parameters)
    return result


@lru_cache(maxsize=256)
def _prepared(dialect: str, statement: str, parameters: tuple[tuple[str, type], ...]) -> Any:
    binds = [bindparam(name, type_=_TYPES[kind]) for name, kind in parameters]
    if (found := _GIVEN.search(statement)) is not None:
        columns = [column.split(maxsplit=1) for column in found[2].split(",")]
        source = f"{_SOURCES[dialect]} AS listed"
        chosen = ", ".join(
            f"CAST(value ->> {index} AS {(*kind, 'BIGINT')[0]}) AS {name}"
            for index, (name, *kind) in enumerate(columns)
        )
        if found[1]:
            chosen, source = f"value AS {columns[0][0]}", _NUMBERS[dialect]
        # SQLite's planner would scan the other table and look up each row in the list. CROSS JOIN
        # fixes the order as written: the list outside, the table inside by its index.
        join = (found[3] or "").replace("JOIN", "CROSS JOIN" if dialect == "sqlite" else "JOIN")
        given = f"(SELECT {chosen} FROM {source}) AS given"  # noqa: S608
        statement = f"{statement[: found.start()]}{given}{join}{statement[found.end() :]}"
    return text(statement).bindparams(*binds)


async def page_of(
    connection: AsyncConnection,
    query: Select[Any],
    parameters: Mapping[str, object] | None = None,
    kind: type[Any] = list,
) -> list[Any]:
    """Return the rows of a query in any order, each as a sequence or a struct of this kind.

    The database encodes them as one JSON text, so on SQLite booleans are 0 and 1. Build the query
    once and pass parameters.
    """
    whole = await connection.scalar(as_json(connection.dialect.name, query), parameters)
    rows: list[Any] = _decoder(kind).decode(whole or "[]")  # type: ignore[arg-type]
    return rows


@lru_cache(maxsize=64)
def as_json(dialect: str, query: Select[Any]) -> Select[Any]:
    """Return the query for the rows of a query as one JSON text, or NULL if there are none."""
    columns = query.subquery().c
    if dialect == "sqlite":
        return select(func.json_group_array(func.json_array(*columns)))
    return select(cast(func.json_agg(func.json_build_array(*columns)), Text))


@lru_cache(maxsize=16)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(list[kind])


def in_turns(
    items: Iterable[Item], key: Callable[[Item], Hashable], most: int = CHUNK
) -> list[list[Item]]:
    """Group items so that no key occurs twice in a group: a statement may touch a row once.

    A later item of a key is in a later group. A group has at most ``most`` items.
    """
    turns: list[dict[Hashable, Item]] = []
    for item in items:
        place = key(item)
        turn = next((turn for turn in turns if len(turn) < most and place not in turn), None)
        if turn is None:
            turns.append(turn := {})
        turn[place] = item
    return [list(turn.values()) for turn in turns]
