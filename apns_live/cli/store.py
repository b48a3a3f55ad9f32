"""``apns-live store``: set up the service's database, look at it, make a sealing key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import InvalidSetting
from .options import Shared, command, group, option
from .output import ExitCode
from .store_access import StoreOption, apps_of, installed, run, sealer, shown_address

if TYPE_CHECKING:
    from ..activities.store.database import Database

app = group("Set up the database of the service, look at it, make a sealing key.")


@app.command("upgrade")
@command()
def upgrade(shared: Shared, store: StoreOption = None) -> int:
    """Create the tables, or bring those of an older release up to date. May be repeated."""

    async def work(database: Database) -> tuple[str, str, str]:
        from ..activities.store.upgrade import current_version
        from ..activities.store.upgrade import upgrade as migrate

        before = await current_version(database)
        return shown_address(database), before, await migrate(database)

    where, before, version = run(store, work, need="nothing")
    said = "is up to date" if before == version else f"was upgraded from {before or 'nothing'}"
    shared.screen.answer(
        {"store": where, "before": before, "version": version}, f"{where} {said}: {version}"
    )
    return ExitCode.OK


@app.command("status")
@command()
def status(shared: Shared, store: StoreOption = None) -> int:
    """Say which version the database is of, how large it is, and whether a sealing key is set."""

    async def work(database: Database) -> dict[str, Any]:
        from ..activities.store.upgrade import current_version, newest_version

        version = await current_version(database)
        return {
            "store": shown_address(database),
            "kind": "SQLite" if database.is_sqlite else "PostgreSQL",
            "version": version,
            "needed": newest_version(),
            "up_to_date": version == newest_version(),
            "bytes": await _bytes(database),
        }

    facts: dict[str, Any] = run(store, work, need="there")
    facts["sealing_key"] = _sealing(store)
    lines = [
        f"{facts['store']} ({facts['kind']}, {facts['bytes']:,} bytes)",
        f"version {facts['version'] or 'none'}, this release needs {facts['needed']}"
        + ("" if facts["up_to_date"] else ": run `apns-live store upgrade`"),
        f"sealing key: {facts['sealing_key']}",
    ]
    shared.screen.answer(facts, "\n".join(lines))
    return ExitCode.OK if facts["up_to_date"] else ExitCode.NOT_ACCEPTED


@app.command("new-key")
@command()
def new_key(
    shared: Shared,
    file: Annotated[
        str | None, option("Write it there, readable by you alone.", "--file", "FILE")
    ] = None,
) -> int:
    """Make a sealing key: whoever has it and the database can read the provider keys."""
    with installed():
        from ..activities.store.sealing import new_key as make
    key = make()
    if file is None:
        shared.screen.answer({"key": key}, key)
        return ExitCode.OK
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(file, flags, 0o600), "w", encoding="ascii") as target:
            target.write(key + "\n")
    except FileExistsError:
        raise InvalidSetting(
            f"{file} is there already",
            field="--file",
            remedy="Keys sealed with it would be lost: name another file.",
        ) from None
    shared.screen.answer(
        {"file": file}, f"{file}: name it in APNS_LIVE_STORE_KEY_FILE, and keep a copy elsewhere"
    )
    return ExitCode.OK


@app.command("rotate-key")
@command()
def rotate_key(
    shared: Shared,
    to: Annotated[Path, option("The new sealing key, of `store new-key`.", "--to", "FILE")],
    store: StoreOption = None,
) -> int:
    """Seal every provider key with a new sealing key. Stop gateways and workers first."""

    async def work(database: Database) -> int:
        from ..activities.store.sealing import FILE_VARIABLE, Sealer

        new = Sealer.from_environment({FILE_VARIABLE: str(to)})
        return await apps_of(database, sealed=True).seal_anew(new)

    count = run(store, work)
    shared.screen.answer(
        {"keys": count, "file": str(to)},
        f"{count} provider keys are sealed with {to}: name it in APNS_LIVE_STORE_KEY_FILE now",
    )
    return ExitCode.OK


def _sealing(store: str | None) -> str:
    try:
        sealer(store)
    except InvalidSetting as error:
        return f"{error.problem}"
    return "set"


async def _bytes(database: Database) -> int:
    from sqlalchemy import text

    query = (
        "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        if database.is_sqlite
        else "SELECT pg_database_size(current_database())"
    )
    async with database.read() as connection:
        return int((await connection.execute(text(query))).scalar_one())
