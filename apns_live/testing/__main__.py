"""``python -m apns_live.testing``: the fake APNs without the command line's extras."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from apns_live.errors import FakeError

from .fake import DEFAULT_BUNDLE_ID, DEFAULT_KEY_ID, DEFAULT_TEAM_ID
from .serve import ServeOptions, serve


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m apns_live.testing", description=__doc__)
    add = parser.add_argument
    add("--host", default="localhost", help="address to listen on; others need --token")
    add("--port", type=int, default=0, help="pushes; 0 takes a free port")
    add("--manage-port", type=int, default=0, help="channel management")
    add("--inspector-port", type=int, default=0, help="inspector and control API")
    add("--no-inspector", action="store_true", help="serve no inspector")
    add("--dir", type=Path, dest="directory", help="for certificates and keys")
    add("--scenario", type=Path, help="a TOML file")
    add("--latency", help="40ms, or 40ms+10ms with a drawn part")
    add("--seed", type=int)
    add("--devices", choices=("auto", "strict"))
    add("--schema", action="append", default=[], metavar="TYPE=FILE", help="of a content state")
    add("--face", choices=("wire", "asgi"), default="wire")
    add("--environment", choices=("production", "development"))
    add("--strict", action="store_true", default=None, help="refuse what Apple tolerates silently")
    add("--spelling", choices=("wire", "documented"))
    add("--cut-streams", action="store_true", default=None, help="one stream after a refusal")
    add("--bundle-id", action="append", default=[], help="repeat it for several apps")
    add("--team-id", default=DEFAULT_TEAM_ID)
    add("--key-id", default=DEFAULT_KEY_ID)
    add("--hostname", action="append", default=[], help="another name in the certificate")
    add("--ready-file", type=Path, help="gets the ready line once every port listens")
    add("--token", help="guards the inspector and the control API")
    return parser


def options_from(arguments: list[str]) -> ServeOptions:
    """Return the options of a command line."""
    values = vars(_parser().parse_args(arguments))
    values["hostnames"] = tuple(values.pop("hostname"))
    bundle_ids = values.pop("bundle_id") or [DEFAULT_BUNDLE_ID]
    schemas = {}
    for each in values.pop("schema"):
        name, _, file = each.partition("=")
        if not name or not file:
            raise FakeError(f"--schema {each} is not of the form TYPE=FILE")
        schemas[name] = Path(file)
    if values.pop("no_inspector"):
        values["inspector_port"] = None
    return ServeOptions(
        **values, bundle_id=bundle_ids[0], bundle_ids=tuple(bundle_ids[1:]), schemas=schemas
    )


def main() -> int:
    """Serve; return the exit code."""

    def ready(line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    try:
        asyncio.run(serve(options_from(sys.argv[1:]), ready=ready))
    except FakeError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
