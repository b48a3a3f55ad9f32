"""Bad words on the command line: each refused before anything is sent, in one clear line."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from apns_live.cli import run
from apns_live.testing.certificates import provider_key_in

TOKEN = "ab" * 32
STATE = ("--state", '{"home": 1}')
SEND = ("send", TOKEN)
START = ("--event", "start", *STATE, "--attributes-type", "Match", "--attributes", "{}")
ALERT = ("--title", "Kick-off", "--body", "Lions")


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A directory with good settings, whose APNs is a port where nothing may arrive."""
    key_file, _ = provider_key_in(tmp_path, "ABC123DEFG")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        port = listener.getsockname()[1]
        tmp_path.joinpath("apns-live.toml").write_text(
            f'key_file = "{key_file.name}"\nteam_id = "DEF123GHIJ"\n'
            'bundle_id = "com.example.scores"\n'
            f'[endpoint]\nhost = "127.0.0.1"\nport = {port}\nmanage_port = {port}\n',
            "utf-8",
        )
        tmp_path.joinpath("tokens.txt").write_text(TOKEN + "\n", "utf-8")
        tmp_path.joinpath("broken.toml").write_text("key_file = \n", "utf-8")
        tmp_path.joinpath("misspelt.toml").write_text('team = "DEF123GHIJ"\n', "utf-8")
        tmp_path.joinpath("nested.toml").write_text("[endpoint]\nhosst = 'x'\n", "utf-8")
        tmp_path.joinpath("typed.toml").write_text("[endpoint]\nport = '8o'\n", "utf-8")
        tmp_path.joinpath("latin.txt").write_bytes(b"caf\xe9\n")
        tmp_path.joinpath("two.csv").write_text("user,name\n1,x\n", "utf-8")
        tmp_path.joinpath("rows.jsonl").write_text('{"tokn": "ab"}\n', "utf-8")
        tmp_path.joinpath("list.json").write_text("[1]", "utf-8")
        tmp_path.joinpath("notes.p8").write_text("not a key", "utf-8")
        tmp_path.joinpath("extra.json").write_text(
            json.dumps({"event": "update", "contentstate": {"home": 1}}), "utf-8"
        )
        tmp_path.joinpath("aps.json").write_text(
            json.dumps({"aps": {"event": "update", "content-state": {}, "stale_date": 1}}), "utf-8"
        )
        monkeypatch.chdir(tmp_path)
        for name in ("KEY", "KEY_FILE", "CONFIG"):
            monkeypatch.delenv(f"APNS_LIVE_{name}", raising=False)
        yield listener


