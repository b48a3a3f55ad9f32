"""The output files of a fan-out: tokens to retry, to drop, and of unknown outcome.

They contain device tokens, so only the owner can read them, from the first byte on. A file is written
under a temporary name and renamed at the end: the retry file may be the one being read.
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

    What is written follows the suffix: ``.jsonl`` (every fact), ``.csv`` (token, verdict, reason)
    or, for anything else, one token a line. Raises `InvalidSetting` when it cannot be created.
    """

    def __init__(self, path: str, option: str, *, form: str | None = None) -> None:
        self.path = Path(path)
        self.count = 0
        self._form = form or self.path.suffix.lower()
        self._partial = self.path.with_name(self.path.name + ".partial")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            if self.path.is_dir():
                raise IsADirectoryError(21, "Is a directory")
            # A leftover of a killed run goes first, so that the mode is ours from the start.
            with contextlib.suppress(FileNotFoundError):
                self._partial.unlink()
            self._file: TextIO = os.fdopen(
                os.open(self._partial, flags, 0o600), "w", encoding="utf-8", newline=""
            )
        except OSError as error:
            raise InvalidSetting(
                f"{path} cannot be written: {error.strerror}",
                field=option,
                remedy="Name a file in a directory that exists and may be written.",
            ) from error
        self._csv = csv.writer(self._file) if self._form == ".csv" else None
        if self._csv is not None:
            self._csv.writerow(("token", "verdict", "reason"))

    def write(self, token: str, facts: dict[str, Any]) -> None:
        """Write one token; ``facts`` has at least its verdict."""
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
        """Remove it, as if it had never been begun."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._partial.unlink()


class OutcomeFiles:
    """Sorts outcomes into files.

    - A token to forget, or that is not a token at all, goes to the drop file.
    - What was certainly not accepted goes to the retry file.
    - What may have been processed (``UNKNOWN``): an update or an end may safely go out again, so
      it goes to the retry file; a start would make a second card, so it goes to the unknown file
      unless ``retry_unknown``.
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
        paths = [os.path.realpath(path) for path in (retry, drop, unknown) if path is not None]
        if len(set(paths)) < len(paths):
            raise InvalidSetting(
                "is the same file as another one",
                field="--retry-file, --drop-file or --unknown-file",
                remedy="Give each a name of its own.",
            )
        self._retry_unknown = replay_safe or retry_unknown
        self.retry: PrivateFile | None = None
        self.drop: PrivateFile | None = None
        self.unknown: PrivateFile | None = None
        try:
            if retry is not None:
                self.retry = PrivateFile(retry, "--retry-file")
            if drop is not None:
                form = ".csv" if drop.lower().endswith(".csv") else ".jsonl"
                self.drop = PrivateFile(drop, "--drop-file", form=form)
            if unknown is not None:
                self.unknown = PrivateFile(unknown, "--unknown-file")
        except InvalidSetting:
            self.discard()
            raise

    def write(self, outcome: Outcome) -> None:
        """Put an outcome where it belongs."""
        if outcome.verdict is Verdict.ACCEPTED:
            return
        target = self._place(outcome)
        if target is not None:
            facts = outcome_as_json(outcome)
            token = facts.pop("token")
            if target is self.drop:
                facts.setdefault("drop_if_registered_before", None)
                facts.setdefault("check_environment", False)
            target.write(token, facts)

    def not_sent(self, token: str, reason: str) -> None:
        """Note a token whose turn never came."""
        if self.retry is not None:
            self.retry.write(token, {"verdict": Verdict.NOT_SENT.value, "reason": reason})

    def unanswered(self, token: str) -> None:
        """Note a token whose outcome was not waited for."""
        self.write(Outcome(token=token, verdict=Verdict.UNKNOWN, reason="interrupted"))

    def commit(self) -> None:
        """Move every file to its place; the unknown file only if it has a line."""
        for file in (self.retry, self.drop):
            if file is not None:
                file.commit()
        if self.unknown is not None:
            if self.unknown.count:
                self.unknown.commit()
            else:
                # An old one would be taken for this run's.
                self.unknown.discard()
                self.unknown.path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what was begun."""
        for file in (self.retry, self.drop, self.unknown):
            if file is not None:
                file.discard()

    def _place(self, outcome: Outcome) -> PrivateFile | None:
        verdict = outcome.verdict
        if verdict is Verdict.DROP_TOKEN:
            return self.drop
        if verdict is Verdict.FIX_REQUEST and outcome.attempts == 0:
            # Refused by ourselves: this is not a token, and never will be.
            return self.drop
        if verdict is Verdict.UNKNOWN or outcome.may_have_been_sent:
            return self.retry if self._retry_unknown else self.unknown
        return self.retry


def make_private(path: Path, text: str) -> bool:
    """Make a file that its owner alone may read, from its first byte on; False when it is there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, in place of one that is there."""
    path.unlink(missing_ok=True)
    make_private(path, text)
