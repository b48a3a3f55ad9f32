"""Server-sent events, health, readiness, metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from apns_live.gateway import GatewaySettings
from apns_live.gateway.native.operations import numbers_of

from .conftest import Live


@pytest.fixture
def settings() -> GatewaySettings:
    return GatewaySettings(events=2, heartbeat=0.1)


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    kind = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            yield kind, json.loads(line[6:])
        elif line.startswith(":"):
            yield "heartbeat", None


async def test_an_activity_is_followed_to_its_end(live: Live) -> None:
    await live.add_phones(2)
    await live.start()
    await live.hand_in()
    seen: list[tuple[str, Any]] = []
    async with live.http.stream("GET", "/v1/activities/m1/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        async for kind, data in events(answer):
            if kind == "heartbeat":
                continue
            seen.append((kind, data))
            if len(seen) == 1:
                await live.http.post(
                    "/v1/activities/m1/update", json={"content_state": {"home": 1}}
                )
            if kind == "activity" and data["content_state"] == {"home": 1}:
                await live.http.post("/v1/activities/m1/end")
    assert seen[-1] == ("ended", {})
    states = [data["content_state"]["home"] for kind, data in seen if kind == "activity"]
    assert states[0] == 0
    assert states[-1] == 1
    assert states == sorted(states)
    await live.until(lambda: live.gateway.followers.total() == 0)


def test_ids_grow_beyond_those_of_another_replica() -> None:
    now = 5.0
    numbers = numbers_of(7_000, lambda: now)
    assert [next(numbers), next(numbers)] == [7_001, 7_002]
    now = 8.0
    assert [next(numbers), next(numbers)] == [8_000, 8_001]


async def test_an_operation_is_followed_until_it_is_done(live: Live) -> None:
    await live.add_phones(3)
    started = await live.start()
    last: dict[str, Any] = {}
    async with live.http.stream("GET", f"/v1/operations/{started['operation']}/events") as answer:
        async for kind, data in events(answer):
            if kind == "progress":
                last = data
            if kind == "done":
                break
    assert last["status"] == "done"
    assert last["accepted"] == 3


async def test_followers_are_bounded_and_leave(live: Live) -> None:
    await live.start()
    path = "/v1/activities/m1/events"
    async with live.http.stream("GET", path) as first, live.http.stream("GET", path):
        refused = await live.http.get(path)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        kinds = events(first)
        # A connection on which nothing happens is kept alive; a slow reading may be such a time.
        seen = {(await anext(kinds))[0]}
        while seen != {"activity", "heartbeat"}:
            seen.add((await anext(kinds))[0])
    await live.until(lambda: live.gateway.followers.total() == 0)
    async with live.http.stream("GET", path) as again:
        assert again.status_code == 200


async def test_a_question_for_the_head_of_a_stream_ends(live: Live) -> None:
    """HEAD has no body, so nobody may wait for one; the connection goes on."""
    started = await live.start()
    for path in ("/v1/activities/m1/events", f"/v1/operations/{started['operation']}/events"):
        for _ in range(3):
            answer = await live.http.head(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
    assert live.gateway.followers.total() == 0
    assert (await live.http.head("/v1/activities/none/events")).status_code == 404
    await live.until(lambda: live.gateway.admission.under_way == 0)


async def test_health_readiness_and_metrics(both: Live) -> None:
    async with both.caller() as anyone:
        assert (await anyone.get("/healthz")).json() == {"status": "alive"}
        assert (await anyone.get("/readyz")).json() == {"status": "ready"}
        await both.start()
        await both.service.settled()
        figures = (await anyone.get("/metrics")).text
        assert (
            'apns_live_http_answers_total{method="POST",route="/v1/activities",status="202"} 1.0'
            in figures
        )
        assert "apns_live_http_requests" in figures
        assert "m1" not in figures
        assert both.key not in figures


async def test_not_ready_without_the_database(live: Live) -> None:
    async def gone(*_: object) -> None:
        raise OSError("no route to host")

    lend = live.service.database._lent

    class Broken:
        def __init__(self, engine: object) -> None:
            pass

        async def __aenter__(self) -> None:
            await gone()

        async def __aexit__(self, *_: object) -> None:
            return None

    live.service.database._lent = Broken  # type: ignore[method-assign, assignment]
    try:
        async with live.caller() as anyone:
            assert (await anyone.get("/healthz")).status_code == 200
            answer = await anyone.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["code"] == "store_unavailable"
    finally:
        live.service.database._lent = lend  # type: ignore[method-assign]


async def test_a_client_that_goes_away_takes_nothing_with_it(live: Live) -> None:
    await live.start()

    async def impatient() -> None:
        async with live.caller(live.key) as caller:
            async with asyncio.timeout(0.003):
                await caller.post("/v1/activities/m1/update", json={"content_state": {}})

    results = await asyncio.gather(*(impatient() for _ in range(30)), return_exceptions=True)
    assert all(result is None or isinstance(result, TimeoutError) for result in results)
    answer = await live.http.post("/v1/activities/m1/update", json={"content_state": {"n": 1}})
    assert answer.status_code == 202
    await live.until(lambda: live.gateway.admission.under_way == 0)
