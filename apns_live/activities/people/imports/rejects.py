"""The file of refused lines: what was refused and why, to be corrected and fed back."""

from __future__ import annotations

import contextlib
import csv
import os
from pathlib import Path
from typing import TextIO

import msgspec

from ....errors import InvalidSetting
from .reading import REASON, Line


class Rejects:
    """Holds tokens, so its owner alone may read it, from its first byte on.

    It is written beside its place and moved there at the end: it may be the file that is being read.
    Without a refused line none is made, and an old one goes. Raises `InvalidSetting`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.count = 0
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._file: TextIO | None = None
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise InvalidSetting(
                f"{path} cannot be written",
                field="rejects",
                remedy="Name a file in a directory that exists.",
            )

    def write(self, line: Line, reason: str, header: list[str] | None) -> None:
        """Add a refused line. ``header`` is that of a CSV file, None for JSON Lines."""
        if self._file is None:
            self._file = self._begin()
            if header is not None:
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
        """Move the file to its place."""
        if self._file is None:
            self.path.unlink(missing_ok=True)
            return
        self._file.close()
        self._partial.replace(self.path)

    def discard(self) -> None:
        """Remove it, as if it had never been begun."""
        if self._file is not None:
            self._file.close()
            with contextlib.suppress(FileNotFoundError):
                self._partial.unlink()

    def _begin(self) -> TextIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            # A leftover of a killed run goes first, so that the mode is ours from the start.
            with contextlib.suppress(FileNotFoundError):
                self._partial.unlink()
            return os.fdopen(
                os.open(self._partial, flags, 0o600), "w", encoding="utf-8", newline=""
            )
        except OSError as error:
            raise InvalidSetting(
                f"{self.path} cannot be written: {error.strerror}",
                field="rejects",
                remedy="Name a file in a directory that may be written.",
            ) from error
