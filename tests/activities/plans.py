"""That no query reads a whole table: every statement of a block is explained by its database.

On SQLite a plan must search, not scan. On PostgreSQL sequential scans, and the joins that small
tables are read whole for, are switched off for the explanation: a plan that still has one, or an
index read from end to end, has no other way.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event

from apns_live.activities.store.database import Database

_EXPLAINED = ("SELECT", "UPDATE", "DELETE", "WITH", "INSERT")


@asynccontextmanager
async def every_query_indexed(
    database: Database, *, small: Iterable[str] = (), without: Iterable[str] = ()
) -> AsyncIterator[list[str]]:
    """Check the plan of each statement of the block at its end.

    ``small`` names tables that have few rows by nature (the apps), which may be scanned. ``without``
    names indexes that would lead to too many rows.
    """
    seen: dict[str, Any] = {}

    def remember(connection, cursor, statement, parameters, context, executemany):
        if statement.lstrip().upper().startswith(_EXPLAINED):
            seen.setdefault(statement, parameters[0] if executemany else parameters)

    engines = {id(engine): engine for engine in (database._writer, database._reader)}.values()
    for engine in engines:
        event.listen(engine.sync_engine, "before_cursor_execute", remember)
    try:
        yield []
    finally:
        for engine in engines:
            event.remove(engine.sync_engine, "before_cursor_execute", remember)
    assert seen, "the block ran no query"
    problems = []
    for statement, parameters in seen.items():
        found = await _problems(database, statement, parameters, set(small), set(without))
        problems += [f"{problem}\n  in: {' '.join(statement.split())}" for problem in found]
    assert not problems, "\n".join(problems)


async def _problems(
    database: Database, statement: str, parameters: Any, small: set[str], without: set[str]
) -> list[str]:
    async with database.read() as connection:
        if database.is_sqlite:
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return [
                detail
                for *_, detail in rows
                if without & set(detail.split())
                or (
                    detail.startswith("SCAN ")
                    and detail.split()[1] not in small
                    and not _of_no_table(detail)
                )
            ]
        for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
            await connection.exec_driver_sql(f"SET LOCAL {setting} = off")
        await connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        found = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
        plan = found.scalar()
        plan = json.loads(plan) if isinstance(plan, str) else plan
        return list(_walk(plan[0]["Plan"], small, without))


def _of_no_table(detail: str) -> bool:
    """A subquery, a list of values, JSON: not a table of the store."""
    name = detail.split()[1]
    return (
        name in {"CONSTANT", "SUBQUERY", "given", "listed"}
        or name.startswith(("(", "anon_"))
        or "VALUES" in detail
        or "VIRTUAL TABLE" in detail
    )


def _walk(node: dict[str, Any], small: set[str], without: set[str]) -> Iterable[str]:
    kind, table = node["Node Type"], node.get("Relation Name", "")
    if node.get("Index Name") in without:
        yield f"{kind} on {table} reads {node['Index Name']}"
    if kind == "Seq Scan" and table not in small:
        yield f"Seq Scan on {table}"
    if (
        kind in {"Index Scan", "Index Only Scan"}
        and "Index Cond" not in node
        and table not in small
        and not node["Index Name"].endswith(PARTIAL)
    ):
        yield f"{kind} on {table} reads all of {node['Index Name']}"
    for inner in node.get("Plans", ()):
        yield from _walk(inner, small, without)


PARTIAL = ("_retired", "_missing", "_ending", "_replaced", "_deleted")
"""Indexes over few rows, which may be read from their beginning."""
