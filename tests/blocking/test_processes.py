"""The blocking client through fork, interrupt and exit, in processes of their own."""

from __future__ import annotations

import http.client
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from apns_live.testing import Push, ThreadedFakeApns

from .conftest import finish

Program = Callable[..., "subprocess.Popen[str]"]


def connections(running: ThreadedFakeApns) -> list[int]:
    """How many pushes each connection brought, oldest first."""
    return [connection.accepted for connection in running.fake.connections]


def arrival(running: ThreadedFakeApns, prefix: str) -> threading.Event:
    """Return an event that is set when a push to such a token has reached the fake."""
    event = threading.Event()

    def look(happening: object) -> None:
        if isinstance(happening, Push) and happening.token.startswith(prefix):
            event.set()

    running.call(lambda fake: fake.listen(look))
    return event


def test_a_forked_child_has_its_own_loop_and_connection(
    running: ThreadedFakeApns, program: Program
) -> None:
    finish(program("fork.py"))
    # Parent: 1 + 10,000 + 1 on one connection, before and after the child; child: 20 + 500.
    assert connections(running) == [10_002, 520]
    assert running.fake.refusals.total == 0


def test_a_client_may_be_built_before_the_fork(running: ThreadedFakeApns, program: Program) -> None:
    finish(program("fork_unused.py"))
    assert connections(running) == [10, 10]
    assert len({push.apns_id for push in running.fake.pushes}) == 20


def test_forking_under_load_loses_nothing(running: ThreadedFakeApns, program: Program) -> None:
    finish(program("fork_busy.py"))
    assert sorted(connections(running)) == [5] * 8 + [1_200]
    assert len({push.apns_id for push in running.fake.pushes}) == 1_240


def test_a_pre_fork_server_pushes_from_every_worker(
    running: ThreadedFakeApns, program: Program
) -> None:
    process = program("prefork.py")
    assert process.stdout is not None
    port, *workers = process.stdout.readline().split()

    def ask(number: int) -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
        connection.request("POST", f"/{number:064x}")
        answer = connection.getresponse().read().decode().split()
        connection.close()
        return answer

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(240)))
    assert {verdict for _, verdict in answers} == {"accepted"}
    by_worker = Counter(worker for worker, _ in answers)
    assert by_worker.keys() <= set(workers)
    finish(process)
    # One connection for the parent, and one for each worker that had a request.
    assert len(connections(running)) == 1 + len(by_worker)
    assert sorted(connections(running)[1:]) == sorted(by_worker.values())
    assert connections(running)[0] == 2


@pytest.mark.parametrize("how", ["send", "fan_out"])
def test_an_interrupt_ends_the_wait_and_nothing_else(
    running: ThreadedFakeApns, program: Program, how: str
) -> None:
    running.call(lambda fake: fake.fault("withhold", token="0000dead"))
    arrived = arrival(running, "0000dead")
    process = program("interrupt.py", how)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert arrived.wait(30)
    process.send_signal(signal.SIGINT)
    assert finish(process) == "interrupted\ndone\n"


def test_the_end_of_the_program_waits_for_what_is_in_flight(
    running: ThreadedFakeApns, program: Program
) -> None:
    running.call(lambda fake: fake.fault("delay", token="0000de1a", delay=0.3))
    arrived = arrival(running, "0000de1a")
    process = program("exit.py")
    assert process.stdout is not None
    assert process.stdout.readline() == "sent\n"
    assert arrived.wait(30)
    finish(process)
    assert connections(running) == [2]
    assert [connection.state for connection in running.fake.connections] == ["closed"]
