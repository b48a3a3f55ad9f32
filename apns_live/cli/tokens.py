"""Reads tokens from a file or stdin, line by line: CSV, JSON Lines or plain text."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import IO

from ..errors import InvalidInput
from ..settings import suggestion

FORMATS = ("auto", "csv", "jsonl", "text")
TOKEN_COLUMNS = (
    *("token", "device_token", "devicetoken", "push_token", "pushtoken"),
    *("activity_token", "start_token", "apns_token"),
)
"""Names of columns that are taken for the token column, in this order, in any case."""
MAX_LINE = 65_536
_SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "text"}
_TOKENLIKE = re.compile(r"[0-9A-Fa-f]{16,}$")


class TokenFile:
    """The tokens of a file, each once, in order. Keeps a 16-byte hash of each token in memory.

    ``path`` may be ``-`` for stdin. ``column`` is a CSV column by name or by number (from 1), or
    a JSON key. Iterating raises `InvalidInput` naming the line that cannot be read. All iterators share
    one position in the file.
    """

    def __init__(self, path: str, *, form: str = "auto", column: str | None = None) -> None:
        if form not in FORMATS:
            remedy = suggestion(form, FORMATS) or f"Use one of {', '.join(FORMATS)}."
            raise InvalidInput(f"{form!r:.40} is not a valid format", "--format", remedy)
        self.path = path
        self._column = column
        self.lines = 0
        self.repeated = 0
        self.bytes_read = 0
        self._seen: set[bytes] = set()
        self._tokens: Iterator[str]
        self._file: IO[bytes] = (
            sys.stdin.buffer if path == "-" else Path(path).open("rb")  # noqa: SIM115 - see close()
        )
        self.size: int | None = None
        """Bytes of the file; None for a pipe or a terminal, where reading may block for long."""
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            self.size = os.fstat(self._file.fileno()).st_size or None
        self.is_terminal = path == "-" and sys.stdin.isatty()
        self.form = form
        try:
            tokens = self._once(self._parsed())
            # Reads the first token now, so that a wrong column or format raises here.
            self._tokens = itertools.chain(list(itertools.islice(tokens, 1)), tokens)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[str]:
        return self._tokens

    def __next__(self) -> str:
        return next(self._tokens)

    def close(self) -> None:
        """Close the file."""
        if self._file is not sys.stdin.buffer:
            self._file.close()

    def _parsed(self) -> Iterator[str]:
        lines = self._text_lines()
        first = next((line for line in lines if line.strip()), "")
        if self.form == "auto":
            self.form = _guess(self.path, first)
        lines = itertools.chain([first] if first else [], lines)
        if self.form == "csv":
            return self._from_csv(lines, first)
        return self._from_json_lines(lines) if self.form == "jsonl" else self._from_text(lines)

    def _once(self, tokens: Iterator[str]) -> Iterator[str]:
        seen = self._seen
        for token in tokens:
            # APNs reads hex digits of either case, so both are one token.
            mark = blake2b(token.lower().encode("utf-8"), digest_size=16).digest()
            if mark in seen:
                self.repeated += 1
                continue
            seen.add(mark)
            yield token

    def _text_lines(self) -> Iterator[str]:
        while line := self._file.readline(MAX_LINE + 1):
            self.lines += 1
            if len(line) > MAX_LINE:
                raise self._bad(f"is longer than {MAX_LINE} bytes", "Is this a file of tokens?")
            self.bytes_read += len(line)
            if self.lines == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError:
                raise self._bad("is not UTF-8", "Save the file as UTF-8.") from None

    def _bad(self, problem: str, remedy: str) -> InvalidInput:
        name = "stdin" if self.path == "-" else self.path
        return InvalidInput(problem, f"{name}, line {self.lines}", remedy)

    def _from_text(self, lines: Iterator[str]) -> Iterator[str]:
        if self._column is not None:
            raise InvalidInput(
                "plain text has no columns", "--column", "Add --format csv or jsonl."
            )
        for line in lines:
            token = line.strip()
            if token and not token.startswith("#"):
                yield token

    def _from_json_lines(self, lines: Iterator[str]) -> Iterator[str]:
        key = self._column or "token"
        for line in lines:
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                raise self._bad("is not JSON", "Write one JSON value a line.") from None
            if isinstance(value, dict):
                if key not in value:
                    remedy = suggestion(key, map(str, value)) or "Name the key with --column."
                    raise self._bad(f"has no key {key!r:.40}", remedy)
                value = value[key]
            if not isinstance(value, str):
                raise self._bad(f"{key} is not a string", "Write the token as a JSON string.")
            if value.strip():
                yield value.strip()

    def _from_csv(self, lines: Iterator[str], first: str) -> Iterator[str]:
        delimiter = max(",;\t|", key=first.count)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            header = next(rows, None)
            if header is None:
                return
            index, is_header = self._csv_column([cell.strip() for cell in header])
            for row in itertools.chain([] if is_header else [header], rows):
                if index < len(row):
                    token = row[index].strip()
                    if token:
                        yield token
                elif any(cell.strip() for cell in row):
                    raise self._bad(
                        f"has {len(row)} columns, not {index + 1}", "Check the quoting of the line."
                    )
        except csv.Error as error:
            raise self._bad(f"is not CSV ({error})", "Check the quoting of the line.") from None

    def _csv_column(self, first: list[str]) -> tuple[int, bool]:
        """Return the token column's index, and whether the first row is a header."""
        is_header = not any(_TOKENLIKE.match(cell) for cell in first)
        names = [cell.casefold() for cell in first]
        wanted = self._column
        if wanted is not None and is_header and wanted.casefold() in names:
            return names.index(wanted.casefold()), True
        if wanted is not None and wanted.isascii() and wanted.isdigit() and int(wanted) > 0:
            if int(wanted) > len(first):
                problem = f"there is no column {wanted}: the first line has {len(first)}"
                raise InvalidInput(problem, "--column", "Columns are counted from 1.")
            return int(wanted) - 1, is_header
        if wanted is not None:
            columns = f"The columns are {', '.join(first)}."[:200]
            number = "The file has no header line: give the column's number."
            remedy = suggestion(wanted, first) or (columns if is_header else number)
            raise InvalidInput(f"there is no column {wanted!r:.40}", "--column", remedy)
        if is_header:
            plain = [name.replace(" ", "_").replace("-", "_") for name in names]
            for name in TOKEN_COLUMNS:
                if name in plain:
                    return plain.index(name), True
            if len(first) == 1:
                return 0, True
            problem = f"no column is named token: {', '.join(first)}"[:200]
            raise InvalidInput(problem, "--column", "Name the column of the tokens with --column.")
        tokenlike = [index for index, cell in enumerate(first) if _TOKENLIKE.match(cell)]
        if len(tokenlike) > 1:
            remedy = "Give the number of the column (from 1) with --column."
            raise InvalidInput("more than one column looks like tokens", "--column", remedy)
        return tokenlike[0], False


def _guess(path: str, first: str) -> str:
    suffix = _SUFFIXES.get(Path(path).suffix.lower())
    if suffix is not None:
        return suffix
    start = first.lstrip()[:1]
    if (start in ("{", '"') and "{" in first) or (start == '"' and first.strip().endswith('"')):
        return "jsonl"
    named = first.strip().casefold() in TOKEN_COLUMNS
    return "csv" if named or any(mark in first for mark in ",;\t|") else "text"
