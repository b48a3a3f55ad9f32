"""Makes the bill of materials (SBOM) of a wheel, in CycloneDX, and says what is wrong with one.

It lists what the container image installs: the wheel with ``EXTRAS``, and everything that these bring.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Set
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from tests.workshop.requirements import ROOT

EXTRAS = ("gateway", "postgres", "otel")
LIMIT = 600.0
"""Seconds for each step."""


def make(wheel: Path, target: Path) -> dict[str, Any]:
    """Write the bill of a wheel to ``target`` and return it. Needs a package index.

    cyclonedx-py checks it against CycloneDX's schema before it writes. The same wheel and packages make the same file.
    """
    with tempfile.TemporaryDirectory(prefix="apns-live-bill-") as folder:
        # Without pip: what is listed is what runs.
        python = Path(folder, "bin", "python")
        wanted = f"{wheel}[{','.join(EXTRAS)}]"
        for words in (
            ("venv", "--without-pip", folder),
            ("pip", "--python", str(python), "install", "--quiet", wanted),
            (
                *("cyclonedx_py", "environment", "--output-reproducible", "--mc-type", "library"),
                *("--pyproject", str(ROOT / "pyproject.toml"), "-o", str(target), str(python)),
            ),
        ):
            subprocess.run([sys.executable, "-m", *words], check=True, timeout=LIMIT)
    bill: dict[str, Any] = json.loads(target.read_text("utf-8"))
    return bill


def faults(bill: dict[str, Any], version: str, needed: Set[str]) -> list[str]:
    """Return what is wrong with a bill of this version, which needs these distributions."""
    found = []
    root = bill["metadata"]["component"]
    if (root["name"], root.get("version")) != ("apns-live", version):
        found.append(f"it is the bill of {root['name']} {root.get('version')}")
    parts = {canonicalize_name(one["name"]): one for one in bill["components"]}
    if missing := sorted(needed - parts.keys() - {"apns-live"}):
        found.append(f"it lacks {', '.join(missing)}")
    found += [
        f"{name} has no version, or no purl with it"
        for name, one in sorted(parts.items())
        if not one.get("version") or not str(one.get("purl")).endswith(f"@{one['version']}")
    ]
    if unknown := sorted(name for name, one in parts.items() if not one.get("licenses")):
        found.append(f"it names no license of {', '.join(unknown)}")
    if "file:" in json.dumps(bill):
        found.append("it holds a path of the machine that made it")
    return found
