"""Where a fan-out writes the tokens to delete."""

from __future__ import annotations

import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..errors import InvalidSetting
from ..guard import Guarded
from ..outcome import Outcome
from ..refusals import refused

DropsTo = Callable[[Outcome], object] | str | PathLike[str]

_encode = msgspec.json.Encoder().encode


class DropSink:
    """A callable, or a JSON Lines file with mode 0600 that is replaced; or nothing.

    An error of the callable or the disk is logged once; the fan-out continues.
    """

    def __init__(self, target: DropsTo | None) -> None:
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        call: Callable[[Outcome], object] = self._write
        if callable(target):
            call = target
        elif target is not None:
            if not isinstance(target, (str, PathLike)):
                raise refused(InvalidSetting, "drops_kind", "drops_to", kind=type(target).__name__)
            self._path = Path(target)
        self.write = Guarded(call, "drops_to")

    def open(self) -> None:
        """Create the file. Raise `InvalidSetting` if that is not possible."""
        if self._path is None:
            return
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0)
            self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb")
        except OSError as error:
            raise refused(
                InvalidSetting,
                "drops_file",
                "drops_to",
                value=str(self._path),
                strerror=error.strerror,
            ) from error

    def close(self) -> None:
        """Flush and close the file."""
        file, self._file = self._file, None
        if file is not None:
            Guarded(file.close, "drops_to")()

    def _write(self, outcome: Outcome) -> None:
        if self._file is None:
            return
        before = outcome.drop_if_registered_before
        row = {
            "token": outcome.token,
            "reason": outcome.reason,
            "status": outcome.status,
            "drop_if_registered_before": None if before is None else before.isoformat(),
            "check_environment": outcome.check_environment,
        }
        self._file.write(_encode(row) + b"\n")
