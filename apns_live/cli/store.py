"""``apns-live store``: sets up and inspects the service's database, and manages the sealing key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InvalidSetting, StoreError
from .files import make_private
from .options import Shared, command, group
from .output import ExitCode
from .store_access import Stored, apps_of, sealer_of, shown_address, stored

app = group("Set up and inspect the service's database, and manage the sealing key.")


@app.command("upgrade")
@stored(
    "--dry-run: Print the missing versions and their SQL; change nothing.", need="nothing", app=()
)
async def upgrade(shared: Stored, dry_run: bool = False) -> None:
    """Create the tables, or migrate those of an older release. May be repeated.

    On PostgreSQL running replicas continue to work.
    """
    from ..activities.store.upgrade import current_version, missing, newest_version
    from ..activities.store.upgrade import upgrade as migrate

    database = shared.database
    where, before = shown_address(database), await current_version(database)
    if dry_run:
        steps = await missing(database)
        to = newest_version() if steps else before
        named = [
            {"version": each.version, "does": each.does, "statements": each.statements}
            for each in steps
        ]
        lines = [f"{where} would be upgraded from {before or 'nothing'}: {to}"]
        for step in steps:
            lines += [
                "",
                f"-- {step.version}: {step.does}",
                *(f"{one};" for one in step.statements),
            ]
        found = {"store": where, "before": before, "version": to, "steps": named}
        shared.answer(found, *(lines if steps else [f"{where} is up to date: {to}"]))
        return
    version = await migrate(database)
    said = "is up to date" if before == version else f"was upgraded from {before or 'nothing'}"
    shared.answer(
        {"store": where, "before": before, "version": version}, f"{where} {said}: {version}"
    )


@app.command("status")
@stored(need="there", app=())
async def status(shared: Stored) -> int:
    """Print the version and size of the database, and whether a sealing key is set.

    The exit code is 0 if this release works with that version.
    """
    from sqlalchemy import text

    from ..activities.store.upgrade import OLDEST, check, current_version, newest_version

    database = shared.database
    version, needed = await current_version(database), newest_version()
    try:
        await check(database)
        usable = True
    except StoreError:
        usable = False
    try:
        sealing_key = "set"
        sealer_of(database)
    except InvalidSetting as error:
        sealing_key = error.problem
    query = (
        "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        if database.is_sqlite
        else "SELECT pg_database_size(current_database())"
    )
    async with database.read() as connection:
        size = int((await connection.execute(text(query))).scalar_one())
    facts: dict[str, Any] = {
        "store": shown_address(database),
        "kind": "SQLite" if database.is_sqlite else "PostgreSQL",
        "version": version,
        "needed": needed,
        "oldest": OLDEST,
        "usable": usable,
        "up_to_date": version == needed,
        "bytes": size,
        "sealing_key": sealing_key,
    }
    shared.answer(
        facts,
        f"{facts['store']} ({facts['kind']}, {size:,} bytes)",
        f"version {version or 'none'}, this release brings {needed} and {'works' if usable else 'does not work'} "
        + ("on it" if version >= needed else "on it: run `apns-live store upgrade`"),
        f"sealing key: {sealing_key}",
    )
    return ExitCode.OK if usable else ExitCode.NOT_ACCEPTED


@app.command("new-key")
@command("--file FILE: Write the key to this new file, readable only by you.")
def new_key(shared: Shared, file: Path | None = None) -> None:
    """Create a sealing key. Anyone who has it and the database can read the provider keys."""
    from ..activities.store.sealing import new_key as make

    key = make()
    if file is None:
        shared.answer({"key": key}, key)
        return
    if not make_private(file, key + "\n"):
        raise InvalidSetting(
            f"{file} is there already",
            "--file",
            "Keys sealed with it would be lost: name another file.",
        )
    shared.answer(
        {"file": str(file)},
        f"{file}: name it in APNS_LIVE_STORE_KEY_FILE, and keep a copy elsewhere",
    )


@app.command("rotate-key")
@stored("--to FILE: The new sealing key, of `store new-key`.", app=())
async def rotate_key(shared: Stored, to: Path) -> None:
    """Encrypt every provider key with a new sealing key. Stop gateways and workers first."""
    from ..activities.store.sealing import FILE_VARIABLE, Sealer

    new = Sealer.from_environment({FILE_VARIABLE: str(to)})
    count = await apps_of(shared.database, sealed=True).seal_anew(new)
    shared.answer(
        {"keys": count, "file": str(to)},
        f"{count} provider keys are sealed with {to}: name it in APNS_LIVE_STORE_KEY_FILE now",
    )
