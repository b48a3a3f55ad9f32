"""Checks what a release would publish: ``make release-check``. Needs a package index.

Builds both files into dist/, lets twine check them, and installs the wheel alone into a clean
environment of each Python that is here, where ``apns-live demo`` must run. The bill of materials goes into
sbom/, since everything in dist/ is sent to the index.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.workshop import bill
from tests.workshop.requirements import ROOT, closure, project

PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
DIST = ROOT / "dist"
SBOM = ROOT / "sbom"


def _run(*command: str | Path, cwd: Path = ROOT) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)[:200]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _bill(wheel: Path) -> Path:
    """Make the bill of materials. Raises SystemExit when something is wrong with it."""
    SBOM.mkdir(exist_ok=True)
    target = SBOM / wheel.name.replace("-py3-none-any.whl", ".cdx.json")
    version = str(project()["version"])
    if found := bill.faults(bill.make(wheel, target), version, closure(*bill.EXTRAS)):
        raise SystemExit("\n".join([f"{target.name}:", *found]))
    return target


def main() -> int:
    """Return 0 when both files are good and the wheel works in every Python that is here."""
    shutil.rmtree(DIST, ignore_errors=True)
    _run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    (wheel,), (source,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    _run(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in ("pyproject.toml", "README.md", "LICENSE", "apns_live/__init__.py"):
        if wanted not in names:
            raise SystemExit(f"{source.name} lacks {wanted}")
    print(f"{_bill(wheel).name} lists what the wheel brings")
    tried = []
    for name in PYTHONS:
        interpreter = shutil.which(name)
        if interpreter is None or subprocess.call([interpreter, "-c", "import ensurepip"]):
            continue
        with tempfile.TemporaryDirectory(prefix="apns-live-release-") as folder:
            _run(interpreter, "-m", "venv", f"{folder}/venv")
            binaries = Path(folder, "venv", "bin")
            _run(binaries / "pip", "install", "--quiet", f"{wheel}[fake]")
            version = _run(binaries / "apns-live", "--version", cwd=Path(folder)).split()[-1]
            if version != project()["version"]:
                raise SystemExit(f"the wheel says version {version}")
            _run(binaries / "apns-live", "demo", "--tokens", "200", "--json", cwd=Path(folder))
        tried.append(name)
    print(f"{wheel.name} and {source.name} are good; the demo ran on {', '.join(tried)}")
    return 0 if tried else 1


if __name__ == "__main__":
    sys.exit(main())
