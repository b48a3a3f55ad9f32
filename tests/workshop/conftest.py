"""A local fake, started as a user starts it, for the examples."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import stop


@pytest.fixture(scope="session")
def ready_fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Yield what `apns-live fake` says when it is ready."""
    folder = tmp_path_factory.mktemp("fake")
    command = [str(Path(sys.executable).parent / "apns-live"), "fake", "--port", "0"]
    command += ["--dir", str(folder), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            stop(process)
