"""``apns-live doctor``: broken set-ups, each named with its remedy, over real sockets."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apns_live.cli import run
from apns_live.testing import SimulatedClock
from apns_live.testing import certificates as authority
from apns_live.testing.handles import RunningFake
from apns_live.testing.phones import BudgetLaw, PhoneSettings

SWIFT = """
import ActivityKit
struct GameAttributes: ActivityAttributes {
    struct ContentState: Codable, Hashable { var home: Int }
}
"""


class Doctor:
    """Runs the command in this process against a fake."""

    def __init__(self, fake: RunningFake, capsys: pytest.CaptureFixture[str]) -> None:
        self.fake = fake
        self.capsys = capsys

    def words(self, **changes: object) -> list[str]:
        settings: dict[str, object] = {
            "key_file": self.fake.key_file,
            "key_id": self.fake.key_id,
            "team_id": self.fake.team_id,
            "bundle_id": self.fake.bundle_id,
            "host": "localhost",
            "port": self.fake.port,
            "ca_file": self.fake.ca_file,
            "manage_port": self.fake.manage_port,
            **changes,
        }
        flags = {f"--{name.replace('_', '-')}": value for name, value in settings.items()}
        return [str(part) for pair in flags.items() if pair[1] is not None for part in pair]

    def look(self, *more: object, **changes: object) -> tuple[int, list[dict[str, str]]]:
        words = [*self.words(**changes), *map(str, more), "--json"]
        code = run(["doctor", *words])
        return code, json.loads(self.capsys.readouterr().out)["findings"]

    def broken(self, check: str, *more: object, code: int = 3, **changes: object) -> dict[str, str]:
        """Return the one finding that failed; it is of that check and has a remedy."""
        got, findings = self.look(*more, **changes)
        failed = [each for each in findings if each["state"] == "fail"]
        assert [each["check"] for each in failed] == [check], findings
        assert got == code
        assert failed[0]["remedy"]
        return failed[0]


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFake]:
    laws = PhoneSettings(token_delay=(0, 0), budget=BudgetLaw(frequent_capacity=0), consent="none")
    with RunningFake(directory=tmp_path_factory.mktemp("doctor"), phone_settings=laws) as running:
        yield running


@pytest.fixture
def doctor(
    fake: RunningFake,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Doctor:
    monkeypatch.chdir(tmp_path)
    fake.reset()
    return Doctor(fake, capsys)


@contextlib.contextmanager
def server(context: ssl.SSLContext | None, says: bytes = b"") -> Iterator[int]:
    """Accept on a loopback port: shake hands where there is a context, else answer and close."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), accepted:
                if context is not None:
                    with context.wrap_socket(accepted, server_side=True) as secure:
                        secure.recv(1)
                else:
                    accepted.recv(4096)
                    accepted.sendall(says)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_nothing_is_broken(doctor: Doctor) -> None:
    code, findings = doctor.look()
    assert code == 0
    assert [each["check"] for each in findings] == ["key", "tls", "tls", "push"]
    assert {each["state"] for each in findings} == {"ok"}


def test_a_wrong_key(doctor: Doctor, tmp_path: Path) -> None:
    other, _ = authority.provider_key_in(tmp_path, doctor.fake.key_id)
    assert "key id" in doctor.broken("key", key_file=other)["remedy"]


def test_a_wrong_key_id_is_seen_in_the_files_name(doctor: Doctor) -> None:
    assert "WRONGKEYID" in doctor.broken("key", key_id="WRONGKEYID")["said"]


def test_a_wrong_team(doctor: Doctor) -> None:
    assert "team id" in doctor.broken("key", team_id="WRONGTEAM1")["remedy"]


def test_a_key_of_the_other_environment(doctor: Doctor) -> None:
    file = doctor.fake.call(lambda fake: fake.add_key("PRODONLY01", environment="production"))
    found = doctor.broken("environment", key_file=file, key_id="PRODONLY01")
    assert "other host" in found["remedy"]


