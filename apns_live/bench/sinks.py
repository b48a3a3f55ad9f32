"""What answers in Apple's place: it reads a whole request and answers 200 with its apns-id.

The sink in C (``apns_sink.c``, on libnghttp2) is built where a compiler and the library are there.
Else the one on our own HTTP/2 serves, which can be the limit itself: so its busy share stands beside
every figure.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from ..errors import BenchError
from ..testing.certificates import certificates_in
from . import own_sink
from .processes import worker

SOURCE = Path(__file__).with_name("apns_sink.c")


@dataclass(frozen=True, slots=True)
class Sink:
    """A running sink: where it is, how to trust it, and the CPU seconds that it has used."""

    name: str
    port: int
    ca_file: str
    cpu: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkOptions:
    """``streams`` and ``window`` (bytes) for each connection; ``unique_id``: as development APNs."""

    kind: str = "auto"
    streams: int = 1_000
    window: int = 65_535
    unique_id: bool = False


@functools.cache
def built() -> Path | None:
    """Return the compiled sink; None where compiler or libraries are missing."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not hasattr(os, "sched_getaffinity"):  # it asks Linux's epoll
        return None
    folder = tempfile.mkdtemp(prefix="apns-live-sink-")
    target = Path(folder) / "apns_sink"
    command = [compiler, "-O2", "-o", str(target), str(SOURCE), "-lnghttp2", "-lssl", "-lcrypto"]
    weakref.finalize(built, shutil.rmtree, folder, ignore_errors=True)
    done = subprocess.run(command, capture_output=True, check=False)
    return target if done.returncode == 0 else None


@contextlib.contextmanager
def sink(options: SinkOptions, core: int | None = None) -> Iterator[Sink]:
    """Run a sink, pinned to ``core``. Raises BenchError where the kind asked for cannot be had."""
    program = built() if options.kind in ("auto", "c") else None
    if options.kind == "c" and program is None:
        raise BenchError("the sink in C needs Linux, cc, libnghttp2-dev and libssl-dev")
    with tempfile.TemporaryDirectory(prefix="apns-live-sink-") as name:
        made = certificates_in(Path(name))
        files = (str(made.certificate_file), str(made.key_file))
        ca_file = str(made.ca_file)
        if program is None:
            if options.unique_id:
                raise BenchError("only the sink in C answers with apns-unique-id")
            limits = (options.streams, options.window)
            with worker("the sink", own_sink.serve, *files, *limits, core=core) as serving:
                said = "our own HTTP/2 server (in Python: where it is busy, it is the limit)"
                yield Sink(said, serving.receive(), ca_file, serving.cpu)
            return
        yield from _in_c(program, files, ca_file, options, core)


def _in_c(
    program: Path, files: tuple[str, str], ca_file: str, options: SinkOptions, core: int | None
) -> Iterator[Sink]:
    command = [str(program), "--cert", files[0], "--key", files[1]]
    command += ["--streams", str(options.streams), "--window", str(options.window)]
    command += ["--unique-id"] if options.unique_id else []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        asked, said = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        if core is not None:
            os.sched_setaffinity(process.pid, {core})

        def cpu() -> float:
            asked.write(b"?")
            return float(json.loads(said.readline())["cpu"])

        try:
            unique = ", apns-unique-id" if options.unique_id else ""
            port = json.loads(said.readline())["port"]
            yield Sink(f"apns_sink (C on libnghttp2){unique}", port, ca_file, cpu)
        finally:
            asked.close()
            said.read()
            process.wait()
