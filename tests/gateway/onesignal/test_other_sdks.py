"""OneSignal's own Node SDK and Rust crate against the gateway, judged by what arrives at the phones.

The base address is swapped by ``baseServer: new ServerConfiguration(url, {})`` and by
``Configuration { base_path: url, .. }``.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apns_live.gateway.onesignal.words import INVALID_KEY, NO_TARGET, RATE_LIMITED
from tests.gateway.braze.serving import served
from tests.gateway.braze.world import TYPE, VendorWorld
from tests.gateway.onesignal.caller import ACTIVITY, Sdk, change_body, start_body, without
from tests.programs import find_program, program

HERE = Path(__file__).parent


@pytest.fixture(
    params=[
        pytest.param("node", marks=pytest.mark.external("node", "onesignal-node")),
        pytest.param("rust", marks=pytest.mark.external("cargo", "onesignal-rust")),
    ]
)
def driver(request: pytest.FixtureRequest) -> list[str]:
    """The command that makes calls with the SDK of one language."""
    if request.param == "node":
        return [program("node"), str(HERE / "node_sdk.js")]
    crate = Path(program("onesignal-rust"))
    (crate / "src").mkdir(exist_ok=True)
    source = (HERE / "rust_sdk.rs").read_text()
    main = crate / "src" / "main.rs"
    if not main.exists() or main.read_text() != source:
        main.write_text(source)
    subprocess.run(
        [program("cargo"), "build", "--offline", "--quiet", "--release"],
        cwd=crate,
        check=True,
        timeout=600,
    )
    return [str(crate / "target" / "release" / "caller")]


@pytest.fixture
async def sdk(world: VendorWorld, driver: list[str]) -> AsyncIterator[Sdk]:
    """Make calls with the SDK, one after another, and return what each came to."""
    secret = await world.key("onesignal")
    async with served(world) as (host, port, run):

        async def call(*calls: dict[str, Any], key: str = secret) -> Any:
            given = json.dumps({"url": f"http://{host}:{port}", "key": key, "calls": calls})

            def work() -> Any:
                done = subprocess.run(
                    driver,
                    input=given.encode(),
                    capture_output=True,
                    timeout=60,
                    check=False,
                    env={**os.environ, "ONESIGNAL_SDK": find_program("onesignal-node") or ""},
                )
                assert done.returncode == 0, done.stderr.decode()
                return json.loads(done.stdout)

            return await run(work)

        yield call


def start(app: str = "scores", **changes: Any) -> dict[str, Any]:
    return start_with(start_body(**changes), app)


def start_with(body: Any, app: str = "scores") -> dict[str, Any]:
    return {
        "method": "startLiveActivity",
        "parts": [app, TYPE],
        "kind": "StartLiveActivityRequest",
        "body": body,
    }


def change(event: str = "update", activity: str = ACTIVITY, **changes: Any) -> dict[str, Any]:
    return {
        "method": "updateLiveActivity",
        "parts": ["scores", activity],
        "kind": "UpdateLiveActivityRequest",
        "body": change_body(event, **changes),
    }


async def test_from_start_to_end(world: VendorWorld, sdk: Sdk, driver: list[str]) -> None:
    # The crate writes a space as "+", which is a plus in a path.
    activity = "cup/final-1" if driver[0].endswith("caller") else "cup/final 1"
    *players, other = await world.add_users(3)
    [started] = await sdk(start(activity_id=activity))
    uuid.UUID(started["value"]["notification_id"])
    await world.shows(players, "active", home=0)
    await world.have_tokens(players)
    texts = {"contents": {"en": "1:0"}, "headings": {"en": "Goal"}, "ios_sound": "nil"}
    [updated] = await sdk(change(activity=activity, priority=10, **texts))
    assert updated["value"]["id"]
    await world.shows(players, "active", home=1)
    for phone in players:
        assert json.loads(phone.activities[-1].alert) == {"title": "Goal", "body": "1:0"}
    end = change("end", activity, event_updates={"home": 2}, dismissal_date=2_000_000_000)
    [ended] = await sdk(end)
    assert ended["value"]["id"]
    await world.shows(players, "ended", home=2)
    assert not other.activities


async def test_the_same_key_starts_once(world: VendorWorld, sdk: Sdk) -> None:
    [phone] = await world.add_users(1)
    given = start(idempotency_key=str(uuid.uuid4()))
    first, again = await sdk(given, given)
    assert first == again
    await world.shows([phone], "active", home=0)
    await world.settled()
    assert len(phone.activities) == 1


async def test_filters_and_subscriptions(world: VendorWorld, sdk: Sdk) -> None:
    phones = await world.add_users(3)
    await world.service.people.set_tags(world.app, "user", "user-1", {"level": "12"})
    body = without(start_body(), "include_aliases")
    level = {"field": "tag", "key": "level", "relation": ">", "value": "10"}
    results = await sdk(
        start_with({**body, "filters": [level]}),
        start_with(
            {**body, "include_subscription_ids": ["scores-2"], "activity_id": "for-the-third"}
        ),
    )
    assert all(result["value"]["notification_id"] for result in results)
    await world.shows(phones[1:], "active", home=0)
    await world.settled()
    assert not phones[0].activities


async def test_errors(world: VendorWorld, sdk: Sdk) -> None:
    [wrong_key] = await sdk(start(), key="os_v2_app_wrong")
    assert (wrong_key["status"], wrong_key["errors"]) == (403, [INVALID_KEY])
    [no_devices] = await sdk(start())
    assert no_devices["status"] == 400
    await world.add_users(1)
    body = without(start_body(), "include_aliases")
    no_target, wrong, other_app, unknown = await sdk(
        start_with(body), start(priority=7), start("other"), change(activity="unknown")
    )
    assert (no_target["status"], no_target["errors"]) == (400, [NO_TARGET])
    assert wrong["status"] == 400
    assert other_app["status"] == 403
    assert (unknown["status"], unknown["errors"]) == (404, ["activity_id not found in this app"])
    limited = await world.key("onesignal", per_minute=1)
    _, over = await sdk(change(), change(), key=limited)
    assert (over["status"], over["errors"]) == (429, [RATE_LIMITED])
    if "retryAfter" in over:  # the crate keeps no header of an answer
        assert int(over["retryAfter"]) >= 1