ROWS: list[tuple[str, tuple[str, ...], str, str]] = [
    # what is wrong, the words, the field that the message names, a word of its remedy
    ("no such command", ("sned", TOKEN), "sned", "send"),
    ("no such option", (*SEND, "--stat", "{}"), "--stat", "--state"),
    ("an option that is none", (*SEND, "--stat", "{}"), "--stat", "is not an option"),
    ("no value", (*SEND, "--state"), "--state", "needs a value"),
    ("no token", ("send",), "TOKEN", "is missing"),
    ("a port in words", (*SEND, *STATE, "--port", "https"), "--port", "is not a whole number"),
    ("a score in words", (*SEND, *STATE, "--relevance-score", "x"), "--relevance", "not a number"),
    ("a page too large", ("operations", "list", "--limit", "5000"), "--limit", "1000"),
    ("token not hex", ("send", "xyz", *STATE), "token", "hex"),
    ("token with a line end", ("send", "ab\r\nab", *STATE), "token", "one line"),
    ("state not JSON", (*SEND, "--state", "{home: 1}"), "content_state", "Quote"),
    ("state with NaN", (*SEND, "--state", '{"home": NaN}'), "content_state", "null"),
    ("state with a key twice", (*SEND, "--state", '{"a": 1, "a": 2}'), "content_state", "twice"),
    ("state nested too deeply", (*SEND, "--state", "[" * 9999), "content_state", "Flatten"),
    ("state file missing", (*SEND, "--state", "@no.json"), "no.json", "No such file"),
    ("no state", SEND, "content_state", "ContentState"),
    ("unknown event", (*SEND, "--event", "updat", *STATE), "event", "update"),
    ("start without alert", (*SEND, *START), "alert", "title"),
    ("start without attributes", (*SEND, *START[:6], *ALERT), "attributes", "fixed attributes"),
    ("start without a type", (*SEND, *START[:4], *ALERT), "attributes_type", "Swift"),
    (
        "dismissal of an update",
        (*SEND, *STATE, "--dismissal-date", "0"),
        "dismissal_date",
        "belongs to end",
    ),
    ("badge of an update", (*SEND, *STATE, "--badge", "1"), "badge", "belongs to notification"),
    ("milliseconds", (*SEND, *STATE, "--stale-date", "1800000000000"), "stale_date", "1000"),
    ("a date in words", (*SEND, *STATE, "--stale-date", "tomorrow"), "stale_date", "+10m"),
    ("a naive date", (*SEND, *STATE, "--stale-date", "2031-01-01T00:00"), "stale_date", "aware"),
    ("a duration for a date", (*SEND, *STATE, "--expiration", "300"), "expiration", "seconds"),
    ("priority 7", (*SEND, *STATE, "--priority", "7"), "priority", "10"),
    (
        "priority in words",
        (*SEND, *STATE, "--priority", "high"),
        "--priority",
        "is not a whole number",
    ),
    (
        "relevance of nothing",
        (*SEND, *STATE, "--relevance-score", "nan"),
        "relevance_score",
        "finite",
    ),
    (
        "both inputs",
        (*SEND, *START, *ALERT, "--input-push-token", "--input-push-channel", "YWI="),
        "input_push_token",
        "Choose",
    ),
    (
        "channel is none",
        (*SEND, *START, *ALERT, "--input-push-channel", "a b"),
        "input_push_channel",
        "channel",
    ),
    (
        "collapse id too long",
        (*SEND, *START, *ALERT, "--activity-id", "x" * 65),
        "activity_id",
        "64",
    ),
    ("empty notification", (*SEND, "--event", "notification"), "body", "title"),
    (
        "interruption level",
        (*SEND, "--event", "notification", "--title", "x", "--interruption-level", "loud"),
        "interruption_level",
        "active",
    ),
    ("message file of a list", (*SEND, "--message", "list.json"), "message", "event"),
    (
        "message with a misspelt key",
        (*SEND, "--message", "extra.json"),
        "contentstate",
        "content_state",
    ),
    (
        "payload with a misspelt key",
        (*SEND, "--message", "aps.json"),
        "aps.stale_date",
        "stale-date",
    ),
    ("message file missing", (*SEND, "--message", "no.json"), "no.json", "No such file"),
    ("message not UTF-8", (*SEND, "--message", "latin.txt"), "message", "UTF-8"),
    ("too large", (*SEND, "--state", json.dumps({"x": "y" * 5000})), "4096", "content-state"),
    ("deadline of nothing", (*SEND, *STATE, "--deadline", "0"), "--deadline", "seconds"),
    ("environment", (*SEND, *STATE, "--environment", "sandbx"), "--environment", "sandbox"),
    (
        "suffixed bundle id",
        (*SEND, *STATE, "--bundle-id", "com.example.scores.push-type.liveactivity"),
        "bundle_id",
        "bare",
    ),
    ("port", (*SEND, *STATE, "--port", "70000"), "--port", "65535"),
    ("host with a scheme", (*SEND, *STATE, "--host", "https://localhost"), "host", "scheme"),
    ("ca file missing", (*SEND, *STATE, "--ca-file", "no.pem"), "ca_file", "PEM"),
    ("transport", (*SEND, *STATE, "--transport", "http3"), "--transport", "http2"),
    ("no connections", (*SEND, *STATE, "--max-connections", "0"), "--max-connections", "1 or more"),
    ("key file missing", (*SEND, *STATE, "--key-file", "no.p8"), "--key-file", "path"),
    (
        "key file is no key",
        (*SEND, *STATE, "--key-file", "notes.p8", "--key-id", "ABC123DEFG"),
        "--key-file",
        "download",
    ),
    ("key id too short", (*SEND, *STATE, "--key-id", "ABC"), "key", "ABC123DEFG"),
    ("team id too short", (*SEND, *STATE, "--team-id", "DEF"), "--team-id", "Membership"),
    ("proxy", (*SEND, *STATE, "--proxy", "ftp://somewhere"), "proxy", "http"),
    ("settings file missing", (*SEND, *STATE, "--config", "no.toml"), "no.toml", "exist"),
    ("settings not TOML", (*SEND, *STATE, "--config", "broken.toml"), "broken.toml", "TOML"),
    ("misspelt setting", (*SEND, *STATE, "--config", "misspelt.toml"), "team", "team_id"),
    (
        "misspelt nested setting",
        (*SEND, *STATE, "--config", "nested.toml"),
        "endpoint.hosst",
        "endpoint.host",
    ),
    (
        "setting of the wrong type",
        (*SEND, *STATE, "--config", "typed.toml"),
        "endpoint.port",
        "port",
    ),
    ("token file missing", ("fan-out", "no.txt", *STATE), "no.txt", "No such file"),
    ("token file not UTF-8", ("fan-out", "latin.txt", *STATE), "latin.txt, line 1", "UTF-8"),
    ("token format", ("fan-out", "tokens.txt", *STATE, "--format", "jsn"), "--format", "jsonl"),
    ("no token column", ("fan-out", "two.csv", *STATE), "--column", "--column"),
    ("no such column", ("fan-out", "two.csv", *STATE, "--column", "nam"), "--column", "name"),
    (
        "no such column number",
        ("fan-out", "two.csv", *STATE, "--column", "9"),
        "--column",
        "from 1",
    ),
    (
        "column of plain text",
        ("fan-out", "tokens.txt", *STATE, "--column", "token"),
        "--column",
        "csv",
    ),
    ("no such key", ("fan-out", "rows.jsonl", *STATE), "rows.jsonl, line 1", "tokn"),
    (
        "retry file in no directory",
        ("fan-out", "tokens.txt", *STATE, "--retry-file", "no/r"),
        "--retry-file",
        "directory",
    ),
    (
        "one file for two",
        ("fan-out", "tokens.txt", *STATE, "--retry-file", "r", "--drop-file", "./r"),
        "--drop-file",
        "name of its own",
    ),
    ("start on a channel", ("broadcast", "YWJj", *START, *ALERT), "start", "update"),
    ("channel id", ("broadcast", "a\r\nb", *STATE), "channel", "channel"),
    (
        "policy 2",
        ("broadcast", "YWJj", *STATE, "--storage-policy", "2"),
        "--storage-policy",
        "0 or 1",
    ),
    ("policy 2 created", ("channels", "create", "--storage-policy", "2"), "storage_policy", "0"),
    ("no channel id", ("channels", "show", "a b"), "channel", "channel"),
    ("fake devices", ("fake", "--devices", "some"), "--devices", "strict"),
    ("fake port", ("fake", "--port", "70000"), "--port", "65535"),
    ("fake schema", ("fake", "--schema", "Match"), "--schema", "TYPE"),
    ("fake schema missing", ("fake", "--schema", "Match=no.json"), "--schema", "no.json"),
    ("demo without phones", ("demo", "--tokens", "0"), "--tokens", "1 to"),
    ("demo connections", ("demo", "--connections", "0"), "--connections", "1 to"),
    ("lint file missing", ("lint", "no.json"), "no.json", "No such file"),
]


