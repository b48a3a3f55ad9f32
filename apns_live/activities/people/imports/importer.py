"""Runs an import: reads on a thread, writes in batches, never loads a whole file.

A batch is one transaction. Every statement changes a row only where the value differs, so a batch that is
written twice changes nothing the second time.
"""

import asyncio
import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import IO, Any, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from ....clock import Clock, SystemClock
from ....errors import InvalidInput
from ...apps import App
from ...core import Core, Part
from ...finding import row_ids
from ...store import schema
from ...store.database import Database, Growth
from ...store.statements import chunks, insert_into
from ..devices import Devices
from ..people import Subject, Values, rows_of_users, set_aliases, set_values
from ..records import OLDEST
from .fields import VENDORS, Belongings, Facts, Kind, check_layout, facts_of, nested
from .reading import Form, Line, Reader, Rejects

Result = TypeVar("Result")
BATCH = 1_000
"""Lines that are written in one transaction."""
BATCH_BYTES = 4 << 20
"""Bytes of lines after which a batch is written, even with few lines."""
Source = str | Path | IO[bytes]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is to be read.

    ``columns`` maps names in the file to ours, an empty text leaves a column out. ``defaults``
    holds values for fields that a line does not have. ``vendor`` (onesignal, braze) selects the
    layout of a vendor's export. ``registered_at`` is milliseconds since 1970 for tokens without a
    time of their own; without it they count as older than any other, so that they never replace
    what a phone registered.
    """

    form: Form = "auto"
    vendor: str | None = None
    columns: Mapping[str, str] = {}
    defaults: Mapping[str, str] = {}
    ignore_unknown: bool = False
    registered_at: int = OLDEST


KEPT_ERRORS = 100
"""Refused lines in a report; a rejects file has all of them."""


class LineError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a line was refused. ``line`` counts from 1 and includes the header of a CSV file."""

    line: int
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = f", {self.field}" if self.field else ""
        return f"line {self.line}{where}: {self.problem}. {self.remedy}".rstrip()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of an import, reported after each batch. ``size`` is None for a pipe."""

    lines: int
    accepted: int
    refused: int
    bytes_read: int
    size: int | None


class Report(msgspec.Struct, kw_only=True):
    """The result of an import, or with ``dry_run`` the result that it would have.

    ``accepted`` and ``refused`` count lines; ``skipped`` those that a vendor's list has for other
    platforms than Apple's. ``devices``, ``users`` and ``tokens`` count the entries of accepted
    lines, new or already stored. ``errors`` holds the first refused lines.
    """

    dry_run: bool
    lines: int = 0
    accepted: int = 0
    refused: int = 0
    skipped: int = 0
    devices: int = 0
    users: int = 0
    tokens: int = 0
    ignored: tuple[str, ...] = ()
    """Columns or keys that were left out, as the caller or the vendor's layout specifies."""
    errors: list[LineError] = []
    seconds: float = 0.0


Telling = Callable[[Progress], None]


