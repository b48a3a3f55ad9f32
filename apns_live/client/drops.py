"""Where a fan-out writes the tokens that should be forgotten."""

from __future__ import annotations

import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..errors import InvalidSetting
from ..outcome import Outcome

_encode = msgspec.json.Encoder().encode


class DropSink:
    """A callable, or a file of JSON Lines with mode 0600 that is replaced; or nothing."""

    def __init__(self, target: Callable[[Outcome], object] | str | PathLike[str] | None) -> None:
        self._call: Callable[[Outcome], object] | None = None
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        if callable(target):
            self._call = target
        elif target is not None:
            if not isinstance(target, (str, PathLike)):
                raise InvalidSetting(
                    f"{type(target).__name__} is neither a callable nor a path",
                    field="drops_to",
                    remedy="Give a function that takes an Outcome, or the path of a file.",
                )
            self._path = Path(target)

    def open(self) -> None:
        """Create the file. Raise `InvalidSetting` when that is not possible."""
        if self._path is None:
            return
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0)
            self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb")
        except OSError as error:
            raise InvalidSetting(
                f"{str(self._path)!r} cannot be written: {error.strerror}",
                field="drops_to",
                remedy="Name a file in a directory that exists and may be written.",
            ) from error

    def write(self, outcome: Outcome) -> None:
        """Write or hand over one outcome."""
        if self._call is not None:
            self._call(outcome)
        elif self._file is not None:
            before = outcome.drop_if_registered_before
            row = {
                "token": outcome.token,
                "reason": outcome.reason,
                "status": outcome.status,
                "drop_if_registered_before": None if before is None else before.isoformat(),
                "check_environment": outcome.check_environment,
            }
            self._file.write(_encode(row) + b"\n")

    def close(self) -> None:
        """Flush and close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
