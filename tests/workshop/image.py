"""Builds the image of deploy/Containerfile and runs it: ``python -m tests.workshop.image FOLDER``.

Needs root, Linux and buildah; no daemon. ``FOLDER`` keeps the builder's storage. Where the registry of the base image
cannot be reached, a base of Debian's packages (mmdebstrap) takes its place, under its name and in this storage only.

The image runs as an orchestrator would run it: its own user, a root that cannot be written, a network of its own.
Its health check must pass, and SIGTERM must end it cleanly.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.workshop.requirements import ROOT, project

CONTAINERFILE = ROOT / "deploy" / "Containerfile"
IMAGE = "localhost/apns-live"
DEBIAN = ("python3", "python3-venv", "python-is-python3", "ca-certificates")
NO_BASE = 3
"""Exit code where neither the registry nor a mirror of Debian can be reached."""
LIMIT = 600.0
"""Seconds for each step."""
LENT = ("/etc/ssl/certs", "/etc/pip.conf")
"""What the build borrows of this machine: how it reaches the package index."""


def base(text: str) -> str:
    """Return the one image that a Containerfile begins with. Raises ValueError for another number of them."""
    (found,) = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE))
    return found


def faults(config: dict[str, Any]) -> list[str]:
    """Return what an operator would miss in the configuration of the image."""
    found = []
    user = str(config.get("User", ""))
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user):
        found.append(f"it runs as {user or 'root'}: Kubernetes wants a number other than 0")
    if not (config.get("Healthcheck") or {}).get("Test"):
        found.append("it has no health check")
    if config.get("StopSignal", "SIGTERM") != "SIGTERM":
        found.append("it is not ended by SIGTERM")
    volumes = set(config.get("Volumes") or ())
    if volumes != {"/var/lib/apns-live"}:
        found.append(f"its volumes are {', '.join(volumes) or 'none'}")
    if not config.get("Entrypoint"):
        found.append("it has no entry point")
    return found


class Builder:
    """buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._program = ["buildah", "--root", f"{folder}/storage", "--runroot", f"{folder}/run"]

    def __call__(self, *words: str) -> str:
        """Run buildah and return what it prints. Raises SystemExit when it fails."""
        command = [*self._program, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
        if done.returncode:
            raise SystemExit(
                f"buildah {words[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            )
        return done.stdout.strip()

    def has(self, image: str) -> bool:
        """Return whether the storage has an image, after a try to pull it."""
        command = [*self._program, "pull", "--quiet", "--policy", "missing", image]
        return (
            subprocess.run(command, capture_output=True, check=False, timeout=LIMIT).returncode == 0
        )

    def make_base(self, image: str) -> None:
        """Make a base of the packages of the Debian that this is."""
        archive = self.folder / "base.tar"
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(DEBIAN)}"),
                *(platform.freedesktop_os_release()["VERSION_CODENAME"], str(archive)),
            ],
            check=True,
            timeout=LIMIT,
        )
        container = self("from", "scratch")
        self("add", "--quiet", container, str(archive), "/")
        self("config", "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", container)
        self("commit", "--quiet", "--rm", container, image)
        archive.unlink()

    def build(self) -> dict[str, Any]:
        """Build the image and return its configuration. ``docker`` is the format that keeps the health check."""
        lent = [f"--volume={path}:{path}:ro" for path in LENT if Path(path).exists()]
        words = ("build", "--quiet", "--isolation", "chroot", "--pull-never", "--format", "docker")
        self(*words, *lent, "--tag", IMAGE, "--file", str(CONTAINERFILE), str(ROOT))
        config: dict[str, Any] = json.loads(self("inspect", "--type", "image", IMAGE))["Docker"][
            "config"
        ]
        return config


def run(root: Path, config: dict[str, Any]) -> str:
    """Run the image's command below ``root``, ask for its health, end it; return its ready line.

    Called in mount and network namespaces of its own. Raises SystemExit when something is not as it should be.
    """
    _start_loopback()
    subprocess.run(["mount", "--bind", root, root], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True)
    for volume in ("/tmp", *config["Volumes"]):
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "mode=1777", "none", f"{root}{volume}"], check=True
        )
    environment = dict(one.split("=", 1) for one in config["Env"])
    inside = [
        "chroot",
        f"--userspec={config['User']}",
        str(root),
        "/usr/bin/env",
        "-C",
        config["WorkingDir"],
    ]

    def called(*words: str) -> int:
        return subprocess.call([*inside, *words], env=environment, timeout=60)

    if called("python", "-c", "open('/opt/apns-live/x', 'w')") == 0:
        raise SystemExit("the user of the image may write below /opt")
    with subprocess.Popen(
        [*inside, *config["Entrypoint"], *config["Cmd"]],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        ready = server.stdout.readline()
        health = called(*config["Healthcheck"]["Test"][1:])
        server.send_signal(signal.SIGTERM)
        if health or server.wait(60):
            raise SystemExit(
                f"the image said {ready!r}, its health check {health}, its end {server.returncode}"
            )
    return ready.strip()


def _start_loopback() -> None:
    """Switch the loopback device of a new network namespace on (netdevice(7): SIOCSIFFLAGS, IFF_UP)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x1))


def main() -> int:
    """Return 0 when the image could be built, is configured well, and runs; `NO_BASE` without a base."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        print(run(chosen.folder, json.loads(chosen.inside)))
        return 0
    chosen.folder.mkdir(parents=True, exist_ok=True)
    builder = Builder(chosen.folder.resolve())
    image = base(CONTAINERFILE.read_text("utf-8"))
    if not builder.has(image):
        print(f"{image} cannot be pulled; a base of Debian's packages takes its place", flush=True)
        try:
            builder.make_base(image)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"no base can be had here: {error}")
            return NO_BASE
    config = builder.build()
    if found := faults(config):
        raise SystemExit("\n".join(found))
    container = builder("from", IMAGE)
    try:
        root = builder("mount", container)
        version = subprocess.check_output(
            ["chroot", root, "/opt/apns-live/bin/apns-live", "--version"], text=True
        )
        if version.split()[-1] != project()["version"]:
            raise SystemExit(f"the image holds {version}")
        command = [
            sys.executable,
            "-m",
            "tests.workshop.image",
            root,
            "--inside",
            json.dumps(config),
        ]
        unshared = ["unshare", "--mount", "--net", "--pid", "--fork", *command]
        print(
            subprocess.run(
                unshared, check=True, capture_output=True, text=True, cwd=ROOT
            ).stdout.strip()
        )
    finally:
        builder("rm", container)
    print("the image was built and runs: health check passed, root not writable, ended by SIGTERM")
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
