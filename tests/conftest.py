"""What holds for every test: outside programs, what a skip means, hypothesis profiles."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests import warm
from tests.programs import OPTIONAL, PROGRAMS, find_program

if TYPE_CHECKING:
    from tests.activities.databases import Server

REQUIRE_EXTERNALS = os.environ.get("APNS_LIVE_REQUIRE_EXTERNALS", "") not in ("", "0")

# Example counts per profile. No deadlines: a shared machine is slow at times. `ci` draws the same
# examples in every run, so that a red run is the change's fault; `soak` looks for new ones.
hypothesis.settings.register_profile("default", deadline=None, max_examples=50)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=50, derandomize=True, database=None, print_blob=True
)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=2_000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("APNS_LIVE_HYPOTHESIS_PROFILE", "default"))

_absent_key = pytest.StashKey[dict[str, int]]()


def _programs_of(item: pytest.Item) -> list[str]:
    return [name for mark in item.iter_markers("external") for name in mark.args]


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in the background deaf to interrupts, and programs inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[_absent_key] = {}
    # No load balancer stands before the gateways of the tests.
    os.environ.setdefault("APNS_LIVE_GATEWAY_STOP_DELAY", "0")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    absent = config.stash[_absent_key]
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        names = _programs_of(item)
        if unknown := sorted(set(names) - set(PROGRAMS)):
            raise pytest.UsageError(f"{item.nodeid}: unknown external program {unknown}")
        missing = [name for name in names if find_program(name) is None]
        if missing and (not REQUIRE_EXTERNALS or OPTIONAL & set(missing)):
            deselected.append(item)
            for name in missing:
                absent[name] = absent.get(name, 0) + 1
        else:
            kept.append(item)
    if deselected:
        items[:] = kept
        config.hook.pytest_deselected(items=deselected)


def pytest_collection_finish(session: pytest.Session) -> None:
    del session
    # What no test here has imported need not be shared: to import it only for that takes half a second.
    if "sqlalchemy" in sys.modules:
        from tests import statements

        statements.share()
    if "httpx" in sys.modules:
        from tests import made_once

        made_once.share()
    # Modules and tests are a million objects that never go: no collection is to look at them again.
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = sorted({name for name in _programs_of(item) if find_program(name) is None})
    if missing:
        pytest.fail(f"needs {', '.join(missing)}, and outside programs are required in this run")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if REQUIRE_EXTERNALS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and in this run a skip is a failure: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if REQUIRE_EXTERNALS and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, and in this run a skip is a failure: {report.longrepr}"
    return report


# One of each for all rooms. Most tests need neither, so the imports wait.


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A PostgreSQL server of our own, with databases to borrow."""
    from tests.activities.databases import one_server

    with one_server(tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_address(postgres_server: Server) -> str:
    """The address of its first database, which nobody sets up."""
    return postgres_server.address


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the newest version, to be copied."""
    from tests.activities.databases import one_file

    return one_file(tmp_path_factory)


# Under pytest-xdist only the workers collect, so each hands what it left out to the controller.


def pytest_sessionfinish(session: pytest.Session) -> None:
    warm.stop()
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["absent_programs"] = session.config.stash[_absent_key]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    output: dict[str, dict[str, int]] = getattr(node, "workeroutput", {})
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    config.stash[_absent_key].update(output.get("absent_programs", {}))


def absent_line(absent: Iterable[tuple[str, int]]) -> str:
    """Return the one line that names what was not run, or an empty string."""
    parts = [f"{name} ({count} tests)" for name, count in sorted(absent)]
    return f"Not run, program absent here: {', '.join(parts)}" if parts else ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    line = absent_line(terminalreporter.config.stash[_absent_key].items())
    if line:
        terminalreporter.write_line(line)
