"""Builds the documentation as a site: ``python -m tests.workshop.site FOLDER``.

Adds the API reference, made of docstrings, and puts each page's Markdown beside its HTML.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.workshop import reference
from tests.workshop.requirements import ROOT


def build(target: Path) -> None:
    """Build the site into a folder that is replaced. Raises SystemExit when a warning is given."""
    with tempfile.TemporaryDirectory(prefix="apns-live-site-") as name:
        source = Path(name)
        shutil.copytree(ROOT / "docs", source / "docs", ignore=shutil.ignore_patterns("reference"))
        shutil.copy(ROOT / "mkdocs.yml", source)
        reference.write(source / "docs" / "reference")
        run = subprocess.run(
            [sys.executable, "-m", "zensical", "build", "--strict"],
            cwd=source,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            raise SystemExit(run.stdout[-3_000:] + run.stderr[-1_000:])
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source / "site", target)
        for page in (source / "docs").rglob("*.md"):
            copy = target / page.relative_to(source / "docs")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(page, copy)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
