"""SQL compiled once in a test process, and not once for each database that a test opens.

SQLAlchemy compiles a statement when an engine first meets it, which takes a millisecond or two. A test
meets dozens, over an engine of its own.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine.base import Engine
from sqlalchemy.util import LRUCache

_MOST = 2_000


class _Compiled(LRUCache[Any, Any]):
    """Looks for the kind of the dialect, where SQLAlchemy looks for an engine's own one."""

    @staticmethod
    def _key(key: Any) -> Any:
        dialect, *rest = key
        return type(dialect), *rest

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(self._key(key), default)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self._key(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(self._key(key), value)


_compiled = _Compiled(_MOST)


def share() -> None:
    """Let every engine use the statements that were compiled before."""
    shared = property(lambda _: _compiled, lambda _, own: None)
    Engine._compiled_cache = shared  # type: ignore[assignment]