@pytest.mark.parametrize(
    ("words", "field", "remedy"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS]
)
def test_refused(
    nobody: socket.socket,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    field: str,
    remedy: str,
) -> None:
    code = run(list(words))
    out, err = capsys.readouterr()
    assert code == 2, (out, err)
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("apns-live")
    assert field in err, err
    assert remedy in err, err
    assert "PRIVATE KEY" not in err
    # Nobody was called.
    with pytest.raises(BlockingIOError):
        nobody.accept()
    assert not list(Path().glob("*.partial"))


@pytest.mark.parametrize(
    ("words", "field", "remedy"), [row[1:] for row in ROWS[:3]], ids=[r[0] for r in ROWS[:3]]
)
def test_refused_for_programs(
    nobody: socket.socket,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    field: str,
    remedy: str,
) -> None:
    assert run([*words, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)
    assert error["exit_code"] == 2
    assert field in error["error"]


VARIABLES = [
    ("APNS_LIVE_TEAMID", "DEF123GHIJ", "APNS_LIVE_TEAM_ID"),
    ("APNS_LIVE_ENDPOINT_PORT", "eight", "port of the host"),
    ("APNS_LIVE_ENVIRONMENT", "staging", "production"),
    ("APNS_LIVE_POOL_MAX_CONNECTIONS", "2.5", "number"),
    ("APNS_LIVE_POOL_CONNECT_TIMEOUT", "nan", "or more"),
    ("APNS_LIVE_KEY", "c2VjcmV0IHRleHQ=", "APNS_LIVE_KEY"),
]


@pytest.mark.parametrize(("variable", "value", "remedy"), VARIABLES)
def test_variables_are_refused_too(
    nobody: socket.socket,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    remedy: str,
) -> None:
    monkeypatch.setenv(variable, value)
    words = (
        [*SEND, *STATE, "--key-id", "ABC123DEFG"] if variable.endswith("KEY") else [*SEND, *STATE]
    )
    assert run(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert variable in err
    assert remedy in err
    assert "c2VjcmV0" not in err
    with pytest.raises(BlockingIOError):
        nobody.accept()
