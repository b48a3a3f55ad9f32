"""Break the modules that decide something, one small change at a time, and count what the tests notice.

``python -m tests.workshop.mutants --sample 400`` draws the same mutants for the same ``--seed``, with
cosmic-ray's operators, and runs each module's own tests on a copy of the tree: first those that call
the function of the change, then, if they all pass, the others. It prints each survivor when it is known,
and at the end a table of the modules. A survivor is a missing test, or its change has no effect. A
change to annotations or to the decorators of classes alone is no mutant.

Each test run is a fork of a process that has imported everything except the package and its tests.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import importlib
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import NamedTuple

import pytest
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tests.workshop.requirements import ROOT

MODULES = {
    "activities/accept/streams.py": "tests/activities/test_streams.py",
    "activities/store/commit.py": "tests/activities/store/test_commit.py",
    "client/backoff.py": "tests/client/test_retry_table.py tests/client/test_p17_answers.py "
    "tests/client/test_p02_provider_tokens.py",
    "credentials.py": "tests/credentials tests/bad_inputs/test_keys.py",
    "delivery/audience.py": "tests/delivery/test_audience.py tests/delivery/test_live.py",
    "delivery/budget.py": "tests/delivery/test_budget.py",
    "delivery/lane.py": "tests/delivery/test_lane.py tests/delivery/test_order.py tests/delivery/test_delivery.py",
    "gateway/limits.py": "tests/gateway/native/test_keys.py",
    "http2/state.py": "tests/http2",
    "pool/decision.py": "tests/pool",
    "retry.py": "tests/client/test_retry_table.py tests/client/test_p17_answers.py",
    "testing/phones/activitykit.py": "tests/phones",
}
"""Module -> the tests that are to notice."""
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "site", "dist", "build")


class Place(NamedTuple):
    """Where an operator can change a module: at its ``occurrence`` there, from 0."""

    module: str
    line: int
    column: int
    operator: str
    occurrence: int


class Mutant(NamedTuple):
    """One change to one module."""

    module: str
    line: int
    column: int
    operator: str
    source: str

    def __str__(self) -> str:
        operator = self.operator.partition("/")[2]
        return f"apns_live/{self.module}:{self.line}:{self.column} {operator}"


def places(module: str, draw: random.Random) -> Iterator[Place]:
    """Yield where a module can be changed: one of each family of operators at each place."""
    nodes = list(ast_nodes(get_ast_from_path(ROOT / "apns_live" / module)))
    found: dict[tuple[str, tuple[int, int]], list[tuple[str, int]]] = {}
    for name in sorted(operator_names()):
        if get_operator(name).arguments():
            continue  # it wants to know what to insert
        operator = get_operator(name)()
        every = (place for node in nodes for place in operator.mutation_positions(node))
        for occurrence, (start, _) in enumerate(every):
            found.setdefault((name.partition("_")[0], start), []).append((name, occurrence))
    for (_, (line, column)), choices in sorted(found.items()):
        yield Place(module, line, column, *draw.choice(choices))


def mutants(places: Iterable[Place]) -> Iterator[Mutant]:
    """Yield the mutants of these places. Some places have none."""
    for place in places:
        source = (ROOT / "apns_live" / place.module).read_text()
        changed = mutate_code(source, get_operator(place.operator)(), place.occurrence)
        # The operators take the `*` before keyword-only arguments for a product, and break the syntax.
        if changed is not None and _without_annotations(changed) not in {
            _without_annotations(source),
            None,
        }:
            yield Mutant(place.module, place.line, place.column, place.operator, changed)


class _Strip(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = []
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _without_annotations(source: str) -> str | None:
    """Return what a module says beside its annotations; None where it is no Python."""
    try:
        return ast.dump(_Strip().visit(ast.parse(source)))
    except SyntaxError:
        return None


_IMPORTS = ("alembic", "asyncpg", "cryptography.x509", "fastapi", "h2.connection", "httpx",
            "hypothesis.strategies", "prometheus_client", "pydantic", "pytest_asyncio", "rich.console",
            "sqlalchemy.ext.asyncio", "uvicorn", "xdist")  # fmt: skip
"""What the tests import from elsewhere."""


class _Called:
    """A pytest plugin: notes which tests call each function of a module, by its first line."""

    def __init__(self, module: Path) -> None:
        self._file = str(module)
        self.tests: dict[int, dict[str, None]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        def trace(frame: FrameType, event: str, argument: object) -> None:
            code = frame.f_code
            if code.co_filename == self._file:
                self.tests.setdefault(code.co_firstlineno, {})[item.nodeid] = None

        threading.settrace(trace)
        sys.settrace(trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]


def _run(folder: Path, words: list[str], seconds: float, called: tuple[Path, Path] | None) -> None:
    """Run tests in this process, a fork; ``called`` are the module to watch and the file to fill."""
    os.setsid()
    atexit._clear()  # what the parent cleans up is not ours
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds)))
    silent = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(silent, number)
    os.chdir(folder)
    sys.path[0] = str(folder)
    for name in [each for each in sys.modules if each.partition(".")[0] in ("apns_live", "tests")]:
        del sys.modules[name]
    # A mutant of the same size and second would be taken for its predecessor.
    sys.dont_write_bytecode = True
    os.environ |= {"APNS_LIVE_HYPOTHESIS_PROFILE": "ci", "PYTHONDONTWRITEBYTECODE": "1"}
    plugin = _Called(called[0]) if called else None
    basetemp = folder.parent / f"{folder.name}-pytest"
    status = pytest.main(
        [
            "-q",
            "-x",
            "-n",
            "0",
            "-p",
            "no:randomly",
            # The plugins are imported already.
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
            "-o",
            "timeout=120",
            "--basetemp",
            str(basetemp),
            *words,
        ],
        plugins=[plugin] if plugin else [],
    )
    if called and plugin:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        seconds = sum(each.ru_utime + each.ru_stime for each in used)
        tests = {at: list(names) for at, names in plugin.tests.items()}
        called[1].write_text(json.dumps({"tests": tests, "seconds": seconds}))
    atexit._run_exitfuncs()  # a forked process does not run them by itself
    os._exit(int(status != 0))


def _passes(
    folder: Path, words: list[str], seconds: float = 600.0, called: tuple[Path, Path] | None = None
) -> bool:
    """Run tests in a copy of the tree; return whether they pass with so many CPU seconds."""
    process = multiprocessing.get_context("fork").Process(
        target=_run, args=(folder, words, seconds, called)
    )
    process.start()
    process.join(60.0 + 20.0 * seconds)
    if process.is_alive():
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode == 0


def _first_line(source: str, line: int) -> int | None:
    """Return the first line of the innermost function around a line, as its code object has it."""
    found = None
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min(each.lineno for each in (node, *node.decorator_list))
            if first <= line <= (node.end_lineno or 0) and first >= (found or 0):
                found = first
    return found


class _Module:
    """The tests of a module: all of them, those that call each function, and their CPU seconds."""

    def __init__(self, folder: Path, module: str) -> None:
        self._all = MODULES[module].split()
        path = folder / "apns_live" / module
        self._source = path.read_text()
        report = folder.parent / f"{folder.name}-called.json"
        # A test may fail on a busy machine; it must not pass for one that notices everything.
        if not any(_passes(folder, self._all, called=(path, report)) for _ in range(2)):
            raise SystemExit(f"the tests of {module} fail without a mutant: {MODULES[module]}")
        told = json.loads(report.read_text())
        self._seconds = 10.0 + 3.0 * told["seconds"]
        self._called = {int(at): names for at, names in told["tests"].items()}

    def survives(self, folder: Path, mutant: Mutant) -> bool:
        """Return whether all tests pass with this change in a copy of the tree."""
        callers = self._called.get(_first_line(self._source, mutant.line) or 0)
        path = folder / "apns_live" / mutant.module
        path.write_text(mutant.source)
        try:
            if callers and not _passes(folder, callers, self._seconds):
                return False
            return _passes(folder, self._all, self._seconds)
        finally:
            path.write_text(self._source)


def main() -> int:
    """Return 1 when fewer than ``--bar`` percent of the mutants are noticed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, default=100, help="mutants in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which sample (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="at the same time (%(default)s)")
    parser.add_argument("--bar", type=float, default=0, help="percent that must be noticed")
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(MODULES)}; all if none is named")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    chosen = options.modules or list(MODULES)
    every = [place for module in chosen for place in places(module, draw)]
    draw.shuffle(every)
    sample = sorted(islice(mutants(every), options.sample))
    for each in _IMPORTS:
        importlib.import_module(each)
    with tempfile.TemporaryDirectory(prefix="apns-live-mutants-") as temporary:
        free: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.jobs):
            free.put(Path(shutil.copytree(ROOT, Path(temporary) / str(number), ignore=_LEFT_OUT)))

        def watched(module: str) -> _Module:
            folder = free.get()
            try:
                return _Module(folder, module)
            finally:
                free.put(folder)

        def survives(mutant: Mutant) -> bool:
            folder = free.get()
            try:
                return modules[mutant.module].survives(folder, mutant)
            finally:
                free.put(folder)

        noticed = dict.fromkeys(chosen, 0)
        with ThreadPoolExecutor(options.jobs) as executor:
            names = sorted({one.module for one in sample})
            modules = dict(zip(names, executor.map(watched, names), strict=True))
            for mutant, alive in zip(sample, executor.map(survives, sample), strict=True):
                if alive:
                    print(f"survived: {mutant}", flush=True)
                else:
                    noticed[mutant.module] += 1
    drawn = Counter(mutant.module for mutant in sample)
    print("| module | mutants | noticed |\n|---|---:|---:|")
    for module in sorted(drawn):
        print(f"| `{module}` | {drawn[module]} | {noticed[module]} |")
    share = 100 * sum(noticed.values()) / len(sample)
    print(f"{sum(noticed.values())} of {len(sample)} mutants noticed: {share:.1f} %")
    return 1 if share < options.bar else 0


if __name__ == "__main__":
    raise SystemExit(main())