class Imports(Part):
    """Bulk import of devices, users and tokens. Importing the same file twice changes nothing."""

    def __init__(self, core: Core | Database, clock: Clock | None = None) -> None:
        if isinstance(core, Database):
            use = (
                "Imports(database, clock) is now Service.imports, or Imports(Core(database, clock))"
            )
            warnings.warn(use, DeprecationWarning, stacklevel=2)
            core = Core(core, clock or SystemClock())
        super().__init__(core)
        self._devices = Devices(core)
        self._growth = Growth(core.database)

    def __getattr__(self, kind: str) -> Any:
        if kind not in {"devices", "users", "tokens"}:
            raise AttributeError(kind)
        use = f"Imports.{kind}(app, source) is now Imports.run(app, {kind!r}, source)"
        warnings.warn(use, DeprecationWarning, stacklevel=2)
        return lambda app, source, **options: self.run(app, kind, source, **options)  # type: ignore[arg-type]

    async def run(
        self,
        app: App,
        kind: Kind,
        source: Source,
        *,
        layout: Layout | None = None,
        dry_run: bool = False,
        batch: int = BATCH,
        rejects: str | Path | None = None,
        telling: Telling | None = None,
    ) -> Report:
        """Read ``source`` (a path, ``-`` for stdin, an open binary file) to its end.

        A refused line is counted, reported and, with ``rejects``, written to that file; the others
        are stored. ``telling`` is called with the `Progress` after each batch. Raises
        `InvalidInput` for an invalid layout or file, and when every line of the first batch is
        refused. Batches stored before an error stay, and you may import the same file again.
        """
        layout, ignored = layout or Layout(), set[str]()
        check_layout(kind, layout.vendor, [*layout.columns.values(), *layout.defaults])
        report = Report(dry_run=dry_run, errors=[])
        begin = perf_counter()
        held: Rejects | None = None
        reader = await _in_thread(lambda: Reader(source, layout.form))
        facts_in = partial(_facts, kind, layout, texts=reader.header is not None, now=self.now)
        batches = _batches(reader, partial(facts_in, ignored=ignored), batch)
        reading: asyncio.Future[_Read | None] | None = None
        try:
            held = None if rejects is None else Rejects(rejects)
            reading = asyncio.ensure_future(_in_thread(lambda: next(batches, None)))
            while (read := await reading) is not None:
                # The next batch is read while this one is written.
                reading = asyncio.ensure_future(_in_thread(lambda: next(batches, None)))
                lines, report.lines, bytes_read = read
                facts = _sort(lines, report, held, reader.header)
                if facts and not dry_run:
                    await self._write(app, facts)
                if report.refused >= BATCH and not report.accepted:
                    raise InvalidInput(
                        f"all of the first {report.refused:,} lines were refused, {report.errors[0]}",
                        remedy="Is this the file, and are its columns named right?",
                    )
                if telling is not None:
                    counts = {"accepted": report.accepted, "refused": report.refused}
                    size, count = reader.size, report.lines
                    telling(Progress(lines=count, bytes_read=bytes_read, size=size, **counts))
            report.lines = reader.lines
            report.ignored = tuple(sorted(ignored))
            report.seconds = perf_counter() - begin
            if held is not None:
                held.commit()
        except BaseException:
            if held is not None:
                held.discard()
            raise
        finally:
            if reading is not None and not reading.done():
                reading.cancel()
                reader.stopped = True
            else:
                reader.close()
                if reading is not None and not reading.cancelled():
                    reading.exception()  # Marks the error as retrieved: another error came first.
        return report

    async def _write(self, app: App, batch: Sequence[Facts]) -> None:
        """Store a batch in one transaction."""
        # Sorted, so that two concurrent imports do not deadlock.
        devices = sorted(
            (one for facts in batch for one in facts.devices), key=lambda one: one[0].id
        )
        tokens = sorted(
            (one for facts in batch for one in facts.tokens), key=lambda one: one.device
        )
        users = sorted((one for facts in batch for one in facts.users), key=lambda one: one[0])
        now = self.now
        async with self.database.write() as connection:
            await self._devices.tell_within(connection, app, [record for record, _ in devices])
            if tokens:
                await self._devices.register_within(connection, app, tokens)
            people = await rows_of_users(connection, app, [name for name, _ in users], now)
            rich = {
                record.id for record, has in devices if has.tags or has.attributes or has.groups
            }
            rows = await self._devices.rows(connection, app, rich)
            of_users = [(people[name], has) for name, has in users]
            of_devices = [(rows[record.id], has) for record, has in devices if record.id in rows]
            aliases = {pair: row for row, has in of_users for pair in has.aliases.items()}
            await set_aliases(connection, app, aliases)
            await _set_belongings(connection, app, "user", of_users, now)
            await _set_belongings(connection, app, "device", of_devices, now)
        await self._growth.stored(len(devices) + len(tokens) + len(users))


