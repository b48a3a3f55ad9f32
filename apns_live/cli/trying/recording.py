"""Keeps the last calls that a team's server made, as they went over the wire."""

from __future__ import annotations

import itertools
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEPT = 100
_SHOWN_BYTES = 8_192
_NOT_SHOWN = ("/try", "/v1/device", "/v1/tokens", "/healthz", "/readyz", "/metrics")


@dataclass(slots=True)
class Call:
    """One call. Times are seconds since 1970; no header is kept, so no key is."""

    number: int
    began: float
    method: str
    path: str
    dialect: str
    request: bytes = b""
    status: int = 0
    response: bytes = b""
    ended: float = 0.0


def dialect_of(path: str) -> str:
    """Return whose API a path belongs to."""
    path = path.removeprefix("/api")
    if path.startswith("/v1/") and not path.startswith(("/v1/apps/", "/v1/notifications")):
        return "native"
    if path.startswith("/messages/"):
        return "braze"
    if path.startswith(("/live-activity", "/push-notification", "/badge", "/metrics/")):
        return "activitysmith"
    if path.startswith(("/apps/", "/notifications", "/v1/apps/", "/v1/notifications")):
        return "onesignal"
    return "native"


class Recorder:
    """Wraps the gateway's app and listens."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._numbers = itertools.count(1)
        self.calls: deque[Call] = deque(maxlen=KEPT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, and keep what was said."""
        if (
            scope["type"] != "http"
            or scope["method"] in ("GET", "HEAD", "OPTIONS")
            or scope["path"].startswith(_NOT_SHOWN)
        ):
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        call = Call(next(self._numbers), time.time(), scope["method"], path, dialect_of(path))
        self.calls.append(call)

        async def take() -> Message:
            message = await receive()
            _keep(call, "request", message.get("body", b""))
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
            else:
                _keep(call, "response", message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, take, answer)
        finally:
            call.ended = time.time()


def _keep(call: Call, name: str, part: Any) -> None:
    held: bytes = getattr(call, name)
    if part and len(held) < _SHOWN_BYTES:
        setattr(call, name, (held + bytes(part))[:_SHOWN_BYTES])
