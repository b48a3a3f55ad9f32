"""A pre-fork web server: one client is built, then three workers are forked that share the port.

Each worker serves with threads, and pushes for every request. SIGTERM ends it.
"""

import http.server
import os
import signal
import socket
import sys
import threading

from common import UPDATE, make_client, token

client = make_client()
# The application is warmed up before the fork, as with preload in well-known servers.
assert client.send(UPDATE, token(9, 9)).accepted


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_POST(self) -> None:
        outcome = client.send(UPDATE, self.path.strip("/"))
        body = f"{os.getpid()} {outcome.verdict.value}\n".encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        connection.setblocking(True)
        return connection, address

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


listener = socket.create_server(("127.0.0.1", 0), backlog=64)
# Every worker is woken for a connection, and only one gets it.
listener.setblocking(False)
workers = []
for _ in range(3):
    worker = os.fork()
    if worker == 0:
        server = Server(listener)
        stop = threading.Thread(target=server.shutdown)
        signal.signal(signal.SIGTERM, lambda *_, stop=stop: stop.start())
        server.serve_forever(poll_interval=0.05)
        server.server_close()
        # No close(): the exit handler drains.
        sys.exit(0)
    workers.append(worker)
print(listener.getsockname()[1], *workers, flush=True)
sys.stdin.read()
for worker in workers:
    os.kill(worker, signal.SIGTERM)
assert [os.waitpid(worker, 0)[1] for worker in workers] == [0, 0, 0]
assert client.send(UPDATE, token(9, 10)).accepted
assert client.statistics().connections_opened == 1
