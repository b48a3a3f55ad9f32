"""``apns-live store``: sets up and inspects the service's database, and manages the sealing key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidSetting, StoreError
from .files import make_private
from .options import Shared, command, group
from .output import ExitCode
from .store_access import apps_of, installed, sealer_of, shown_address, stored

if TYPE_CHECKING:
    from ..activities.store.database import Database

app = group("Set up and inspect the service's database, and manage the sealing key.")


@app.command("upgrade")
@stored("--dry-run: Print the missing versions and their SQL; change nothing.", need="nothing")
async def upgrade(shared: Shared, database: Database, *, dry_run: bool = False) -> None:
    """Create the tables, or migrate those of an older release. May be repeated.

    On PostgreSQL running replicas continue to work.
    """
    from ..activities.store.upgrade import current_version, missing, newest_version
    from ..activities.store.upgrade import upgrade as migrate

    where, before = shown_address(database), await current_version(database)
    if dry_run:
        steps = await missing(database)
        to = newest_version() if steps else before
        lines = [f"{where} would be upgraded from {before or 'nothing'}: {to}"]
        for step in steps:
            lines += [
                "",
                f"-- {step.version}: {step.does}",
                *(f"{one};" for one in step.statements),
            ]
        named = [
            {"version": each.version, "does": each.does, "statements": each.statements}
            for each in steps
        ]
        found = {"store": where, "before": before, "version": to, "steps": named}
        shared.screen.answer(found, "\n".join(lines) if steps else f"{where} is up to date: {to}")
        return
    version = await migrate(database)
    said = "is up to date" if before == version else f"was upgraded from {before or 'nothing'}"
    shared.screen.answer(
        {"store": where, "before": before, "version": version}, f"{where} {said}: {version}"
    )


@app.command("status")
@stored(need="there")
async def status(shared: Shared, database: Database) -> int:
    """Print the version and size of the database, and whether a sealing key is set.

    The exit code is 0 if this release works with that version.
    """
    from ..activities.store.upgrade import OLDEST, check, current_version, newest_version

    version, needed = await current_version(database), newest_version()
    try:
        await check(database)
        usable = True
    except StoreError:
        usable = False
    facts: dict[str, Any] = {
        "store": shown_address(database),
        "kind": "SQLite" if database.is_sqlite else "PostgreSQL",
        "version": version,
        "needed": needed,
        "oldest": OLDEST,
        "usable": usable,
        "up_to_date": version == needed,
        "bytes": await _bytes(database),
        "sealing_key": _sealing(database),
    }
    lines = [
        f"{facts['store']} ({facts['kind']}, {facts['bytes']:,} bytes)",
        f"version {version or 'none'}, this release brings {needed} and {'works' if usable else 'does not work'} "
        + ("on it" if version >= needed else "on it: run `apns-live store upgrade`"),
        f"sealing key: {facts['sealing_key']}",
    ]
    shared.screen.answer(facts, "\n".join(lines))
    return ExitCode.OK if usable else ExitCode.NOT_ACCEPTED


@app.command("new-key")
@command("--file FILE: Write the key to this new file, readable only by you.")
def new_key(shared: Shared, file: Path | None = None) -> int:
    """Create a sealing key. Anyone who has it and the database can read the provider keys."""
    with installed():
        from ..activities.store.sealing import new_key as make
    key = make()
    if file is None:
        shared.screen.answer({"key": key}, key)
        return ExitCode.OK
    if not make_private(file, key + "\n"):
        raise InvalidSetting(
            f"{file} is there already",
            field="--file",
            remedy="Keys sealed with it would be lost: name another file.",
        )
    shared.screen.answer(
        {"file": str(file)},
        f"{file}: name it in APNS_LIVE_STORE_KEY_FILE, and keep a copy elsewhere",
    )
    return ExitCode.OK


@app.command("rotate-key")
@stored("--to FILE: The new sealing key, of `store new-key`.")
async def rotate_key(shared: Shared, database: Database, to: Path) -> None:
    """Encrypt every provider key with a new sealing key. Stop gateways and workers first."""
    from ..activities.store.sealing import FILE_VARIABLE, Sealer

    new = Sealer.from_environment({FILE_VARIABLE: str(to)})
    count = await apps_of(database, sealed=True).seal_anew(new)
    shared.screen.answer(
        {"keys": count, "file": str(to)},
        f"{count} provider keys are sealed with {to}: name it in APNS_LIVE_STORE_KEY_FILE now",
    )


def _sealing(database: Database) -> str:
    try:
        sealer_of(database)
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
