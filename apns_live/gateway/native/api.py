"""What a route of the native API is made of: who may call it, its body, its answers, its words.

A route is a small function; everything that is the same for all of them (key, scope, limits, body,
errors) happens here. Routes are bare ASGI: the framework's dependency machinery would cost an
update call more than the update itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...activities.accept.idempotency import Key
from ...activities.apps import App
from ...activities.checks import encodable
from ...errors import BadBody, InvalidInput, NotAllowed, NotFound
from ..admission import enter_now
from ..bodies import check_depth, check_media_type, read_bytes
from ..callers import address_of, idempotency_key, limited, refuse, secret_of
from ..context import Gateway
from ..credentials import HEAD, Phone
from ..keys import ApiKey
from ..problems import classify, respond

if TYPE_CHECKING:
    from ...activities import Service

Who = Literal["key", "phone", "anyone"]
JSON = "application/json"
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer with a body to be written as JSON (None: no body)."""

    body: Any = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Call:
    """One request on its way: who called, and what was said."""

    __slots__ = ("_phone", "body", "gateway", "key", "operation", "query", "request")

    def __init__(self, gateway: Gateway, operation: Operation, request: Request) -> None:
        self.gateway = gateway
        self.operation = operation
        self.request = request
        self.key: ApiKey | None = None
        self._phone: Phone | None = None
        self.body: Any = None
        self.query: Any = None

    @property
    def service(self) -> Service:
        """The service."""
        return self.gateway.service

    @property
    def app(self) -> App:
        """The app that the key or the phone belongs to."""
        return self.caller.app if self._phone is None else self._phone.app

    @property
    def caller(self) -> ApiKey:
        """The key; only in routes that ask for one."""
        if self.key is None:
            raise NotAllowed("this call needs an API key", status=401)
        return self.key

    @property
    def phone(self) -> Phone:
        """The phone; only in routes that phones call."""
        if self._phone is None:
            raise NotAllowed("this call needs a device credential", status=401)
        return self._phone

    def with_phone(self, phone: Phone) -> None:
        """Take the phone that called."""
        self._phone = phone

    @property
    def paging(self) -> dict[str, Any]:
        """Where the caller wants to read on, and how much: arguments of the service's lists."""
        return {"after": self.query.after, "limit": self.query.limit}

    def part(self, name: str) -> str:
        """Return a part of the path. Raises `NotFound` for what cannot be an id."""
        text: str = self.request.path_params[name]
        if not text or not text.isprintable() or len(text) > 255:
            raise NotFound(f"there is no such {name}")
        return text

    def once(self) -> Key | None:
        """Return the idempotency key of the request. Raises `InvalidInput` for one that cannot be."""
        return idempotency_key(self.request, self.caller)

    async def note(self, action: str, subject: str, **detail: Any) -> None:
        """Write a line of the audit log."""
        actor = f"device {self.phone.device}" if self.key is None else f"key {self.key.id}"
        await self.gateway.audit.note(
            self.app,
            actor=actor,
            action=action,
            subject=subject,
            detail=detail,
            address=address_of(self.request),
        )


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A route. ``answers`` maps a status to the type of the body (None: no body); the first is usual.

    ``grouped``: keys that are restricted to groups may call it, and the handler looks to that.
    ``media`` is the media type of the usual answer. ``refusals`` are codes beside the common ones.
    ``takes`` maps the media types of a body that the handler reads itself to an example of each.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    scope: str = ""
    who: Who = "key"
    body: Any = None
    body_required: bool = True
    query: Any = None
    answers: Mapping[int, Any]
    idempotent: bool = False
    grouped: bool = False
    limit_bytes: int | None = None
    takes: Mapping[str, str] = field(default_factory=dict)
    media: str = JSON
    tag: str = ""
    description: str = ""
    examples: Mapping[str, Any] = field(default_factory=dict)
    answer_examples: Mapping[str, Any] = field(default_factory=dict)
    refusals: frozenset[int] = frozenset()

    @property
    def status(self) -> int:
        """The usual status."""
        usual: int = next(iter(self.answers))
        return usual


