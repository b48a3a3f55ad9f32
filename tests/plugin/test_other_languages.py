"""The Node and Go examples of docs/testing-your-app.md, run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import program

PAGE = Path(__file__).parents[2] / "docs" / "testing-your-app.md"


def example(language):
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return code


@pytest.fixture
def folder(tmp_path):
    """Return a folder with ``fake.json`` of a running fake."""
    fake = subprocess.Popen(
        [sys.executable, "-m", "apns_live.testing", "--dir", str(tmp_path / "fake")],
        stdout=subprocess.PIPE,
    )
    try:
        (tmp_path / "fake.json").write_bytes(fake.stdout.readline())
        yield tmp_path
    finally:
        fake.terminate()
        fake.wait(20)
        fake.stdout.close()


def run(command, folder, **environment):
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.external("node")
def test_the_node_example(folder):
    names = ["scores.test.mjs", "others.test.mjs"]
    for name in names:
        (folder / name).write_text(example("js"))
    # Node runs the files side by side, over one fake.
    output = run([program("node"), "--test", "--test-reporter=tap", *names], folder)
    assert "# pass 6" in output


@pytest.mark.external("go")
def test_the_go_example(folder):
    (folder / "scores_test.go").write_text(example("go"))
    (folder / "go.mod").write_text("module scores\n\ngo 1.21\n")
    output = run([program("go"), "test", "-v", "./..."], folder, GOPROXY="off", GOFLAGS="-mod=mod")
    assert output.count("--- PASS") == 2
