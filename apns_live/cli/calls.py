"""The Calls panel of the inspector: stores a gateway's last calls, and makes calls for the page.

The page has no API key. This module adds the key to the calls that it makes, and hides keys in what it
shows. The inspector's security check allows only this machine and the page's own origin.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from ..contracts import Contract

KEPT = 100
SAMPLES: dict[str, Any] = json.loads(Path(__file__).with_name("samples.json").read_text("utf-8"))
_SHOWN_BYTES = 8_192
# Calls of the simulated phones, and the one that returns FCM's access tokens.
_NOT_SHOWN = ("/v1/device", "/token", "/v1/tokens")
_SECRETS = frozenset({"secret", "credential", "pem", "p8", "private_key", "access_token"})
_SECRET = re.compile(
    r"-----BEGIN[^-]*PRIVATE KEY-----.*|\b(?:apnslive|apnsdev1|ask|braze|os_v2_app)[_.][\w.-]{16,}",
    re.DOTALL,
)
_APIS = {
    "activitysmith": re.compile(r"(/api)?/(live-activity|push-notification|badge|metrics/)"),
    "braze": re.compile(r"/messages/"),
    "onesignal": re.compile(r"(/api/v1)?/(apps/|notifications)"),
    "fcm": re.compile(r"/v1/projects/"),
}


def api_of(path: str) -> str:
    """Return the name of the API that a path belongs to."""
    return next((name for name, paths in _APIS.items() if paths.match(path)), "native")


def demo_values(contract: Contract | None = None) -> dict[str, Any]:
    """Return the values of the samples: the demo's order, or values that the contract accepts."""
    values = dict(SAMPLES["demo"])
    if contract is not None and contract.names:
        from ..contracts.generate import example

        chance = random.Random(1)  # noqa: S311 - the same values each time
        found = contract.types[contract.names[0]]
        states = {step: example(found.state.shape, chance) for step in values["states"]}
        attributes = example(found.attributes.shape, chance)
        values |= {"type": contract.names[0], "states": states, "attributes": attributes}
    return values


class Calls:
    """An ASGI application in front of the gateway's; ``routes`` are the page's part of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._numbers = itertools.count(1)
        self._calls: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._setup: dict[str, Any] | None = None
        self._keys: Mapping[str, str] = {}
        self._gateway = httpx.AsyncClient(timeout=20, verify=False)  # noqa: S501 - ours
        self.aclose = self._gateway.aclose
        self.routes = [
            Route("/gateway", lambda _: JSONResponse(self._setup)),
            Route("/gateway/calls", self._shown),
            Route("/gateway/send", self._send, methods=["POST"]),
        ]

    def open(self, url: str, keys: Mapping[str, str], values: Mapping[str, Any]) -> None:
        """Set the gateway's URL, its keys by API, and the values for the samples."""
        self._keys, self._gateway.base_url = keys, httpx.URL(url)
        self._setup = {"url": url, "apis": SAMPLES["apis"], "values": values}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of the gateway, and store it with its answer unless it only reads."""
        if (
            scope["type"] != "http"
            or scope["method"] in ("GET", "HEAD", "OPTIONS")
            or scope["path"].startswith(_NOT_SHOWN)
        ):
            await self._app(scope, receive, send)
            return
        # Times are seconds since 1970. No header is kept, so no key is.
        call: dict[str, Any] = {
            "number": next(self._numbers),
            "at": time.time(),
            "ended": None,
            "api": api_of(scope["path"]),
            "method": scope["method"],
            "path": scope["path"],
            "request": b"",
            "status": 0,
            "response": b"",
        }
        self._calls.append(call)

        def keep(name: str, message: Message) -> Message:
            call["status"] = message.get("status", call["status"])
            if len(call[name]) < _SHOWN_BYTES:
                call[name] += bytes(message.get("body", b""))[:_SHOWN_BYTES]
            return message

        async def take() -> Message:
            return keep("request", await receive())

        async def answer(message: Message) -> None:
            await send(keep("response", message))

        try:
            await self._app(scope, take, answer)
        finally:
            call["ended"] = time.time()

    async def _shown(self, request: Request) -> Response:
        after = request.query_params.get("after", "")
        newer = int(after) if after.isdecimal() else 0
        calls = [call for call in self._calls if call["number"] > newer]
        bodies = ("request", "response")
        return JSONResponse(
            [call | {name: readable(call[name]) for name in bodies} for call in calls]
        )

    async def _send(self, request: Request) -> Response:
        try:
            asked = await request.json()
            api, method, path, body = (asked[name] for name in ("api", "method", "path", "body"))
            # A path cannot name another host, so the key is sent only to this gateway.
            raw_path = b"/" + path.encode("ascii").lstrip(b"/")
            url = self._gateway.base_url.copy_with(raw_path=raw_path)
            scheme = SAMPLES["apis"][api].get("scheme", "Bearer")
            headers = {"authorization": f"{scheme} {self._keys[api]}"}
            headers["content-type"] = "application/json"
            sent = self._gateway.build_request(method, url, content=body, headers=headers)
        except (ValueError, KeyError, TypeError, AttributeError, httpx.InvalidURL):
            return JSONResponse({"error": "name an api, a method, a path and a body"}, 400)
        answer = await self._gateway.send(sent)
        return JSONResponse({"status": answer.status_code, "body": readable(answer.content)})


def readable(data: bytes) -> Any:
    """Return a readable body, without the keys that it may contain."""
    try:
        return _without_keys(json.loads(data))
    except ValueError:
        return _without_keys(data.decode("utf-8", "replace"))


def _without_keys(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _without_keys(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_keys(one, name) for one in value]
    if isinstance(value, str):
        return "<hidden>" if name in _SECRETS else _SECRET.sub("<hidden>", value)
    return value
