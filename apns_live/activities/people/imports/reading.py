"""Lines of CSV or JSON Lines as flat values, from a file, a gzip file or a pipe, one at a time."""

from __future__ import annotations

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

from ....errors import InvalidInput

Form = Literal["auto", "csv", "jsonl"]
FORMS = ("auto", "csv", "jsonl")
MAX_LINE = 1 << 20
"""Bytes of one line."""
REASON = "refused_because"
"""The column, or key, that a rejects file adds; it is passed over when the file is fed back."""
_SUFFIXES: dict[str, Form] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_GZIP = b"\x1f\x8b"


class Line(msgspec.Struct):
    """One line: its values, or what is wrong with it. ``raw`` is what a rejects file repeats."""

    number: int
    values: dict[str, Any]
    raw: list[str] | bytes
    error: InvalidInput | None = None


class Reader:
    """Reads one source. ``header`` is the CSV header, None for JSON Lines.

    ``source`` is a path, ``-`` for stdin, or an open binary file. Raises `InvalidInput` for a source
    that cannot be understood as a whole; a single bad line is a `Line` with its error.
    """

    def __init__(self, source: str | Path | IO[bytes], form: Form = "auto") -> None:
        if form not in FORMS:
            raise InvalidInput(
                f"{form!r:.40} is not a valid format",
                field="format",
                remedy="Use auto, csv or jsonl.",
            )
        self.name, self._raw, self._owned = _open(source)
        self.form = form
        self.lines = 0
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
        """Bytes taken from the source, compressed ones if it is compressed."""
        if self.size is None or not self._raw.seekable():
            return self.text_bytes
        return min(self.size, self._raw.tell())

    def __iter__(self) -> Iterator[Line]:
        return self._lines

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
            if len(line) > MAX_LINE:
                # Keep the head of it, pass over the rest: the next line is a new one.
                while (rest := self._next()) and not rest.endswith(b"\n"):
                    self.text_bytes += len(rest)
            yield line

    def _next(self) -> bytes:
        try:
            return self._file.readline(MAX_LINE + 1)
        except (OSError, EOFError, ValueError) as error:
            raise InvalidInput(
                f"cannot be read ({error})", field=self._where(), remedy="Is the file whole?"
            ) from None

    def _where(self) -> str:
        return f"{self.name}, line {self.lines}"

    def _from_json(self, lines: Iterator[bytes]) -> Iterator[Line]:
        decode = msgspec.json.decode
        for line in lines:
            if not line.strip():
                continue
            made = Line(self.lines, {}, line)
            if len(line) > MAX_LINE:
                made.error = InvalidInput(
                    f"is longer than {MAX_LINE} bytes", field="", remedy="Is one record on it?"
                )
            else:
                try:
                    values = decode(line)
                except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                    values = None
                if isinstance(values, dict):
                    made.values = values
                else:
                    made.error = InvalidInput(
                        "is no JSON object", field="", remedy="Write one JSON object a line."
                    )
            yield made

    def _from_csv(self, lines: Iterator[bytes], first: bytes) -> Iterator[Line]:
        delimiter = max(",;\t|", key=first.decode("utf-8", "replace").count)
        rows = csv.reader(self._text(lines), delimiter=delimiter, strict=True)
        csv.field_size_limit(MAX_LINE)
        header = [cell.strip() for cell in next(self._rows(rows), [])]
        if not any(header):
            raise InvalidInput(
                "has no header line",
                field=self.name,
                remedy="Name the columns in the first line of a CSV file.",
            )
        twice = next((name for name in header if name and header.count(name) > 1), None)
        if twice is not None:
            raise InvalidInput(
                f"has two columns {twice!r:.40}", field=self.name, remedy="Rename one of them."
            )
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
                made.error = InvalidInput(
                    f"has {len(row)} columns, the header has {len(header)}",
                    field="",
                    remedy="Check the quoting of the line.",
                )
            elif any("\ufffd" in cell for cell in row):
                made.error = InvalidInput(
                    "is not UTF-8", field="", remedy="Save the file as UTF-8."
                )
            else:
                made.values = {
                    name: cell.strip() for name, cell in zip(header, row, strict=True) if name
                }
            yield made

    def _rows(self, rows: Any) -> Iterator[list[str]]:
        try:
            yield from rows
        except csv.Error as error:
            # Where the next record begins cannot be told, so this is the end.
            raise InvalidInput(
                f"is not CSV ({error})",
                field=self._where(),
                remedy="Check the quoting of the line.",
            ) from None

    def _text(self, lines: Iterator[bytes]) -> Iterator[str]:
        for line in lines:
            if len(line) > MAX_LINE:
                raise InvalidInput(
                    f"is longer than {MAX_LINE} bytes",
                    field=self._where(),
                    remedy="Is a quote missing?",
                )
            yield line.decode("utf-8", "replace")


def _open(source: str | Path | IO[bytes]) -> tuple[str, IO[bytes], bool]:
    if source == "-":
        # A reader of our own: the one of `sys` may be locked when the interpreter ends.
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
