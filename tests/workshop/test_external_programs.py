"""Tests whose outside program is absent are left out with one line, or fail where all must be there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import PROGRAMS, find_program
from tests.workshop.requirements import ROOT

TESTS = """
import pytest

@pytest.mark.external("node-apn")
def test_needs_node_apn():
    pass

@pytest.mark.external("node-apn", "node")
def test_needs_both():
    pass

def test_needs_nothing():
    pass
"""
SKIPS = """
import pytest

def test_skips():
    pytest.skip("not today")
"""


def run_pytest(folder: Path, text: str, *options: str, required: bool) -> tuple[int, str]:
    (folder / "test_it.py").write_text(text)
    # One program is there, whatever this machine has.
    node = folder / "bin" / "node"
    node.parent.mkdir()
    node.touch(mode=0o755)
    environment = {
        "PATH": str(node.parent),
        "APNS_LIVE_REQUIRE_EXTERNALS": "1" if required else "",
        "PYTHONPATH": str(ROOT),
        # What is installed beside takes longer to load than a test takes.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest"]
    command += ["-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "xdist.plugin"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), *options]
    command += ["--basetemp", str(folder / "temporary")]
    run = subprocess.run(
        [*command, str(folder / "test_it.py")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_absent_means_left_out_and_said(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, output = run_pytest(tmp_path, TESTS, *options, required=False)
    assert code == 0, output
    assert output.count("Not run, program absent here: node-apn (2 tests)\n") == 1
    assert "1 passed" in output


def test_required_means_failed(tmp_path: Path) -> None:
    code, output = run_pytest(tmp_path, TESTS, required=True)
    assert code == 1
    assert "needs node-apn, and outside programs are required in this run" in output


@pytest.mark.parametrize("required", [False, True])
def test_a_skip_fails_where_all_is_required(tmp_path: Path, *, required: bool) -> None:
    code, output = run_pytest(tmp_path, SKIPS, required=required)
    assert code == int(required), output


def test_a_misspelt_program_is_an_error(tmp_path: Path) -> None:
    text = TESTS.replace('"node-apn", "node"', '"ngnix"')
    code, output = run_pytest(tmp_path, text, required=False)
    assert code != 0
    assert "unknown external program" in output


def test_an_empty_path_hides_every_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {name for name, find in PROGRAMS.items() if find()} == set()


def test_servers_are_found_beside_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("bin", "sbin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "sbin" / "nginx").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert PROGRAMS["nginx"]() == str(tmp_path / "sbin" / "nginx")


def test_what_is_known_is_looked_for() -> None:
    assert set(PROGRAMS) >= {"nginx", "nghttpd", "h2load", "curl", "chromium", "node", "node-apn"}
    with pytest.raises(KeyError):
        find_program("ngnix")
