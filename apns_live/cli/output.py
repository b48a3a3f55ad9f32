"""Output and exit codes of the commands.

Answers go to stdout, everything else (progress, warnings, errors) to stderr. With ``--json``
stdout carries one JSON value a line and nothing else.
"""

import contextlib
import enum
import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from ..errors import (
    ApnsLiveError,
    ChannelError,
    Conflict,
    CredentialError,
    InvalidInput,
    NotFound,
    StoreError,
    TransportError,
)
from ..outcome import Outcome, Verdict
from ..reasons import TABLE, classify, normalise


class ExitCode(enum.IntEnum):
    """The exit codes. The table in docs/cli.md says what each means."""

    OK = 0
    NOT_ACCEPTED = 1
    BAD_INPUT = 2
    NO_WAY = 3
    INTERRUPTED = 4
    PART_MISSING = 5
    DEFECT = 70


CREDENTIAL_VERDICTS = frozenset({Verdict.OPERATOR, Verdict.REFRESH_CREDENTIALS})
LINE_EVERY = 5.0
"""Seconds between two lines of progress where stderr is not a terminal."""


@dataclass(frozen=True, slots=True)
class Screen:
    """A command's output. ``json_mode`` is ``--json``: then lines and tables for people are left out."""

    json_mode: bool

    def answer(self, data: Any, *lines: str) -> None:
        """Write the answer: ``data`` with ``--json``, else the lines."""
        for line in [to_json(data)] if self.json_mode else lines:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Write facts as the answer, one per line without ``--json``."""
        self.answer(facts, *spoken(facts))

    def line(self, text: str) -> None:
        """Write one line to stdout."""
        if not self.json_mode:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Write one line to stderr."""
        sys.stderr.write(_one_line(text) + "\n")
        sys.stderr.flush()

    def rows(self, data: Any, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write the answer: ``data`` with ``--json``, else a table."""
        self.answer(data)
        self.table(columns, rows)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write a table to stdout; right-aligned where a column holds numbers."""
        if self.json_mode:
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table

        content = list(rows)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for index, column in enumerate(columns):
            numbers = content and all(isinstance(row[index], int | float) for row in content)
            table.add_column(column, justify="right" if numbers else "left", no_wrap=index == 0)
        for row in content:
            table.add_row(*map(_cell, row))
        width = None if sys.stdout.isatty() else 160
        Console(file=sys.stdout, width=width, highlight=False, markup=False).print(table)


@contextlib.contextmanager
def progress_shown(
    title: str, *, total: float | None, shown: bool
) -> Iterator[Callable[..., None]]:
    """Show progress on stderr: a bar on a terminal, otherwise a line every five seconds.

    Yields a function that takes the completed part, a note, and the total if it is known only then; None
    is an unknown length. Nothing is written unless ``shown``.
    """
    if shown and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress, TextColumn

        columns = *Progress.get_default_columns(), TextColumn("{task.fields[note]}")
        console = Console(stderr=True, highlight=False)
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(title, total=total, note="")
            yield lambda done, note, total=total: progress.update(
                task, completed=done, total=total, note=note
            )
        return
    written_at = 0.0

    def write(done: float, note: str, total: float | None = total) -> None:
        nonlocal written_at
        if shown and monotonic() - written_at >= LINE_EVERY:
            written_at = monotonic()
            share = f"{100 * done / total:.0f} %, " if total else ""
            sys.stderr.write(f"{title}: {share}{note}\n")
            sys.stderr.flush()

    yield write


def spoken(facts: Mapping[str, Any], *without: str) -> list[str]:
    """Return a line for each fact, such as ``key id: ABC123DEFG``."""
    kept = {name: value for name, value in facts.items() if name not in without}
    return [f"{name.replace('_', ' ')}: {value}" for name, value in kept.items()]


def to_json(data: Any) -> str:
    """Return one line of JSON."""
    return json.dumps(data, ensure_ascii=False, separators=(", ", ": "), default=str)


def outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome's fields, without the empty ones."""
    shown: dict[str, Any] = {"token": str(outcome.token), "verdict": outcome.verdict.value}
    for name in outcome.__struct_fields__:
        name = "apns_unique_id" if name == "unique_id" else name  # noqa: PLW2901
        value = getattr(outcome, name)
        if name in shown or not (value or name in ("status", "attempts")):
            continue
        shown[name] = round(value, 6) if isinstance(value, float) else value
    for name in ("timestamp", "drop_if_registered_before"):
        if (moment := getattr(outcome, name)) is not None:
            shown[name] = moment.isoformat()
    return shown


def outcome_as_text(outcome: Outcome) -> str:
    """Return one outcome as a readable line."""
    said = outcome.verdict.value.replace("_", " ")
    facts = [str(part) for part in (outcome.status or "", outcome.reason) if part]
    line = f"{said}" + (f" ({' '.join(facts)})" if facts else "")
    row = TABLE.get(normalise(outcome.reason))
    if outcome.detail:
        line += f": {outcome.detail}"
    elif row is not None:
        line += f": {row.meaning}. {row.remedy}"
    if outcome.may_have_been_sent and not outcome.accepted:
        line += " It may have been sent."
    ids = [f"apns-id {outcome.apns_id}"] if outcome.apns_id else []
    ids += [f"apns-unique-id {outcome.apns_unique_id}"] if outcome.apns_unique_id else []
    ids += [f"{outcome.round_trip * 1000:.1f} ms"] if outcome.round_trip else []
    return line + (f" [{', '.join(ids)}]" if ids else "")


def exit_code_for(outcome: Outcome) -> ExitCode:
    """Return the exit code of a command that sent one push."""
    if outcome.accepted:
        return ExitCode.OK
    unsent = (outcome.status, outcome.attempts, outcome.verdict) == (0, 0, Verdict.NOT_SENT)
    refused = outcome.verdict in CREDENTIAL_VERDICTS
    return ExitCode.NO_WAY if unsent or refused else ExitCode.NOT_ACCEPTED


def report_error(error: BaseException, *, command: str, json_mode: bool) -> ExitCode:
    """Print an error in one line, and return the exit code."""
    code, text, facts = _described(error, command)
    if json_mode:
        sys.stdout.write(to_json({"error": text, **facts, "exit_code": int(code)}) + "\n")
    sys.stderr.write(f"{command}: {_one_line(text)}\n")
    return code


_FACTS = ("field", "status", "reason", "remedy", "request_id", "size", "limit", "breakdown")
"""The facts of invalid input and of refused channel management, in the order of the output."""


def _described(error: BaseException, command: str) -> tuple[ExitCode, str, dict[str, Any]]:
    facts: dict[str, Any] = {"kind": type(error).__name__}
    text = str(error) or type(error).__name__
    if isinstance(error, InvalidInput | ChannelError):
        facts |= {name: getattr(error, name) for name in _FACTS if hasattr(error, name)}
    if isinstance(error, InvalidInput | StoreError | NotFound | Conflict):
        return ExitCode.BAD_INPUT, text, facts
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("apns_live"):
        extra = next((name for name in ("gateway", "fake", "bench") if name in command), "service")
        extra = "postgres" if (error.name or "").startswith("asyncpg") else extra
        missing = f"this needs a part that is not installed (no module named {error.name!r}): "
        text = f"{missing}pip install 'apns-live[{extra}]'"
        return ExitCode.PART_MISSING, text, {"kind": "MissingPart"}
    if isinstance(error, ChannelError):
        refused = classify(error.status, error.reason).verdict in CREDENTIAL_VERDICTS
        unserved = error.status == 0 or error.status >= 500
        return (ExitCode.NO_WAY if refused or unserved else ExitCode.NOT_ACCEPTED), text, facts
    if isinstance(error, ApnsLiveError):
        no_way = isinstance(error, TransportError | CredentialError)
        return (ExitCode.NO_WAY if no_way else ExitCode.NOT_ACCEPTED), text, facts
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        why = os.strerror(error.errno or 0) if error.errno in errno.errorcode else text
        return ExitCode.BAD_INPUT, f"{where}{why}", facts
    if (usage := getattr(error, "format_message", None)) is not None:
        text = usage()
        for theirs, ours in _USAGE.items():
            text = re.sub(theirs, ours, text)
        return ExitCode.BAD_INPUT, text, facts
    text = f"this is a defect of apns-live: {type(error).__name__}: {text}"
    return ExitCode.DEFECT, f"{text} (set APNS_LIVE_DEBUG=1 for the traceback)", facts


# Convert typer's errors to our format. Their texts differ between releases.
_WHOLE_NUMBER = r"Input should be a valid integer.*|'.*' is not a valid int(eger)?\.?$"
_USAGE = {
    r"^Invalid value(?: for '?(.+?)'?)?: ": r"\1: ",
    _WHOLE_NUMBER: "is not a whole number",
    r"Input should be a valid number.*|'.*' is not a valid float\.?$": "is not a number",
    r"Input should be greater than or equal to (.+)": r"is below \1",
    r"Input should be less than or equal to (.+)": r"is above \1",
    r"^Missing (?:argument|option|parameter) '(.+)'\.": r"\1: is missing",
    r"^No such option: (\S+)": r"\1: is not an option",
    r"^Option '(.+)' requires an argument\.": r"\1: needs a value",
}


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
