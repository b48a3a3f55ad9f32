"""The backup script as it stands, against a phone of the fake."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

from tests.examples.conftest import EXAMPLES, Fake, environment


def run(fake: Fake, tmp_path: Path, *words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "nightly_backup.py"), *words],
        cwd=tmp_path, env=environment(fake), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_a_night_and_the_next(fake: Fake, tmp_path: Path) -> None:
    phone, token = fake.phone(attributes_types=["JobAttributes"])
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(25):
        (folder / f"{number}.txt").write_text(str(number))
    target = tmp_path / "backup.tar.gz"
    words = (str(folder), "--to", str(target))
    said = run(fake, tmp_path, *words, "--on-duty", token)
    assert said == ["started", *["updated"] * 10, "ended"]
    with tarfile.open(target) as archive:
        assert len(archive.getnames()) == 25
    begun = fake.next_push(event="start")
    assert (begun["device"], begun["state"]) == (phone["id"], "delivered")
    assert run(fake, tmp_path, *words) == ["started", *["updated"] * 10, "ended"]
    second = fake.next_push(event="start", after=begun["number"])
    assert second["device"] == phone["id"]
    assert (tmp_path / "backup.db.key").stat().st_mode & 0o777 == 0o600
