"""What vendors' clients were recorded to say gets the recorded answers, and shows the same on the phones.

Among them are versions that cannot be installed beside today's. `recorder` makes the recordings.
"""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.gateway.quick import quick_phones  # noqa: F401 - the fixture
from tests.gateway.recorded.recorder import Names, gateway, phones, shape

RECORDINGS = sorted((Path(__file__).parents[3] / "fixtures" / "vendor_clients").glob("*.json"))
_DEPENDS = {"warning", "warnings", "message", "errors", "devices_queued", "users_notified"}
"""Fields of an answer that are there or not as pushes and tokens happen to be quick."""


def like(found: Any, recorded: Any) -> bool:
    """Whether an answer has the recorded fields of the recorded kinds."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        if (set(found) ^ set(recorded)) - _DEPENDS:
            return False
        return all(like(found[name], recorded[name]) for name in found.keys() & recorded.keys())
    if isinstance(recorded, list) and isinstance(found, list):
        return not (recorded and found) or like(found[0], recorded[0])
    return bool(found == recorded)


def until_shown(ready: dict[str, Any], names: Names, expected: Any) -> None:
    """Wait until the phones show what they showed."""
    give_up = time.monotonic() + 30
    while (shown := phones(ready, names)) != expected:
        assert time.monotonic() < give_up, shown
        time.sleep(0.05)


def replay(ready: dict[str, Any], names: Names, recording: dict[str, Any]) -> None:
    place = urlsplit(ready["url"])
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    try:
        for number, request in enumerate(recording["requests"]):
            if request["method"] == "DELETE" and "/token/" in request["path"]:
                # Who leaves gets nothing any more, and the recorded ones left when all was there.
                until_shown(ready, names, recording["phones"])
            headers = {name: names.show(value) for name, value in request["headers"].items()}
            body = names.show(request["body"]).encode()
            connection.request(
                request["method"], names.show(request["path"]), body or None, headers
            )
            answer = connection.getresponse()
            told = answer.read()
            where = f"{number} {request['method']} {request['path']}"
            assert answer.status == request["status"], f"{where}: {told!r}"
            said = json.loads(told) if told else None
            names.learn(number, said)
            assert like(shape(said), request["answer"]), f"{where}: {said}"
    finally:
        connection.close()


def test_there_are_recordings_of_both_vendors_in_both_languages() -> None:
    found = {path.stem for path in RECORDINGS}
    assert found >= {
        "activitysmith-node",
        "activitysmith-python",
        "activitysmith-python-0.1.0",
        "activitysmith-python-1.0.0",
        "onesignal-node",
        "onesignal-python",
        "onesignal-python-1.0.2",
        "onesignal-python-2.0.2",
    }


@pytest.mark.usefixtures("quick_phones")
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recorded_client_is_served(path: Path, tmp_path: Path) -> None:
    recording = json.loads(path.read_text())
    with gateway(tmp_path) as ready:
        names = Names(ready)
        replay(ready, names, recording)
        until_shown(ready, names, recording["phones"])
