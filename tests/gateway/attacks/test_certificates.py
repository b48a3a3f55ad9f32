"""TLS files: checked before anything listens, read again when they change."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import threading
from pathlib import Path

import pytest
import uvloop

from apns_live.errors import InvalidSetting
from apns_live.gateway.serving import serving
from apns_live.gateway.wire.certificates import Certificates
from apns_live.testing.certificates import certificates_in
from tests.servers import make_certificate

from .conftest import small_app


def pair(folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    return make_certificate(folder)


def test_what_cannot_be_used_is_said_before_anything_listens(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path / "a")
    _, other = pair(tmp_path / "b")
    no_pem = tmp_path / "text"
    no_pem.write_text("hello")
    for one, two, field, says in (
        (tmp_path / "none", key, "certificate", "cannot be read"),
        (certificate, tmp_path / "none", "private_key", "cannot be read"),
        (certificate, other, "private_key", "not the key of the certificate"),
        (no_pem, key, "certificate", "cannot be used"),
        (certificate, no_pem, "certificate", "cannot be used"),
    ):
        with pytest.raises(InvalidSetting, match=says) as caught:
            Certificates(one, two)
        assert caught.value.field == field


async def test_new_files_are_used_without_a_restart(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path / "a")
    certificates = Certificates(certificate, key)

    async def shown(port: int) -> bytes:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
        return found

    async with serving(
        small_app([]), host="127.0.0.1", certificates=certificates, drain=0.1
    ) as url:
        port = int(url.rpartition(":")[2])
        first = await shown(port)
        assert await shown(port) == first
        new = pair(tmp_path / "b")
        shutil.copy(new[0], certificate)
        certificates.reload()
        assert await shown(port) == first, "half of a pair changes nothing"
        shutil.copy(new[1], key)
        for _ in range(10):
            certificates.look()
        assert await shown(port) == ssl.PEM_cert_to_DER_cert(new[0].read_text())


def test_a_hello_that_is_there_before_its_connection_is_taken(tmp_path: Path) -> None:
    """A client sends its first bytes at once; on a busy machine they wait beside the connection."""
    sent = threading.Event()
    made = certificates_in(tmp_path)
    certificates = Certificates(made.certificate_file, made.key_file)

    def ask(port: int) -> bytes:
        context = ssl.create_default_context(cafile=str(made.ca_file))
        with (
            socket.create_connection(("localhost", port), timeout=10.0) as plain,
            context.wrap_socket(
                plain, server_hostname="localhost", do_handshake_on_connect=False
            ) as secured,
        ):
            secured.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                secured.do_handshake()
            sent.set()
            secured.settimeout(10.0)
            secured.do_handshake()
            secured.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            return secured.recv(12)

    async def main() -> bytes:
        async with serving(small_app([]), certificates=certificates) as url:
            asking = asyncio.create_task(asyncio.to_thread(ask, int(url.rpartition(":")[2])))
            await asyncio.sleep(0)
            assert sent.wait(10.0), "nobody accepts meanwhile"
            return await asking

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == b"HTTP/1.1 200"
