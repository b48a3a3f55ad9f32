"""The output files of a fan-out: tokens to retry, to drop, and of unknown outcome.

They contain device tokens, so only the owner can read them, from the first byte on. A file is written
under a temporary name and renamed at the end, because the retry file may be the one that is being read.
"""

from __future__ import annotations

import contextlib
import csv
import os
from pathlib import Path
from typing import Any, TextIO

from ..errors import InvalidSetting
from ..outcome import Outcome, Verdict
from .output import outcome_as_json, to_json


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
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            if self.path.is_dir():
                raise IsADirectoryError(21, "Is a directory")
            # Remove the file of a killed run, so that the new one is created with the right mode.
            with contextlib.suppress(FileNotFoundError):
                self._partial.unlink()
            self._file: TextIO = os.fdopen(
                os.open(self._partial, flags, 0o600), "w", encoding="utf-8", newline=""
            )
        except OSError as error:
            raise InvalidSetting(
                f"{path} cannot be written: {error.strerror}",
                option,
                "Name a file in a directory that exists and may be written.",
            ) from error
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
        with contextlib.suppress(FileNotFoundError):
            self._partial.unlink()


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
            raise InvalidSetting(
                "is the same file as another one",
                "--retry-file, --drop-file or --unknown-file",
                "Give each a name of its own.",
            )
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
            verdict = Verdict.NOT_SENT.value
            self.open["retry"].write(token, {"verdict": verdict, "reason": reason})

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


def make_private(path: Path, text: str) -> bool:
    """Create a file that only its owner can read, from its first byte on. Return False if it exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; it replaces an existing one."""
    path.unlink(missing_ok=True)
    make_private(path, text)
