"""Runs an import: reads on a thread, writes in batches, never loads a whole file."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import IO, Any, TypeVar

import msgspec

from ....clock import Clock
from ....errors import InvalidInput
from ...apps import App
from ...store.database import Database
from ...times import milliseconds
from ..records import OLDEST
from .fields import KINDS, KNOWN, NESTED, Facts, Kind, facts_of, known_here, nested
from .reading import Form, Line, Reader, Rejects
from .vendors import VENDORS
from .writing import Writer

Result = TypeVar("Result")
BATCH = 1_000
"""Lines that are written in one transaction."""
BATCH_BYTES = 4 << 20
"""Bytes of lines after which a batch is full, however few they are."""
Source = str | Path | IO[bytes]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is to be read.

    ``columns`` maps names in the file to ours, an empty text leaves one out; ``defaults`` holds values
    for what a line does not say; ``vendor`` (onesignal, braze) reads a vendor's own export instead.
    ``registered_at`` is milliseconds since 1970 for tokens without a time of their own; without it
    they count as older than any other, so that they never replace what a phone registered.
    """

    form: Form = "auto"
    vendor: str | None = None
    columns: Mapping[str, str] = {}
    defaults: Mapping[str, str] = {}
    ignore_unknown: bool = False
    registered_at: int = OLDEST


KEPT_ERRORS = 100
"""Refused lines that a report holds; a rejects file holds them all."""


class LineError(msgspec.Struct, frozen=True, kw_only=True):
    """Why one line was refused. ``line`` counts from 1, the header of a CSV file among them."""

    line: int
    field: str
    problem: str
    remedy: str

    @classmethod
    def of(cls, line: int, error: InvalidInput) -> LineError:
        """Return the error of one line in this form."""
        return cls(line=line, field=error.field, problem=error.problem, remedy=error.remedy)

    def __str__(self) -> str:
        where = f", {self.field}" if self.field else ""
        return f"line {self.line}{where}: {self.problem}. {self.remedy}".rstrip()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an import is, told after each batch. ``size`` is None for a pipe."""

    lines: int
    accepted: int
    refused: int
    bytes_read: int
    size: int | None


class Report(msgspec.Struct, kw_only=True):
    """What an import did, or with ``dry_run`` would have done.

    ``accepted`` and ``refused`` count lines; ``skipped`` those that a vendor's list has for other
    platforms than Apple's. ``devices``, ``users`` and ``tokens`` count what the accepted lines told,
    whether it was new or known already. ``errors`` holds the first refused lines.
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
    """Columns, or keys, that were left out because the caller or the vendor's layout said so."""
    errors: list[LineError] = []
    seconds: float = 0.0


Telling = Callable[[Progress], None]


class Imports:
    """Bulk import of devices, users and tokens. The same file fed twice changes nothing."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def devices(self, app: App, source: Source, **options: Any) -> Report:
        """Import devices with tags, attributes, groups and tokens; options as of `run`."""
        return await self.run(app, "devices", source, **options)

    async def users(self, app: App, source: Source, **options: Any) -> Report:
        """Import users with aliases, tags, attributes and groups; options as of `run`."""
        return await self.run(app, "users", source, **options)

    async def tokens(self, app: App, source: Source, **options: Any) -> Report:
        """Import push-to-start tokens and device tokens, one a line; options as of `run`."""
        return await self.run(app, "tokens", source, **options)

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

        A refused line is counted, reported and, with ``rejects``, written to that file; the others are
        stored. ``telling`` is called with the `Progress` after each batch. Raises `InvalidInput` when
        the layout or the file as a whole makes no sense, also when every line of the first batch is
        refused; batches stored before an error stay, and the same file may be fed again.
        """
        plan = _Plan(kind, layout or Layout(), milliseconds(self._clock))
        report = Report(dry_run=dry_run, errors=[])
        begin = perf_counter()
        held = None if rejects is None else Rejects(rejects)
        reader = await _in_thread(lambda: Reader(source, plan.layout.form))
        batches = _batches(reader, plan, batch)
        writer = Writer(self._database, self._clock, app)
        reading: asyncio.Future[_Read] | None = None
        try:
            reading = asyncio.ensure_future(_in_thread(lambda: next(batches, None)))
            while (read := await reading) is not None:
                # The next one is read while this one is written.
                reading = asyncio.ensure_future(_in_thread(lambda: next(batches, None)))
                lines, progress = read
                facts = _sort(lines, report, held, reader.header)
                if facts and not dry_run:
                    await writer.write(facts)
                report.lines = progress.lines
                _refuse_nonsense(report)
                if telling is not None:
                    counted = {"accepted": report.accepted, "refused": report.refused}
                    telling(msgspec.structs.replace(progress, **counted))
            report.lines = reader.lines
            report.ignored = tuple(sorted(plan.ignored))
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
                    reading.exception()  # seen: another error came first
        return report


