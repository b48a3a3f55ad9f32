"""The commands of the service's database: store, apps, import, activities. Real databases, no mocks."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apns_live.activities.accept.activities import Activities
from apns_live.activities.core import Core
from apns_live.activities.requests import AlertText, Audience, Presentation, Start
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import new_key
from apns_live.activities.store.upgrade import OLDEST
from apns_live.cli import run
from apns_live.cli.store_access import apps_of
from apns_live.clock import SystemClock
from tests.activities.conftest import pem  # noqa: F401 - a fixture
from tests.activities.databases import Server
from tests.cli.conftest import Result, Started
from tests.warm import run_command

Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command in this process, in a folder of its own, without settings from outside."""
    for name in [name for name in os.environ if name.startswith("APNS_LIVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Result:
        code = run(list(words))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Result(int(code), out, err)

    return call


@pytest.fixture
def store(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command with a database of its own and a sealing key."""
    monkeypatch.setenv("APNS_LIVE_STORE", "store.db")
    monkeypatch.setenv("APNS_LIVE_STORE_KEY", new_key())
    assert cli("store", "upgrade").code == 0
    return cli


@pytest.fixture
def app(store: Cli) -> str:
    assert store("apps", "add", "--bundle-id", "com.example.scores", "--id", "scores").code == 0
    return "scores"


def rows(table: str, path: str = "store.db") -> int:
    with sqlite3.connect(path) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return int(count)


def test_a_store_is_made_looked_at_and_made_again(cli: Cli, tmp_path: Path) -> None:
    missing = cli("store", "status", "--store", "s.db")
    assert (missing.code, missing.out) == (2, "")
    assert "run `apns-live store upgrade`" in missing.err
    assert not (tmp_path / "s.db").exists()
    planned = cli("store", "upgrade", "--dry-run", "--store", "s.db", "--json")
    assert not (tmp_path / "s.db").exists()
    made = cli("store", "upgrade", "--store", "s.db", "--json")
    assert planned.json["version"] == made.json["version"]
    assert [step["version"] for step in planned.json["steps"]][-1] == made.json["version"]
    assert (made.code, made.json["before"], made.json["store"]) == (0, "", "sqlite:///s.db")
    again = cli("store", "upgrade", "--store", "s.db", "--json")
    assert again.json["before"] == again.json["version"] == made.json["version"]
    assert "is up to date" in cli("store", "upgrade", "--dry-run", "--store", "s.db").out
    status = cli("store", "status", "--store", "s.db", "--json")
    assert status.code == 0
    assert status.json["up_to_date"] is True
    assert status.json["bytes"] == (tmp_path / "s.db").stat().st_size
    assert "missing" in status.json["sealing_key"]


def test_where_the_store_is_said(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = cli("store", "status")
    assert nowhere.code == 2
    assert "APNS_LIVE_STORE" in nowhere.err
    folder = tmp_path / "conf"
    folder.mkdir()
    folder.joinpath("apns-live.toml").write_text('[store]\nurl = "f.db"\nkey_file = "k"\n')
    folder.joinpath("k").write_text(new_key())
    monkeypatch.setenv("APNS_LIVE_CONFIG", "conf/apns-live.toml")
    assert cli("store", "upgrade").code == 0
    assert (folder / "f.db").exists()
    assert cli("store", "status", "--json").json["sealing_key"] == "set"
    monkeypatch.setenv("APNS_LIVE_STORE", "v.db")
    assert "v.db" in cli("store", "upgrade").out
    assert "o.db" in cli("store", "upgrade", "--store", "o.db").out
    folder.joinpath("apns-live.toml").write_text('[store]\naddress = "f.db"\n')
    monkeypatch.delenv("APNS_LIVE_STORE")
    assert "store.address: is not a setting" in cli("store", "status").err


def test_a_new_key_is_printed_or_put_into_a_file_of_its_own(cli: Cli, tmp_path: Path) -> None:
    printed = cli("store", "new-key")
    assert len(printed.out.strip()) == 44
    assert cli("store", "new-key", "--json").json["key"] != printed.out.strip()
    assert cli("store", "new-key", "--file", "k").code == 0
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    kept = (tmp_path / "k").read_text()
    again = cli("store", "new-key", "--file", "k")
    assert (again.code, (tmp_path / "k").read_text()) == (2, kept)
    assert kept.strip() not in again.err


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path.write_text("this is no database at all" * 50), "not a database"),
        (lambda path: sqlite3.connect(path).close() or path.touch(), "is not set up"),
        (lambda path: None, "there is no database"),
    ],
    ids=["garbage", "empty", "missing"],
)  # fmt: skip
def test_a_store_that_cannot_be_used_is_one_line(
    cli: Cli, tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    prepare(tmp_path / "s.db")
    for words in (
        ("apps", "list"),
        ("activities", "list", "--app", "a"),
        ("import", "users", "-", "--app", "a"),
    ):
        refused = cli(*words, "--store", "s.db")
        assert (refused.code, refused.out) == (2, "")
        assert message in refused.err
        assert len(refused.err.splitlines()) == 1
    as_json = cli("apps", "list", "--store", "s.db", "--json")
    assert as_json.json["exit_code"] == 2
    assert as_json.json["kind"] == "StoreError"


def test_a_store_of_a_newer_release_is_left_alone(cli: Cli) -> None:
    assert cli("store", "upgrade", "--store", "s.db").code == 0
    with sqlite3.connect("s.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    refused = cli("store", "upgrade", "--store", "s.db")
    assert refused.code == 2
    assert "upgraded by a newer one" in refused.err
    status = cli("store", "status", "--store", "s.db", "--json")
    assert (status.code, status.json["up_to_date"], status.json["usable"]) == (1, False, False)


def test_what_an_upgrade_would_do_is_printed_as_sql(cli: Cli) -> None:
    assert cli("store", "upgrade", "--store", "s.db").code == 0
    with sqlite3.connect("s.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0006_0005'")
    connection.close()
    planned = cli("store", "upgrade", "--dry-run", "--store", "s.db")
    assert planned.code == 0
    assert "-- 0007_0005: Indexes: outcomes by device" in planned.out
    assert "ON outcomes (device_id, id);" in planned.out
    status = cli("store", "status", "--store", "s.db", "--json")
    assert (status.json["up_to_date"], status.json["usable"]) == (False, False)
    assert status.json["oldest"] == OLDEST


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("postgresql://u:hidden@localhost:1/x", "cannot be reached"),
        ("mysql://u@h/x", "not supported"),
        ("sqlite://", "names no file"),
        ("no/such/folder/s.db", "not a folder"),
    ],
)
def test_an_address_that_leads_nowhere(cli: Cli, address: str, message: str) -> None:
    refused = cli("store", "upgrade", "--store", address)
    assert refused.code == 2
    assert message in refused.err
    assert "hidden" not in refused.err


def test_a_part_that_is_not_installed_is_named(tmp_path: Path) -> None:
    """In a process of its own: modules that are imported anew here would be other ones for later tests."""
    code = (
        "import sys\nsys.modules['sqlalchemy'] = None\n"
        "from apns_live.cli import main\nmain(['store', 'upgrade', '--store', 's.db'])\n"
    )
    refused = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 5
    assert "apns-live[service]" in refused.stderr


def test_apps_and_their_keys(store: Cli, pem: str, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "AuthKey_ABC123DEFG.p8").write_text(pem)
    words = ("--bundle-id", "com.example.scores", "--id", "scores", "--environment", "sandbox")
    key = ("--key-file", "AuthKey_ABC123DEFG.p8", "--team-id", "DEF123GHIJ")
    made = store("apps", "add", *words, *key, "--json")
    assert made.json["id"] == "scores"
    assert [key["key_id"] for key in made.json["keys"]] == ["ABC123DEFG"]
    assert store("apps", "add", *words).code == 2
    (tmp_path / "AuthKey_XYZ123DEFG.p8").write_text(pem)
    other = ("--key-file", "AuthKey_XYZ123DEFG.p8", "--team-id", "DEF123GHIJ", "--for", "sandbox")
    assert store("apps", "add-key", "scores", *other).code == 0
    swift = "struct A: ActivityAttributes { struct ContentState: Codable { var x: Int } }"
    (tmp_path / "A.swift").write_text(swift)
    held = store("apps", "contract", "scores", "A.swift", "--app-version", "2.4", "--json")
    assert held.json == {"app": "scores", "mode": "refuse", "versions": ["2.4"]}
    assert store("apps", "contract", "scores").code == 2
    gone = store("apps", "contract", "scores", "--app-version", "2.4", "--remove", "--json")
    assert gone.json["versions"] == []
    shown = store("apps", "show", "scores")
    assert shown.out.count("opens with the sealing key") == 2
    assert "PRIVATE" not in shown.out
    listed = store("apps", "list", "--json")
    assert listed.json["apps"][0]["keys"][1]["environment"] == "sandbox"
    assert "XYZ123DEFG (sandbox)" in store("apps", "list").out
    assert store("apps", "remove-key", "scores", "XYZ123DEFG", "--for", "any").code == 2
    assert store("apps", "remove-key", "scores", "XYZ123DEFG", "--json").json["removed"] == 1
    assert rows("credentials") == 1
    assert store("apps", "show", "nobody").code == 2


def test_a_key_is_not_added_under_another_sealing_key(
    store: Cli,
    app: str,
    pem: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "AuthKey_ABC123DEFG.p8").write_text(pem)
    words = ("--key-file", "AuthKey_ABC123DEFG.p8", "--team-id", "DEF123GHIJ")
    assert store("apps", "add-key", app, *words).code == 0
    monkeypatch.setenv("APNS_LIVE_STORE_KEY", new_key())
    refused = store("apps", "add-key", app, *words, "--for", "sandbox")
    assert refused.code == 2
    assert "does not open with this store key" in refused.err
    assert rows("credentials") == 1
    assert "does not open" in store("apps", "show", app).out
    monkeypatch.delenv("APNS_LIVE_STORE_KEY")
    assert "no sealing key is set" in store("apps", "show", app).out
    assert "store key: is missing" in store("apps", "add-key", app, *words).err
    monkeypatch.setenv("APNS_LIVE_STORE_KEY", "c2hvcnQ=")
    assert "store key: has 5 bytes" in store("apps", "add-key", app, *words).err
    refused = store("apps", "add", "--bundle-id", "com.example.b", "--id", "b", *words)
    assert refused.code == 2
    assert rows("apps") == 1


def test_the_sealing_key_is_replaced_without_adding_keys_again(
    store: Cli,
    app: str,
    pem: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "AuthKey_ABC123DEFG.p8").write_text(pem)
    words = ("--key-file", "AuthKey_ABC123DEFG.p8", "--team-id", "DEF123GHIJ")
    for place in ("sandbox", "production"):
        assert store("apps", "add-key", app, *words, "--for", place).code == 0
    assert store("store", "rotate-key", "--to", "no-such-file").code == 2
    assert store("store", "new-key", "--file", "next-key").code == 0
    before = os.environ["APNS_LIVE_STORE_KEY"]
    assert store("store", "rotate-key", "--to", "next-key", "--json").json["keys"] == 2
    assert "does not open" in store("apps", "show", app).out
    refused = store("store", "rotate-key", "--to", "next-key")
    assert refused.code == 2
    assert "does not open with this store key" in refused.err
    monkeypatch.delenv("APNS_LIVE_STORE_KEY")
    monkeypatch.setenv("APNS_LIVE_STORE_KEY_FILE", "next-key")
    shown = store("apps", "show", app).out
    assert shown.count("opens with the sealing key") == 2
    assert before not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("apps", "add", "--bundle-id", "com.example.a.push-type.liveactivity"), "bundle_id"),
        (("apps", "add", "--bundle-id", "com.example.a", "--environment", "test"), "environment"),
        (("apps", "add-key", "scores"), "--key-file"),
        (("apps", "add-key", "scores", "--key-file", "no.p8"), "--team-id"),
        (("import", "users", "no.csv", "--app", "scores"), "no.csv"),
        (("import", "users", "u.csv", "--app", "nobody"), "no app 'nobody'"),
        (("import", "users", "u.csv", "--app", "scores", "--column", "id"), "--column"),
        (("import", "users", "u.csv", "--app", "scores", "--column", "name=id"), "columns"),
        (("import", "users", "u.csv", "--app", "scores", "--from", "x"), "--from"),
        (("import", "users", "u.csv", "--app", "scores", "--format", "x"), "format"),
        (("import", "users", "u.csv", "--app", "scores", "--registered-at", "x"), "--registered-at"),
        (("import", "users", "u.csv", "--app", "scores", "--batch", "0"), "batch"),
        (("import", "users", "u.csv", "--app", "scores", "--rejects", "no/x"), "rejects"),
        (("activities", "show", "x", "--app", "scores"), "no activity 'x'"),
        (("activities", "history", "x", "--app", "scores"), "no activity 'x'"),
    ],
)  # fmt: skip
def test_bad_words_store_nothing(
    store: Cli, app: str, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "u.csv").write_text("id\nana\n")
    refused = store(*words)
    assert refused.code == 2
    assert message in refused.err
    assert (rows("apps"), rows("users"), rows("credentials")) == (1, 0, 0)


def test_an_import_in_one_go(store: Cli, app: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(
        "id;Team;Push;Note\n"
        + "".join(f"phone-{n};lions;{n:064x};x\n" for n in range(50))
        + "phone-x;lions;nohex;x\n"
    )
    mapped = (
        "--column", "tag.team=Team", "--column", "device_token=Push", "--column", "=Note",
        "--set", "language=de", "--rejects", "again.csv",
    )  # fmt: skip
    dry = store("import", "devices", "d.csv", "--app", app, *mapped, "--dry-run")
    assert dry.code == 1
    assert "50 of 52 lines would be stored" in dry.out
    assert rows("devices") == 0
    done = store("import", "devices", "d.csv", "--app", app, *mapped, "--json")
    assert done.code == 1
    facts = done.json
    assert (facts["accepted"], facts["refused"], facts["tokens"]) == (50, 1, 50)
    assert facts["errors"][0]["line"] == 52
    assert facts["ignored"] == ["Note"]
    assert facts["rejects"] == "again.csv"
    assert stat.S_IMODE((tmp_path / "again.csv").stat().st_mode) == 0o600
    (tmp_path / "again.csv").write_text(
        (tmp_path / "again.csv").read_text().replace("nohex", "ff" * 32)
    )
    again = store("import", "devices", "again.csv", "--app", app, *mapped)
    assert again.code == 0
    assert "1 of 2 lines stored (1 devices, 1 tokens)" in again.out
    assert not (tmp_path / "again.csv").exists()
    assert (rows("devices"), rows("device_tokens"), rows("attributes")) == (51, 51, 51)


def test_errors_of_lines_are_shown_a_few(store: Cli, app: str, tmp_path: Path) -> None:
    (tmp_path / "u.jsonl").write_text('{"id": 1}\n' * 30 + '{"id": "ana"}\n')
    done = store("import", "users", "u.jsonl", "--app", app)
    assert done.code == 1
    assert done.err.count("line ") == 10
    assert "and 20 more lines" in done.err


async def start_one(path: str) -> None:
    async with Database.open(path) as database:
        one = await apps_of(database).get("scores")
        await Activities(Core(database, SystemClock(), lambda: "operation-1")).start(
            one,
            Start(
                id="match-1",
                attributes_type="MatchAttributes",
                content_state={"home": 0},
                presentation=Presentation(alert=AlertText(title="Kick-off", body="It begins.")),
                audience=Audience(everyone=True),
            ),
        )


def test_activities_are_listed_shown_and_told(store: Cli, app: str) -> None:
    asyncio.run(start_one("store.db"))
    listed = store("activities", "list", "--app", app, "--json").json
    assert [one["id"] for one in listed["activities"]] == ["match-1"]
    assert listed["after"] is None
    assert "match-1" in store("activities", "list", "--app", app, "--status", "active").out
    assert (
        store("activities", "list", "--app", app, "--status", "ended", "--json").json["activities"]
        == []
    )
    full = store("activities", "list", "--app", app, "--limit", "1")
    assert "--after 1" in full.err
    shown = store("activities", "show", "match-1", "--app", app, "--json").json
    assert shown["content_state"] == {"home": 0}
    assert shown["created_at"].endswith("Z")
    assert "version: 1" in store("activities", "show", "match-1", "--app", app).out
    told = store("activities", "history", "match-1", "--app", app, "--json").json
    assert (told["kind"], told["operation"]) == ("start", "operation-1")
    assert "operation-1" in store("activities", "history", "match-1", "--app", app).out


def test_operations_are_listed_shown_and_exported(store: Cli, app: str, tmp_path: Path) -> None:
    asyncio.run(start_one("store.db"))
    (tmp_path / "d.csv").write_text("id\nphone-1\n")
    assert store("import", "devices", "d.csv", "--app", app).code == 0
    with sqlite3.connect("store.db") as connection:
        connection.executemany(
            "INSERT INTO outcomes (app_id, operation_id, device_id, verdict, status, reason, apns_id,"
            " priority, created_at) VALUES (1, 1, ?, ?, 200, '', 'id', 10, 1700000000000)",
            [(1, "accepted"), (999, "drop_token")],
        )
    connection.close()
    listed = store("operations", "list", "--app", app, "--json").json
    assert [(one["id"], one["kind"]) for one in listed["operations"]] == [("operation-1", "start")]
    assert "operation-1" in store("operations", "list", "--app", app, "--activity", "match-1").out
    assert "--after 1" in store("operations", "list", "--app", app, "--limit", "1").err
    assert (
        store("operations", "show", "operation-1", "--app", app, "--json").json["kind"] == "start"
    )
    assert "activity: match-1" in store("operations", "show", "operation-1", "--app", app).out
    lines = store("operations", "export", "operation-1", "--app", app, "--json").out.splitlines()
    assert [json.loads(line)["device"] for line in lines] == ["phone-1", None]
    exported = store("operations", "export", "operation-1", "--app", app, "--format", "csv").out
    assert exported.splitlines()[0].startswith("device,verdict,status")
    assert exported.splitlines()[1].startswith("phone-1,accepted,200")
    assert store("operations", "show", "nothing", "--app", app).code == 2
    assert store("operations", "export", "operation-1", "--app", app, "--format", "x").code == 2


def test_a_process_of_its_own_reads_a_pipe(tmp_path: Path) -> None:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("APNS_LIVE_")},
        "APNS_LIVE_STORE": "s.db",
        "NO_COLOR": "1",
    }

    def call(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return run_command(words, cwd=tmp_path, env=environment, input=stdin)

    assert call("store", "upgrade").returncode == 0
    assert call("apps", "add", "--bundle-id", "com.example.a", "--id", "a").returncode == 0
    lines = "".join(
        json.dumps({"device": f"p{n}", "token": f"{n:064x}"}) + "\n" for n in range(2500)
    )
    done = call(
        "import", "tokens", "-", "--app", "a", "--set", "kind=device", "--json", stdin=lines
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["tokens"] == 2500
    assert rows("device_tokens", str(tmp_path / "s.db")) == 2500


def test_an_import_from_a_silent_pipe_can_be_interrupted(tmp_path: Path) -> None:
    environment: dict[str, Any] = {**os.environ, "APNS_LIVE_STORE": "s.db"}
    for words in (
        ("store", "upgrade"),
        ("apps", "add", "--bundle-id", "com.example.a", "--id", "a"),
    ):
        assert run_command(words, cwd=tmp_path, env=environment).returncode == 0
    with Started(
        ["import", "users", "-", "--app", "a", "--batch", "1", "--rejects", "r.csv"],
        cwd=tmp_path, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write("id\nana\n\x01\n")
        process.stdin.flush()
        partial = tmp_path / "r.csv.partial"
        while not rows("users", str(tmp_path / "s.db")):
            assert process.poll() is None
        assert partial.exists()
        process.send_signal(2)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 4
    assert (out, err) == ("", "apns-live import users: interrupted\n")
    assert not partial.exists()
    assert rows("users", str(tmp_path / "s.db")) == 1


def test_over_postgresql(cli: Cli, postgres_server: Server, tmp_path: Path) -> None:
    address = postgres_server.create("cli_store")
    assert cli("apps", "list", "--store", address).code == 2
    assert cli("store", "upgrade", "--store", address).code == 0
    status = cli("store", "status", "--store", address, "--json").json
    assert (status["kind"], status["up_to_date"]) == ("PostgreSQL", True)
    where = ("--store", address)
    assert cli("apps", "add", "--bundle-id", "com.example.a", "--id", "a", *where).code == 0
    (tmp_path / "t.csv").write_text(
        "device,token,attributes_type\n" + "".join(f"p{n},{n:064x},Match\n" for n in range(1200))
    )
    for _ in range(2):
        done = cli("import", "tokens", "t.csv", "--app", "a", "--json", *where)
        assert (done.code, done.json["tokens"]) == (0, 1200)
    missing = address.replace("cli_store", "cli_nowhere")
    refused = cli("store", "status", "--store", missing)
    assert refused.code == 2
    assert "does not exist" in refused.err


def test_why_a_device_shows_nothing(store: Cli, app: str, tmp_path: Path) -> None:
    asyncio.run(start_one("store.db"))
    (tmp_path / "d.csv").write_text("id,os_version\nphone-1,17.4\n")
    assert store("import", "devices", "d.csv", "--app", app).code == 0
    now = int(SystemClock().time() * 1000)
    hour = 3_600_000
    with sqlite3.connect("store.db") as connection:
        connection.executemany(
            "INSERT INTO activity_devices (app_id, activity_id, device_id, started_at, environment)"
            " VALUES (1, ?, 1, ?, 'sandbox')",
            [(1, now - 9 * hour)],
        )
        connection.executemany(
            "INSERT INTO outcomes (app_id, operation_id, device_id, verdict, status, reason, apns_id,"
            " priority, created_at) VALUES (1, 1, 1, ?, 410, ?, 'id', 10, ?)",
            [("drop_token", "Unregistered", now - hour // 2)] * 20,
        )
    connection.close()
    asked = store("doctor", "--app", app, "--device", "phone-1", "--json")
    assert asked.code == 1
    found = {(each["check"], each["state"]) for each in asked.json["findings"]}
    assert found == {
        ("ios version", "warn"),
        ("start token", "fail"),
        ("budget", "warn"),
        ("activity", "fail"),
        ("token", "fail"),
        ("outcome", "fail"),
        ("device", "ok"),
    }
    assert all(each["remedy"] for each in asked.json["findings"] if each["state"] != "ok")
    assert store("doctor", "--app", app, "--device", "nobody").code == 2