def test_a_wrong_topic(doctor: Doctor) -> None:
    assert "bundle id" in doctor.broken("topic", bundle_id="com.example.other")["remedy"]


def test_a_clock_that_is_two_hours_off(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with RunningFake(clock=SimulatedClock(time.time() + 7200)) as ahead:
        assert "NTP" in Doctor(ahead, capsys).broken("clock")["remedy"]


def test_a_closed_port(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "firewall" in doctor.broken("tcp", port=port)["remedy"]


def test_a_closed_management_port_is_a_warning(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, findings = doctor.look(manage_port=port)
    (warned,) = [each for each in findings if each["state"] == "warn"]
    assert (code, warned["check"]) == (0, "tcp")
    assert "channel management" in warned["said"]


def test_an_authority_that_is_not_trusted(doctor: Doctor, tmp_path: Path) -> None:
    strange = authority.certificates_in(tmp_path)
    assert "ca_file" in doctor.broken("tls", ca_file=strange.ca_file)["remedy"]


def test_a_certificate_for_another_name(doctor: Doctor, tmp_path: Path) -> None:
    made = authority.certificates_in(tmp_path, ["other.test"])
    with server(made.server_context()) as port:
        found = doctor.broken("tls", port=port, ca_file=made.ca_file)
    assert "another name" in found["remedy"]


def test_an_expired_certificate(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "_VALID", datetime.timedelta(hours=-1))
    made = authority.certificates_in(tmp_path)
    with server(made.server_context()) as port:
        found = doctor.broken("tls", port=port, ca_file=made.ca_file)
    assert "renew" in found["remedy"]


def test_http_1_only(doctor: Doctor, tmp_path: Path) -> None:
    made = authority.certificates_in(tmp_path)
    context = made.server_context()
    context.set_alpn_protocols(["http/1.1"])
    with server(context) as port:
        assert "HTTP/2" in doctor.broken("alpn", port=port, ca_file=made.ca_file)["remedy"]


def test_something_that_speaks_no_tls(doctor: Doctor) -> None:
    with server(None, b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert "no TLS" in doctor.broken("tls", port=port)["remedy"]


def test_a_proxy_that_refuses(doctor: Doctor) -> None:
    with server(None, b"HTTP/1.1 403 Forbidden\r\n\r\n") as port:
        found = doctor.broken("proxy", proxy=f"http://127.0.0.1:{port}")
    assert "CONNECT" in found["remedy"]


def test_a_name_without_an_address(doctor: Doctor) -> None:
    assert "resolver" in doctor.broken("dns", host="no-such-host.invalid")["remedy"]


@pytest.mark.parametrize("text", [None, "not a key"])
def test_a_key_file_that_is_none(doctor: Doctor, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "AuthKey_ABC123DEFG.p8"
    if text is not None:
        file.write_text(text)
    doctor.broken("key", key_file=file, code=3)


def test_settings_that_are_missing(doctor: Doctor) -> None:
    assert "bundle_id" in doctor.broken("settings", bundle_id=None, code=1)["said"]


@pytest.mark.parametrize("condition", ["unregistered", "expired"])
def test_a_dead_start_token(doctor: Doctor, condition: str) -> None:
    phone = doctor.fake.devices.add(attributes_types=["GameAttributes"])
    token = phone.start_token()
    assert doctor.look("--token", token)[0] == 0
    phone.kill_token(token, condition)
    assert "Drop it" in doctor.broken("token", "--token", token, code=1)["remedy"]


def test_a_state_that_does_not_decode(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "Game.swift").write_text(SWIFT)
    words = ["doctor", "--contract", "Game.swift", "--json", "--state"]
    assert run([*words, 'GameAttributes={"home": "one"}']) == 1
    (found,) = json.loads(doctor.capsys.readouterr().out)["findings"]
    assert (found["check"], found["state"]) == ("state", "fail")
    assert "home" in found["said"]
    assert found["remedy"]
    assert run([*words, 'GameAttributes={"home": 1}']) == 0


def test_a_store_that_is_locked(doctor: Doctor, tmp_path: Path) -> None:
    file = tmp_path / "live.db"
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE kept (n)")
        other.execute("BEGIN EXCLUSIVE")
        found = doctor.broken("store", "--database", file, code=1)
    assert "Another process" in found["remedy"]


@pytest.mark.parametrize(
    ("version", "said"),
    [("", "not set up"), ("0001", "of version 0001"), ("9999", "install that release")],
)
def test_a_store_of_another_version(
    doctor: Doctor, tmp_path: Path, version: str, said: str
) -> None:
    file = tmp_path / "live.db"
    with contextlib.closing(sqlite3.connect(file)) as store, store:
        if version:
            store.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
            store.execute("INSERT INTO alembic_version VALUES (?)", (version,))
    found = doctor.broken("store", "--database", file, code=1)
    assert said in found["said"]
    assert ("store upgrade" in found["said"]) is (version != "9999")


def test_a_spent_budget(doctor: Doctor) -> None:
    """Priority 10 is delayed: the fake of these tests gives none at all."""
    phone = doctor.fake.devices.add("busy", attributes_types=["GameAttributes"])
    assert phone.start_activity("GameAttributes", {"home": 0}).token is not None
    words = ["doctor", "--fake", doctor.fake.inspector, "--device", "busy", "--json"]
    assert run(words) == 1
    findings = json.loads(doctor.capsys.readouterr().out)["findings"]
    (failed,) = [each for each in findings if each["state"] == "fail"]
    assert failed["check"] == "budget"
    assert "0 of 0 pushes of priority 10 are left" in failed["said"]
    assert "priority 5" in failed["remedy"]


def test_why_a_phone_shows_nothing(doctor: Doctor) -> None:
    fake = doctor.fake
    phone = fake.devices.add("shy", attributes_types=["GameAttributes"])
    token = phone.start_activity("GameAttributes", {"home": 0}).token
    assert token is not None

    def push(running: Any) -> None:
        devices = running.devices
        shy = devices.devices["shy"]
        devices.rotate(shy.token_of("start"), quietly=True)
        devices.begin(shy, running.bundle_id, "GameAttributes", b"{}", b"{}", 0.0).asks = True

    fake.call(push)
    words = ["doctor", "--fake", fake.inspector, "--device", "shy", "--json"]
    assert run(words) == 1
    findings = json.loads(doctor.capsys.readouterr().out)["findings"]
    failed = {each["check"]: each for each in findings if each["state"] == "fail"}
    assert set(failed) == {"budget", "token", "start token"}
    assert all(each["remedy"] for each in failed.values())
    assert run(["doctor", "--fake", fake.inspector, "--device", "nobody"]) == 2
    assert run(["doctor", "--device", "shy"]) == 2


BROKEN = {
    "wrong key": test_a_wrong_key,
    "wrong team": test_a_wrong_team,
    "wrong environment": test_a_key_of_the_other_environment,
    "wrong topic": test_a_wrong_topic,
    "clock two hours off": test_a_clock_that_is_two_hours_off,
    "port closed": test_a_closed_port,
    "untrusted authority": test_an_authority_that_is_not_trusted,
    "wrong host name": test_a_certificate_for_another_name,
    "proxy that refuses": test_a_proxy_that_refuses,
    "HTTP/1 only": test_http_1_only,
    "name that does not resolve": test_a_name_without_an_address,
    "expired certificate": test_an_expired_certificate,
    "locked store": test_a_store_that_is_locked,
    "store of another version": test_a_store_of_another_version,
    "dead start token": test_a_dead_start_token,
    "spent budget": test_a_spent_budget,
    "undecodable state": test_a_state_that_does_not_decode,
}
"""The set-ups that the doctor must name, each with its remedy, and the test that breaks it."""


def test_every_broken_set_up_has_a_test_of_its_own() -> None:
    assert len(set(BROKEN.values())) == len(BROKEN) == 17
