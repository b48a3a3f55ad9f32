"""The files of a fan-out: tokens come from one, and outcomes go to others, to retry or to drop.

Output files contain device tokens, so only the owner can read them, from the first byte on. A file is
written under a temporary name and renamed at the end, because it may be the one that is being read.
"""

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
from typing import IO, Any, TextIO

from ..errors import InvalidInput, InvalidSetting
from ..outcome import Outcome, Verdict
from ..settings import suggestion
from .output import outcome_as_json, to_json

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
        self.path, self.form, self._column = path, form, column
        self.lines = self.repeated = self.bytes_read = 0
        self._file: IO[bytes] = (
            sys.stdin.buffer if path == "-" else Path(path).open("rb")  # noqa: SIM115 - see close()
        )
        self.size: int | None = None
        """Bytes of the file; None for a pipe or a terminal, where reading may block for long."""
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            self.size = os.fstat(self._file.fileno()).st_size or None
        self.is_terminal = path == "-" and sys.stdin.isatty()
        try:
            tokens = self._once()
            # Reads the first token now, so that a wrong column or format raises here.
            self._tokens = itertools.chain(list(itertools.islice(tokens, 1)), tokens)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[str]:
        return self._tokens

    def close(self) -> None:
        """Close the file."""
        if self._file is not sys.stdin.buffer:
            self._file.close()

    def _once(self) -> Iterator[str]:
        lines = self._text_lines()
        first = next((line for line in lines if line.strip()), "")
        if self.form == "auto":
            self.form = _guess(self.path, first)
        lines = itertools.chain([first] if first else [], lines)
        reads = {"csv": self._from_csv, "jsonl": self._from_json_lines, "text": self._from_text}
        seen: set[bytes] = set()
        for token in reads[self.form](lines, first):
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

    def _from_text(self, lines: Iterator[str], _: str) -> Iterator[str]:
        if self._column is not None:
            remedy = "Add --format csv or jsonl."
            raise InvalidInput("plain text has no columns", "--column", remedy)
        for token in map(str.strip, lines):
            if token and not token.startswith("#"):
                yield token

    def _from_json_lines(self, lines: Iterator[str], _: str) -> Iterator[str]:
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
        rows = csv.reader(lines, delimiter=max(",;\t|", key=first.count), strict=True)
        try:
            if (header := next(rows, None)) is None:
                return
            index, is_header = self._csv_column([cell.strip() for cell in header])
            for row in itertools.chain([] if is_header else [header], rows):
                if index < len(row):
                    if token := row[index].strip():
                        yield token
                elif any(cell.strip() for cell in row):
                    problem = f"has {len(row)} columns, not {index + 1}"
                    raise self._bad(problem, "Check the quoting of the line.")
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
    if form := _SUFFIXES.get(Path(path).suffix.lower()):
        return form
    start = first.lstrip()[:1]
    if (start in ("{", '"') and "{" in first) or (start == '"' and first.strip().endswith('"')):
        return "jsonl"
    named = first.strip().casefold() in TOKEN_COLUMNS
    return "csv" if named or any(mark in first for mark in ",;\t|") else "text"


# --- outcomes