async def _set_belongings(
    connection: AsyncConnection,
    app: App,
    subject: Subject,
    having: Sequence[tuple[int, Belongings]],
    now: int,
) -> None:
    """Store tags, attributes and groups of users or devices, which are given by row."""
    values: Values = {}
    for row, has in having:
        values |= {(row, "tag", name): entries for name, entries in has.tags.items()}
        values |= {(row, "custom", name): entries for name, entries in has.attributes.items()}
    await set_values(connection, app, subject, values, now)
    slugs = {slug for _, has in having for slug in has.groups}
    groups = await row_ids(
        connection, app, schema.groups, slugs, lambda slug: {"name": slug, "created_at": now}
    )
    statement = insert_into(connection, schema.group_members).on_conflict_do_nothing()
    members = [
        {"group_id": groups[slug], f"{subject}_id": row}
        for row, has in having
        for slug in has.groups
    ]
    for some in chunks(members):
        await connection.execute(statement, some)


def _facts(
    kind: Kind, layout: Layout, line: Line, texts: bool, now: int, ignored: set[str]
) -> Facts | None:
    """Return the facts of a line; None for one that is skipped. Raises `InvalidInput`."""
    at = layout.registered_at
    if layout.vendor is not None:
        return VENDORS[layout.vendor](line.values, now, at)
    given = {name: value for name, value in line.values.items() if value not in ("", None)}
    others = layout.ignore_unknown
    values = nested(kind, given, layout.columns, ignore_unknown=others, ignored=ignored)
    for name, value in layout.defaults.items():
        if name not in values:
            filled = nested(kind, {name: value}, {}, ignore_unknown=False, ignored=set())
            for key, entry in filled.items():
                known = values.get(key)
                values[key] = {**entry, **known} if isinstance(known, dict) else entry
    return facts_of(kind, values, texts=texts, now=now, registered_at=at)


_Lines = list[tuple[Line, Facts | None]]
_Read = tuple[_Lines, int, int]
"""Lines with their facts, and the lines and bytes read so far."""


def _batches(
    reader: Reader, facts_in: Callable[[Line], Facts | None], size: int
) -> Iterator[_Read]:
    """Read and check lines in a separate thread, because a pipe may be silent for long."""
    lines: _Lines = []
    begun = 0
    for line in reader:
        facts = None
        if line.error is None:
            try:
                facts = facts_in(line)
            except InvalidInput as error:
                line.error = error
        lines.append((line, facts))
        if len(lines) >= size or reader.text_bytes - begun >= BATCH_BYTES:
            yield lines, reader.lines, reader.bytes_read
            lines, begun = [], reader.text_bytes
    if lines:
        yield lines, reader.lines, reader.bytes_read


def _sort(
    lines: _Lines, report: Report, rejects: Rejects | None, header: list[str] | None
) -> list[Facts]:
    """Count lines in the report, and return the facts of the accepted ones."""
    kept: list[Facts] = []
    for line, facts in lines:
        if (error := line.error) is not None:
            report.refused += 1
            if len(report.errors) < KEPT_ERRORS:
                told = {"field": error.field, "problem": error.problem, "remedy": error.remedy}
                report.errors.append(LineError(line=line.number, **told))
            if rejects is not None:
                rejects.write(line, f"{error.field}: {error.problem}".removeprefix(": "), header)
        elif facts is None:
            report.skipped += 1
        else:
            report.accepted += 1
            report.devices += len(facts.devices)
            report.users += len(facts.users)
            report.tokens += len(facts.tokens)
            kept.append(facts)
    return kept


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Run work in a daemon thread, so that a wait for a silent pipe does not keep the program alive."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error is not None else future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting task
            failure = error
        with contextlib.suppress(RuntimeError):  # The loop has already ended.
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="apns-live-import", daemon=True).start()
    return await future
