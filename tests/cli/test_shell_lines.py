"""Every shell line of README and docs runs as printed, or is named here with who runs it instead.

The pages of test_operator.py need a gateway and are run there. The others are run here, page by page, in
one directory that holds the files which a reader would have, beside a fake APNs.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from apns_live.cli import run
from tests.activities.conftest import pem  # noqa: F401 - a fixture
from tests.cli.test_operator import PAGES, Terminal, terminal  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^( *)```(?:sh|console)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
TOKEN = "a1" * 32
ELSEWHERE = {
    "make ": ".ci/run",
    ".venv/bin/python -m ": ".ci/run, make bench",
    "pip install ": "make extras",
    "cp deploy/example.env ": "tests/deploy",
    "chmod 0444 ": "needs no test",
    "podman ": "tests/deploy checks the file",
    "curl --fail http://localhost:8080/readyz": "tests/gateway",
    "sqlite3 ": "tests/gateway/native/test_backup.py",
    "pg_dump ": "tests/gateway/native/test_backup.py",
    "export ": "sets what the next lines read",
    "pytest test_card.py": "tests/workshop/test_examples.py",
    "APNS_LIVE_CONFIG=fake/": "tests/examples/test_football_match.py",
    "apns-live bench": "tests/bench",
    "apns-live completion fish": "tests/cli/test_completion.py",
    'eval "$(apns-live completion': "tests/cli/test_completion.py",
    "apns-live doctor": "tests/cli/test_doctor.py",
    "OTEL_SERVICE_NAME=": "tests/gateway/native/test_traces.py",
    "apns-live demo": "tests/cli/test_tools.py",
    "apns-live fake --port 0": "tests/cli/test_tools.py",
    "apns-live gateway --with-fake": "tests/gateway/native/test_program.py",
    "apns-live operations export 0b6e": "tests/cli/test_service_commands.py",
    "apns-live store new-key --file deploy/": "the same line without the folder is run",
}
EXIT = {"apns-live contract check": 1, "apns-live contract diff": 1}
"""These find what the example is about, and say so by their exit code."""


def pages() -> list[Path]:
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if page not in {ROOT / "docs" / name for name in PAGES}]


def lines(page: Path) -> Iterator[tuple[str, str]]:
    """Yield each command, and what the page prints below it.

    In a console block commands follow a prompt, and what does not is their output.
    """
    for indent, block in BLOCK.findall(page.read_text("utf-8")):
        text = "\n".join(line.removeprefix(indent) for line in block.splitlines())
        text = text.replace("\\\n", "")
        said = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:] or text.splitlines()
        for one in said:
            line, _, printed = one.partition("\n")
            if command := re.sub(r"\s+#\s.*$", "", line).strip():
                yield re.sub(r"\s+", " ", command), printed.strip()


@pytest.fixture
def folder(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A directory with a reader's files, a fake that runs, and a database with an app."""
    folder = terminal.directory
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("APNS_LIVE_")]:
        monkeypatch.delenv(name)
    swift = (ROOT / "fixtures/contracts/MatchAttributes.swift").read_text("utf-8")
    for version in ("v1", "v2"):
        (folder / version).mkdir()
    (folder / "MatchAttributes.swift").write_text(swift)
    (folder / "v1/MatchAttributes.swift").write_text(swift)
    (folder / "v2/MatchAttributes.swift").write_text(swift.replace("home: Int", "home: String"))
    (folder / "Models.swift").write_text("struct Team: Codable { var name: String }\n")
    state = '{"home": 71, "away": 2}'
    states = [{"type": "MatchAttributes", "json": text} for text in (state, '{"home": "71"}')]
    (folder / "states.jsonl").write_text("\n".join(map(json.dumps, states)))
    (folder / "state.json").write_text(state)
    shutil.copy("AuthKey_ABC123DEFG.p8", "AuthKey_NEW123KEY0.p8")
    (folder / "match.json").write_text('{"match": "final"}')
    (folder / "update.json").write_text('{"content_state": {"home": 1}}')
    aps = {"timestamp": 1_800_000_000, "event": "update", "content-state": {"home": 71}}
    (folder / "payload.json").write_text(json.dumps({"aps": aps}))
    (folder / "tokens.csv").write_text(f"push_token\n{TOKEN}\n{'b2' * 32}\n")
    (folder / "retry.txt").write_text(f"{TOKEN}\n")
    (folder / "match.jsonl").write_text('{"at": 0}\n{"at": 60}\n')
    (folder / "bad-day.toml").write_text('[[faults]]\nkind = "latency"\nseconds = 0.01\n')
    (folder / "users.jsonl").write_text('{"id": "user-1"}\n')
    (folder / "start-tokens.csv").write_text(f"device,token\nphone-1,{'c3' * 32}\n")
    (folder / "list.csv").write_text(f"Device Id,Push,Note\nphone-1,{TOKEN},x\n")
    rows = "player_id,identifier,device_type,invalid_identifier\n"
    with gzip.open(folder / "subscriptions.csv.gz", "wt") as target:
        target.write(rows)
    ready = json.loads(terminal.serve("apns-live fake --port 0 --dir ./apns --json"))
    assert ready["key_file"]
    monkeypatch.setenv("APNS_LIVE_CONFIG", str(folder / "apns/apns-live.toml"))
    monkeypatch.setenv("APNS_LIVE_STORE", str(folder / "live.db"))
    assert run(["store", "upgrade"]) == 0
    monkeypatch.setenv("APNS_LIVE_STORE_KEY_FILE", "first-key")
    assert run(["store", "new-key", "--file", "first-key"]) == 0
    return folder


def perform(command: str) -> tuple[int, str]:
    """Run a line of ours in this process, with its redirection; a pipe feeds the next command."""
    command, _, target = command.partition(" > ")
    text, code = "", 0
    for part in re.split(r" \| ", command):
        words = shlex.split(part)
        if words[0] == "psql":
            text = f"{TOKEN}\n"
            continue
        assert words[0] == "apns-live", command
        out = io.TextIOWrapper(io.BytesIO(), "utf-8")
        before = sys.stdin
        sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8")
        try:
            with contextlib.redirect_stdout(out):
                code = run(words[1:])
        finally:
            sys.stdin = before
        out.flush()
        text = out.buffer.getvalue().decode()  # type: ignore[attr-defined]
    if target:
        Path(target.strip()).write_text(text)
    return code, text


def test_every_line_of_the_other_pages_runs(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    channel = ""
    for page in pages():
        for command, printed in lines(page):
            if any(command.startswith(prefix) for prefix in ELSEWHERE):
                continue
            if command.startswith("apns-live fake"):
                continue
            if "broadcast" in command and not channel:
                _, said = perform("apns-live channels create --json")
                channel = json.loads(said)["channel"]
            given = command.replace("TOKEN", TOKEN).replace("dHN0LXNyY2gtY2hubg==", channel)
            code, said = perform(given)
            wanted = next((EXIT[name] for name in EXIT if command.startswith(name)), 0)
            assert code == wanted, (page.name, command, said, capfd.readouterr().err)
            assert not printed or said.strip() == printed, command


def test_nothing_is_left_to_somebody_who_is_not_there() -> None:
    every = [command for page in pages() for command, _ in lines(page)]
    for prefix in ELSEWHERE:
        assert any(one.startswith(prefix) for one in every), prefix
