"""What the wheel and the metadata promise."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.workshop.requirements import ROOT, project


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    run = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "apns_live",
        "pytest_apns_live.py",
    }
    assert "apns_live/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".p8", ".pem", ".pyc"))]
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "apns_live").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert source <= set(names), "a file of the package is left out of the wheel"


def test_the_version_is_said_once() -> None:
    assert importlib.metadata.version("apns-live") == project()["version"]


def test_the_changelog_knows_the_version() -> None:
    assert f"## {project()['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_command_is_installed() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="apns-live")
    assert callable(entry.load())
