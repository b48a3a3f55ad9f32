"""Break the modules that decide something, one small change at a time, and count what the tests notice.

``python -m tests.workshop.mutants --sample 400`` draws the same mutants for the same ``--seed``, with
cosmic-ray's operators, and runs each module's own tests on a copy of the tree. It prints each survivor
when it is known, and at the end a table of the modules; a survivor is a missing test or changes nothing
that can be seen. A change to annotations or to the decorators of classes alone is no mutant.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

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


def mutants(module: str, draw: random.Random) -> Iterator[Mutant]:
    """Yield the mutants of a module: one of each family of operators at each place."""
    path = ROOT / "apns_live" / module
    source = path.read_text()
    before = _without_annotations(source)
    nodes = list(ast_nodes(get_ast_from_path(path)))
    places: dict[tuple[str, tuple[int, int]], list[tuple[str, int]]] = {}
    for name in sorted(operator_names()):
        if get_operator(name).arguments():
            continue  # it wants to know what to insert
        operator = get_operator(name)()
        found = (place for node in nodes for place in operator.mutation_positions(node))
        for occurrence, (start, _) in enumerate(found):
            places.setdefault((name.partition("_")[0], start), []).append((name, occurrence))
    for (_, (line, column)), choices in sorted(places.items()):
        name, occurrence = draw.choice(choices)
        changed = mutate_code(source, get_operator(name)(), occurrence)
        # The operators take the `*` before keyword-only arguments for a product, and break the syntax.
        if changed is not None and _without_annotations(changed) not in {before, None}:
            yield Mutant(module, line, column, name, changed)


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


def _passes(folder: Path, module: str, timeout: float) -> bool:
    """Run a module's tests in a copy of the tree; return whether they pass in time."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:randomly"]
    command += [
        "--basetemp",
        str(folder.parent / f"{folder.name}-pytest"),
        *MODULES[module].split(),
    ]
    environment = {
        **os.environ,
        "APNS_LIVE_HYPOTHESIS_PROFILE": "ci",
        # A mutant of the same size and second would be taken for its predecessor.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(timeout) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        return False


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
    every = [mutant for module in chosen for mutant in mutants(module, draw)]
    sample = sorted(draw.sample(every, min(options.sample, len(every))))
    with tempfile.TemporaryDirectory(prefix="apns-live-mutants-") as name:
        free: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.jobs):
            free.put(Path(shutil.copytree(ROOT, Path(name) / str(number), ignore=_LEFT_OUT)))
        limits = _limits(Path(name) / "0", sorted({one.module for one in sample}))

        def survives(mutant: Mutant) -> bool:
            folder = free.get()
            target = folder / "apns_live" / mutant.module
            original = target.read_text()
            try:
                target.write_text(mutant.source)
                return _passes(folder, mutant.module, limits[mutant.module])
            finally:
                target.write_text(original)
                free.put(folder)

        noticed = dict.fromkeys(chosen, 0)
        with ThreadPoolExecutor(options.jobs) as executor:
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


def _limits(folder: Path, modules: list[str]) -> dict[str, float]:
    """Return how many seconds each module's tests may take; they must pass as they are."""
    limits = {}
    for module in modules:
        began = time.monotonic()
        if not _passes(folder, module, 600):
            raise SystemExit(f"the tests of {module} fail without a mutant: {MODULES[module]}")
        limits[module] = 30 + 5 * (time.monotonic() - began)
    return limits


if __name__ == "__main__":
    raise SystemExit(main())