class PrivateFile:
    """A file of lines with mode 0600 that appears complete or not at all.

    The suffix selects the format: ``.jsonl`` (every fact), ``.csv`` (token, verdict, reason), otherwise
    one token a line. Raises `InvalidSetting` when the file cannot be created.
    """

    def __init__(self, path: str, option: str, *, form: str = "") -> None:
        self.path = Path(path)
        self.count = 0
        self._form = form or self.path.suffix.lower()
        self._partial = self.path.with_name(self.path.name + ".partial")
        try:
            if self.path.is_dir():
                raise IsADirectoryError(21, "Is a directory")
            # Remove the file of a killed run, so that the new one is created with the right mode.
            self._partial.unlink(missing_ok=True)
            self._file = _new_private(self._partial, newline="")
        except OSError as error:
            remedy = "Name a file in a directory that exists and may be written."
            problem = f"{path} cannot be written: {error.strerror}"
            raise InvalidSetting(problem, option, remedy) from error
        self._csv = csv.writer(self._file) if self._form == ".csv" else None
        if self._csv is not None:
            self._csv.writerow(("token", "verdict", "reason"))

    def write(self, token: str, facts: dict[str, Any]) -> None:
        """Write one token. ``facts`` has at least the verdict."""
        self.count += 1
        if self._csv is not None:
            self._csv.writerow((token, facts.get("verdict", ""), facts.get("reason", "")))
        elif self._form in (".jsonl", ".ndjson"):
            self._file.write(to_json({"token": token, **facts}) + "\n")
        else:
            self._file.write(f"{token}\n")

    def commit(self) -> None:
        """Move the file to its place."""
        self._file.close()
        self._partial.replace(self.path)

    def discard(self) -> None:
        """Remove the file, which is not complete."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


class OutcomeFiles:
    """Sorts outcomes into files.

    - Dead tokens, and strings that are not tokens, go to the drop file.
    - Pushes that APNs did not accept go to the retry file.
    - Pushes that APNs may have processed (``UNKNOWN``): updates and ends can be sent again, so they go to
      the retry file. A start would make a second card, so it goes to the unknown file unless
      ``retry_unknown``.
    """

    def __init__(
        self,
        *,
        retry: str | None,
        drop: str | None,
        unknown: str | None,
        replay_safe: bool,
        retry_unknown: bool,
    ) -> None:
        if unknown is None and retry is not None and not replay_safe and not retry_unknown:
            unknown = f"{retry}.unknown"
        named = {"retry": retry, "drop": drop, "unknown": unknown}
        paths = [os.path.realpath(path) for path in named.values() if path is not None]
        if len(set(paths)) < len(paths):
            options = "--retry-file, --drop-file or --unknown-file"
            problem = "is the same file as another one"
            raise InvalidSetting(problem, options, "Give each a name of its own.")
        self._retry_unknown = replay_safe or retry_unknown
        self.open: dict[str, PrivateFile] = {}
        """The requested files: retry, drop, unknown."""
        try:
            for name, path in named.items():
                if path is not None:
                    form = "" if path.lower().endswith(".csv") or name != "drop" else ".jsonl"
                    self.open[name] = PrivateFile(path, f"--{name}-file", form=form)
        except InvalidSetting:
            self.discard()
            raise

    def write(self, outcome: Outcome) -> None:
        """Write an outcome to its file, if that file was requested."""
        name = "retry"
        if outcome.verdict is Verdict.ACCEPTED:
            return
        if outcome.verdict is Verdict.DROP_TOKEN or (
            # The client refused the text, because it is not a device token.
            outcome.verdict is Verdict.FIX_REQUEST and outcome.attempts == 0
        ):
            name = "drop"
        elif outcome.verdict is Verdict.UNKNOWN or outcome.may_have_been_sent:
            name = "retry" if self._retry_unknown else "unknown"
        if (target := self.open.get(name)) is not None:
            facts = outcome_as_json(outcome)
            token = facts.pop("token")
            if name == "drop":
                facts.setdefault("drop_if_registered_before", None)
                facts.setdefault("check_environment", False)
            target.write(token, facts)

    def not_sent(self, token: str, reason: str) -> None:
        """Write a token that was not sent because of ``reason``."""
        if "retry" in self.open:
            self.open["retry"].write(token, {"verdict": Verdict.NOT_SENT.value, "reason": reason})

    def unanswered(self, token: str) -> None:
        """Write a token whose outcome did not arrive before the end."""
        self.write(Outcome(token=token, verdict=Verdict.UNKNOWN, reason="interrupted"))

    def commit(self) -> None:
        """Move every file to its place; the unknown file only if it has a line."""
        for name, file in self.open.items():
            if file.count or name != "unknown":
                file.commit()
            else:
                file.discard()
                file.path.unlink(missing_ok=True)  # a file of an earlier run

    def discard(self) -> None:
        """Remove the files, which are not complete."""
        for file in self.open.values():
            file.discard()


def _new_private(path: Path, *, newline: str | None = None) -> TextIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8", newline=newline)


def make_private(path: Path, text: str) -> bool:
    """Create a file that only its owner can read, from its first byte on. Return False if it exists."""
    try:
        with _new_private(path) as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; it replaces an existing one."""
    path.unlink(missing_ok=True)
    make_private(path, text)