@cache
def _examples() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the bodies and answers that the description shows, by operation and then by name."""
    text = resources.files(__package__).joinpath("examples.json").read_bytes()
    found: dict[str, dict[str, dict[str, Any]]] = msgspec.json.decode(text)
    return found


class Routes:
    """Collects the operations of one part of the API. ``scope`` is theirs where they name none."""

    def __init__(self, tag: str, *, scope: str = "") -> None:
        self.tag = tag
        self.scope = scope
        self.operations: list[Operation] = []

    def __call__(
        self,
        method: str,
        path: str,
        summary: str,
        *,
        answer: Any = None,
        status: int | None = None,
        **options: Any,
    ) -> Callable[[Handler], Handler]:
        """Return a decorator that makes the function the handler of a route.

        ``answer`` is the type of the usual answer's body, None for none. ``status`` is 200, or 204
        without a body, unless it is given.
        """
        usual = status or (204 if answer is None else 200)

        def add(handler: Handler) -> Handler:
            self.operations.append(
                Operation(
                    method=method,
                    path=path,
                    name=handler.__name__,
                    summary=summary,
                    handler=handler,
                    tag=self.tag,
                    description=(handler.__doc__ or "").strip(),
                    answers={usual: answer},
                    examples=_examples().get(handler.__name__, {}).get("body", {}),
                    answer_examples=_examples().get(handler.__name__, {}).get("answer", {}),
                    **{"scope": self.scope, **options},
                )
            )
            return handler

        return add


class Endpoint:
    """One operation as an ASGI app."""

    def __init__(self, gateway: Gateway, operation: Operation) -> None:
        self._gateway = gateway
        self._operation = operation
        self._decoder = None if operation.body is None else msgspec.json.Decoder(operation.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        scope["apns_live.route"] = self._operation.path  # the pattern, for metrics
        try:
            response = await self._respond(request)
        except Exception as error:
            found = classify(error)
            if found.status == 500:
                raise
            response = respond(found)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        gateway, operation = self._gateway, self._operation
        gateway.check_open()
        call = Call(gateway, operation, request)
        if operation.who == "anyone":
            return await self._handle(call)
        secret = secret_of(request)
        if operation.who == "phone":
            phone = await self._phone(call, secret)
            call.with_phone(phone)
            with limited(gateway, phone):
                return await self._handle(call)
        call.key = key = await self._key(call, secret)
        with gateway.limits.enter(key):
            return await self._handle(call)

    async def _key(self, call: Call, secret: str) -> ApiKey:
        gateway = self._gateway
        key = await gateway.keys.find(secret) if secret else None
        if key is None:
            refuse(gateway, call.request)
            if secret.startswith(f"{HEAD}."):
                raise NotAllowed(
                    "this is a device credential: phones call /v1/device only", status=401
                )
            raise NotAllowed(
                "give a valid API key as Authorization: Bearer KEY"
                if secret
                else "the header Authorization: Bearer KEY is missing",
                status=401,
            )
        operation = self._operation
        if key.dialect != "native":
            raise NotAllowed(f"this key is for the {key.dialect} dialect: create one for native")
        if operation.scope and operation.scope not in key.scopes:
            raise NotAllowed(f"the key lacks the scope {operation.scope}", missing=operation.scope)
        if key.groups is not None and not operation.grouped:
            raise NotAllowed("this key is restricted to groups, and this call is not about groups")
        return key

    async def _phone(self, call: Call, secret: str) -> Phone:
        phone = await self._gateway.credentials.check(secret) if secret else None
        if phone is None:
            refuse(self._gateway, call.request)
            raise NotAllowed(
                "give a device credential that has not ended: your server mints one at "
                "POST /v1/devices/{device}/credentials",
                status=401,
            )
        return phone

    async def _handle(self, call: Call) -> Response:
        operation = self._operation
        if operation.query is not None:
            call.query = _query(call.request, operation.query)
        elif call.request.url.query:
            raise InvalidInput("is unknown", field="query", remedy="This call takes no query.")
        if self._decoder is not None:
            call.body = await self._body(call.request)
        elif operation.who != "anyone" and not operation.takes:
            await enter_now()
        answer = await operation.handler(call)
        if isinstance(answer, Response):
            return answer
        if not isinstance(answer, Answer):
            answer = Answer(body=answer)
        status = answer.status or operation.status
        if answer.body is None:
            return Response(None, status, headers=dict(answer.headers))
        return Response(
            _encoder.encode(answer.body),
            status,
            headers=dict(answer.headers),
            media_type=operation.media,
        )

    async def _body(self, request: Request) -> Any:
        operation, settings = self._operation, self._gateway.settings
        limit = operation.limit_bytes or settings.body_bytes
        body = await read_bytes(request, limit_bytes=limit)
        if not body:
            if not operation.body_required:
                return None
            raise BadBody("the body is empty, and this call needs one")
        check_media_type(request)
        check_depth(body, settings.depth)
        try:
            return self._decoder.decode(body)  # type: ignore[union-attr]
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadBody(f"the body is no JSON: {error}"[:200]) from None
        except RecursionError:
            raise BadBody("the body is nested too deep") from None


def _query(request: Request, kind: Any) -> Any:
    given = request.query_params.multi_items()
    values = dict(given)
    if len(values) != len(given):
        raise InvalidInput("names something twice", field="query", remedy="Name each once.")
    for name, value in given:
        encodable(value, name)
    return msgspec.convert(values, kind, strict=False)
