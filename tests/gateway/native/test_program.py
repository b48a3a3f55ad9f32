"""The command ``apns-live gateway`` as a program: ready line, phones, files, signals."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.warm import WarmCommand, run_command

START = {
    "id": "m1",
    "attributes_type": "DemoAttributes",
    "content_state": {"home": 0},
    "alert": {"title": "Kick-off", "body": "It begins"},
    "audience": {"segments": ["everyone"]},
}


@contextmanager
def program(
    *words: str, **environment: str
) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    process = WarmCommand(
        ["gateway", *words, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        yield json.loads(line), process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def ended(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out == ""
    return err


def test_gateway_fake_and_phones_together(tmp_path: Path) -> None:
    with program("--with-fake", "--dir", str(tmp_path)) as (ready, process):
        assert list(ready) == [
            "url",
            "inspector",
            "app_id",
            "onesignal_app_id",
            "bundle_id",
            "segment_id",
            "keys",
            "fcm",
            "fake",
        ]
        assert set(ready["keys"]) == {"native", "activitysmith", "braze", "onesignal"}
        assert {
            "endpoint",
            "manage",
            "ca_file",
            "key_file",
            "key_id",
            "team_id",
            "bundle_id",
        } <= set(ready["fake"])
        native = {"authorization": f"Bearer {ready['keys']['native']}"}
        with (
            httpx.Client(base_url=ready["url"], headers=native) as gateway,
            httpx.Client(base_url=ready["inspector"]) as fake,
        ):
            counted = gateway.post(
                "/v1/audience",
                json={
                    "audience": {"groups": ["demo"], "segments": [ready["segment_id"]]},
                    "attributes_type": "DemoAttributes",
                },
            ).json()
            assert (counted["devices"], counted["persons"], counted["reachable"]) == (5, 5, 5)
            assert gateway.post("/v1/activities", json=START).status_code == 202

            def shown(state: str, content: dict[str, int]) -> bool:
                cards = fake.get("/v1/activities").json()["items"]
                return [(one["state"], one["content_state"]) for one in cards] == [
                    (state, content)
                ] * 5

            def joined() -> bool:
                known: int = gateway.get("/v1/activities/m1").json()["devices"]
                return known == 5

            # The tokens of the cards come back by themselves, as from a real app.
            until(joined)
            update = {"content_state": {"home": 1}}
            assert gateway.post("/v1/activities/m1/update", json=update).json()["devices"] == 5
            until(lambda: shown("active", {"home": 1}))
            assert gateway.post("/v1/activities/m1/end").status_code == 202
            until(lambda: shown("ended", {"home": 1}))
        said = ended(process)
        for secret in ready["keys"].values():
            assert secret not in said


def test_the_embedded_defaults_are_private_and_stay(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with program("--dir", str(folder)) as (ready, process):
        assert ready["apps"] == []
        assert httpx.get(f"{ready['url']}/readyz").status_code == 200
        assert ended(process, signal.SIGINT) == ""
    for name in ("store.key", "live.db"):
        mode = stat.S_IMODE((folder / name).stat().st_mode)
        assert mode == 0o600, name
    key = (folder / "store.key").read_text()
    made = run_command(
        [
            "apps",
            "add",
            "--id",
            "scores",
            "--bundle-id",
            "com.example.scores",
            "--store",
            str(folder / "live.db"),
        ]
    )
    assert made.stdout.strip() == "scores"
    with program("--dir", str(folder)) as (ready, process):
        assert ready["apps"] == ["scores"]
        ended(process)
    assert (folder / "store.key").read_text() == key


def test_calls_are_taken_until_a_load_balancer_has_heard_of_the_end(tmp_path: Path) -> None:
    with program("--dir", str(tmp_path), "--stop-delay", "3600") as (ready, process):
        with httpx.Client(base_url=ready["url"]) as caller:
            assert caller.get("/readyz").status_code == 200
            process.send_signal(signal.SIGTERM)
            until(lambda: caller.get("/readyz").status_code == 503)
            assert "about to stop" in caller.get("/readyz").json()["detail"]
            assert caller.get("/v1/activities").status_code == 401
            # No caller keeps a connection that is going to close.
            until(lambda: caller.get("/healthz").headers.get("connection") == "close")
        ended(process)


def test_what_it_cannot_do_is_said_in_one_line(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        run = run_command(
            ["gateway", *words], env={**os.environ, "HOME": str(tmp_path)}, cwd=tmp_path
        )
        assert run.returncode == 2, run.stderr
        assert "Traceback" not in run.stderr
        return run.stderr

    assert "not a valid TCP port" in said("--port", "70000")
    assert "must be given together" in said("--certificate", "x.pem")
    assert "store upgrade" in said("--database", str(tmp_path / "empty.db"), "--dir", str(tmp_path))
    with program("--dir", str(tmp_path / "a")) as (ready, process):
        port = ready["url"].rpartition(":")[2]
        assert "cannot be listened on" in said("--port", port, "--dir", str(tmp_path / "b"))
        ended(process)
