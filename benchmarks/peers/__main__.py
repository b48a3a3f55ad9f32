"""``python -m benchmarks.peers FOLDER``: fetch and build the peers, and write FOLDER/senders.json.

Needs mvn and a JDK, go, node and npm; a peer whose tools are absent is left out, and said so. Then:
``python -m benchmarks throughput --senders FOLDER/senders.json --against pushy apns2 node-apn ...``.
a2 (Rust) is not among them: its host is a constant of the crate.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PUSHY, APNS2, NODE_APN = "0.15.4", "v0.25.0", "7.0.1"
HERE = Path(__file__).parent
WORDS = "{port} {ca} {key} {key_id} {team_id} {apns-topic} {count} {body}"


def _run(folder: Path, *words: str) -> None:
    subprocess.run(words, cwd=folder, check=True, stdout=sys.stderr)


def pushy(folder: Path) -> str:
    """Build the sender on Pushy; return its command."""
    shutil.copy(HERE / "Bench.java", folder)
    (folder / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>bench</groupId>"
        "<artifactId>bench</artifactId><version>1</version><dependencies><dependency>"
        f"<groupId>com.eatthepath</groupId><artifactId>pushy</artifactId><version>{PUSHY}</version>"
        "</dependency></dependencies></project>"
    )
    _run(folder, "mvn", "-q", "dependency:copy-dependencies", "-DoutputDirectory=jars")
    _run(folder, "javac", "-cp", "jars/*", "-d", ".", "Bench.java")
    return f"java -cp {shlex.quote(f'{folder}:{folder}/jars/*')} Bench {WORDS}"


def apns2(folder: Path) -> str:
    """Build the sender on sideshow/apns2; return its command."""
    shutil.copy(HERE / "main.go", folder)
    (folder / "go.mod").write_text("module bench\n\ngo 1.21\n")
    _run(folder, "go", "get", f"github.com/sideshow/apns2@{APNS2}")
    _run(folder, "go", "build", "-o", "bench", ".")
    return f"{folder}/bench {WORDS}"


def node_apn(folder: Path) -> str:
    """Fetch @parse/node-apn; return the command of its sender."""
    shutil.copy(HERE / "bench.js", folder)
    _run(folder, "npm", "install", "--silent", "--no-fund", f"@parse/node-apn@{NODE_APN}")
    return f"node {folder}/bench.js {WORDS}"


PEERS: dict[str, tuple[Callable[[Path], str], str, tuple[str, ...]]] = {
    "pushy": (pushy, PUSHY, ("mvn", "javac")),
    "apns2": (apns2, APNS2, ("go",)),
    "node-apn": (node_apn, NODE_APN, ("npm", "node")),
}


def main(arguments: list[str]) -> int:
    """Build what can be built; print each name with its version."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    place = Path(arguments[0]).resolve()
    commands = {}
    for name, (build, version, tools) in PEERS.items():
        if missing := [tool for tool in tools if shutil.which(tool) is None]:
            print(f"{name}: left out, no {', '.join(missing)}")
            continue
        folder = place / name
        folder.mkdir(parents=True, exist_ok=True)
        commands[name] = build(folder)
        print(f"{name} {version}", flush=True)
    (place / "senders.json").write_text(json.dumps(commands, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
