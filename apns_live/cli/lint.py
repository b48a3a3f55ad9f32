"""``apns-live lint``: checks a payload file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from .options import Shared, command
from .output import ExitCode


@command(
    """
    FILE...: Payload files (JSON with aps); - reads stdin.
    --broadcast: Check for a broadcast: 5120 bytes, and no start.
    --strict: Treat warnings as problems.
    """
)
def lint(shared: Shared, files: list[str], broadcast: bool = False, strict: bool = False) -> int:
    """Check payloads: print problems, warnings, the bytes of each key, and what a phone will do."""
    from ..payload.lint import lint as check

    failed = False
    reports: list[dict[str, Any]] = []
    for name in files:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        report = check(data, target="broadcast" if broadcast else "device", now=time.time())
        failed |= not report.ok or (strict and bool(report.warnings))
        reports.append({"file": name, "ok": report.ok, **msgspec.to_builtins(report)})
        if not shared.screen.json_mode:
            _show(shared, reports[-1])
    if shared.screen.json_mode:
        shared.screen.answer(reports[0] if len(reports) == 1 else {"files": reports}, "")
    return ExitCode.NOT_ACCEPTED if failed else ExitCode.OK


def _show(shared: Shared, report: dict[str, Any]) -> None:
    say = shared.screen.line
    say(f"{report['file']}: {report['kind']}, {report['size']} of {report['limit']} bytes")
    for kind in ("problems", "warnings"):
        for finding in report[kind]:
            place = f"{finding['field']}: " if finding["field"] else ""
            say(f"  {kind[:-1]}: {place}{finding['message']}")
    for sentence in report["explanation"]:
        say(f"  {sentence}")
    if report["bytes_by_key"]:
        shared.screen.table(("key", "bytes"), list(report["bytes_by_key"].items()))
