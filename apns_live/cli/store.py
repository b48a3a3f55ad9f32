"""Commands on the service's database: ``store``, ``import``, ``activities`` and ``operations``."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clock import SystemClock
from ..errors import InvalidInput, InvalidSetting, StoreError
from .files import make_private
from .options import Shared, bundle, command, group
from .output import ExitCode, progress_shown, to_json
from .store_access import (
    PAGE,
    Stored,
    apps_of,
    dated,
    say_facts,
    say_page,
    sealer_of,
    shown_address,
    stored,
)

if TYPE_CHECKING:
    from ..activities.accept.activities import Activities
    from ..activities.people.imports import Progress
    from ..activities.people.imports.fields import Kind
    from ..activities.read.operations import Operations

app = group("Set up and inspect the service's database, and manage the sealing key.")
imports = group(
    "Import devices, users and tokens from CSV or JSON Lines. A second import changes nothing."
)
activities = group("Inspect the activities in the service's database.")
operations = group("Inspect the operations of the service, and export their outcomes.")


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
    facts: dict[str, Any] = {"store": where, "before": before}
    if dry_run:
        steps = await missing(database)
        facts["version"] = to = newest_version() if steps else before
        names = ("version", "does", "statements")
        facts["steps"] = [{name: getattr(step, name) for name in names} for step in steps]
        lines = [f"{where} would be upgraded from {before or 'nothing'}: {to}"]
        for step in steps:
            lines += ["", f"-- {step.version}: {step.does}"]
            lines += [f"{one};" for one in step.statements]
        shared.answer(facts, *(lines if steps else [f"{where} is up to date: {to}"]))
        return
    facts["version"] = version = await migrate(database)
    said = "is up to date" if before == version else f"was upgraded from {before or 'nothing'}"
    shared.answer(facts, f"{where} {said}: {version}")


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
    usable, sealing_key = True, "set"
    try:
        await check(database)
    except StoreError:
        usable = False
    try:
        sealer_of(database)
    except InvalidSetting as error:
        sealing_key = error.problem
    query = "SELECT pg_database_size(current_database())"
    if database.is_sqlite:
        query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
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
        remedy = "Keys sealed with it would be lost: name another file."
        raise InvalidSetting(f"{file} is there already", "--file", remedy)
    said = f"{file}: name it in APNS_LIVE_STORE_KEY_FILE, and keep a copy elsewhere"
    shared.answer({"file": str(file)}, said)


@app.command("rotate-key")
@stored("--to FILE: The new sealing key, of `store new-key`.", app=())
async def rotate_key(shared: Stored, to: Path) -> None:
    """Encrypt every provider key with a new sealing key. Stop gateways and workers first."""
    from ..activities.store.sealing import FILE_VARIABLE, Sealer

    new = Sealer.from_environment({FILE_VARIABLE: str(to)})
    count = await apps_of(shared.database, sealed=True).seal_anew(new)
    said = f"{count} provider keys are sealed with {to}: name it in APNS_LIVE_STORE_KEY_FILE now"
    shared.answer({"keys": count, "file": str(to)}, said)


# --- import

SHOWN = 10
"""Maximum of refused lines on stderr."""

_IMPORT = """
--format auto|csv|jsonl: Format of the file.
--from onesignal|braze: The file is an export of this vendor.
--column NAME=COLUMN: Column of a field; =COLUMN ignores a column.
--set NAME=VALUE: Value of a field in lines that do not have it.
--ignore-others: Ignore unknown columns.
--registered-at WHEN: Time of tokens without one; otherwise they count as older than any other.
--rejects FILE: Write refused lines to this file, to correct and import.
--dry-run: Check every line, store nothing.
--batch N [1..10000]: Lines per transaction.
"""


_OPTIONS: dict[str, Any] = {
    "format": "auto",
    "from": str,
    "column": list[str],
    "set": list[str],
    "ignore_others": False,
    "registered_at": str,
    "rejects": str,
    "dry_run": False,
    "batch": 1_000,
}


def _import(kind: Kind, text: str) -> None:
    """Add the command that imports one kind of lines."""

    async def imported(shared: Stored, file: str) -> int:
        from ..activities.core import Core
        from ..activities.people.imports import Imports, Layout
        from ..activities.people.records import OLDEST, moment

        def tell(progress: Progress) -> None:
            refused = f", {progress.refused:,} refused" if progress.refused else ""
            show(progress.bytes_read, f"{progress.accepted:,} lines stored{refused}", progress.size)

        given, at = shared.others, shared.others["registered_at"]
        layout = Layout(
            form=given["format"],
            vendor=given["from_"],
            columns={theirs: ours for ours, theirs in _pairs(given["column"], "--column")},
            defaults=dict(_pairs(given["set"], "--set")),
            ignore_unknown=given["ignore_others"],
            registered_at=moment(at, "--registered-at") if at else OLDEST,
        )
        with progress_shown(f"import {kind}", total=None, shown=sys.stderr.isatty()) as show:
            report = await Imports(Core(shared.database, SystemClock())).run(
                shared.app,
                kind,
                file,
                layout=layout,
                telling=tell,
                **{name: given[name] for name in ("dry_run", "batch", "rejects")},
            )
        return _imported(shared, report, given["rejects"])

    imported.__doc__ = text
    file = "FILE: CSV or JSON Lines, also as .gz; - reads stdin."
    imports.command(kind)(stored(file, bundle(_IMPORT, **_OPTIONS))(imported))


_import("devices", "Import devices with their tags, attributes, groups and tokens.")
_import("users", "Import users with their aliases, tags, attributes and groups.")
_import("tokens", "Import push-to-start tokens and device tokens.")


def _pairs(texts: list[str] | None, option: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts or []:
        name, _, value = text.partition("=")
        if not value:
            remedy = "Write NAME=VALUE, ours first."
            raise InvalidInput(f"{text[:40]!r} is not a valid pair", option, remedy)
        pairs.append((name, value))
    return pairs


def _imported(shared: Stored, report: Any, rejects: str | None) -> int:
    import msgspec

    facts = msgspec.to_builtins(report)
    kinds = ("devices", "users", "tokens")
    counts = ", ".join(f"{facts[name]:,} {name}" for name in kinds if facts[name])
    done = "would be stored" if report.dry_run else "stored"
    text = f"{report.accepted:,} of {report.lines:,} lines {done}"
    text += f" ({counts})" if counts else ""
    text += f" in {report.seconds:.1f} s"
    text += "".join(f"; {facts[name]:,} {name}" for name in ("refused", "skipped") if facts[name])
    if report.ignored:
        text += f"; left out: {', '.join(report.ignored)}"
    if not shared.json_mode:
        for error in report.errors[:SHOWN]:
            shared.note(str(error))
        if report.refused > SHOWN:
            shared.note(f"and {report.refused - SHOWN:,} more lines")
    if rejects is not None and report.refused:
        text += f"; see {rejects}"
        facts["rejects"] = rejects
    shared.answer(facts, text)
    return ExitCode.NOT_ACCEPTED if report.refused else ExitCode.OK


# --- activities and operations

_ACTIVITIES = ("id", "attributes_type", "status", "version", "created_at", "ended_at")
_COUNTS = ("status", "targeted", "accepted", "queued", "failed")
_OUTCOMES = ("device", "verdict", "status", "reason", "apns_id", "priority", "created_at")
_ACTIVITY = "ACTIVITY: Id of the activity."
_OPERATION = "OPERATION: Id of the operation."


@activities.command("list")
@stored("--status scheduled|active|ended: Only activities with this status.", PAGE)
async def list_activities(
    shared: Stored, status: str | None = None, after: int = 0, limit: int = 100
) -> None:
    """Print a page of activities, oldest first."""
    found = await _activities(shared).page(shared.app, status=status, after=after, limit=limit)
    say_page(shared, "activities", found, _ACTIVITIES, limit)


@activities.command("show")
@stored(_ACTIVITY)
async def show_activity(shared: Stored, activity: str) -> None:
    """Print an activity with its newest state, and how many devices have that state."""
    say_facts(shared, await _activities(shared).get(shared.app, activity))


@activities.command("history")
@stored(_ACTIVITY)
async def history(shared: Stored, activity: str) -> None:
    """Print the operations of an activity, oldest first; with --json one per line."""
    columns, rows = ("operation", "kind", "version", *_COUNTS), []
    async for page in _activities(shared).history(shared.app, activity):
        for row in page:
            if shared.json_mode:
                shared.answer(dated(row))
            else:
                rows.append([dict(row)[name] for name in columns])
    shared.table(columns, rows)


@operations.command("list")
@stored("--activity ID: Only operations of this activity.", PAGE)
async def list_operations(
    shared: Stored, activity: str | None = None, after: int = 0, limit: int = 100
) -> None:
    """Print a page of operations, oldest first."""
    found = await _operations(shared).page(shared.app, after=after, limit=limit, activity=activity)
    say_page(shared, "operations", found, ("id", "kind", "activity", *_COUNTS), limit)


@operations.command("show")
@stored(_OPERATION)
async def show_operation(shared: Stored, operation: str) -> None:
    """Print an operation and its counters."""
    say_facts(shared, await _operations(shared).get(shared.app, operation))


@operations.command("export")
@stored(_OPERATION, "--format jsonl|csv: Format of the output.")
async def export(shared: Stored, operation: str, format_: str = "jsonl") -> None:
    """Print the outcome of an operation on every device, one per line."""
    as_csv = format_ == "csv"
    if shared.json_mode and as_csv:
        raise InvalidInput("csv cannot be combined with --json", "--format", "Give jsonl.")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        writer.writerow(_OUTCOMES)
    async for outcome in _operations(shared).export(shared.app, operation):
        row = {name: dated(outcome)[name] for name in _OUTCOMES}
        if as_csv:
            writer.writerow(row.values())
        else:
            shared.answer(row, to_json(row))


def _activities(shared: Stored) -> Activities:
    from ..activities.accept.activities import Activities
    from ..activities.core import Core

    return Activities(Core(shared.database, SystemClock()))


def _operations(shared: Stored) -> Operations:
    from ..activities.core import Core
    from ..activities.read.operations import Operations

    return Operations(Core(shared.database, SystemClock()))
