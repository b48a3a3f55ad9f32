"""``apns-live lint``, ``token``, ``fake``, ``demo``, and what all commands share."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from .conftest import Fake, Place, Result, run_fake, tokens

Cli = Callable[..., Result]


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"apns-live {version('apns-live')}\n"


def test_help_does_not_load_the_engine(place: Place) -> None:
    code = (
        "import sys\nfrom apns_live.cli import run\nrun(['--help'])\nrun(['send', '--help'])\n"
        "heavy = {'httpx', 'cryptography', 'starlette', 'hypercorn', 'apns_live.client'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=place.environment(),
    )
    assert done.returncode == 0, done.stderr


def test_lint_explains(place: Place) -> None:
    good = json.dumps(
        {"aps": {"event": "update", "timestamp": 1800000000, "content-state": {"home": 1}}}
    )
    bad = json.dumps({"aps": {"event": "start", "timestamp": 1800000000000, "content-state": {}}})
    place.write("good.json", good)
    place.write("bad.json", bad)
    result = place.run("lint", "good.json")
    assert result.code == 0, result
    assert "content-state" in result.out
    result = place.run("lint", "bad.json", "--json")
    assert result.code == 1
    report = result.json
    assert not report["ok"]
    assert {"alert", "timestamp"} <= {p["field"].split(".")[1] for p in report["problems"]}
    assert report["bytes_by_key"]["aps.timestamp"] > 0
    both = place.run("lint", "good.json", "-", "--json", stdin=bad)
    assert both.code == 1
    assert [one["ok"] for one in both.json["files"]] == [True, False]
    assert place.run("lint", "good.json", "--strict").code == 1


def test_mint_and_inspect(place: Place, fake: Fake) -> None:
    minted = place.run("token", "mint", "--json").json
    assert (minted["key_id"], minted["team_id"]) == (fake.ready["key_id"], fake.ready["team_id"])
    # Deterministic: every process mints the same one.
    assert place.run("token", "mint").out.strip() == minted["token"]
    header = place.run("token", "mint", "--header").out
    assert header == f"authorization: bearer {minted['token']}\n"
    result = place.run("token", "inspect", stdin=header)
    assert result.code == 0, result
    assert "signature: that of the key that is set" in result.out
    head, claims, signature = minted["token"].split(".")
    altered = f"{head}.{claims}.{signature[:-6]}AAAAAA"
    result = place.run("token", "inspect", altered, "--json")
    assert result.code == 1
    assert "not that of the key" in result.json["problems"][0]
    padded = place.run("token", "inspect", f"{head}.{claims}.{signature}==", "--json").json
    assert any("padded" in problem for problem in padded["problems"])


@pytest.mark.parametrize(
    ("header", "claims", "problem"),
    [
        ({"alg": "RS256", "kid": "A" * 10}, {"iss": "B" * 10, "iat": 1}, "alg is 'RS256'"),
        ({"alg": "ES256"}, {"iss": "B" * 10, "iat": 1}, "kid is None"),
        ({"alg": "ES256", "kid": "A" * 10}, {"iss": "short", "iat": 1}, "iss is 'short'"),
        ({"alg": "ES256", "kid": "A" * 10}, {"iss": "B" * 10, "iat": "1"}, "iat is '1'"),
        ({"alg": "ES256", "kid": "A" * 10}, {"iss": "B" * 10, "iat": 1}, "minutes old"),
        ({"alg": "ES256", "kid": "A" * 10}, {"iss": "B" * 10, "iat": 9e9}, "in the future"),
    ],
)
def test_inspect_finds(place: Place, header: object, claims: object, problem: str) -> None:
    from base64 import urlsafe_b64encode

    def part(value: object) -> str:
        return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    der = urlsafe_b64encode(b"\x30" + bytes(70)).decode().rstrip("=")
    place.write("none.toml", "")
    text = f"{part(header)}.{part(claims)}.{der}"
    found = place.run("token", "inspect", text, "--json", "--config", "none.toml").json
    assert any(problem in one for one in found["problems"]), found
    assert any("DER" in one for one in found["problems"])
    assert found["signature"] == "not checked: no key is set"


def test_inspect_a_device_token(cli: Cli) -> None:
    found = cli("token", "inspect", tokens(1)[0], "--json").json
    assert (found["kind"], found["digits"], found["problems"]) == ("device token", 64, [])
    assert cli("token", "inspect", "xyz").code == 1


def test_fake_says_where_it_is(fake: Fake) -> None:
    assert set(fake.ready) >= {
        *("endpoint", "manage", "ca_file", "key_file", "key_id", "team_id", "bundle_id"),
        "inspector",
    }
    assert fake.ready["endpoint"].startswith("https://localhost:")


def test_fake_takes_its_options(tmp_path: Path) -> None:
    schema = tmp_path / "state.json"
    schema.write_text('{"type": "object"}', "utf-8")
    words = ("--seed", "7", "--latency", "1ms+1ms", "--devices", "strict", "--face", "asgi")
    words += ("--schema", f"MatchAttributes={schema}", "--bundle-id", "com.example.other")
    words += ("--team-id", "TEAM123456", "--key-id", "KEYID12345", "--strict", "--cut-streams")
    words += ("--spelling", "documented", "--environment", "production")
    for fake in run_fake(tmp_path / "run", *words):
        assert fake.ready["bundle_id"] == "com.example.other"
        assert fake.ready["key_file"].endswith("AuthKey_KEYID12345.p8")
        place = Place(tmp_path)
        place.write("apns-live.toml", fake.settings)
        # Strict: nobody has this token.
        result = place.run("send", tokens(1)[0], "--state", "{}", "--json")
        assert result.json["reason"] == "BadDeviceToken"


def test_fake_needs_a_token_on_another_address(cli: Cli) -> None:
    result = cli("fake", "--host", "0.0.0.0")
    assert result.code != 0
    assert "token" in result.err


@pytest.mark.parametrize("words", [(), ("store",), ("apps",), ("token",)])
def test_a_command_without_a_command_shows_its_help(cli: Cli, words: tuple[str, ...]) -> None:
    result = cli(*words)
    assert (result.code, result.err) == (0, "")
    assert "Usage: apns-live" in result.out


def test_the_shell_completes_commands(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_APNS_LIVE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "apns-live st")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert cli().out.split() == ["store"]


def test_demo_closes_with_a_table(cli: Cli) -> None:
    result = cli("demo", "--tokens", "500", "--rounds", "3")
    assert result.code == 0, result
    for word in ("accepted", "dropped", "p50", "p99", "push/s", "links", "3 updates", "2,500"):
        assert word in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    result = cli("demo", "--tokens", "200", "--rounds", "2", "--json")
    facts = result.json
    assert result.code == 0
    assert (facts["total"]["pushes"], facts["total"]["accepted"]) == (800, 800)
    assert [step["step"] for step in facts["steps"]] == ["start", "update 1", "update 2", "end"]


def test_demo_ends_its_fake_when_interrupted(place: Place, tmp_path: Path) -> None:
    with place.start("demo", "--tokens", "200000", "--progress", stdin=None) as process:
        assert process.stderr is not None
        assert "starting" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert out == ""
    assert "Traceback" not in err


def test_a_fake_that_ends_with_the_program_that_started_it(place: Place) -> None:
    with place.start("fake", "--json", "--no-inspector", "--until-stdin-ends") as process:
        assert process.stdout is not None
        assert "endpoint" in json.loads(process.stdout.readline())
        out, err = process.communicate("", timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_missing_part_is_named(place: Place) -> None:
    place.write(
        "blocked.py",
        "import sys\n"
        "sys.modules['hypercorn.asyncio'] = None\n"
        "from apns_live.cli import main\nmain(['fake', '--face', 'asgi'])\n",
    )
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "blocked.py"],
        cwd=place.directory,
        capture_output=True,
        check=False,
        text=True,
        env=place.environment(),
    )
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "pip install 'apns-live[fake]'" in done.stderr


def test_a_closed_pipe_is_no_traceback(place: Place) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m apns_live.cli lint --json - | true"],
        cwd=place.directory,
        input="{}",
        capture_output=True,
        check=False,
        text=True,
        env=place.environment(),
    )
    assert done.stderr == ""