class _Plan:
    """What is done with a line; runs in the reading thread."""

    def __init__(self, kind: Kind, layout: Layout, now: int) -> None:
        if kind not in KINDS:
            raise InvalidInput(
                f"{kind!r:.40} cannot be imported",
                field="kind",
                remedy=f"Give one of {', '.join(KINDS)}.",
            )
        if layout.vendor is not None:
            _check_vendor(kind, layout)
        for name in [*layout.columns.values(), *layout.defaults]:
            _check_name(kind, name)
        self.kind = kind
        self.layout = layout
        self.ignored: set[str] = set()
        self._now = now

    def facts(self, line: Line, texts: bool) -> Facts | None:
        """Return what a line tells; None for one that is passed over. Raises `InvalidInput`."""
        layout = self.layout
        if layout.vendor is not None:
            translate = VENDORS[layout.vendor]
            return translate(line.values, self._now, layout.registered_at)
        given = {name: value for name, value in line.values.items() if value not in ("", None)}
        values = nested(
            self.kind,
            given,
            layout.columns,
            ignore_unknown=layout.ignore_unknown,
            ignored=self.ignored,
        )
        for name, value in layout.defaults.items():
            if name not in values:
                filled = nested(self.kind, {name: value}, {}, ignore_unknown=False, ignored=set())
                for key, entry in filled.items():
                    known = values.get(key)
                    values[key] = {**entry, **known} if isinstance(known, dict) else entry
        return facts_of(
            self.kind, values, texts=texts, now=self._now, registered_at=layout.registered_at
        )


_Lines = list[tuple[Line, Facts | None]]
_Read = tuple[_Lines, Progress] | None


def _batches(reader: Reader, plan: _Plan, size: int) -> Iterator[_Read]:
    """Read and check lines; runs in a thread of its own, as a pipe may be silent for long."""
    texts = reader.header is not None
    lines: _Lines = []
    begun = 0
    for line in reader:
        facts = None
        if line.error is None:
            try:
                facts = plan.facts(line, texts)
            except InvalidInput as error:
                line.error = error
        lines.append((line, facts))
        if len(lines) >= size or reader.text_bytes - begun >= BATCH_BYTES:
            yield lines, _progress(reader)
            lines, begun = [], reader.text_bytes
    if lines:
        yield lines, _progress(reader)


def _progress(reader: Reader) -> Progress:
    return Progress(
        lines=reader.lines, accepted=0, refused=0, bytes_read=reader.bytes_read, size=reader.size
    )


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Run work in a daemon: one that waits for a silent pipe must not hold up the end of the program."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error is not None else future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again by the one who waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended without us
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="apns-live-import", daemon=True).start()
    return await future


def _sort(
    lines: _Lines, report: Report, rejects: Rejects | None, header: list[str] | None
) -> list[Facts]:
    kept: list[Facts] = []
    for line, facts in lines:
        if line.error is not None:
            report.refused += 1
            error = LineError.of(line.number, line.error)
            if len(report.errors) < KEPT_ERRORS:
                report.errors.append(error)
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


def _refuse_nonsense(report: Report) -> None:
    if report.refused >= BATCH and not report.accepted:
        raise InvalidInput(
            f"all of the first {report.refused:,} lines were refused, {report.errors[0]}",
            field="",
            remedy="Is this the file, and are its columns named right?",
        )


def _check_vendor(kind: Kind, layout: Layout) -> None:
    if layout.vendor not in VENDORS:
        raise InvalidInput(
            f"{layout.vendor!r:.40} is not known",
            field="vendor",
            remedy=f"Give one of {', '.join(VENDORS)}, or name the columns.",
        )
    if kind != "devices" or layout.columns or layout.defaults:
        raise InvalidInput(
            "reads whole devices by the vendor's own columns",
            field="vendor",
            remedy="Import devices, without a mapping of columns.",
        )


def _check_name(kind: Kind, name: str) -> None:
    head, dot, rest = name.partition(".")
    if name and name not in KNOWN[kind] and not (dot and rest and head in NESTED[kind]):
        problem = f"{name[:80]!r} does not apply to {kind}"
        raise InvalidInput(problem, field="columns", remedy=known_here(kind))
