"""Every Python example of README and docs runs, against a local fake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.warm import run_command
from tests.workshop.examples import ROOT, Example, examples_of, fill_in, pages

EXAMPLES = [example for page in pages() for example in examples_of(page)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example: Example, ready_fake: dict[str, Any], tmp_path: Path) -> None:
    if example.skipped:
        compile(example.code, example.name, "exec")
        return
    env = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)}
    if example.is_test:
        file = tmp_path / "test_example.py"
        file.write_text(fill_in(example.code, ready_fake))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-o", "asyncio_mode=auto", "-W", "error", str(file)]
        command += ["-o", "asyncio_default_fixture_loop_scope=function"]
        command += ["--basetemp", str(tmp_path / "temporary")]
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env=env
        )
    else:
        given = json.dumps({"code": example.code, "then": example.then, "ready": ready_fake})
        words = ["-m", "tests.workshop.examples"]
        run = run_command(words, input=given, cwd=tmp_path, env=env)
    assert run.returncode == 0, f"{example.name}\n{run.stdout[-1500:]}{run.stderr[-1500:]}"


def test_the_readme_has_an_example_for_each_kind_of_user() -> None:
    readme = [example for example in EXAMPLES if example.page == "README.md"]
    assert len(readme) >= 3
    assert any(example.is_test for example in readme)
    assert not any(example.skipped for example in readme)
