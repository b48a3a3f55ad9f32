"""An install with one extra imports all that belongs to it, and a plain install all the rest.

Packages that the extra does not bring are hidden, so nothing needs to be installed anew.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.workshop.requirements import (
    ROOT,
    USER_EXTRAS,
    closure,
    installed_modules,
    modules_of,
    project,
)
from tests.workshop.rooms import IMPLIED, NEEDS, all_modules, modules_for

HIDE_AND_IMPORT = """
import importlib, json, sys

hidden, ours = json.loads(sys.stdin.read())

class Hide:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in hidden:
            raise ModuleNotFoundError(f"No module named {name!r} (hidden: no such extra)", name=name)
        return None

hidden = {name for name in hidden if not name.startswith("_") and name not in sys.modules}
sys.meta_path.insert(0, Hide())
for name in ours:
    importlib.import_module(name)
print(len(ours))
"""


def hidden_from(*extras: str) -> list[str]:
    """Return the modules here that an install with these extras has not."""
    return sorted(set(installed_modules()) - modules_of(closure(*extras)) - {"apns_live"})


@pytest.mark.parametrize("extra", ["", *USER_EXTRAS])
def test_every_extra_imports_alone(extra: str) -> None:
    ours = modules_for(extra)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", HIDE_AND_IMPORT],
        input=json.dumps([hidden_from(*([extra] if extra else [])), ours]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.strip() == str(len(ours))


def test_hiding_does_hide() -> None:
    run = subprocess.run(
        [sys.executable, "-c", HIDE_AND_IMPORT],
        input=json.dumps([hidden_from(), ["sqlalchemy"]]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "hidden: no such extra" in run.stderr


def test_the_table_of_needs_names_what_exists() -> None:
    extras = set(project()["optional-dependencies"])  # type: ignore[arg-type]
    assert set(USER_EXTRAS) | {"docs", "mutants", "test"} == extras
    assert set(NEEDS.values()) <= extras
    assert set(IMPLIED) <= extras
    assert set(NEEDS) <= set(all_modules())


def test_a_plain_install_stays_light() -> None:
    heavy = {"sqlalchemy", "fastapi", "starlette", "hypercorn", "matplotlib", "asyncpg", "alembic"}
    assert not heavy & closure()
