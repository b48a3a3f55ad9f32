"""Defects that were there once, to switch back on: the proof that the simulator can find them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

DEFECTS: dict[str, Callable[[], AbstractContextManager[None]]] = {}


@contextmanager
def switched_on(name: str | None) -> Iterator[None]:
    """Put one defect back for as long as the block lasts; None for none."""
    with DEFECTS[name]() if name else nullcontext():
        yield
