"""What no route meets is refused in the words of the API whose path it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from apns_live.gateway import Gateway, GatewaySettings, create_app
from apns_live.gateway.serving import serving

from .conftest import Live

FACES = {
    "native": "/v1/activities",
    "activitysmith": "/live-activity/start",
    "braze": "/messages/live_activity/start",
    "onesignal": "/apps/a/activities/activity/Match",
}
MORE = [
    ("activitysmith", "/api/live-activity/start"),
    ("activitysmith", "/api/nothing"),
    ("activitysmith", "/push-notification"),
    ("activitysmith", "/badge"),
    ("activitysmith", "/metrics/m"),
    ("activitysmith", "/api/metrics"),
    ("braze", "/messages/nothing"),
    ("onesignal", "/notifications"),
    ("onesignal", "/api/v1/apps/a/users"),
    ("onesignal", "/api/v1/players"),
    ("native", "/nothing"),
    ("native", "/metrics"),
    ("native", "/apples"),
    ("native", "/messages"),
]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")


def shape(answer: httpx.Response) -> str:
    """Say whose shape a refusal has."""
    body: Any = answer.json()
    if answer.headers["content-type"] == "application/problem+json":
        assert body["code"]
        return "native"
    assert answer.headers["content-type"] == "application/json"
    if "errors" in body and "message" not in body:
        assert isinstance(body["errors"], list)
        return "onesignal"
    return "activitysmith" if "error" in body and "message" in body else "braze"


@pytest.fixture
def settings() -> GatewaySettings:
    return GatewaySettings(requests=1, waiting_requests=0, body_bytes=1_024)


@pytest.fixture
async def faces(live: Live, settings: GatewaySettings) -> AsyncIterator[httpx.AsyncClient]:
    """The whole gateway, with every dialect, over the same service."""
    live.api = create_app(live.service, settings=settings)
    async with (
        serving(live.api, host="127.0.0.1", drain=1.0) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        yield http


async def test_an_overload_speaks_the_callers_language(
    live: Live, faces: httpx.AsyncClient
) -> None:
    gateway: Gateway = live.api.state.gateway
    gateway.admission.writes.under_way = 1  # as if one were served that does not end
    for name, path in FACES.items():
        key = await live.make_key(dialect=name)
        answer = await faces.post(
            path, content=b"x" * 100, headers={"authorization": f"Bearer {key}"}
        )
        assert (answer.status_code, shape(answer)) == (503, name), path
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-content-type-options"] == "nosniff"
        # Who is not known is told so, however much there is to do.
        assert (await faces.post(path, content=b"x" * 100)).status_code in {401, 403}
    assert (await faces.get("/healthz")).status_code == 200
    gateway.admission.writes.under_way = 0


async def test_what_is_not_there_speaks_it_too(live: Live, faces: httpx.AsyncClient) -> None:
    for name, path in [*FACES.items(), *MORE]:
        live.api.state.gateway.limits._states.clear()
        for method in METHODS:
            answer = await faces.request(method, path)
            assert answer.status_code in {200, 400, 401, 403, 404, 405}, (method, path)
            if answer.status_code in {404, 405} and method != "HEAD":
                assert shape(answer) == name, (method, path, answer.text)


async def test_a_large_body_and_a_defect_speak_it(
    live: Live, faces: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {
        name: await live.make_key(dialect=name)
        for name in ("native", "activitysmith", "braze", "onesignal")
    }

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the password is hunter2")

    for name, path in FACES.items():
        headers = {"authorization": f"Bearer {keys[name]}", "content-type": "application/json"}
        large = await faces.post(path, content=b" " * 5_000_000, headers=headers)
        assert (large.status_code, shape(large)) == (413, name)
        with monkeypatch.context() as patch:
            patch.setattr(live.api.state.gateway.keys, "find", broken)
            defect = await faces.post(path, content=b"{}", headers=headers)
        assert (defect.status_code, shape(defect)) == (500, name)
        assert "hunter2" not in defect.text


async def test_a_call_that_takes_too_long_is_told_so_by_each_api(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its deadline, whatever it waits for; also mounted, where each path begins elsewhere."""
    api = create_app(live.service, settings=GatewaySettings(call_seconds=0.0, body_seconds=0.0))
    let_go = asyncio.Event()

    async def slow(secret: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            let_go.set()

    monkeypatch.setattr(api.state.gateway.keys, "find", slow)
    whole = Starlette(routes=[Mount("/live", api), Mount("/", api)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(whole), base_url="http://x") as http:
        for mount in ("/live", ""):
            for name, path in [*FACES.items(), *MORE[:2]]:
                let_go.clear()
                answer = await http.post(
                    mount + path, json={}, headers={"authorization": "Bearer x"}
                )
                if answer.status_code != 404:
                    assert (answer.status_code, shape(answer)) == (503, name), path
                    assert answer.headers["retry-after"] == "5"
                    await let_go.wait()
    assert api.state.gateway.admission.under_way == 0


async def test_below_another_app_the_paths_are_the_same(live: Live) -> None:
    """Mounted, each path begins with where the app hangs."""
    api = create_app(live.service)
    whole = Starlette(routes=[Mount("/live", api)])
    transport = httpx.ASGITransport(whole)
    async with httpx.AsyncClient(transport=transport, base_url="http://x/live") as http:
        for name, path in FACES.items():
            answer = await http.request("BREW", path)
            assert (answer.status_code, shape(answer)) == (405, name)
