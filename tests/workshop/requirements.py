"""What a plain install, or one extra, brings: worked out from the installed packages' metadata."""

from __future__ import annotations

import functools
import importlib.metadata
import tomllib
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]

# Extras that a user installs to run something of ours. `test` and `docs` are for work on the house.
USER_EXTRAS = ("contracts", "fake", "service", "postgres", "gateway", "otel", "plot", "bench")


def project() -> dict[str, object]:
    """Return the [project] table of pyproject.toml."""
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def closure(*extras: str) -> set[str]:
    """Return the canonical names of all distributions that apns-live with these extras installs.

    Raises PackageNotFoundError when one of them is not installed here.
    """
    found: set[str] = set()
    done: set[tuple[str, str]] = set()
    waiting = [("apns-live", extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        found.add(name)
        for line in importlib.metadata.distribution(name).requires or []:
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            child = canonicalize_name(requirement.name)
            waiting.extend((child, wanted) for wanted in ("", *requirement.extras))
    return found


@functools.cache
def installed_modules() -> Mapping[str, list[str]]:
    """Return all top-level module names here, each with the distributions that provide it."""
    return importlib.metadata.packages_distributions()


def modules_of(distributions: set[str]) -> set[str]:
    """Return the top-level module names that these distributions provide."""
    return {
        module
        for module, names in installed_modules().items()
        if any(canonicalize_name(name) in distributions for name in names)
    }
