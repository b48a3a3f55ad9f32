"""One request on its way through this dialect: who calls, what was sent, how it is answered."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ...activities import Service
from ...activities.accept.idempotency import Key
from ...activities.apps import App
from ...activities.times import milliseconds, to_text
from ...errors import NotAllowed
from ..bodies import read_json
from ..callers import Endpoint, guarded, idempotency_key, limited, refuse, secret_of
from ..context import Gateway
from ..credentials import HEAD, Phone
from ..keys import ApiKey
from ..problems import json_answer
from .dialect import DIALECT, DialectSettings, settings_of
from .refusals import answer_refusal

_NO_KEY = "Give a valid API key of this gateway in the header Authorization: Bearer ask_…"
_REPLAYED = "idempotent-replayed"
FOR_PHONES = "activities:read"
"""What a phone may do with its own credential instead of a key: draw its widgets."""


class Call:
    """A request whose key was found, is of this dialect, and may do what is asked.

    What only reads may be called by a phone as well, with its device credential: then there is no
    key.
    """

    def __init__(self, gateway: Gateway, request: Request, caller: ApiKey | Phone) -> None:
        self.gateway = gateway
        self.request = request
        self.app: App = caller.app
        self.body: Any = None
        self.headers: dict[str, str] = {}
        self.chosen: DialectSettings = settings_of(caller.app)
        self._caller = caller

    @property
    def service(self) -> Service:
        """The service."""
        return self.gateway.service

    @property
    def key(self) -> ApiKey:
        """The key. Raises `NotAllowed` where a phone called."""
        if not isinstance(self._caller, ApiKey):
            raise NotAllowed(_NO_KEY, status=401)
        return self._caller

    @property
    def lenient(self) -> bool:
        """Whether fields that nobody knows are ignored."""
        return self.chosen.unknown_fields == "ignore"

    @property
    def now(self) -> float:
        """Seconds since 1970."""
        return self.gateway.clock.time()

    @property
    def timestamp(self) -> str:
        """The time of the answer, as this dialect writes it."""
        return to_text(milliseconds(self.gateway.clock)) or ""

    def part(self, name: str) -> str:
        """Return a part of the path."""
        text: str = self.request.path_params[name]
        return text

    def once(self) -> Key | None:
        """Return the idempotency key, which this gateway takes beside the API. Raises `InvalidInput`.

        It stands for the request as it came: times and ids that are made of it do not count.
        """
        said = [self.request.method, self.request.url.path.removeprefix("/api"), self.body]
        digest = hashlib.sha256(msgspec.json.encode(said, order="deterministic")).digest()
        return idempotency_key(self.request, self.key, digest)

    def replayed(self, replayed: bool) -> None:
        """Say in the answer that it is an earlier one said again."""
        if replayed:
            self.headers[_REPLAYED] = "true"

    def base(self) -> str:
        """Return the address of this gateway as phones reach it; empty when it is not known.

        Never what the caller's Host says: phones would send their taps there.
        """
        return self.gateway.settings.public_url or self.gateway.address


Handler = Callable[[Call], Awaitable[dict[str, Any]]]


def route(gateway: Gateway, handler: Handler, *, scope: str, body: bool = True) -> Endpoint:
    """Return an endpoint: caller, scope, limits, body, the handler, and its answer or refusal."""

    async def respond(request: Request) -> Response:
        caller = await _caller(gateway, request, scope)
        with limited(gateway, caller):
            call = Call(gateway, request, caller)
            if body:
                call.body = await read_json(
                    request,
                    limit_bytes=gateway.settings.body_bytes,
                    max_depth=gateway.settings.depth,
                )
            return json_answer(await handler(call), 200, call.headers)

    return guarded(gateway, respond, answer_refusal)


async def _caller(gateway: Gateway, request: Request, scope: str) -> ApiKey | Phone:
    secret = secret_of(request)
    if scope == FOR_PHONES and secret.startswith(f"{HEAD}."):
        phone = await gateway.credentials.check(secret)
        if phone is not None:
            return phone
    key = await gateway.keys.find(secret) if secret else None
    if key is None:
        refuse(gateway, request)
        raise NotAllowed(_NO_KEY, status=401)
    if key.dialect != DIALECT:
        raise NotAllowed(f"This key speaks the API {key.dialect}: create one for {DIALECT}.")
    if not key.may(scope):
        raise NotAllowed(f"This key lacks the scope {scope}.", missing=scope)
    return key
