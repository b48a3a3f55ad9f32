"""Reads CSV or JSON Lines, from a file, a gzip file or a pipe, line by line.

Refused lines are written to a separate file, to be corrected and imported.
"""

import contextlib
import csv
import gzip
import io
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, cast

import msgspec

from ....errors import InvalidInput, InvalidSetting

Form = Literal["auto", "csv", "jsonl"]
FORMS = ("auto", "csv", "jsonl")
MAX_LINE = 1 << 20
"""Bytes of one line."""
REASON = "refused_because"
"""The column or key that a rejects file adds; it is ignored when that file is imported."""
_SUFFIXES: dict[str, Form] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_GZIP = b"\x1f\x8b"


class Line(msgspec.Struct):
    """A line: its values, or its error. ``raw`` is copied to a rejects file."""

    number: int
    values: dict[str, Any]
    raw: list[str] | bytes
    error: InvalidInput | None = None


class Reader:
    """Reads one source. ``header`` is the CSV header, None for JSON Lines.

    ``source`` is a path, ``-`` for stdin, or an open binary file. Raises `InvalidInput` for a
    source that cannot be read at all. A single bad line becomes a `Line` with its error.
    """

    def __init__(self, source: str | Path | IO[bytes], form: Form = "auto") -> None:
        if form not in FORMS:
            problem = f"{form!r:.40} is not a valid format"
            raise InvalidInput(problem, "format", "Use auto, csv or jsonl.")
        self.name, self._raw, self._owned = _open(source)
        self.form = form
        self.lines = 0
        self.stopped = False
        self.header: list[str] | None = None
        self.size = _size(self._raw)
        self.text_bytes = 0
        """Bytes of lines so far, after decompression."""
        self._file: IO[bytes] = self._raw
        try:
            self._lines = self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def bytes_read(self) -> int:
        """Bytes read from the source, before decompression."""
        if self.size is None or not self._raw.seekable():
            return self.text_bytes
        return min(self.size, self._raw.tell())

    def __iter__(self) -> Iterator[Line]:
        for line in self._lines:
            yield line
            if self.stopped:
                break
        if self.stopped:  # The import was cancelled and does not close it.
            self.close()

    def close(self) -> None:
        """Close the source, unless the caller opened it."""
        if self._owned:
            self._raw.close()

    def _begin(self) -> Iterator[Line]:
        buffered: Any = self._raw
        if not hasattr(buffered, "peek"):
            buffered = io.BufferedReader(buffered)
        self._file = buffered
        if buffered.peek(2)[:2] == _GZIP:
            self._file = cast("IO[bytes]", gzip.GzipFile(fileobj=buffered))
        lines = self._bounded()
        first = next((line for line in lines if line.strip()), b"")
        if self.form == "auto":
            self.form = _guess(self.name, first)
        lines = itertools.chain([first] if first else [], lines)
        if self.form == "jsonl":
            return self._from_json(lines)
        return self._from_csv(lines, first)

    def _bounded(self) -> Iterator[bytes]:
        while line := self._next():
            self.lines += 1
            self.text_bytes += len(line)
            if self.lines == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            rest = line  # of a line that is too long; it is skipped up to the next line
            while len(line) > MAX_LINE and rest and not rest.endswith(b"\n"):
                rest = self._next()
                self.text_bytes += len(rest)
            yield line

    def _next(self) -> bytes:
        try:
            return self._file.readline(MAX_LINE + 1)
        except (OSError, EOFError, ValueError) as error:
            raise self._wrong(f"cannot be read ({error})", "Is the file whole?") from None

    def _wrong(self, problem: str, remedy: str) -> InvalidInput:
        return InvalidInput(problem, f"{self.name}, line {self.lines}", remedy)

    def _from_json(self, lines: Iterator[bytes]) -> Iterator[Line]:
        for line in lines:
            if not line.strip():
                continue
            values: Any = None
            problem = ("is not a JSON object", "", "Write one JSON object a line.")
            if len(line) > MAX_LINE:
                problem = (f"is longer than {MAX_LINE} bytes", "", "Is one record on it?")
            else:
                with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                    values = msgspec.json.decode(line)
            is_good = isinstance(values, dict)
            error = None if is_good else InvalidInput(*problem)
            yield Line(self.lines, values if is_good else {}, line, error)

    def _from_csv(self, lines: Iterator[bytes], first: bytes) -> Iterator[Line]:
        delimiter = max(",;\t|", key=first.decode("utf-8", "replace").count)
        rows = csv.reader(self._text(lines), delimiter=delimiter, strict=True)
        csv.field_size_limit(MAX_LINE)
        header = [cell.strip() for cell in next(self._rows(rows), [])]
        if not any(header):
            remedy = "Name the columns in the first line of a CSV file."
            raise InvalidInput("has no header line", self.name, remedy)
        twice = next((name for name in header if name and header.count(name) > 1), None)
        if twice is not None:
            raise InvalidInput(f"has two columns {twice!r:.40}", self.name, "Rename one of them.")
        self.header = header
        return self._records(rows, header)

    def _records(self, rows: Any, header: list[str]) -> Iterator[Line]:
        number = self.lines + 1
        for row in self._rows(rows):
            begin, number = number, self.lines + 1
            if not any(cell.strip() for cell in row):
                continue
            made = Line(begin, {}, row)
            if len(row) != len(header):
                problem = f"has {len(row)} columns, the header has {len(header)}"
                made.error = InvalidInput(problem, "", "Check the quoting of the line.")
            elif any("\ufffd" in cell for cell in row):
                made.error = InvalidInput("is not UTF-8", "", "Save the file as UTF-8.")
            else:
                named = zip(header, row, strict=True)
                made.values = {name: cell.strip() for name, cell in named if name}
            yield made

    def _rows(self, rows: Any) -> Iterator[list[str]]:
        try:
            yield from rows
        except csv.Error as error:
            # The start of the next record is unknown, so reading ends here.
            raise self._wrong(f"is not CSV ({error})", "Check the quoting of the line.") from None

    def _text(self, lines: Iterator[bytes]) -> Iterator[str]:
        for line in lines:
            if len(line) > MAX_LINE:
                raise self._wrong(f"is longer than {MAX_LINE} bytes", "Is a quote missing?")
            yield line.decode("utf-8", "replace")


