"""Install the wheel alone, then with each extra, each in a fresh environment, and import all of it.

Run by ``make extras``; needs a package index. The suite has a quicker twin that needs none:
test_extras.py hides what an extra does not bring.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.workshop.requirements import ROOT, USER_EXTRAS
from tests.workshop.rooms import modules_for


def _run(*command: str | Path) -> None:
    words = [str(part) for part in command]
    run = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=tempfile.gettempdir()
    )
    if run.returncode:
        raise SystemExit(f"{' '.join(words)[:200]} failed:\n{run.stdout}{run.stderr}")


def _try(extra: str, wheel: Path, folder: Path) -> None:
    venv.EnvBuilder(with_pip=True).create(folder)
    python = folder / "bin" / "python"
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted)
    _run(python, "-W", "error", "-c", "\n".join(f"import {name}" for name in modules_for(extra)))
    _run(python, "-m", "pip", "check", "--quiet", "--disable-pip-version-check")
    _run(folder / "bin" / "apns-live", "--help")


def main() -> int:
    """Return 0 when every extra installs and imports by itself."""
    with tempfile.TemporaryDirectory(prefix="apns-live-extras-") as name:
        folder = Path(name)
        _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT)
        (wheel,) = folder.glob("apns_live-*.whl")
        for extra in ("", *USER_EXTRAS):
            _try(extra, wheel, folder / f"with-{extra or 'nothing'}")
            print(f"apns-live[{extra}]: {len(modules_for(extra))} modules import")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
