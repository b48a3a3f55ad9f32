"""What every keyed call has in common: the key, its app, limits, the body, errors in their shape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...activities.apps import App
from ...errors import NotAllowed
from ..bodies import read_object
from ..callers import Endpoint, find_caller, guarded, is_named
from ..context import Gateway
from ..keys import ApiKey
from . import answers, words

SCHEMES = ("key", "bearer", "basic")
"""``Key`` is today's; older SDKs sent ``Bearer``, still older ones ``Basic``, each with the bare key."""
APP_SETTING = "onesignal_app_id"
MAX_BYTES = 4_194_304
"""20,000 ids of a target fit in. OneSignal publishes no figure."""


class Call:
    """One request with a valid key of the app in its address."""

    __slots__ = ("gateway", "key", "request")

    def __init__(self, gateway: Gateway, request: Request, key: ApiKey) -> None:
        self.gateway = gateway
        self.request = request
        self.key = key

    @property
    def app(self) -> App:
        """The key's app."""
        return self.key.app

    def part(self, name: str) -> str:
        """Return a part of the address."""
        text: str = self.request.path_params[name]
        return text

    def need(self, scope: str) -> None:
        """Raise `NotAllowed` unless the key has a scope."""
        need(self.key, scope)

    def need_whole(self, scope: str) -> None:
        """Raise `NotAllowed` unless the key has a scope, and for every group of the app."""
        need(self.key, scope)
        if self.key.groups is not None:
            raise NotAllowed("This API key is restricted to groups")

    async def body(self) -> dict[str, Any]:
        """Return the body, a JSON object. Raises `BadBody`."""
        return await read_body(self.gateway, self.request)


Do = Callable[[Call], Awaitable[Response]]


def need(key: ApiKey, scope: str) -> None:
    """Raise `NotAllowed` unless a key has a scope."""
    if not key.may(scope):
        raise NotAllowed(f"The API key lacks the scope {scope}", missing=scope)


async def read_body(
    gateway: Gateway, request: Request, *, limit_bytes: int | None = None
) -> dict[str, Any]:
    """Return the body, a JSON object. Raises `BadBody`."""
    return await read_object(
        request,
        limit_bytes=limit_bytes or max(MAX_BYTES, gateway.settings.body_bytes),
        max_depth=gateway.settings.depth,
    )


def keyed(gateway: Gateway, do: Do) -> Endpoint:
    """Return the endpoint of a call that needs an API key."""

    async def respond(request: Request) -> Response:
        key = await find_caller(gateway, request, "onesignal", SCHEMES)
        if key is None:
            raise NotAllowed(words.INVALID_KEY, status=401)
        with gateway.limits.enter(key):
            name = request.path_params.get("app_id") or request.query_params.get("app_id", "")
            if not is_named(key.app, name, APP_SETTING):
                raise NotAllowed(words.WRONG_APP)
            return await do(Call(gateway, request, key))

    return guarded(gateway, respond, answers.refuse)
