"""The header Idempotency-Key, which the gateway takes beside the API; and what repeats by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.gateway.activitysmith.world import SmithWorld

TIMER = {"content_state": {"title": "Tea", "type": "timer", "duration_seconds": 300}}
HOOK = {"title": "Stop", "type": "webhook", "url": "https://ops.example.com/stop"}


async def test_a_start_is_done_once(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    await world.configure(live_activities=1)
    once = {"idempotency-key": "k-1"}
    body = {**TIMER, "action": HOOK}
    first = await world.call("POST", "/live-activity/start", body, headers=once)
    assert "idempotent-replayed" not in first.headers
    await world.clock.advance(5)
    again = await world.call("POST", "/api/live-activity/start", body, headers=once)
    assert again.status_code == 200, "its own card does not stand in its way"
    assert again.headers["idempotent-replayed"] == "true"
    told = dict(first.json())
    said = again.json()
    told.pop("timestamp")
    said.pop("timestamp")
    assert said == told
    assert len(phone.activities) == 1
    other = {"content_state": {**TIMER["content_state"], "title": "Coffee"}}
    said = await world.refused(409, "POST", "/live-activity/start", other, headers=once)
    assert "another request" in said["message"]
    twin = await world.key()
    await world.configure(live_activities=None)
    await world.ok("POST", "/live-activity/start", body, headers=once, secret=twin)
    assert len(phone.activities) == 2, "keys of callers are apart"


async def test_every_write_is_done_once(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    started = await world.ok("POST", "/live-activity/start", TIMER)
    await world.tokens()
    about = {"activity_id": started["activity_id"], **TIMER}
    sent = await world.ok("POST", "/push-notification", {"title": "T"})
    await world.ok("PUT", "/live-activity/stream/a", TIMER)
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/live-activity/update", about),
        ("POST", "/live-activity/end", about),
        ("PUT", "/live-activity/stream/tea", TIMER),
        ("DELETE", "/live-activity/stream/a", None),
        ("POST", "/push-notification", {"title": "once"}),
        ("PUT", f"/push-notification/{sent['notification_id']}", {"title": "twice"}),
        ("POST", "/badge", {"badge": 3}),
    ]
    for number, (method, path, body) in enumerate(calls):
        headers = {"idempotency-key": f"key-{number}"}
        first = await world.call(method, path, body, headers=headers)
        before = len(world.fake.pushes)
        await world.clock.advance(3)
        again = await world.call(method, path, body, headers=headers)
        assert (first.status_code, again.status_code) == (200, 200), (path, again.text)
        assert again.headers.get("idempotent-replayed") == "true", path
        known, said = first.json(), again.json()
        for answer in (known, said):
            answer.pop("timestamp")
        assert said == known, path
        await world.settled()
        assert len(world.fake.pushes) == before, path
    assert phone.notifications


async def test_two_at_the_same_moment(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    headers = {"authorization": f"Bearer {world.secret}", "idempotency-key": "both"}
    answers = await world.result_of(
        asyncio.gather(
            *(world.http.post("/live-activity/start", json=TIMER, headers=headers) for _ in "ab")
        )
    )
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len({answer.json()["activity_id"] for answer in answers}) == 1
    await world.settled()
    assert len(phone.activities) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
async def test_keys_that_cannot_be(world: SmithWorld, key: str) -> None:
    await world.add_smith_phones(1)
    await world.refused(
        400, "POST", "/live-activity/start", TIMER, headers={"idempotency-key": key}
    )


async def test_eight_first_puts_start_one_activity(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    headers = {"authorization": f"Bearer {world.secret}"}
    path = "/live-activity/stream/race"
    body = {"content_state": {"title": "R", "type": "value", "value": 1}, "action": HOOK}
    answers = await world.result_of(
        asyncio.gather(*(world.http.put(path, json=body, headers=headers) for _ in range(8)))
    )
    operations = sorted(answer.json()["operation"] for answer in answers)
    assert operations == ["noop"] * 7 + ["started"]
    assert len(phone.activities) == 1


async def test_an_unsettled_start_still_answers(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    await world.configure(answer_wait=0.0)
    said = await world.ok("POST", "/live-activity/start", TIMER)
    assert said["success"] is True
    assert said["message"] == "The start is still being sent."
    assert said["devices_notified"] == 0
    await world.until(lambda: phone.activities)
