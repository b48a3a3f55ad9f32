"""The core of the Django sketch: what it sends and which tokens it forgets. Its frame must compile."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

from apns_live.settings import Settings
from tests.examples.conftest import EXAMPLES, Fake, environment

FOLDER = EXAMPLES / "django_celery"


@pytest.fixture
def push(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = importlib.util.spec_from_file_location("push", FOLDER / "push.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "push", module)
    found.loader.exec_module(module)
    return module


def test_dead_tokens_come_back_and_the_others_are_counted(fake: Fake, push: ModuleType) -> None:
    phones = [fake.phone(attributes_types=["MatchAttributes"]) for _ in range(2)]
    cards = [
        fake.api.post(
            f"/v1/devices/{phone['id']}/activities",
            json={"attributes_type": "MatchAttributes", "attributes": {}, "content_state": {"home": 0}},
        )
        .raise_for_status()
        .json()["token"]
        for phone, _ in phones
    ]  # fmt: skip
    fake.api.post(f"/v1/tokens/{cards[0]}/kill", json={"as": "unregistered"}).raise_for_status()
    with Settings.load(file=fake.settings).blocking_client() as client:
        pushed = push.push_state(iter([*cards, cards[1], "nonsense"]), {"home": 71}, sender=client)
    assert (pushed.accepted, pushed.failed, pushed.dead) == (1, 1, [cards[0]])
    shown = fake.api.get("/v1/activities", params={"device": phones[1][0]["id"]}).json()["items"]
    assert shown[0]["content_state"] == {"home": 71}


def test_the_client_is_one_a_process(fake: Fake) -> None:
    code = (
        "import push; assert push.client() is push.client(); push.push_state(['ab' * 32], {'a': 1})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER, env=environment(fake), timeout=60, check=False
    )
    assert done.returncode == 0
    assert fake.next_push()["status"] == 200


@pytest.mark.parametrize("name", ["project.py", "push.py", "tasks.py"])
def test_every_file_compiles(name: str) -> None:
    compile((FOLDER / name).read_text(), name, "exec")
