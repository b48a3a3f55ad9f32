"""The page and its data: the gateway's operations joined to what the fake's phones got, by apns-id.

The page itself has no key: its server asks the gateway and the fake over HTTP, and makes the sample
calls. It answers this machine only, under a name that means this machine.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from ...testing.control.security import HEADERS, refusal
from ...testing.listener import is_loopback
from .recording import Call, Recorder
from .samples import NAMES, STEPS, Demo

STATIC = Path(__file__).parent / "static"
FILES = {"": "index.html", "try.css": "try.css", "try.js": "try.js"}
_SECRETS = frozenset({"secret", "credential", "pem", "p8", "private_key"})
_SECRET = re.compile(
    r"-----BEGIN[^-]*PRIVATE KEY-----.*|\b(?:apnslive|apnsdev1|ask|braze|os_v2_app)[_.][\w.-]{16,}",
    re.DOTALL,
)
_HEADERS = {name.decode(): value.decode() for name, value in HEADERS}
_OPERATIONS = 60
_PUSHES = 400


class Page:
    """Serves ``/try``. ``url``, ``inspector`` and ``keys`` are set once everything listens."""

    def __init__(self, recorder: Recorder, app_id: str, segment: str, demo: Demo) -> None:
        self._recorder = recorder
        self._demo = demo
        self._app_id = app_id
        self._segment = segment
        self._keys: Mapping[str, str] = {}
        self._inspector = ""
        self._gateway = self._fake = httpx.AsyncClient()
        self._ready = False
        self._running: dict[str, str] = {}
        self._operations: list[dict[str, Any]] = []
        self._outcomes: dict[str, tuple[int, list[dict[str, Any]]]] = {}
        self._after = 0
        self._reading = asyncio.Lock()

    def open(self, url: str, inspector: str, keys: Mapping[str, str]) -> None:
        """Say where gateway and fake are."""
        self._keys = keys
        self._inspector = inspector
        self._gateway = httpx.AsyncClient(base_url=url, timeout=20, verify=False)  # noqa: S501 - ours
        self._fake = httpx.AsyncClient(base_url=inspector, timeout=20)
        self._ready = True

    async def aclose(self) -> None:
        """Close what was opened."""
        await self._gateway.aclose()
        await self._fake.aclose()

    async def answer(self, request: Request) -> Response:
        """Answer one request below ``/try``."""
        if request.client is None or not is_loopback(request.client.host):
            return _answer({"error": "this page is for the machine it runs on"}, 403)
        status, problem = refusal(request.method, request.headers)
        if problem:
            return _answer({"error": problem}, 415 if status == 415 else 403)
        name = request.path_params.get("name", "")
        if request.method == "GET" and name in FILES:
            return FileResponse(STATIC / FILES[name], headers=_HEADERS)
        if request.method == "GET" and name == "state":
            return _answer(await self._state())
        if request.method == "POST" and name == "send" and self._ready:
            return await self._send(request)
        return _answer({"error": "there is no such page"}, 404)

    async def _send(self, request: Request) -> Response:
        try:
            asked = json.loads((await request.body())[:1_000])
            vendor, step = asked["vendor"], asked["step"]
            if vendor not in NAMES or step not in STEPS:
                raise KeyError(vendor)
        except (ValueError, KeyError, TypeError):
            return _answer({"error": "name a vendor and a step"}, 400)
        if step == "start":
            self._running[vendor] = f"demo-{uuid.uuid4().hex[:8]}"
        one = self._sample(vendor, step)
        answer = await self._gateway.post(
            one.path,
            json=one.body,
            headers={"authorization": f"{one.authorization} {self._keys[vendor]}"},
        )
        if vendor == "activitysmith" and step == "start" and answer.is_success:
            self._running[vendor] = answer.json()["activity_id"]
        return _answer({"status": answer.status_code})

    def _sample(self, vendor: str, step: str) -> Any:
        activity = self._running.get(vendor, "start-one-first")
        return self._demo.sample(
            vendor, step, app=self._app_id, segment=self._segment, activity=activity
        )

    async def _state(self) -> dict[str, Any]:
        if not self._ready:
            return {"ready": False}
        async with self._reading:
            await self._read_operations()
            devices, pushes = await asyncio.gather(
                self._fake.get("/v1/devices", params={"automatic": "false", "limit": 20}),
                self._fake.get("/v1/pushes", params={"newest": 1, "payload": 1, "limit": _PUSHES}),
            )
            by_apns_id = {push["apns_id"]: push for push in pushes.json()["items"]}
            return {
                "ready": True,
                "inspector": self._inspector,
                "samples": {
                    vendor: {"name": NAMES[vendor], "steps": self._steps(vendor)}
                    for vendor in NAMES
                },
                "calls": [self._shown(call, by_apns_id) for call in reversed(self._recorder.calls)],
                "phones": devices.json()["items"],
            }

    def _steps(self, vendor: str) -> dict[str, Any]:
        shown = {}
        for step in STEPS:
            one = self._sample(vendor, step)
            shown[step] = {"method": "POST", "path": one.path, "body": one.body}
        return shown

    async def _read_operations(self) -> None:
        """Read new operations of the gateway, and the outcomes of those that have changed."""
        headers = {"authorization": f"Bearer {self._keys['native']}"}
        while True:
            page = (
                await self._gateway.get(
                    "/v1/operations", params={"after": self._after, "limit": 100}, headers=headers
                )
            ).json()
            self._operations = [*self._operations, *page["items"]][-_OPERATIONS:]
            if page["items"]:
                self._after = page["items"][-1]["row"]
            if page["next"] is None:
                break
        for index, known in enumerate(self._operations):
            path = f"/v1/operations/{known['id']}"
            settled, _ = self._outcomes.get(known["id"], (-1, []))
            if known["status"] not in ("done", "superseded", "failed"):
                known = (await self._gateway.get(path, headers=headers)).json()  # noqa: PLW2901
                self._operations[index] = known
            count = known["accepted"] + known["failed"]
            if count != settled:
                found = await self._gateway.get(f"{path}/outcomes", headers=headers)
                self._outcomes[known["id"]] = (count, found.json()["items"])
        kept = {known["id"] for known in self._operations}
        self._outcomes = {key: value for key, value in self._outcomes.items() if key in kept}

    def _shown(self, call: Call, pushes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        operations = []
        for known in self._operations:
            if not _belongs(known, call):
                continue
            _, outcomes = self._outcomes.get(known["id"], (0, []))
            operations.append(
                {
                    **{name: known[name] for name in ("kind", "status", "targeted", "queued")},
                    "pushes": [
                        {
                            "device": outcome["device"],
                            "status": outcome["status"],
                            "reason": outcome["reason"],
                            "apns_id": outcome["apns_id"],
                            "became": pushes.get(outcome["apns_id"]),
                        }
                        for outcome in outcomes
                    ],
                }
            )
        return {
            "number": call.number,
            "at": call.began,
            "vendor": NAMES[call.dialect],
            "dialect": call.dialect,
            "method": call.method,
            "path": call.path,
            "status": call.status,
            "took": max(0.0, call.ended - call.began),
            "request": _readable(call.request),
            "response": _readable(call.response),
            "operations": operations,
        }


def _belongs(operation: Mapping[str, Any], call: Call) -> bool:
    """Whether an operation was accepted during a call of its dialect."""
    at = datetime.fromisoformat(operation["created_at"]).timestamp()
    ended = call.ended or call.began + 60
    same: bool = operation["dialect"] == call.dialect
    return same and call.began - 0.002 <= at <= ended + 0.002


def _readable(data: bytes) -> Any:
    """Return a body for people to read, without the keys that it may hold."""
    try:
        return _shown_value(json.loads(data))
    except ValueError:
        return _shown_value(data.decode("utf-8", "replace"))


def _shown_value(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _shown_value(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [_shown_value(one, name) for one in value]
    if isinstance(value, str):
        return "<hidden>" if name in _SECRETS else _SECRET.sub("<hidden>", value)
    return value


def _answer(body: Any, status: int = 200) -> Response:
    return JSONResponse(body, status, headers=_HEADERS)
