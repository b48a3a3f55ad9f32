"""Progress on stderr: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_EVERY = 5.0
"""Seconds between two lines where stderr is not a terminal."""


class Bar:
    """Shows how far something is, if ``shown``. ``total`` None: of unknown length."""

    def __init__(self, title: str, *, total: float | None, shown: bool) -> None:
        self._title = title
        self._total = total
        self._lines = shown and not sys.stderr.isatty()
        self._progress: Progress | None = _progress() if shown and not self._lines else None
        self._task: Any = None
        self._said_at = 0.0

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
            self._task = self._progress.add_task(self._title, total=self._total, note="")
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def at(self, done: float, note: str) -> None:
        """Say how far it is."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, note=note)
        elif self._lines and monotonic() - self._said_at >= LINE_EVERY:
            self._said_at = monotonic()
            share = f"{100 * done / self._total:.0f} %, " if self._total else ""
            sys.stderr.write(f"{self._title}: {share}{note}\n")
            sys.stderr.flush()


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )
