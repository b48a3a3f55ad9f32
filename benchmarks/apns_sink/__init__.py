"""A sink that answers as APNs does, in C on libnghttp2: what a sender can do when nginx is no limit.

Built with cc where libnghttp2 and OpenSSL are there to build against; kept in a temporary folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers import Server, make_certificate

SOURCE = Path(__file__).with_name("apns_sink.c")


def build(folder: Path) -> Path | None:
    """Return the compiled sink; None where compiler or libraries are missing."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    target = folder / "apns_sink"
    command = [compiler, "-O2", "-o", target, SOURCE, "-lnghttp2", "-lssl", "-lcrypto"]
    built = subprocess.run(command, capture_output=True, check=False)
    return target if built.returncode == 0 else None


@contextlib.contextmanager
def apns_sink(*, core: int | None = None, unique_id: bool = False) -> Iterator[Server]:
    """Run the sink, pinned to ``core`` if one is given. Raises RuntimeError where it cannot be built."""
    with tempfile.TemporaryDirectory(prefix="apns-live-sink-") as name:
        folder = Path(name)
        sink = build(folder)
        if sink is None:
            raise RuntimeError("the sink needs cc, libnghttp2-dev and libssl-dev")
        certificate, key = make_certificate(folder)
        command = [str(sink), "--cert", str(certificate), "--key", str(key)]
        if unique_id:
            command.append("--unique-id")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
            try:
                port = json.loads(process.stdout.readline())["port"]
                yield Server(port, str(certificate), process.pid)
            finally:
                process.stdin.close()
                process.wait(30)
