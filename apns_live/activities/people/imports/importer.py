"""The import itself: reads in a thread, writes in batches, counts, and never holds a file in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import IO, Any, NamedTuple

import msgspec

from ....clock import Clock
from ....errors import InvalidInput
from ...apps import App
from ...store.database import Database
from ...times import milliseconds
from .fields import KINDS, KNOWN, NESTED, OLDEST, Facts, Kind, facts_of, nested
from .reading import Form, Line, Reader
from .rejects import Rejects
from .report import KEPT_ERRORS, LineError, Progress, Report, Telling
from .vendors import VENDORS
from .writing import Writer

BATCH = 1_000
"""Lines that are written in one transaction."""
BATCH_BYTES = 4 << 20
"""Bytes of lines after which a batch is full, however few they are."""
_AHEAD = 2

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
        reader = await asyncio.to_thread(Reader, source, plan.layout.form)
        work = _Reading(reader, plan, batch)
        writer = Writer(self._database, self._clock, app)
        try:
            async for lines in work:
                facts = _sort(lines, report, held, reader.header)
                if facts and not dry_run:
                    await writer.write(facts)
                report.lines = work.lines
                _refuse_nonsense(report)
                if telling is not None:
                    telling(_progress(report, work))
            report.lines = work.lines
            report.ignored = tuple(sorted(plan.ignored))
            report.seconds = perf_counter() - begin
            if held is not None:
                held.commit()
        except BaseException:
            if held is not None:
                held.discard()
            raise
        finally:
            work.stop()
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


_Read = tuple[Line, Facts | None]


class _Batch(NamedTuple):
    read: list[_Read]
    lines: int
    bytes_read: int


class _Reading:
    """Batches of lines, read and checked in a thread: a pipe may be silent for long."""

    def __init__(self, reader: Reader, plan: _Plan, batch: int) -> None:
        self._reader = reader
        self._plan = plan
        self._batch = batch
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[_Batch | BaseException | None] = asyncio.Queue()
        self._room = threading.Semaphore(_AHEAD)
        self._stopped = False
        self.lines = 0
        self.bytes_read = 0
        # A daemon: one that waits for a silent pipe must not hold up the end of the program.
        threading.Thread(target=self._run, name="apns-live-import", daemon=True).start()

    @property
    def size(self) -> int | None:
        """Bytes of the source, if it has a size."""
        return self._reader.size

    def stop(self) -> None:
        """Read no further."""
        self._stopped = True
        self._room.release()

    async def __aiter__(self) -> AsyncIterator[list[_Read]]:
        while (batch := await self._queue.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            self.lines, self.bytes_read = batch.lines, batch.bytes_read
            yield batch.read
            self._room.release()
        self.lines = self._reader.lines

    def _run(self) -> None:
        last: BaseException | None = None
        try:
            for batch in self._batches():
                self._room.acquire()
                if self._stopped:
                    return
                self._hand_over(batch)
        except BaseException as error:  # noqa: BLE001 - raised again by the one who reads the queue
            last = error
        finally:
            self._reader.close()
        self._hand_over(last)

    def _hand_over(self, batch: _Batch | BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, batch)
        except RuntimeError:  # the loop has ended without us
            self._stopped = True

    def _batches(self) -> Iterator[_Batch]:
        texts = self._reader.header is not None
        read: list[_Read] = []
        begun = 0
        for line in self._reader:
            if self._stopped:
                return
            facts = None
            if line.error is None:
                try:
                    facts = self._plan.facts(line, texts)
                except InvalidInput as error:
                    line.error = error
            read.append((line, facts))
            if len(read) >= self._batch or self._reader.text_bytes - begun >= BATCH_BYTES:
                yield self._made(read)
                read = []
                begun = self._reader.text_bytes
        if read:
            yield self._made(read)

    def _made(self, read: list[_Read]) -> _Batch:
        return _Batch(read, self._reader.lines, self._reader.bytes_read)


def _sort(
    lines: list[_Read], report: Report, rejects: Rejects | None, header: list[str] | None
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


def _progress(report: Report, work: _Reading) -> Progress:
    return Progress(
        lines=report.lines,
        accepted=report.accepted,
        refused=report.refused,
        bytes_read=work.bytes_read,
        size=work.size,
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
        dotted = [f"{head}.NAME" for head in NESTED[kind]]
        raise InvalidInput(
            f"{name[:80]!r} means nothing for {kind}",
            field="columns",
            remedy=f"Known here: {', '.join([*KNOWN[kind], *dotted])}.",
        )
