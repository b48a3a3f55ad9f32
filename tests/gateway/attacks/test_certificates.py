"""TLS files: checked before anything listens, read again when they change."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path

import pytest

from apns_live.errors import InvalidSetting
from apns_live.gateway.serving import serving
from apns_live.gateway.wire.certificates import Certificates
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
