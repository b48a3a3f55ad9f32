"""The layers hold: the same contracts that `make check` runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.workshop.requirements import ROOT


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PYTHONPATH": str(folder), "PATH": ""},
    )


def test_the_contracts_are_kept() -> None:
    run = _lint(ROOT)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]


def test_every_room_is_in_the_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in contracts["contracts"] if c["type"] == "layers")["layers"]
    named = {
        part.strip().strip("()") for layer in layers for part in layer.replace("|", ":").split(":")
    }
    rooms = {
        path.stem
        for path in (ROOT / "apns_live").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file())
        and not path.name.startswith("__")
    }
    assert rooms - named == {"testing"}, "beside the tower stands testing alone"


def test_beside_headers_only_tables_are_taken_from_hpack() -> None:
    taken = set()
    for path in (ROOT / "apns_live").rglob("*.py"):
        text = path.read_text()
        if "hpack" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            taken |= {(path.name, name) for name in names if name.split(".")[0] == "hpack"}
    beside = {name for file, name in taken if file != "headers.py"}
    assert beside <= {"hpack.table"}


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    package = tmp_path / "apns_live"
    for room in ("http2", "pool", "testing"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "http2" / "__init__.py").write_text("import apns_live.pool\n")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in contracts["contracts"] if c["type"] == "layers")["layers"]
    layers = [re.sub(r"\w+", r"(\g<0>)", layer) for layer in layers]  # most rooms are not here
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_packages = ["apns_live"]\n'
        '[[tool.importlinter.contracts]]\nname = "layers"\ntype = "layers"\n'
        f'containers = ["apns_live"]\nlayers = {layers!r}\n'
    )
    run = _lint(tmp_path)
    assert run.returncode == 1
    assert "apns_live.http2 is not allowed to import apns_live.pool" in run.stdout
