"""``python -m benchmarks.peers FOLDER``: fetch and build the peers, and write FOLDER/senders.json.

Needs mvn and a JDK, cargo, go, node and npm; a peer whose tools are absent is left out, and said so. Then:
``python -m benchmarks throughput --senders FOLDER/senders.json --against pushy a2 apns2 node-apn ...``.
a2 (Rust) has host and roots as constants, so its source is copied and those two are changed.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PUSHY, A2, APNS2, NODE_APN = "0.15.4", "0.10.0", "v0.25.0", "7.0.1"
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


_A2_CHANGES = {
    'Endpoint::Production => "api.push.apple.com"': (
        "Endpoint::Production => {\n"
        "                static HOST: std::sync::OnceLock<String> = std::sync::OnceLock::new();\n"
        '                HOST.get_or_init(|| std::env::var("A2_HOST").unwrap())\n'
        "            }"
    ),
    "HttpsConnectorBuilder::new()\n        .with_webpki_roots()": (
        'let pem = std::fs::read(std::env::var("A2_ROOTS").unwrap()).unwrap();\n'
        "    let mut roots = rustls::RootCertStore::empty();\n"
        "    for root in rustls_pemfile::certs(&mut &pem[..]) {\n"
        "        roots.add(root.unwrap()).unwrap();\n"
        "    }\n"
        "    let config = rustls::client::ClientConfig::builder()\n"
        "        .with_root_certificates(roots)\n"
        "        .with_no_client_auth();\n"
        "    HttpsConnectorBuilder::new()\n        .with_tls_config(config)"
    ),
}
_CRATE = """[package]
name = "bench"
version = "1.0.0"
edition = "2021"

[dependencies]
a2 = { %s, default-features = false, features = ["ring"] }
serde = { version = "1", features = ["derive"] }
tokio = { version = "1", features = ["full"] }

[profile.release]
lto = true
"""


def a2(folder: Path) -> str:
    """Build the sender on a2; return its command."""
    (folder / "src").mkdir(exist_ok=True)
    shutil.copy(HERE / "main.rs", folder / "src")
    (folder / "Cargo.toml").write_text(_CRATE % f'version = "={A2}"')
    words = ("cargo", "metadata", "--format-version", "1")
    found = subprocess.run(words, cwd=folder, check=True, stdout=subprocess.PIPE).stdout
    (crate,) = (each for each in json.loads(found)["packages"] if each["name"] == "a2")
    shutil.copytree(Path(crate["manifest_path"]).parent, folder / "a2", dirs_exist_ok=True)
    source = folder / "a2/src/client.rs"
    text = source.read_text()
    for before, after in _A2_CHANGES.items():
        if before not in text:
            raise SystemExit(f"a2 {A2}: its source has no {before!r}")
        text = text.replace(before, after, 1)
    source.write_text(text)
    (folder / "Cargo.toml").write_text(_CRATE % 'path = "a2"')
    _run(folder, "cargo", "build", "--release", "--quiet")
    return f"{folder}/target/release/bench {WORDS}"


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
    "a2": (a2, A2, ("cargo",)),
    "apns2": (apns2, APNS2, ("go",)),
    "node-apn": (node_apn, NODE_APN, ("npm", "node")),
}


def main(arguments: list[str]) -> int:
    """Build what can be built; print each name with its version."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
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
