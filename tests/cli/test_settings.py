"""Settings: where they come from, which is stronger, and what is refused."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

from apns_live.client import Client, Endpoint, PoolOptions
from apns_live.errors import InvalidInput, InvalidSetting
from apns_live.pool.endpoint import PRODUCTION
from apns_live.settings import Settings
from apns_live.settings.table import CLIENT
from apns_live.testing.certificates import provider_key_in


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(environ: dict[str, str] | None = None, **arguments: Any) -> Settings:
    named = {name.replace("__", "."): value for name, value in arguments.items()}
    return Settings.load(named, environ=environ or {})


def test_arguments_over_variables_over_the_file(directory: Path) -> None:
    Path("apns-live.toml").write_text(
        'team_id = "file"\nbundle_id = "file"\nkey_id = "file"\n[pool]\nmax_connections = 2\n'
    )
    settings = load(
        {"APNS_LIVE_BUNDLE_ID": "variable", "APNS_LIVE_KEY_ID": "variable"}, key_id="argument"
    )
    assert (settings.team_id, settings.bundle_id, settings.key_id) == (
        "file",
        "variable",
        "argument",
    )
    assert settings.pool == {"max_connections": 2}
    assert settings.sources == {
        "team_id": "apns-live.toml: team_id",
        "bundle_id": "APNS_LIVE_BUNDLE_ID",
        "key_id": "--key-id",
        "pool.max_connections": "apns-live.toml: pool.max_connections",
    }


def test_every_setting_can_be_a_variable(directory: Path) -> None:
    values = {str: "text", int: "7", float: "2.5"}
    for setting in CLIENT:
        text = setting.choices[0] if setting.choices else values[setting.kind]
        settings = load({setting.variable: text})
        assert list(settings.shown()) == [setting.name]


def test_every_pool_setting_is_an_option_of_the_client(directory: Path) -> None:
    pool = {field.name for field in dataclasses.fields(PoolOptions)}
    room = {"queue_timeout", "waiting_room"}
    assert room <= inspect.signature(Client).parameters.keys()
    assert {s.name[5:] for s in CLIENT if s.name.startswith("pool.")} == pool | room


def test_no_settings_are_no_error_until_they_are_needed(directory: Path) -> None:
    settings = load()
    assert settings.shown() == {}
    with pytest.raises(InvalidSetting, match="APNS_LIVE_KEY_FILE"):
        settings.provider_key()
    with pytest.raises(InvalidSetting, match="APNS_LIVE_ENVIRONMENT"):
        settings.endpoint()


def test_paths_in_a_file_are_relative_to_it(directory: Path) -> None:
    Path("deep").mkdir()
    Path("deep/settings.toml").write_text('key_file = "a.p8"\n[endpoint]\nca_file = "/b.pem"\n')
    settings = Settings.load({}, file="deep/settings.toml", environ={})
    assert (settings.key_file, settings.ca_file) == ("deep/a.p8", "/b.pem")
    named = Settings.load({}, environ={"APNS_LIVE_CONFIG": "deep/settings.toml"})
    assert named.key_file == "deep/a.p8"


def test_a_stronger_key_silences_a_weaker_one(directory: Path) -> None:
    Path("apns-live.toml").write_text('key_file = "AuthKey_FILEFILE00.p8"\nkey_id = "FILEFILE00"\n')
    assert load({"APNS_LIVE_KEY": "text"}).key_file is None
    # A key file with Apple's name says its own id, so another source's id is not for it.
    other = load(key_file="AuthKey_OTHEROTHER.p8")
    assert (other.key_file, other.key_id) == ("AuthKey_OTHEROTHER.p8", None)
    assert load(key_file="plain.p8").key_id == "FILEFILE00"


def test_a_stronger_environment_silences_a_weaker_endpoint(directory: Path) -> None:
    Path("apns-live.toml").write_text('[endpoint]\nhost = "localhost"\nport = 8443\n')
    assert load(environment="production").endpoint() == "production"
    assert load().endpoint() == Endpoint("localhost", 8443)
    assert load(endpoint__port=9).endpoint() == Endpoint("localhost", 9)


def test_apples_other_port(directory: Path) -> None:
    endpoint = load(environment="production", endpoint__port=2197).endpoint()
    assert endpoint == dataclasses.replace(PRODUCTION, port=2197)


def test_one_source_with_two_keys_is_refused(directory: Path) -> None:
    with pytest.raises(InvalidSetting, match="APNS_LIVE_KEY_FILE are both set"):
        load({"APNS_LIVE_KEY": "x", "APNS_LIVE_KEY_FILE": "y"})


def test_empty_variables_are_not_set(directory: Path) -> None:
    assert load({"APNS_LIVE_TEAM_ID": ""}).team_id is None


@pytest.mark.parametrize(
    "variable",
    ["APNS_LIVE_SERVICE_HOST", "APNS_LIVE_PORT_443_TCP", "APNS_LIVE_DEBUG", "APNS_LIVE_FAKE_TOKEN"],
)
def test_other_peoples_variables_are_left_alone(directory: Path, variable: str) -> None:
    # Kubernetes sets the first two for a service that is called apns-live.
    assert load({variable: "tcp://10.0.0.1:443"}).shown() == {}


def test_other_parts_have_tables_in_the_same_file(directory: Path) -> None:
    Path("apns-live.toml").write_text("[gateway]\nbulk = 7\n[store]\nurl = 'live.db'\n")
    assert load().shown() == {}


@pytest.mark.parametrize(
    "text",
    [
        "endpoint = 3",
        "[endpoint]\nport = true",
        "[endpoint]\nport = 1.5",
        "[endpoint.host]\nname = 'x'",
        "team_id = 7",
        "team_id = ' '",
        'team_id = "a\\u0000b"',
        "[pool]\nmax_connections = [1]",
        "[pool]\nconnect_timeout = inf",
        "[[pool]]\nmax_connections = 1",
        "[gateway]\nbulks = 7",
        "[fake]\nseed = 1",
    ],
)
def test_a_file_of_the_wrong_shape_is_refused(directory: Path, text: str) -> None:
    Path("apns-live.toml").write_text(text)
    with pytest.raises(InvalidInput, match=r"apns-live\.toml: "):
        load()


def test_nothing_shows_a_secret(directory: Path) -> None:
    key_file, _ = provider_key_in(directory, "ABC123DEFG")
    pem = key_file.read_text()
    settings = load(
        {"APNS_LIVE_KEY": pem, "APNS_LIVE_PROXY": "http://me:hunter2@proxy:3128"},
        key_id="ABC123DEFG",
        team_id="DEF123GHIJ",
    )
    body = pem.splitlines()[1]
    for shown in (repr(settings), str(settings.shown()), repr(settings.provider_key())):
        assert body not in shown
        assert "hunter2" not in shown
    assert settings.shown()["proxy"] == "<hidden>"


def test_a_client_is_made_from_settings(directory: Path) -> None:
    key_file, _ = provider_key_in(directory, "ABC123DEFG")
    settings = load(
        key_file=str(key_file),
        team_id="DEF123GHIJ",
        bundle_id="com.example.scores",
        environment="sandbox",
        pool__max_connections=3,
        pool__silence_before_ping=1.5,
        pool__waiting_room=10,
        transport="httpx",
    )
    client = settings.client()
    assert client.environment == "sandbox"
    assert (client.options.max_connections, client.options.silence_before_ping) == (3, 1.5)
    with settings.blocking_client() as blocking:
        assert "com.example.scores" in repr(blocking)
