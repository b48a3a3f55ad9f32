"""A progress bar on stderr, where a person watches; nothing elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """Counts on ``step``; redraws at most ten times a second. ``total`` None: of unknown length."""

    def __init__(self, title: str, *, total: float | None, shown: bool) -> None:
        self._title = title
        self._total = total
        self._progress: Progress | None = _progress() if shown else None
        self._task: Any = None

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
            self._task = self._progress.add_task(self._title, total=self._total, note="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def at(self, done: float, note: str) -> None:
        """Say how far it is."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, note=note)


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
