"""``python -m benchmarks NAME [options]``: run one benchmark, or ``all``.

A benchmark is a module here with ``main(arguments: list[str]) -> int``. ``record NAME -- COMMAND``
runs another command and keeps the end of its output, with the conditions, in docs/measurements/.
"""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.conditions import conditions
from benchmarks.report import MEASUREMENTS, Report

BENCHMARKS = {
    "throughput": "pushes a second on a bare loopback, beside other senders",
    "distance": "pushes a second through a delay of 40 ms each way",
    "latency": "how long one push takes at a given load",
    "memory": "a million tokens: memory, and whether pushes grow dearer",
    "wire": "our HTTP/2 by itself: what a request costs",
    "fake": "checked pushes a second that the fake APNs answers",
    "phones": "a hundred thousand simulated phones: memory and speed",
    "delivery": "the field case: latest state wins beside a plain queue",
    "journal": "what the journal costs",
    "gateway": "update calls beside an empty route, half load, overload, kill -9",
    "fcm": "firebase-admin's sendEach of 500 beside 500 native POSTs over HTTP/2",
    "registrations": "activity tokens, one a call over HTTP: CPU and calls a second",
    "activities": "a million devices on SQLite and PostgreSQL: registering, and a start for a segment",
}
KEPT_LINES = 40


def _usage() -> str:
    lines = ["usage: python -m benchmarks NAME [options]   (--json, --record; --help for more)", ""]
    lines += [f"  {name:12} {what}" for name, what in BENCHMARKS.items()]
    lines += [f"  {'all':12} every benchmark, one after the other"]
    return "\n".join(lines)


def _run(name: str, arguments: list[str]) -> int:
    try:
        module = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"benchmarks.{name}":
            raise
        print(f"no benchmark named {name}", file=sys.stderr)
        return 2
    if not inspect.signature(module.main).parameters:
        sys.argv = [f"benchmarks {name}", *arguments]
        return int(module.main() or 0)
    return int(module.main(arguments) or 0)


def _all(arguments: list[str]) -> int:
    worst = 0
    for name in BENCHMARKS:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", "benchmarks", name]
        source = (Path(__file__).parent / f"{name}.py").read_text()
        if "--record" in arguments and '"--record"' not in source:
            # One that cannot write its page by itself: what it prints becomes the page.
            others = [argument for argument in arguments if argument != "--record"]
            code = _record([name, "--", *command, *others])
        else:
            code = subprocess.run([*command, *arguments], check=False).returncode
        worst = max(worst, code)
    return worst


def _record(arguments: list[str]) -> int:
    name, separator, *command = arguments
    if separator != "--" or not command:
        print("usage: python -m benchmarks record NAME -- COMMAND...", file=sys.stderr)
        return 2
    before, begin = conditions(), time.monotonic()
    tail: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            tail = [*tail, line.rstrip()][-KEPT_LINES:]
    report = Report(name, f"What `{name}` printed", before)
    report.settings = {"took": f"{time.monotonic() - begin:.0f} s"}
    page = report.markdown() + "\n```text\n" + "\n".join(tail) + "\n```\n"
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
    return _run(name, rest)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
