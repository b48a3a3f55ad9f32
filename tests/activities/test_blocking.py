"""The service without ``await``: rooms, readers, threads, forks, and what is left open."""

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from apns_live.activities import AlertText, Audience, DeviceRecord, Presentation, Sealer, Start
from apns_live.activities.blocking import Service, upgrade
from apns_live.activities.store.sealing import new_key
from apns_live.errors import ActivitiesError, InvalidInput, NotFound, StoreError

REQUEST = Start(
    id="match-1",
    attributes_type="MatchAttributes",
    content_state={"home": 0},
    presentation=Presentation(alert=AlertText(title="Kick-off", body="It begins.")),
    audience=Audience(everyone=True),
    start_at=4_000_000_000,
)


@pytest.fixture
def address(tmp_path: Path) -> str:
    path = str(tmp_path / "service.db")
    assert upgrade(path) == upgrade(path)
    return path


def test_rooms_answer_without_await(address: str) -> None:
    with Service(address, sealing=Sealer(new_key())) as service:
        app = service.apps.create(name="Scores", bundle_id="com.example.scores", id="scores")
        assert service.apps.get("scores") == app
        assert service.devices.tell(app, [DeviceRecord(id="phone-1", language="en")]) == 1
        done = service.call(lambda inner: inner.activities.start(app, REQUEST))
        assert done.answer.status == "scheduled"
        pages = list(service.activities.history(app, "match-1"))
        assert [row["kind"] for page in pages for row in page] == ["start"]
        with service.activities.history(app, "match-1") as reader:
            assert len(next(reader)) == 1
        service.settled()
        assert service.statistics() is not None
        assert service.database.is_sqlite
        assert "Apps" in repr(service.apps)
        with pytest.raises(NotFound):
            service.apps.get("nobody")
        with pytest.raises(InvalidInput):
            service.apps.create(name="", bundle_id="com.example.scores")
        with pytest.raises(AttributeError):
            service.apps.no_such_thing()
    service.close()
    with pytest.raises(ActivitiesError, match="closed"):
        service.apps.get("scores")


def test_many_threads_share_one(address: str) -> None:
    service = Service(address, sealing=Sealer(new_key()))
    app = service.apps.create(name="Scores", bundle_id="com.example.scores", id="scores")

    def tell(number: int) -> str:
        service.devices.tell(app, [DeviceRecord(id=f"phone-{number}")])
        known: str = service.devices.get(app, f"phone-{number}")["id"]
        return known

    with ThreadPoolExecutor(16) as threads:
        assert sorted(threads.map(tell, range(64))) == sorted(f"phone-{n}" for n in range(64))
    service.close()


def test_a_database_that_is_not_set_up_is_said_at_once(tmp_path: Path) -> None:
    service = Service(tmp_path / "new.db", sealing=Sealer(new_key()))
    assert "not used yet" in repr(service)
    with pytest.raises(StoreError, match="store upgrade"), service:
        pass
    upgrade(tmp_path / "new.db")
    with service:
        assert service.apps.list() == []
        assert "open" in repr(service)


SCRIPT = """
    import os, sys, threading
    from apns_live.activities import Sealer
    from apns_live.activities.blocking import Service, upgrade
    from apns_live.activities.store.sealing import new_key
    from apns_live.errors import ActivitiesError

    upgrade(sys.argv[1])
    upgrade(sys.argv[2])
    early = Service(sys.argv[1], sealing=Sealer(new_key()))
    used = Service(sys.argv[2], sealing=Sealer(new_key()))
    app = used.apps.create(name="A", bundle_id="com.example.a", id="a")

    # SQLite is at work when the process forks: the child would inherit its locks as they are.
    begun, forking, ended = threading.Event(), threading.Event(), []

    def work(file):
        begun.set()
        forking.wait()
        for _ in range(5_000_000):
            pass
        ended.append(True)

    async def visit(inner):
        async with inner.database.read() as connection:
            await (await connection.get_raw_connection()).driver_connection.visit(work)

    at_work = threading.Thread(target=used.call, args=(visit,))
    at_work.start()
    begun.wait()
    os.register_at_fork(before=forking.set)
    child = os.fork()
    if child == 0:
        assert ended == [True], "SQLite was still at work"
        assert early.apps.list() == []
        try:
            used.apps.get("a")
        except ActivitiesError as error:
            assert "before the fork" in str(error)
        else:
            os._exit(1)
        early.close()
        used.close()
        os._exit(0)
    at_work.join()
    assert os.waitpid(child, 0)[1] == 0
    assert used.apps.get("a") == app
    print("done")
"""


def test_made_before_a_fork_and_used_after_it(tmp_path: Path) -> None:
    # It ends with a service that nobody closed.
    done = subprocess.run(
        [
            sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning",
            "-c", textwrap.dedent(SCRIPT), str(tmp_path / "s.db"), str(tmp_path / "t.db"),
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
