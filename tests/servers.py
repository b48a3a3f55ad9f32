"""Outside HTTP/2 servers for tests and benchmarks: nginx and nghttpd on a free loopback port.

Each runs from its own temporary folder with its own certificate, and is ended by its process id.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.programs import program

READY_TIMEOUT = 15.0
STOP_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it is, and how to trust it."""

    port: int
    ca_file: str
    pid: int
    host: str = "localhost"

    @property
    def url(self) -> str:
        """Return the address without a path."""
        return f"https://{self.host}:{self.port}"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for localhost that is its own authority; return (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "server.pem", folder / "server.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file


def free_port() -> int:
    """Return a loopback port that nobody listens on now.

    nginx and nghttpd cannot report a port they chose themselves, so `_run` tries again when
    somebody was faster.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(port: int, ca_file: Path) -> bool:
    context = ssl.create_default_context(cafile=str(ca_file))
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=2) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as wrapped,
        ):
            return wrapped.selected_alpn_protocol() == "h2"
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that we started: SIGTERM, then SIGKILL."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT)


@contextlib.contextmanager
def _run(
    command: list[str], port: int, ca_file: Path, log: Path, core: int | None
) -> Iterator[Server]:
    if core is not None:
        command = [program("taskset"), "-c", str(core), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + READY_TIMEOUT
            while not _answers(port, ca_file):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}")
                time.sleep(0.02)
            yield Server(port, str(ca_file), process.pid)
        finally:
            stop(process)


def nginx_configuration(
    folder: Path, port: int, *, keepalive_requests: int | None, streams: int | None, echo: bool
) -> str:
    """Return a configuration that answers 200 to everything, with one worker in the foreground."""
    lines = [f"keepalive_requests {keepalive_requests};"] if keepalive_requests else []
    lines += [f"http2_max_concurrent_streams {streams};"] if streams else []
    lines += ["add_header apns-id $http_apns_id;"] if echo else []
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl http2;
        server_name localhost;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        {" ".join(lines)}
        location / {{ return 200; }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(
    *,
    keepalive_requests: int | None = None,
    streams: int | None = None,
    echo: bool = False,
    core: int | None = None,
) -> Iterator[Server]:
    """Run nginx with one worker that answers 200.

    Without arguments its limits are its defaults: 1000 requests a connection, then GOAWAY, and 128
    streams. ``echo`` answers with the request's apns-id, as APNs does. ``core`` pins it.
    """
    with tempfile.TemporaryDirectory(prefix="apns-live-nginx-") as name:
        folder = Path(name)
        certificate, _ = make_certificate(folder)
        port = free_port()
        (folder / "nginx.conf").write_text(
            nginx_configuration(
                folder, port, keepalive_requests=keepalive_requests, streams=streams, echo=echo
            )
        )
        command = [
            program("nginx"),
            "-p",
            name,
            "-c",
            f"{name}/nginx.conf",
            "-e",
            f"{name}/start.log",
        ]
        with _run(command, port, certificate, folder / "output.log", core) as server:
            yield server


@contextlib.contextmanager
def nghttpd(*, streams: int | None = None, core: int | None = None) -> Iterator[Server]:
    """Run nghttpd, which echoes each request's body in a 200 answer. Without arguments: defaults."""
    with tempfile.TemporaryDirectory(prefix="apns-live-nghttpd-") as name:
        folder = Path(name)
        certificate, key = make_certificate(folder)
        port = free_port()
        (folder / "root").mkdir()
        options = ["--address=127.0.0.1", "--echo-upload", f"--htdocs={folder}/root"]
        options += [f"--max-concurrent-streams={streams}"] if streams else []
        command = [program("nghttpd"), *options, str(port), str(key), str(certificate)]
        with _run(command, port, certificate, folder / "output.log", core) as server:
            yield server