def _open(source: str | Path | IO[bytes]) -> tuple[str, IO[bytes], bool]:
    if source == "-":
        # Our own reader: the interpreter may hold the lock of `sys.stdin` when it ends.
        return "stdin", open(sys.stdin.fileno(), "rb", closefd=False), True
    if isinstance(source, str | Path):
        return str(source), Path(source).open("rb"), True
    return str(getattr(source, "name", "input")), source, False


def _size(file: IO[bytes]) -> int | None:
    try:
        status = os.fstat(file.fileno())
    except (OSError, io.UnsupportedOperation):
        return None
    return status.st_size if status.st_size > 0 else None


def _guess(name: str, first: bytes) -> Form:
    path = Path(name.removesuffix(".gz"))
    if (form := _SUFFIXES.get(path.suffix.lower())) is not None:
        return form
    return "jsonl" if first.lstrip().startswith(b"{") else "csv"


class Rejects:
    """Writes refused lines. They hold tokens, so only the owner may read the file.

    It is written to a temporary file beside its path and moved there at the end, because the import
    may be reading that path. Without refused lines no file remains, and an old one is deleted.
    Raises `InvalidSetting`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.count = 0
        self._partial = self.path.with_name(self.path.name + ".partial")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            if self.path.is_dir():
                raise IsADirectoryError(21, "Is a directory")
            # A file left by a killed run may have another mode.
            self._partial.unlink(missing_ok=True)
            opened = os.open(self._partial, flags, 0o600)
        except OSError as error:
            problem = f"{path} cannot be written: {error.strerror}"
            remedy = "Name a file in a directory that exists and may be written."
            raise InvalidSetting(problem, "rejects", remedy) from error
        self._file = os.fdopen(opened, "w", encoding="utf-8", newline="")

    def write(self, line: Line, reason: str, header: list[str] | None) -> None:
        """Add a refused line. ``header`` is a CSV file's header, None for JSON Lines."""
        if header is not None and not self.count:
            columns = [name for name in header if name != REASON]
            csv.writer(self._file).writerow([*columns, REASON])
        self.count += 1
        if isinstance(line.raw, list):
            cells = list(line.raw)
            if header is not None and REASON in header and len(cells) == len(header):
                del cells[header.index(REASON)]
            csv.writer(self._file).writerow([*cells, reason])
            return
        if line.values:
            values = {name: value for name, value in line.values.items() if name != REASON}
            text = msgspec.json.encode({**values, REASON: reason}).decode()
        else:
            text = line.raw.decode("utf-8", "replace").rstrip("\r\n")
        self._file.write(text + "\n")

    def commit(self) -> None:
        """Move the file to its path."""
        if self.count:
            self._file.close()
            self._partial.replace(self.path)
        else:
            self.discard()
            self.path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the temporary file."""
        self._file.close()
        self._partial.unlink(missing_ok=True)
