"""Child processes of a benchmark: each has one task and one core, and a pipe to the parent.

A worker is a function, or a coroutine function, whose first argument is its end of the pipe. It sends
messages with `say` and stops when the parent closes the other end. Sinks are receivers that read a whole
request and answer 200 with its apns-id. The sink in C (``apns_sink.c``, on libnghttp2) is built if a compiler
and the library are installed. Otherwise the sink on our own HTTP/2 is used, which may be the bottleneck. So
every figure comes with the sink's busy share.
"""

import asyncio
import contextlib
import functools
import inspect
import json
import multiprocessing
import os
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, cast

from ..errors import BenchError
from ..http2 import RequestReceived, ServerConnection, Setting
from ..testing.certificates import certificates_in

_SPAWN = multiprocessing.get_context("spawn")
START_TIMEOUT = 180.0
STOP_TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A child process, and our end of its pipe."""

    name: str
    connection: Any

    def receive(self, timeout: float = START_TIMEOUT) -> Any:
        """Return its next message. Raises BenchError if it fails or exceeds ``timeout`` seconds."""
        try:
            if not self.connection.poll(timeout):
                raise BenchError(f"{self.name} said nothing for {timeout:.0f} s")
            kind, said = self.connection.recv()
        except (EOFError, ConnectionError):
            raise BenchError(f"{self.name} ended without a word") from None
        if kind == "failed":
            raise BenchError(f"{self.name} failed: {said}")
        return said

    def usage(self) -> tuple[float, int]:
        """Return CPU seconds used and peak memory in bytes, from a worker that answers questions."""
        self.connection.send("usage")
        used: tuple[float, int] = self.receive()
        return used

    def cpu(self) -> float:
        """Return the CPU seconds used, from a worker that answers questions."""
        return self.usage()[0]


@contextlib.contextmanager
def worker(
    name: str, work: Callable[..., Any], *arguments: Any, core: int | None = None
) -> Iterator[Worker]:
    """Run ``work`` in a child process, pinned to ``core``, until the block ends."""
    ours, theirs = _SPAWN.Pipe()
    started = Worker(name, ours)
    process = _SPAWN.Process(target=_run, args=(theirs, core, work, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield started
    finally:
        ours.close()
        process.join(STOP_TIMEOUT)
        if process.is_alive():
            process.kill()
            process.join()


def _run(connection: Connection, core: int | None, work: Callable[..., Any], given: Any) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        done = work(connection, *given)
        if inspect.iscoroutine(done):
            asyncio.run(done)
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        return
    except Exception as error:  # noqa: BLE001 - the parent reports it
        text = "".join(traceback.format_exception(error)[-3:])
        with contextlib.suppress(OSError):
            connection.send(("failed", text[-3000:]))


def say(connection: Connection, said: Any) -> None:
    """Send a message to the parent, from inside a worker."""
    connection.send(("said", said))


async def answer_until_closed(connection: Connection) -> None:
    """Answer each question for `Worker.usage` until the parent closes its end."""
    closed = asyncio.Event()

    def asked() -> None:
        try:
            connection.recv()
            say(connection, (time.process_time(), peak_bytes()))
        except (EOFError, OSError):
            closed.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(connection.fileno(), asked)
    try:
        await closed.wait()
    finally:
        loop.remove_reader(connection.fileno())


def peak_bytes() -> int:
    """Return this process's highest resident memory so far; Linux counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cores() -> tuple[int | None, int | None]:
    """Return the cores for servers and for the sender; None if processes cannot be pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


# --- sinks

SOURCE = Path(__file__).with_name("apns_sink.c")


@dataclass(frozen=True, slots=True)
class Sink:
    """A running sink: its address, its certificate, and the CPU seconds that it has used."""

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
    if compiler is None or not hasattr(os, "sched_getaffinity"):  # it needs Linux's epoll
        return None
    folder = tempfile.mkdtemp(prefix="apns-live-sink-")
    target = Path(folder) / "apns_sink"
    command = [compiler, "-O2", "-o", str(target), str(SOURCE), "-lnghttp2", "-lssl", "-lcrypto"]
    weakref.finalize(built, shutil.rmtree, folder, ignore_errors=True)
    done = subprocess.run(command, capture_output=True, check=False)
    return target if done.returncode == 0 else None


@contextlib.contextmanager
def sink(options: SinkOptions, core: int | None = None) -> Iterator[Sink]:
    """Run a sink, pinned to ``core``. Raises BenchError if its kind is not available."""
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
            with worker("the sink", serve_own, *files, *limits, core=core) as serving:
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
            port = json.loads(said.readline())["port"]
            unique = ", apns-unique-id" if options.unique_id else ""
            yield Sink(f"apns_sink (C on libnghttp2){unique}", port, ca_file, cpu)
        finally:
            asked.close()
            said.read()
            process.wait()


FIRST_WINDOW = 65_535
"""What RFC 9113 (6.9.2) gives every connection to begin with."""


class Answering(asyncio.Protocol):
    """One connection. It makes a smaller window by not returning the excess credit."""

    def __init__(self, streams: int, window: int) -> None:
        settings: dict[int, int] = {Setting.MAX_CONCURRENT_STREAMS: streams}
        self._http = ServerConnection(settings=settings, automatic_windows=False)
        self._kept = max(0, FIRST_WINDOW - window)
        self._more = max(0, window - FIRST_WINDOW)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send SETTINGS, and enlarge the window if required."""
        self._transport = cast("asyncio.Transport", transport)
        self._http.start()
        if self._more:
            self._http.grant_window(0, self._more)
        self._transport.write(self._http.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Answer, and return the credit of the read bytes."""
        read = 0
        for event in self._http.receive(data):
            if isinstance(event, RequestReceived):
                read += len(event.body)
                fields = [field for field in event.headers if field[0] == b"apns-id"]
                self._http.send_response(event.stream_id, 200, fields)
        kept = min(self._kept, read)
        self._kept -= kept
        if read > kept:
            self._http.grant_window(0, read - kept)
        if out := self._http.data_to_send():
            self._transport.write(out)


async def serve_own(
    connection: Connection, certificate: str, key: str, streams: int, window: int
) -> None:
    """Serve our own sink on a free loopback port until the parent closes its end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    make = functools.partial(Answering, streams, window)
    server = await loop.create_server(make, "127.0.0.1", 0, ssl=context)
    say(connection, server.sockets[0].getsockname()[1])
    await answer_until_closed(connection)
    server.close()


# --- the relay, which makes a sink look far away

HIGH_WATER = 256 * 1024 * 1024
"""Bytes that the relay may hold for one direction."""


def carries(connections: int, body: int, round_trip: float, options: SinkOptions) -> float:
    """Return the maximum of pushes a second over these connections.

    That is min(streams / RTT, window / (body x RTT)) for each. ``body`` is bytes, ``round_trip`` seconds.
    """
    return connections * min(options.streams, options.window / body) / round_trip


@contextlib.contextmanager
def relayed(sink: Sink, round_trip: float, core: int | None) -> Iterator[Sink]:
    """Yield the sink as seen through a delay of ``round_trip`` seconds."""
    with worker("the relay", serve, sink.port, round_trip / 2, core=core) as between:
        yield replace(sink, port=between.receive(), cpu=lambda: sink.cpu() + between.cpu())


async def _delayed(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float
) -> None:
    """Copy one direction of a connection: each chunk leaves ``delay`` seconds after it came."""
    loop, due = asyncio.get_running_loop(), 0.0
    while True:
        data = await source.read(HIGH_WATER)
        # A heap of timers keeps no order among equal times, and bytes must keep theirs.
        due = max(due + 1e-6, loop.time() + delay)
        if not data:
            loop.call_at(due, target.close)
            return
        loop.call_at(due, target.write, data)


async def serve(connection: Connection, to_port: int, delay: float) -> None:
    """Relay to ``to_port`` on loopback, ``delay`` seconds each way, until the parent closes its end."""

    async def accept(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, there = await asyncio.open_connection("127.0.0.1", to_port, limit=HIGH_WATER)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(_delayed(near, there, delay), _delayed(far, back, delay))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=HIGH_WATER)
    say(connection, server.sockets[0].getsockname()[1])
    await answer_until_closed(connection)
    server.close()
