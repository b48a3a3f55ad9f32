"""The request pipeline of every API, from authentication to the answer.

::

    Paths.find -> authenticate (401, 403) -> limits (429) -> body (400, 413, 415) -> slot (503) -> handler

A `Face` is one API: its operations, how a caller presents its key, and the format of its errors. A handler
is a function of the call and of the parameters in its signature: parts of the path, ``body``, ``query``.
FastAPI's dependency injection is not used: it would cost an update call more than the update itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_type_hints

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Scope

from ..activities import Service
from ..activities.accept.idempotency import Key, Once
from ..activities.apps import App
from ..activities.checks import encodable
from ..activities.observed import CALL
from ..activities.times import milliseconds
from ..errors import BadBody, InvalidInput, NotAllowed
from .admission import Visit
from .bodies import check_depth, check_media_type, read_bytes
from .context import Gateway
from .credentials import Phone
from .keys import ApiKey
from .problems import JSON, Reply, classify, of_status, respond
from .reach import check_activity, check_stream
from .scopes import Dialect

Who = Literal["key", "phone", "anyone"]
Handler = Callable[..., Awaitable[Any]]
Told = TypeVar("Told", bound=msgspec.Struct)
_encode = msgspec.json.Encoder().encode


class Call:
    """One request on its way: who called, and what was said. ``said`` are headers of the answer."""

    def __init__(self, gateway: Gateway, operation: Operation, scope: Scope, visit: Visit) -> None:
        self.gateway = gateway
        self.operation = operation
        self.scope = scope
        self.visit = visit
        self.headers = visit.headers
        self.parts: dict[str, str] = scope["path_params"]
        self.caller: ApiKey | Phone | None = None
        self.body: Any = None
        self.query: Any = None
        self.said: dict[str, str] = {}

    @property
    def service(self) -> Service:
        """The service."""
        return self.gateway.service

    @property
    def request(self) -> Request:
        """The request as the framework has it."""
        return Request(self.scope, self.visit.receive)

    @property
    def app(self) -> App:
        """The app that the key or the phone belongs to."""
        return self.key.app if self.caller is None else self.caller.app

    @property
    def key(self) -> ApiKey:
        """The key. Raises `NotAllowed` where none is there."""
        if not isinstance(self.caller, ApiKey):
            raise NotAllowed(self.operation.face.no_key, status=401)
        return self.caller

    @property
    def phone(self) -> Phone:
        """The phone; only in operations that phones call."""
        if not isinstance(self.caller, Phone):
            raise NotAllowed("this call needs a device credential", status=401)
        return self.caller

    @property
    def now(self) -> int:
        """Milliseconds since 1970."""
        return milliseconds(self.gateway.clock)

    @property
    def address(self) -> str:
        """The address of the peer; of a proxy if there is one in between that is not trusted."""
        return self.visit.address

    def header(self, name: bytes) -> str:
        """Return a header by its name in small letters; empty without it."""
        return self.headers.get(name, b"").decode("latin-1")

    def secret(self) -> str:
        """Return what follows one of the API's schemes in ``Authorization``, or nothing."""
        scheme, _, secret = self.header(b"authorization").partition(" ")
        return secret.strip() if scheme.lower() in self.operation.face.schemes else ""

    def part(self, name: str) -> str:
        """Return a part of the path."""
        return self.parts[name]

    async def arrived(self, caller: ApiKey | Phone) -> None:
        """Set the authenticated caller. A call without a body takes its slot now. Raises `Busy`."""
        self.caller = caller
        if (named := CALL.get()) is not None:
            named.app = caller.app.id
        self.visit.app = caller.app.row
        if not self.visit.body:
            await self.visit.enter()

    async def find_key(self, secret: str) -> ApiKey | None:
        """Return the key of a secret that is not empty, or None."""
        return await self.gateway.keys.find(secret) if secret else None

    def refused(self) -> None:
        """Count a refusal of the address. Raises `TooManyRequests` after too many a minute."""
        most = self.gateway.settings.refused_per_minute
        with self.gateway.limits.enter_as(f"refused {self.address}", most):
            return

    def need(self, scope: str) -> None:
        """Raise `NotAllowed` unless the key has a scope."""
        if scope and not self.key.may(scope):
            raise NotAllowed(f"the key lacks the scope {scope}", missing=scope)

    def once(self, digest: bytes | None = None) -> Key | None:
        """Return the idempotency key of the request, if it has one. Raises `InvalidInput`.

        ``digest`` stands for what was asked, where the service cannot tell that by itself.
        """
        if b"idempotency-key" not in self.headers:
            return None
        given = self.header(b"idempotency-key")
        # The draft writes a structured field's string, in quotes; many clients write it bare.
        text = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
        if not 1 <= len(text) <= 255 or not text.isprintable() or not text.isascii():
            raise InvalidInput(
                "is not a string of 1 to 255 printable characters",
                field="Idempotency-Key",
                remedy="Give a fresh UUID for each request.",
            )
        return Key(caller=self.key.caller, key=text, digest=digest)

    def told(self, done: Once[Told]) -> Told:
        """Return the answer of the service; the caller is told of one that is said again."""
        if done.replayed:
            self.said["idempotent-replayed"] = "true"
        return done.answer

    async def note(self, action: str, subject: str, **detail: Any) -> None:
        """Write a line of the audit log."""
        caller = self.caller
        actor = f"key {caller.id}" if isinstance(caller, ApiKey) else f"device {self.phone.device}"
        await self.gateway.audit.note(
            self.app,
            actor=actor,
            action=action,
            subject=subject,
            detail=detail,
            address=self.address,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path, and its handler; `operation` makes it.

    ``scope`` is what the key needs, ``grouped`` lets keys call that are restricted to groups: what the
    path names is then checked here, what the body names in the handler. ``status``, ``answer`` (the
    type of its body, None for no body) and ``media`` are of the usual answer. ``takes`` maps the media
    types of a body that the handler reads itself to an example of each. What follows it is for the
    API's description alone; ``refusals`` are codes beside the common ones.
    """

    face: Face
    method: str
    path: str
    handler: Handler
    scope: str = ""
    who: Who = "key"
    grouped: bool = False
    arguments: tuple[str, ...] = ()
    body: Any = None
    body_required: bool = True
    decoder: msgspec.json.Decoder[Any] | None = None
    query: Any = None
    status: int = 200
    answer: Any = None
    media: str = JSON
    limit_bytes: int = 0
    takes: Mapping[str, str] = field(default_factory=dict)
    tag: str = ""
    summary: str = ""
    idempotent: bool = False
    refusals: Collection[int] = ()
    examples: Mapping[str, Any] = field(default_factory=dict)
    answer_examples: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The handler's name, which is unique in an API."""
        return self.handler.__name__

    @property
    def description(self) -> str:
        """What the handler says of itself."""
        return (self.handler.__doc__ or "").strip()

    async def serve(self, call: Call) -> Response:
        """Answer a call. Raises what the face then refuses."""
        gateway, face = call.gateway, self.face
        gateway.check_open()
        call.visit.check(call.scope["headers"])
        if self.who == "anyone":
            return await self._handle(call)
        await call.arrived(caller := await face.find(call))
        try:
            with gateway.limits.enter(caller):
                await face.check(call)
                return await self._handle(call)
        finally:
            face.after(call)

    async def _handle(self, call: Call) -> Response:
        if self.query is not None:
            call.query = _query(call.request, self.query)
        elif self.face.no_query and call.scope["query_string"]:
            raise InvalidInput("is unknown", field="query", remedy="This call takes no query.")
        if self.decoder is not None:
            call.body = await self._body(call, self.decoder)
        elif call.caller is not None and not self.takes:
            await call.visit.enter()
        given = {**call.parts, "body": call.body, "query": call.query}
        answer = await self.handler(call, *[given[name] for name in self.arguments])
        if isinstance(answer, Response):
            return answer
        if answer is None:
            return Reply(b"", self.status, {}, "")
        return Reply(_encode(answer), self.status, {}, self.media)

    async def _body(self, call: Call, decoder: msgspec.json.Decoder[Any]) -> Any:
        settings = call.gateway.settings
        body = await read_bytes(
            call.visit, self.limit_bytes or max(self.face.limit_bytes, settings.body_bytes)
        )
        if not body:
            if not self.body_required:
                return None
            raise BadBody("the body is empty, and this call needs one")
        if self.face.media_type:
            check_media_type(call.header(b"content-type"))
        check_depth(body, settings.depth)
        try:
            found = decoder.decode(body)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadBody(f"the body is not valid JSON: {error}"[:200]) from None
        except RecursionError:
            raise BadBody(f"the body is nested over {settings.depth} deep") from None
        if self.body is dict and not isinstance(found, dict):
            raise BadBody("the body is not a JSON object")
        return found


class Face:
    """One API. What differs between them is said here, once for each.

    ``schemes`` (small letters) may stand before a key. A key of another dialect is refused with 403,
    or, where the vendor has no words for that, as if it were none (``hides_others``). ``limit_bytes``
    is the largest body, if that is more than the settings allow; ``media_type``: a body must be declared
    as JSON; ``no_query``: a query that means nothing is an error.
    """

    dialect: ClassVar[Dialect]
    operations: Sequence[Operation] = ()
    call: ClassVar[type[Call]] = Call
    schemes: ClassVar[Collection[str]] = ("bearer",)
    no_key: ClassVar[str] = "this call needs an API key"
    hides_others: ClassVar[bool] = False
    limit_bytes: ClassVar[int] = 0
    media_type: ClassVar[bool] = True
    no_query: ClassVar[bool] = False

    def owns(self, path: str) -> bool:
        """Whether a path that no operation has is this API's, so that it refuses it."""
        raise NotImplementedError

    def refuse(self, error: Exception) -> Response:
        """Return the answer to an error. Nothing is shown of a defect."""
        raise NotImplementedError

    def absent(self, status: int) -> Response:
        """Return the answer to a path (404) or a method (405) that is not there."""
        raise NotImplementedError

    async def find(self, call: Call) -> ApiKey | Phone:
        """Return who calls. Raises `NotAllowed`, and `TooManyRequests` for an address that keeps trying."""
        key = await call.find_key(call.secret())
        if key is None or (self.hides_others and key.dialect != self.dialect):
            call.refused()
            raise NotAllowed(self.no_key, status=401)
        if key.dialect != self.dialect:
            raise NotAllowed(
                f"this key is for the {key.dialect} dialect: create one for {self.dialect}"
            )
        return key

    async def check(self, call: Call) -> None:
        """Raise `NotAllowed` or `NotFound` for what the caller may not do."""
        operation, caller = call.operation, call.caller
        if not isinstance(caller, ApiKey):
            return
        call.need(operation.scope)
        if caller.groups is not None:
            if not operation.grouped:
                raise NotAllowed(
                    "this key is restricted to groups, and this call is not about groups"
                )
            if (activity := call.parts.get("activity")) is not None:
                await check_activity(call.gateway, caller, activity)
            if (stream := call.parts.get("stream")) is not None:
                await check_stream(call.gateway, caller, stream)

    def after(self, call: Call) -> None:
        """Add to the headers of every answer to a caller that is known."""


class Paths:
    """Every operation, by path and method, and the faces of paths that no operation has.

    The first face that owns a path speaks for it.
    """

    def __init__(self, faces: Iterable[Face]) -> None:
        self._faces = tuple(faces)
        paths: dict[str, dict[str, Operation]] = {}
        for face in self._faces:
            for one in face.operations:
                methods = paths.setdefault(one.path, {})
                methods[one.method] = one
                if one.method == "GET":
                    methods["HEAD"] = one
        self._by_head: dict[str, list[tuple[Any, dict[str, Operation]]]] = {}
        for path, methods in paths.items():
            first, second = _heads(path)
            head = first if "{" in second else f"{first}/{second}"
            self._by_head.setdefault(head, []).append((compile_path(path)[0], methods))

    def find(self, scope: Scope, path: str) -> Operation | None:
        """Return the operation, and leave the parts of the path in the scope.

        Of a path that has other methods the scope tells which.
        """
        first, second = _heads(path)
        for head in (f"{first}/{second}", first):
            for pattern, methods in self._by_head.get(head, ()):
                if (found := pattern.match(path)) is None:
                    continue
                known = methods.get(scope["method"])
                scope["apns_live.route"] = next(iter(methods.values())).path
                if known is not None:
                    scope["path_params"] = found.groupdict()
                    return known
                scope.setdefault("apns_live.methods", ", ".join(sorted(methods)))
        return None

    def refuse(self, scope: Scope, path: str, error: Exception) -> Response:
        """Return the answer to an error outside of an operation, in the words of the path's API.

        Overload, an unknown path, a wrong method and a defect are met there. A vendor's client that
        gets another shape cannot read it.
        """
        status = error.status_code if isinstance(error, HTTPException) else 0
        headers = error.headers if isinstance(error, HTTPException) else None
        if status == 404 and (methods := scope.get("apns_live.methods")):
            status, headers = 405, {"allow": methods}
        for face in self._faces:
            if face.owns(path):
                answer = face.absent(status) if status in (404, 405) else face.refuse(error)
                break
        else:
            answer = respond(of_status(status) if status else classify(error))
        answer.headers.update(headers or {})
        return answer


def operation(face: Face, place: str, handler: Handler, **options: Any) -> Operation:
    """Return an operation. ``place`` is method and path; body, query and answer are as the handler declares."""
    method, _, path = place.partition(" ")
    names = tuple(inspect.signature(handler).parameters)[1:]
    hints = get_type_hints(handler, include_extras=True)
    if "body" in names:
        kind = hints["body"]
        optional = NoneType in get_args(kind)
        kind = get_args(kind)[0] if optional else kind
        if kind == dict[str, Any]:
            kind = dict  # checked by hand: what is none is a body that cannot be read
        options["decoder"] = msgspec.json.Decoder(Any if kind is dict else kind)
        options["body_required"] = not optional and kind is not Any
        options["body"] = kind
    if "query" in names:
        options["query"] = hints["query"]
    answer = options.setdefault("answer", None if hints["return"] is NoneType else hints["return"])
    options.setdefault("status", 204 if answer is None else 200)
    return Operation(
        face=face, method=method, path=path, handler=handler, arguments=names, **options
    )


def _heads(path: str) -> tuple[str, str]:
    parts = path.split("/", 3)
    return parts[1] if len(parts) > 1 else "", parts[2] if len(parts) > 2 else ""


def _query(request: Request, kind: Any) -> Any:
    given = request.query_params.multi_items()
    values = dict(given)
    if len(values) != len(given):
        raise InvalidInput("names something twice", field="query", remedy="Name each once.")
    for name, value in given:
        encodable(value, name)
    return msgspec.convert(values, kind, strict=False)
