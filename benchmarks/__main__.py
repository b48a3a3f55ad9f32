"""``python -m benchmarks NAME [options]``: run one benchmark, or ``all``.

What users measure too is ``apns_live.bench``; here stand the pages of this repository, with bars, and
the benchmarks of single parts. ``record NAME -- COMMAND`` runs another command and keeps the end of its
output, with the conditions, in docs/measurements/.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import time

from benchmarks import published
from benchmarks.pages import MEASUREMENTS, markdown, result

OWN = {
    "wire": "our HTTP/2 by itself: what a request costs",
    "fake": "checked pushes a second that the fake APNs answers",
    "phones": "a hundred thousand simulated phones: memory and speed",
    "delivery": "the field case: latest state wins beside a plain queue",
    "journal": "what the journal costs",
    "cluster": "what a large start costs with several workers over one PostgreSQL",
    "workers": "what a push costs where two processes share a fan-out",
    "contracts": "what a contract costs a send() with a new state in each call",
    "fcm": "firebase-admin's sendEach of 500 beside 500 native POSTs over HTTP/2",
}
BENCHMARKS = published.NAMES | OWN
KEPT_LINES = 40


def _usage() -> str:
    lines = ["usage: python -m benchmarks NAME [options]   (--json, --record; --help for more)", ""]
    lines += [f"  {name:12} {what}" for name, what in BENCHMARKS.items()]
    lines += [f"  {'all':12} every benchmark, one after the other"]
    return "\n".join(lines)


def _all(arguments: list[str]) -> int:
    worst = 0
    for name in BENCHMARKS:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", "benchmarks", name, *arguments]
        worst = max(worst, subprocess.run(command, check=False).returncode)
    return worst


def _record(arguments: list[str]) -> int:
    name, separator, *command = arguments
    if separator != "--" or not command:
        print("usage: python -m benchmarks record NAME -- COMMAND...", file=sys.stderr)
        return 2
    found, begin = result(name, f"What `{name}` printed", {}), time.monotonic()
    tail: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            tail = [*tail, line.rstrip()][-KEPT_LINES:]
    found.settings["took"] = f"{time.monotonic() - begin:.0f} s"
    page = markdown(found) + "\n```text\n" + "\n".join(tail) + "\n```\n"
    MEASUREMENTS.mkdir(parents=True, exist_ok=True)
    (MEASUREMENTS / f"{name}.md").write_text(page)
    return process.returncode


def main(arguments: list[str]) -> int:
    """Run what the first argument names; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name == "all":
        return _all(rest)
    if name == "record":
        return _record(rest)
    if name in published.NAMES:
        return published.main(name, rest)
    if name not in OWN:
        print(f"no benchmark named {name}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"benchmarks.{name}").main(rest))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
