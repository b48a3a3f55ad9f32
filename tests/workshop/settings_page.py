"""Writes the table of all settings into docs/cli.md: ``python -m tests.workshop.settings_page``.

The page's parts stand in the order of `apns_live.settings.table`. A test says when the two differ.
"""

from __future__ import annotations

import re

from apns_live.settings.table import CLIENT, GATEWAY, SERVICE, STORE, Setting
from tests.workshop.requirements import ROOT

PAGE = ROOT / "docs" / "cli.md"
_ROWS = re.compile(r"(?<=\| what it is \|\n\|---\|---\|---\|---\|\n)(?:\|.*\n)+")


def row(one: Setting) -> str:
    """Return a setting's line of the table."""
    option = f"`{one.option}`" if one.has_option else ""
    return f"| `{one.name}` | `{one.variable}` | {option} | {one.text} |\n"


def written(text: str) -> str:
    """Return the page with the rows of today. Raises ValueError when it lacks one of the four parts."""
    parts = iter((CLIENT, STORE, GATEWAY, SERVICE))
    page, count = _ROWS.subn(lambda _: "".join(map(row, next(parts))), text)
    if count != 4:
        raise ValueError(f"{PAGE.name} has {count} tables of settings, not 4")
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
