"""ActivitySmith's own Node client, unchanged but for its base address, against the gateway."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.activitysmith.live import Live
from tests.programs import program

pytestmark = pytest.mark.external("node", "activitysmith-node")

SCRIPT = Path(__file__).parent / "node_client.js"
HOOK = {"title": "Hold", "type": "webhook", "url": "https://ops.example.com/hold", "body": {"a": 1}}
VALUE = {"content_state": {"title": "T", "type": "value", "value": "x"}}


class Node:
    """A node process with the client in it."""

    def __init__(self, live: Live, process: asyncio.subprocess.Process) -> None:
        self._live = live
        self._process = process

    async def _run(self, method: str, args: tuple[Any, ...], secret: str | None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = {
            "base": f"{self._live.url}/api",
            "secret": secret or self._live.secret,
            "method": method,
            "args": args,
        }
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        line = await self._process.stdout.readline()
        return json.loads(line)

    async def call(self, method: str, *args: Any, secret: str | None = None) -> Any:
        answer = await self._run(method, args, secret)
        assert "value" in answer, answer
        return answer["value"]

    async def refused(self, status: int, method: str, *args: Any, secret: str | None = None) -> Any:
        answer = await self._run(method, args, secret)
        assert answer.get("status") == status, answer
        assert isinstance(answer["body"]["error"], str)
        assert isinstance(answer["body"]["message"], str)
        return answer


@pytest.fixture
async def node(live: Live) -> AsyncIterator[Node]:
    modules = str(Path(program("activitysmith-node")).parent)
    process = await asyncio.create_subprocess_exec(
        program("node"),
        str(SCRIPT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": modules},
    )
    yield Node(live, process)
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


async def test_start_update_end(live: Live, node: Node) -> None:
    started = await node.call(
        "liveActivities.start",
        {
            "content_state": {
                "title": "Mirror",
                "type": "segmented_progress",
                "number_of_steps": 4,
                "current_step": 1,
            },
            "action": HOOK,
            "alert": {"title": "Mirror", "body": "begins"},
            "channels": ["demo"],
            "tags": ["nightly"],
        },
    )
    assert started["success"] is True
    assert started["devices_notified"] == 5
    assert started["effective_channel_slugs"] == ["demo"]
    activity = started["activity_id"]
    cards = await live.until(activity, lambda card: card["state"] == "active")
    assert all(card["content_state"]["action"]["url"].startswith(live.url) for card in cards)
    change = {"title": "Mirror", "current_step": 2}
    updated = await node.call(
        "liveActivities.update", {"activity_id": activity, "content_state": change}
    )
    assert updated["devices_notified"] + updated["devices_queued"] == 5
    await live.until(activity, lambda card: card["content_state"]["current_step"] == 2)
    final = {"title": "Mirror", "current_step": 4, "auto_dismiss_minutes": 0}
    ended = await node.call(
        "liveActivities.endLiveActivity",
        {"liveActivityEndRequest": {"activity_id": activity, "content_state": final}},
    )
    assert ended["success"] is True
    await live.until(activity, lambda card: card["state"] == "dismissed")


async def test_streams(live: Live, node: Node) -> None:
    def host(cpu: int) -> Any:
        metrics = [{"label": "CPU", "value": cpu, "unit": "%"}]
        return {"content_state": {"title": "Host", "type": "metrics", "metrics": metrics}}

    first = await node.call("liveActivities.stream", "host-2", host(9))
    assert first["operation"] == "started"
    same = await node.call("liveActivities.stream", "host-2", host(9))
    assert same["operation"] == "noop"
    changed = await node.call(
        "liveActivities.reconcileLiveActivityStream",
        {"streamKey": "host-2", "liveActivityStreamRequest": host(12)},
    )
    assert changed["operation"] == "updated"
    activity = first["activity_id"]
    await live.until(activity, lambda card: card["content_state"]["metrics"][0]["value"] == 12)
    ended = await node.call("liveActivities.endStream", "host-2")
    assert (ended["operation"], ended["activity_id"]) == ("ended", activity)
    await live.until(activity, lambda card: card["state"] == "ended")


async def test_notifications_badges_and_metrics(live: Live, node: Node) -> None:
    sent = await node.call(
        "notifications.send",
        {"title": "Build", "message": "runs", "actions": [HOOK], "channels": ["demo"]},
    )
    assert (sent["success"], sent["devices_notified"]) == (True, 5)
    [*pushes] = await live.pushes("Build")
    assert len({push["device"] for push in pushes}) == 5
    assert pushes[0]["payload"]["actions"][0]["url"].startswith(live.url)
    badge = await node.call("badgeCount", 3, {"channels": ["demo"]})
    assert (badge["badge"], badge["devices_updated"]) == (3, 5)
    assert (await node.call("metrics.update", "rate", 42))["success"] is True
    assert (await node.call("metrics.update", "rate", "42 %"))["success"] is True


async def test_every_refusal(live: Live, node: Node) -> None:
    await live.native.put("/v1/groups/empty", json={"name": "Empty"})
    bound = await live.key(groups=["empty"])
    start = "liveActivities.start"
    said = await node.refused(400, start, {"content_state": {"title": "T", "type": "pie"}})
    assert said["body"]["error"] == "Invalid content_state"
    await node.refused(401, start, VALUE, secret="ask_x")
    said = await node.refused(403, start, {**VALUE, "channels": ["demo"]}, secret=bound)
    assert said["body"]["error"] == "Invalid channel targeting"
    said = await node.refused(422, start, {**VALUE, "channels": ["empty"]})
    assert said["body"]["effective_channel_slugs"] == ["empty"]
    await node.refused(404, "liveActivities.update", {**VALUE, "activity_id": "nope"})
    await node.refused(404, "liveActivities.endStream", "nope")
    said = await node.refused(400, "liveActivities.stream", "a.b", VALUE)
    assert said["body"]["error"] == "Invalid stream_key"
    await live.configure(live_activities=1, metrics_on_demand=False)
    await node.refused(404, "metrics.update", "unmade", 1)
    await node.call(start, VALUE)
    said = await node.refused(429, start, VALUE)
    assert said["body"]["error"] == "Live Activity limit reached"
    narrow = await live.key(per_minute=1)
    await node.refused(404, "liveActivities.endStream", "nope", secret=narrow)
    said = await node.refused(429, "liveActivities.endStream", "nope", secret=narrow)
    assert said["body"]["code"] == "rate_limited"
    assert int(said["headers"]["retry-after"]) >= 1
