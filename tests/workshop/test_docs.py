"""The site builds without a warning and fetches nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.workshop.requirements import ROOT

# What a browser would load by itself; an <a href> is only a link.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(https?:)?//"
    r"|<link\b[^>]*\brel=[\"']?(?:stylesheet|preload|icon|preconnect)[^>]*\bhref=[\"']?(https?:)?//"
    r"|@import\s+url\([\"']?(https?:)?//"
)


def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": ""},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    built = list(tmp_path.rglob("*.html"))
    assert len(built) > 15
    for page in built:
        assert not FETCHED.search(page.read_text()), page
        assert "```" not in page.read_text(), f"{page} shows a block as it is written"


def test_the_pattern_finds_what_is_fetched() -> None:
    assert FETCHED.search('<script src="https://cdn.example/x.js"></script>')
    assert FETCHED.search('<link rel="stylesheet" href="//fonts.example/css">')
    assert not FETCHED.search('<a href="https://example.com">there</a>')


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "index.md").read_text()
    missing = [page.name for page in folder.glob("0*.md") if f"({page.name})" not in index]
    assert not missing


def test_the_project_speaks_of_itself_alone() -> None:
    # Paths of one machine, and words of whoever typed, have no place in what others read.
    words = re.compile(r"/wor[k]/|/tmp/brief|\b[Ii]ssue [ABC]\b")
    own = Path(__file__).resolve()
    patterns = ("*.md", "docs/**/*.md", "apns_live/**/*.py", "tests/**/*.py", "benchmarks/*.py")
    read = [page for pattern in patterns for page in ROOT.glob(pattern) if page != own]
    assert not [str(page.relative_to(ROOT)) for page in read if words.search(page.read_text())]
