"""What a caller hands to a client besides messages and tokens: numbers, the event loop, a sink for drops."""

import asyncio
import math
import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..errors import InvalidInput, InvalidSetting, WrongEventLoop
from ..guard import Guarded
from ..outcome import Outcome
from ..refusals import refused

_LONGEST = 100_000_000


def check_deadline(deadline: object, field: str = "deadline") -> None:
    """Raise `InvalidInput` unless it is None or seconds from now, above 0 and finite."""
    if deadline is not None:
        check_seconds(deadline, field)


def check_seconds(value: object, field: str, *, zero: bool = False) -> None:
    """Raise `InvalidInput` unless it is a finite number of seconds above 0 (with ``zero``: or 0)."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or not (value > 0 or (zero and value == 0))
    ):
        raise refused(
            InvalidInput, "seconds", field, value=value, needed="from 0 up" if zero else "above 0"
        )
    if value >= _LONGEST:
        raise refused(InvalidInput, "seconds_long", field, value=value)


class HomeLoop:
    """The event loop to which an object is bound: the first on which it is used."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        """Bind to the running event loop. Raises `WrongEventLoop` if bound to another one."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongEventLoop(
                "this client was used on another event loop before, and its connections live "
                "there. Make one Client in each event loop (each asyncio.run, each test) and close "
                "it there, or share one apns_live.blocking.Client between threads and loops"
            )

    def has_ended(self) -> bool:
        """Whether the loop was closed, and everything on it."""
        return self._loop is not None and self._loop.is_closed()


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
