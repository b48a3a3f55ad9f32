"""Taps on webhook buttons: from the phone's card to the webhook, through the relay."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from apns_live.activities.cards.buttons import WebhookRelay
from apns_live.activities.store import schema
from apns_live.gateway.settings import GatewaySettings
from tests.activities.conftest import Tls, tls  # noqa: F401 - fixture
from tests.gateway.activitysmith.world import SmithWorld

STEPS = {"title": "Job", "type": "segmented_progress", "number_of_steps": 4, "current_step": 1}


class Hook:
    """A webhook on loopback that answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
        self.port = 0

    def url(self, path: str = "/hold") -> str:
        return f"https://hooks.example:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((first, headers, body))
        writer.write(self.answer)
        await writer.drain()
        writer.close()


@pytest.fixture
async def hook(tls: Tls) -> AsyncIterator[Hook]:  # noqa: F811
    made = Hook()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls.server)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


async def loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def with_relay(world: SmithWorld, context: ssl.SSLContext, *, allowed: bool = True) -> None:
    await world.http.aclose()
    await world.serve(
        GatewaySettings(public_url="https://live.example/"),
        WebhookRelay(
            allow=frozenset({"hooks.example"} if allowed else ()),
            resolver=loopback,
            tls=context,
            clock=world.clock,
        ),
    )


async def tap(world: SmithWorld, url: str) -> Any:
    """Call as a phone does: without a key."""
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("https", "live.example")
    return await world.result_of(world.http.post(parts.path))


async def test_a_tap_calls_the_webhook(world: SmithWorld, hook: Hook, tls: Tls) -> None:  # noqa: F811
    await with_relay(world, tls.client)
    [phone] = await world.add_smith_phones(1)
    button = {"title": "Hold", "type": "webhook", "url": hook.url(), "body": {"job": 9}}
    said = await world.ok(
        "POST", "/live-activity/start", {"content_state": STEPS, "action": button}
    )
    shown = world.card(phone)["action"]
    assert "hooks.example" not in json.dumps(world.card(phone))
    answer = await tap(world, shown["url"])
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    [(first, headers, body)] = hook.requests
    assert first == "POST /hold HTTP/1.1"
    assert json.loads(body) == {"job": 9}
    assert headers["idempotency-key"]
    async with world.service.database.read() as connection:
        [call] = (
            await connection.execute(
                select(schema.webhook_calls, schema.activities.c.public_id).join(
                    schema.activities, schema.activities.c.id == schema.webhook_calls.c.activity_id
                )
            )
        ).all()
    assert (call.url_host, call.method, call.status) == ("hooks.example", "POST", 204)
    assert call.public_id == said["activity_id"]


async def test_a_tap_on_a_streams_card_and_on_a_notification(
    world: SmithWorld,
    hook: Hook,
    tls: Tls,  # noqa: F811
) -> None:
    await with_relay(world, tls.client)
    [phone] = await world.add_smith_phones(1)
    button = {"title": "Go", "type": "webhook", "url": hook.url("/go?x=1"), "method": "GET"}
    await world.ok(
        "PUT", "/live-activity/stream/job", {"content_state": STEPS, "secondary_action": button}
    )
    await tap(world, world.card(phone)["secondary_action"]["url"])
    await world.ok("POST", "/push-notification", {"title": "T", "actions": [button]})
    payload = json.loads(phone.notifications[-1].push.body)
    await tap(world, payload["actions"][0]["url"])
    assert [first for first, _, _ in hook.requests] == ["GET /go?x=1 HTTP/1.1"] * 2


async def test_taps_that_are_refused(world: SmithWorld, hook: Hook, tls: Tls) -> None:  # noqa: F811
    await with_relay(world, tls.client)
    [phone] = await world.add_smith_phones(1)
    button = {"title": "Hold", "type": "webhook", "url": hook.url()}
    await world.ok("POST", "/live-activity/start", {"content_state": STEPS, "action": button})
    url = world.card(phone)["action"]["url"]
    head, _, text = url.rpartition("/")
    for bad in ("x", "a.b", f"{text}x", text[:-4] + "AAAA", "A" * 3_000, text.split(".")[0]):
        answer = await tap(world, f"{head}/{bad}")
        assert answer.status_code == 404, bad
        assert answer.json()["error"] == "Action not found"
    assert (await world.result_of(world.http.get(urlsplit(url).path))).status_code == 405
    hook.answer = b"HTTP/1.1 302 Found\r\nlocation: https://e.com\r\nconnection: close\r\n\r\n"
    answer = await tap(world, url)
    assert answer.status_code == 502
    assert answer.json() == {
        "error": "Action failed",
        "message": "The webhook did not take the call.",
    }
    assert len(hook.requests) == 1


async def test_a_tap_expires(world: SmithWorld, hook: Hook, tls: Tls) -> None:  # noqa: F811
    await with_relay(world, tls.client)
    [phone] = await world.add_smith_phones(1)
    button = {"title": "Hold", "type": "webhook", "url": hook.url()}
    await world.ok("POST", "/live-activity/start", {"content_state": STEPS, "action": button})
    url = world.card(phone)["action"]["url"]
    world.gateway.clock = Later(world.clock, 24 * 3600 + 1)
    answer = await tap(world, url)
    assert answer.status_code == 410
    assert answer.json()["error"] == "Action expired"
    assert not hook.requests


async def test_a_button_cannot_reach_inside(world: SmithWorld, hook: Hook, tls: Tls) -> None:  # noqa: F811
    await with_relay(world, tls.client, allowed=False)
    [phone] = await world.add_smith_phones(1)
    button = {"title": "Hold", "type": "webhook", "url": hook.url()}
    await world.ok("POST", "/live-activity/start", {"content_state": STEPS, "action": button})
    answer = await tap(world, world.card(phone)["action"]["url"])
    assert answer.status_code == 502
    assert "127.0.0.1" not in answer.text
    assert not hook.requests


async def test_taps_are_limited(world: SmithWorld, hook: Hook, tls: Tls) -> None:  # noqa: F811
    await with_relay(world, tls.client)
    [phone] = await world.add_smith_phones(1)
    button = {"title": "Hold", "type": "webhook", "url": hook.url()}
    await world.ok("POST", "/live-activity/start", {"content_state": STEPS, "action": button})
    path = urlsplit(world.card(phone)["action"]["url"]).path
    answers = [await world.http.post(path) for _ in range(40)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= 9
    assert len(hook.requests) == 40 - len(refused)


class Later:
    """A clock some seconds ahead."""

    def __init__(self, clock: Any, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)

    def time(self) -> float:
        return float(self._clock.time()) + self._seconds
