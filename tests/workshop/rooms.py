"""Which of our modules need an extra. Everything else must import after a plain install."""

from __future__ import annotations

import pkgutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

NEEDS: dict[str, str] = {
    "apns_live.activities": "service",
    "apns_live.bench.gateway": "gateway",
    "apns_live.bench.service": "service",
    "apns_live.cli.with_fake": "gateway",
    "apns_live.gateway": "gateway",
    "apns_live.testing.asgi": "fake",
    "apns_live.testing.control": "fake",
}
"""Module or package -> the extra without which it does not import."""

NOT_IMPORTED = ("apns_live.activities.store.migrations",)
"""What another program runs: Alembic's own scripts."""

IMPLIED: dict[str, set[str]] = {
    "gateway": {"gateway", "service", "fake"},
    "bench": {"bench", "gateway", "service", "fake", "plot"},
}


def all_modules() -> list[str]:
    """Return the dotted name of every module of the package, from its files."""
    folder = ROOT / "apns_live"
    return ["apns_live", *sorted(_below(folder, "apns_live"))]


def _below(folder: Path, prefix: str) -> list[str]:
    found: list[str] = []
    for entry in pkgutil.iter_modules([str(folder)]):
        name = f"{prefix}.{entry.name}"
        if entry.name == "__main__" or name in NOT_IMPORTED:
            continue
        found.append(name)
        if entry.ispkg:
            found.extend(_below(folder / entry.name, name))
    return found


def needed_extra(module: str) -> str:
    """Return the extra that a module needs, or an empty string."""
    for prefix, extra in NEEDS.items():
        if module == prefix or module.startswith(f"{prefix}."):
            return extra
    return ""


def modules_for(extra: str) -> list[str]:
    """Return the modules that must import when apns-live is installed with this extra alone."""
    allowed = {""} | IMPLIED.get(extra, {extra})
    return [module for module in all_modules() if needed_extra(module) in allowed]
