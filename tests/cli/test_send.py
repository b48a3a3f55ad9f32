"""``apns-live send``, ``broadcast`` and ``channels``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import pytest

from .conftest import Fake, Place, Result, tokens

Cli = Callable[..., Result]
TOKEN = tokens(1)[0]
STATE = '{"home": 71, "away": 68}'


def test_an_update_is_accepted(cli: Cli) -> None:
    result = cli("send", TOKEN, "--state", STATE)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("accepted (200)")
    assert "apns-unique-id" in result.out


def test_json_has_the_outcome(cli: Cli) -> None:
    outcome = cli("send", TOKEN, "--state", STATE, "--json").json
    assert (outcome["token"], outcome["verdict"], outcome["status"]) == (TOKEN, "accepted", 200)
    assert len(outcome["apns_id"]) == 36


@pytest.mark.parametrize(
    "words",
    [
        ("--event", "update", "--state", STATE, "--stale-date", "+1h30m", "--priority", "5"),
        ("--event", "end", "--state", STATE, "--dismissal-date", "0"),
        (
            *("--event", "start", "--state", STATE, "--attributes-type", "MatchAttributes"),
            *(
                "--attributes",
                '{"id": 1}',
                "--title",
                "Kick-off",
                "--body",
                "Lions",
                "--activity-id",
                "m1",
            ),
        ),
        ("--event", "notification", "--title", "Hello", "--badge", "3", "--thread-id", "t"),
        ("--event", "background", "--custom", '{"sync": true}'),
        ("--state", STATE, "--title", "Goal", "--sound", "default", "--expiration", "0"),
        ("--state", STATE, "--stale-date", "2031-01-31T20:00:00Z", "--relevance-score", "75"),
        ("--state", STATE, "--transport", "httpx"),
    ],
)
def test_every_kind_of_message(cli: Cli, words: tuple[str, ...]) -> None:
    result = cli("send", TOKEN, *words)
    assert result.code == 0, result


@pytest.mark.parametrize(
    "message",
    [
        {
            "event": "update",
            "content_state": {"home": 1},
            "alert": {"title": "Goal", "body": "1-0"},
        },
        {
            "event": "start",
            "content_state": {"home": 0},
            "attributes_type": "MatchAttributes",
            "attributes": {},
            "alert": {"title": {"loc-key": "START", "loc-args": ["Lions"]}, "body": "Now"},
            "stale_date": "+2h",
        },
        {"aps": {"event": "update", "timestamp": 1900000000, "content-state": {"home": 1}}},
        {"aps": {"alert": {"title": "Hi", "loc-key": "BODY"}, "badge": 1}, "mine": 2},
        {"aps": {"alert": "Hi", "mutable-content": 1}},
        {"aps": {"content-available": 1}, "mine": {"a": 1}},
    ],
)
@pytest.mark.parametrize("source", ["file", "stdin"])
def test_messages_from_json(place: Place, message: dict[str, object], source: str) -> None:
    # The fixed timestamp of a payload file is refused when it lies ahead of now, so it is set.
    words = ["--timestamp", "+0s"] if "timestamp" in str(message) else []
    text = json.dumps(message)
    if source == "file":
        result = place.run("send", TOKEN, "--message", place.write("message.json", text), *words)
    else:
        result = place.run("send", TOKEN, "--message", "-", *words, stdin=text)
    assert result.code == 0, result


def test_state_from_a_file(place: Place) -> None:
    place.write("state.json", STATE)
    assert place.run("send", TOKEN, "--state", "@state.json").code == 0


def test_a_refusal_says_what_to_do(cli: Cli) -> None:
    result = cli("send", tokens(1, "410")[0], "--state", STATE)
    assert result.code == 1
    assert result.out.startswith("drop token (410 ExpiredToken): ")
    outcome = cli("send", tokens(1, "410")[0], "--state", STATE, "--json").json
    assert outcome["drop_if_registered_before"] == "2027-01-15T08:00:00+00:00"


def test_refused_credentials_have_their_own_code(cli: Cli) -> None:
    result = cli("send", tokens(1, "403")[0], "--state", STATE)
    assert result.code == 3
    assert "InvalidProviderToken" in result.out


def test_nobody_there_has_its_own_code(cli: Cli) -> None:
    result = cli("send", TOKEN, "--state", STATE, "--port", "1", "--deadline", "0.5")
    assert result.code == 3
    assert result.out.startswith("not sent")


def test_the_key_from_the_environment(place: Place, fake: Fake) -> None:
    from base64 import b64encode
    from pathlib import Path

    pem = Path(fake.ready["key_file"]).read_bytes()
    place.write(
        "no-key.toml",
        "\n".join(line for line in fake.settings.splitlines() if not line.startswith("key_file")),
    )
    body = "".join(pem.decode().splitlines()[1:-1])
    for text in (pem.decode(), pem.decode().replace("\n", "\\n"), b64encode(pem).decode(), body):
        result = place.run(
            *("send", TOKEN, "--state", STATE, "--config", "no-key.toml"),
            env={"APNS_LIVE_KEY": text},
        )
        assert result.code == 0, result


def test_as_curl_hides_the_secrets(cli: Cli, fake: Fake) -> None:
    words = ("send", TOKEN, "--state", '{"quote": "it\'s $HOME"}', "--as-curl")
    shown = cli(*words).out
    assert TOKEN not in shown
    assert "eyJ" not in shown
    parsed = shlex.split(shown.replace("\\\n", " "))
    assert parsed[0] == "curl"
    assert f"{fake.ready['endpoint']}/3/device/$DEVICE_TOKEN" in parsed
    assert "apns-topic: com.example.scores.push-type.liveactivity" in parsed
    body = json.loads(parsed[parsed.index("--data-binary") + 1])
    assert body["aps"]["content-state"] == {"quote": "it's $HOME"}
    secret = cli(*words, "--show-secrets").out
    assert TOKEN in secret
    assert "bearer eyJ" in secret


@pytest.mark.external("curl")
def test_the_curl_command_works(place: Place, fake: Fake) -> None:
    import subprocess

    shown = place.run("send", TOKEN, "--state", STATE, "--as-curl", "--show-secrets").out
    shown = shown.replace("curl ", "curl --silent --write-out '%{http_code}' ", 1)
    done = subprocess.run(["sh", "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout == "200"


def test_channels_and_broadcast(cli: Cli) -> None:
    channel = cli("channels", "create", "--storage-policy", "0").out.strip()
    assert channel in cli("channels", "list").out.split()
    listed = cli("channels", "list", "--details", "--json").json["channels"]
    assert {"channel": channel, "storage_policy": 0} in listed
    assert "policy 0" in cli("channels", "show", channel).out
    sent = cli("broadcast", channel, "--state", STATE)
    assert sent.code == 0, sent
    assert cli("broadcast", channel, "--event", "end", "--storage-policy", "0").code == 0
    assert cli("channels", "delete", channel, "--yes").out == "deleted\n"
    assert cli("channels", "delete", channel, "--json").json == {
        "channel": channel,
        "deleted": False,
    }
    gone = cli("broadcast", channel, "--state", STATE, "--storage-policy", "0")
    assert (gone.code, gone.out[:12]) == (1, "drop channel")
    shown = cli("channels", "show", channel)
    assert shown.code == 1
    assert shown.err.startswith("apns-live channels show: ")


def test_deleting_asks_first(place: Place) -> None:
    channel = place.run("channels", "create", "--json").json["channel"]
    refused = place.run("channels", "delete", channel, stdin="n\n")
    assert refused.code == 4
    assert channel in place.run("channels", "list").out.split()
    assert place.run("channels", "delete", channel, stdin="y\n").code == 0


def test_a_blocked_management_port_is_named(cli: Cli) -> None:
    result = cli("channels", "list", "--manage-port", "1")
    assert result.code == 3
    assert "2195 and 2196" in result.err
    assert result.err.count("\n") == 1
