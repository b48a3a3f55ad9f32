"""The outside programs that some tests need, and how each is found.

A test names what it needs with ``@pytest.mark.external("nginx")``. Where the program is absent the
test is deselected and one line says so; with ``APNS_LIVE_REQUIRE_EXTERNALS=1`` it fails instead.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path


def _folders() -> str:
    """Return PATH with the sbin beside each bin, where Debian keeps servers. Empty finds nothing."""
    path = os.environ.get("PATH", "").split(os.pathsep)
    beside = [str(Path(one).with_name("sbin")) for one in path if Path(one).name == "bin"]
    return os.pathsep.join([*path, *beside])


def _executable(*names: str) -> Callable[[], str | None]:
    def find() -> str | None:
        for name in names:
            beside = Path(sys.executable).with_name(name)  # some come with a Python package
            if os.environ.get("PATH") and os.access(beside, os.X_OK):
                return str(beside)
            if found := shutil.which(name, path=_folders()):
                return found
        return None

    return find


def _node_module(name: str) -> Callable[[], str | None]:
    def find() -> str | None:
        folder = os.environ.get("APNS_LIVE_NODE_MODULES", "")
        if not folder or _executable("node", "nodejs")() is None:
            return None
        path = Path(folder) / name
        return str(path) if (path / "package.json").is_file() else None

    return find


def _folder(variable: str, pattern: str, runs_with: str) -> Callable[[], str | None]:
    def find() -> str | None:
        folder = os.environ.get(variable, "")
        if not folder or _executable(runs_with)() is None:
            return None
        return folder if any(Path(folder).glob(pattern)) else None

    return find


PROGRAMS: dict[str, Callable[[], str | None]] = {
    "activitysmith-node": _node_module("activitysmith"),
    "axe-core": _node_module("axe-core"),
    "bash": _executable("bash"),
    "cargo": _executable("cargo"),
    "chromium": _executable("chromium", "chromium-browser", "google-chrome"),
    "curl": _executable("curl"),
    # A folder with a go.mod that requires firebase.google.com/go/v4, whose modules are there.
    "firebase-admin-go": _folder("APNS_LIVE_FIREBASE_GO", "go.mod", "go"),
    # A folder of jars: mvn dependency:copy-dependencies of com.google.firebase:firebase-admin.
    "firebase-admin-java": _folder("APNS_LIVE_FIREBASE_JAVA", "firebase-admin-*.jar", "java"),
    "docker-compose": _executable("docker-compose"),
    "firebase-admin-node": _node_module("firebase-admin"),
    "fish": _executable("fish"),
    "go": _executable("go"),
    "java": _executable("java"),
    "h2load": _executable("h2load"),
    "hadolint": _executable("hadolint"),
    "haproxy": _executable("haproxy"),
    "nghttp": _executable("nghttp"),
    "nghttpd": _executable("nghttpd"),
    "nginx": _executable("nginx"),
    "node": _executable("node", "nodejs"),
    "node-apn": _node_module("@parse/node-apn"),
    "onesignal-node": _node_module("@onesignal/node-onesignal"),
    # A folder with the Cargo.toml of a program "caller" that requires onesignal-rust-api, fetched.
    "onesignal-rust": _folder("APNS_LIVE_ONESIGNAL_RUST", "Cargo.toml", "cargo"),
    "prometheus": _executable("prometheus"),
    "promtool": _executable("promtool"),
    "systemd-analyze": _executable("systemd-analyze"),
    "taskset": _executable("taskset"),
    "zsh": _executable("zsh"),
}
"""What may be named in ``@pytest.mark.external(...)``: name -> where it is, or None."""


OPTIONAL = frozenset({"cargo", "firebase-admin-go", "firebase-admin-java", "onesignal-rust"})
"""Not asked for by APNS_LIVE_REQUIRE_EXTERNALS: to build or to fetch them takes minutes."""


@functools.cache
def find_program(name: str) -> str | None:
    """Return the path of an outside program (or of a node module's folder), or None.

    Raises KeyError for a name that is not in `PROGRAMS`: a misspelt name must not look absent.
    """
    return PROGRAMS[name]()


def program(name: str) -> str:
    """Return the path of an outside program that must be there.

    Raises FileNotFoundError when it is not.
    """
    found = find_program(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed on this machine")
    return found
