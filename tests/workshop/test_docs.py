"""The site builds without a warning and fetches nothing from elsewhere."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.workshop import reference, site
from tests.workshop.requirements import ROOT, project

# What a browser would load by itself; an <a href> is only a link.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(https?:)?//"
    r"|<link\b[^>]*\brel=[\"']?(?:stylesheet|preload|icon|preconnect)[^>]*\bhref=[\"']?(https?:)?//"
    r"|@import\s+url\([\"']?(https?:)?//"
)

CODE = re.compile(r"<(script|style|pre|code)\b.*?</\1>", re.DOTALL)
TAG = re.compile(r"<[^>]+>")
RAW = re.compile(r"`|^\s*\|.*\|\s*$|\|\s*-{3}|\*\*\w|\]\(", re.MULTILINE)
"""What is left of a lost table, a link, or a word in code."""


def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    site.build(tmp_path / "site")
    built = list((tmp_path / "site").rglob("*.html"))
    assert len(built) > 40
    for page in built:
        text = page.read_text()
        assert not FETCHED.search(text), page
        assert "```" not in text, f"{page} shows a block as it is written"
        assert not RAW.findall(TAG.sub("", CODE.sub("", text))), f"{page} shows raw Markdown"
    assert (tmp_path / "site" / "search.json").stat().st_size > 100_000
    listed = re.findall(r"\]\((.+?)\)", (tmp_path / "site" / "llms.txt").read_text())
    assert len(listed) > 10
    assert not [name for name in listed if not (tmp_path / "site" / name).is_file()]


@pytest.mark.parametrize("package", reference.PACKAGES)
def test_every_public_name_says_what_it_is(package: str) -> None:
    module = importlib.import_module(package)
    for name in reference.public(module):
        value = getattr(module, name)
        if not isinstance(value, str | int | float | tuple | dict | frozenset):
            assert value.__doc__, f"{package}.{name}"
            assert not value.__doc__.startswith(f"{name}("), f"{package}.{name} has no docstring"


def test_a_docstring_becomes_markdown() -> None:
    text = "Opens ``it``::\n\n    app = open(x)\n    app.go()\n\n    end()\n\nAnd closes it."
    code = "```text\napp = open(x)\napp.go()\n\nend()\n```"
    assert reference.markdown(text) == f"Opens `it`:\n\n{code}\n\nAnd closes it."


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


def test_the_readme_links_work_on_a_package_index_too() -> None:
    """They are absolute, and lead to files that there are."""
    base = str(project()["urls"]["Homepage"])  # type: ignore[index]
    raw = base.replace("https://github.com", "https://raw.githubusercontent.com")
    for link in re.findall(r"\]\((.+?)\)", (ROOT / "README.md").read_text()):
        for start in (f"{base}/blob/main/", f"{raw}/main/"):
            if link.startswith(start):
                assert (ROOT / link.removeprefix(start)).is_file(), link
                break
        else:
            raise AssertionError(f"{link} is not absolute")
