"""A server that answers 200 to everything, in a process of its own, with the windows that APNs shows.

``python -m benchmarks.sink --streams 1000`` prints ``{"port": ..., "ca_file": ...}`` and serves until
its standard input closes. Its windows are 65,535 bytes and it gives back what it has read after each
read. That matters at a distance: a server that waits until half of the window is used lets a sender
have only half of it in flight, whatever the sender does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from apns_live.http2 import RequestReceived, ServerConnection, Setting
from tests.programs import find_program
from tests.servers import Server, make_certificate


class Sink(asyncio.Protocol):
    """One connection."""

    def __init__(self, streams: int) -> None:
        self.http = ServerConnection(
            settings={Setting.MAX_CONCURRENT_STREAMS: streams}, automatic_windows=False
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.http.start()
        transport.write(self.http.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Answer, and grant again what was read."""
        read = 0
        for event in self.http.receive(data):
            if isinstance(event, RequestReceived):
                read += len(event.body)
                self.http.send_response(event.stream_id, 200)
        if read:
            self.http.grant_window(0, read)
        if out := self.http.data_to_send():
            self.transport.write(out)


async def serve(streams: int) -> None:
    """Serve on a free loopback port until standard input closes."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="apns-live-sink-") as folder:
        certificate, key = make_certificate(Path(folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["h2"])
        server = await loop.create_server(lambda: Sink(streams), "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        print(json.dumps({"port": port, "ca_file": str(certificate)}), flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        server.close()


@contextlib.contextmanager
def sink(streams: int, core: int | None = None) -> Iterator[Server]:
    """Run a sink in its own process, pinned to ``core`` if one is given."""
    command = [sys.executable, "-m", "benchmarks.sink", "--streams", str(streams)]
    taskset = find_program("taskset")
    if core is not None and taskset is not None:
        command = [taskset, "-c", str(core), *command]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        try:
            yield Server(ready["port"], ready["ca_file"], process.pid)
        finally:
            process.stdin.close()
            process.wait(30)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=1_000)
    asyncio.run(serve(parser.parse_args().streams))
