"""The fake as a program, in a thread, and what it writes to disk."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import stat
import sys
import warnings
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from apns_live.cli import run
from apns_live.errors import FakeError
from apns_live.testing import FakeApns, ThreadedFakeApns
from apns_live.testing.serve import serve

from .wire_client import BODY, push_headers, token_of

FIELDS = {
    "endpoint", "manage", "ca_file", "key_file", "key_id", "team_id", "bundle_id", "inspector",
}  # fmt: skip


async def test_the_program_says_when_it_is_ready_and_ends_cleanly(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "apns_live.testing", "--dir", str(tmp_path), "--no-inspector",
        "--latency", "1ms", "--bundle-id", "com.example.one", "--bundle-id", "com.example.two",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert set(ready) == FIELDS
        assert ready["bundle_id"] == "com.example.one"
        assert ready["inspector"] is None
        context = ssl.create_default_context(cafile=ready["ca_file"])
        async with httpx.AsyncClient(http2=True, http1=False, verify=context) as client:
            answer = await client.post(f"{ready['endpoint']}/3/device/{token_of(1)}", content=BODY)
            listed = await client.get(f"{ready['manage']}/1/apps/com.example.one/all-channels")
        assert answer.json() == listed.json() == {"reason": "MissingProviderToken"}
        process.send_signal(signal.SIGTERM)
        output, errors = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, output, errors) == (0, b"", b"")


async def test_serving_in_a_loop_until_told_to_stop(tmp_path: Path) -> None:
    stop, lines = asyncio.Event(), []
    ready_file = tmp_path / "ready.json"
    serving = serve(
        ready=lines.append,
        stop=stop,
        directory=tmp_path,
        inspector_port=None,
        ready_file=ready_file,
        hostnames=("api.push.apple.com",),
    )
    task = asyncio.create_task(serving)
    while not lines:
        await asyncio.sleep(0.01)
    stop.set()
    await task
    assert lines[0]["key_file"] == str(tmp_path / "AuthKey_ABC123DEFG.p8")
    assert json.loads(ready_file.read_bytes()) == lines[0]
    leaf = x509.load_pem_x509_certificate((tmp_path / "localhost.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "api.push.apple.com" in names.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.com"])
async def test_other_addresses_need_a_token(host: str) -> None:
    with pytest.raises(FakeError, match="token"):
        await serve(host=host, ready=lambda _: None, stop=asyncio.Event())


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[dict[str, Any]] = []

    async def note(**options: Any) -> None:
        served.append(options)

    monkeypatch.setattr("apns_live.testing.serve.serve", note)
    schema = tmp_path / "game.json"
    schema.write_text("{}")
    words = f"--port 7001 --schema Game={schema} --devices strict --seed 4 --ready-file r.json"
    assert run(["fake", *words.split(), "--hostname", "apns.test", "--no-inspector"]) == 0
    options = served[0]
    assert (options["ready_file"], options["hostnames"]) == (Path("r.json"), ["apns.test"])
    assert (options["port"], options["devices"], options["seed"]) == (7001, "strict", 4)
    assert (options["schemas"], options["inspector_port"]) == ({"Game": schema}, None)
    assert run(["fake", "--schema", "Game"]) == 2
    assert "TYPE=FILE" in capsys.readouterr().err


async def test_keys_are_private_and_certificates_are_kept(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "here"
    first = FakeApns(directory=directory)
    files = {path.name: path.read_bytes() for path in first.key_file.parent.iterdir()}
    for path in directory.iterdir():
        is_private = path.suffix == ".p8" or "-key" in path.name
        assert (stat.S_IMODE(path.stat().st_mode) == 0o600) == is_private, path
        assert (b"PRIVATE KEY" in path.read_bytes()) == is_private
    again = FakeApns(directory=directory)
    assert again.ca_file.read_bytes() == files["ca.pem"]
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files
    (directory / "localhost.pem").write_text("not a certificate")
    mended = FakeApns(directory=directory)
    assert mended.certificates.certificate_file.read_text() != "not a certificate"
    assert mended.key_file.read_bytes() == files["AuthKey_ABC123DEFG.p8"]
    (directory / "AuthKey_ABC123DEFG.p8").write_text("not a key")
    with pytest.raises(FakeError, match="private key"):
        _ = FakeApns(directory=directory).key_file


async def test_a_temporary_directory_goes_with_the_fake() -> None:
    async with FakeApns() as fake:
        directory = fake.directory
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not directory.exists()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_the_certificate_fits_every_local_name(host: str) -> None:
    async with FakeApns(host=host) as fake:
        context = fake.certificates.client_context()
        for name in ("localhost", "127.0.0.1"):
            _, writer = await asyncio.open_connection(name, fake.port, ssl=context)
            tls = writer.get_extra_info("ssl_object")
            assert tls.selected_alpn_protocol() == "h2"
            assert tls.version() in ("TLSv1.2", "TLSv1.3")
            writer.close()


async def test_old_tls_is_refused() -> None:
    async with FakeApns() as fake:
        context = fake.certificates.client_context()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.open_connection("localhost", fake.port, ssl=context)


async def test_a_taken_port_is_an_error_that_names_it() -> None:
    async with FakeApns() as fake:
        port = fake.port
        with pytest.raises(FakeError, match=str(port)):
            await FakeApns(port=port).start()
        with pytest.raises(FakeError, match="already"):
            await fake.start()


def test_what_does_not_run_says_so() -> None:
    fake = FakeApns()
    with pytest.raises(FakeError, match="does not run"):
        _ = fake.url
    with pytest.raises(FakeError, match="does not run"):
        fake.go_away()
    with pytest.raises(FakeError, match="face"):
        FakeApns(face="http3")  # type: ignore[arg-type]


def test_a_fake_in_a_thread_for_code_that_is_not_asynchronous() -> None:
    with ThreadedFakeApns(seed=3) as running:
        fake = running.fake
        context = fake.certificates.client_context()
        with httpx.Client(http2=True, http1=False, verify=context) as client:
            headers = push_headers(fake)
            url = f"{fake.url}/3/device/{token_of(1)}"
            assert client.post(url, headers=headers, content=BODY).status_code == 200
            running.call(lambda fake: fake.fault("answer", reason="Shutdown"))
            assert client.post(url, headers=headers, content=BODY).status_code == 503
            running.call(lambda fake: fake.reset())
            running.call(lambda fake: fake.clock.advance(60))  # type: ignore[attr-defined]
            assert client.post(url, headers=headers, content=BODY).status_code == 200
        assert fake.pushes.total == 1
        with pytest.raises(ZeroDivisionError):
            running.call(lambda _: 1 / 0)
        with pytest.raises(FakeError, match="already"):
            running.start()
        directory = fake.directory
    assert not directory.exists()
    with pytest.raises(FakeError, match="does not run"):
        running.call(lambda fake: fake.url)


def test_a_thread_that_cannot_start_says_why() -> None:
    with pytest.raises(FakeError, match="not an address"):
        ThreadedFakeApns(host="no.such.host.invalid").start()
    with pytest.raises(FakeError, match="face"):
        ThreadedFakeApns(face="http3").start()
