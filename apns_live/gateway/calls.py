"""The request pipeline of every API, from authentication to the answer.

::

    Paths.find -> authenticate (401, 403) -> limits (429) -> body (400, 413, 415) -> slot (503) -> handler

A `Face` is one API: its operations, how a caller presents its key, and the format of its errors. A handler
is a function of the call and of the parameters in its signature: parts of the path, ``body``, ``query``.
FastAPI's dependency injection is not used: it would cost an update call more than the update itself.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, ClassVar, Literal, TypeVar, get_type_hints

import msgspec
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Scope

from ..activities import Service
from ..activities.accept.idempotency import Key, Once
from ..activities.apps import App
from ..activities.checks import encodable
from ..activities.observed import CALL
from ..activities.times import milliseconds
from ..errors import BadBody, Busy, InvalidInput, NotAllowed
from .admission import Visit
from .context import Gateway
from .credentials import Phone
from .keys import ApiKey
from .problems import JSON, Reply, problem_of, respond
from .reach import check_activity
from .scopes import Dialect

Who = Literal["key", "phone", "anyone"]
Handler = Callable[..., Awaitable[Any]]
Told = TypeVar("Told", bound=msgspec.Struct)
_encode = msgspec.json.Encoder().encode
_DEEPER = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


class Call:
    """A running request: its caller and body. ``said`` has further headers for the answer."""

    def __init__(self, gateway: Gateway, operation: Operation, scope: Scope, visit: Visit) -> None:
        self.gateway = gateway
        self.operation = operation
        self.scope = scope
        self.visit = visit
        self.headers = visit.headers
        self.parts: dict[str, str] = scope["path_params"]
        self.caller: ApiKey | Phone | None = None
        self.body: Any = None
        self.said: dict[str, str] = {}

    @property
    def service(self) -> Service:
        """The service."""
        return self.gateway.service

    @property
    def params(self) -> QueryParams:
        """The parameters of the query."""
        return QueryParams(self.scope["query_string"])

    @property
    def app(self) -> App:
        """The app that the key or the phone belongs to."""
        return self.key.app if self.caller is None else self.caller.app

    @property
    def key(self) -> ApiKey:
        """The API key of the caller. Raises `NotAllowed` if the caller has none."""
        if not isinstance(self.caller, ApiKey):
            raise NotAllowed(self.operation.face.no_key, status=401)
        return self.caller

    @property
    def phone(self) -> Phone:
        """The phone that calls. Raises `NotAllowed` if the caller is not a phone."""
        if not isinstance(self.caller, Phone):
            raise NotAllowed("this call needs a device credential", status=401)
        return self.caller

    @property
    def now(self) -> int:
        """Milliseconds since 1970."""
        return milliseconds(self.gateway.clock)

    def header(self, name: bytes) -> str:
        """Return a header by its lower-case name, or an empty string."""
        return self.headers.get(name, b"").decode("latin-1")

    def secret(self) -> str:
        """Return the credential after one of the API's schemes in ``Authorization``, or ""."""
        scheme, _, secret = self.header(b"authorization").partition(" ")
        return secret.strip() if scheme.lower() in self.operation.face.schemes else ""

    async def arrived(self, caller: ApiKey | Phone) -> None:
        """Set the authenticated caller. A call without a body takes its slot now. Raises `Busy`."""
        self.caller = caller
        if (named := CALL.get()) is not None:
            named.app = caller.app.id
        self.visit.app = caller.app.row
        if not self.visit.body:
            await self.visit.enter()

    def refused(self) -> None:
        """Count a refusal for this address. Raises `TooManyRequests` at the limit per minute."""
        most = self.gateway.settings.refused_per_minute
        with self.gateway.limits.enter_as(f"refused {self.visit.address}", most):
            pass

    def need(self, scope: str) -> None:
        """Raise `NotAllowed` unless the key has a scope."""
        if scope and not self.key.may(scope):
            raise NotAllowed(f"the key lacks the scope {scope}", missing=scope)

    def once(self, digest: bytes | None = None) -> Key | None:
        """Return the idempotency key of the request, or None. Raises `InvalidInput`.

        ``digest`` identifies the request if the service cannot do that itself.
        """
        if b"idempotency-key" not in self.headers:
            return None
        given = self.header(b"idempotency-key")
        # A structured field's string is quoted; many clients leave the quotes out.
        text = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
        if not 1 <= len(text) <= 255 or not text.isprintable() or not text.isascii():
            problem = "is not a string of 1 to 255 printable characters"
            raise InvalidInput(problem, "Idempotency-Key", "Give a fresh UUID for each request.")
        return Key(caller=self.key.caller, key=text, digest=digest)

    def told(self, done: Once[Told]) -> Told:
        """Return the answer of the service. A header marks an answer that is replayed."""
        if done.replayed:
            self.said["idempotent-replayed"] = "true"
        return done.answer

    async def note(self, action: str, subject: str, **detail: Any) -> None:
        """Write a line of the audit log about an API key's call."""
        about = {"actor": f"key {self.key.id}", "action": action, "subject": subject}
        await self.gateway.audit.note(self.app, **about, detail=detail, address=self.visit.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path, and its handler. Made by `operation`.

    The key needs ``scope``. With ``grouped``, keys that are restricted to groups may call: `Face.check`
    checks the activity or stream in the path, and the handler checks the body. ``status``, ``answer``
    (the type of the body, or None) and ``media`` describe the usual answer. ``takes`` maps the media
    types of a body that the handler reads itself to examples. The fields below it are for the API's
    description only; ``refusals`` are status codes besides the common ones.
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
    body_default: Any = inspect.Parameter.empty
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

    async def serve(self, call: Call) -> Response:
        """Answer a call. The guard passes what it raises to the face."""
        gateway, face = call.gateway, self.face
        if not gateway.is_open:
            raise Busy("the gateway is starting or closing", retry_after=2.0)
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
        query = None
        if self.query is not None:
            given = call.params.multi_items()
            values = dict(given)
            if len(values) != len(given):
                raise InvalidInput("names something twice", "query", "Name each once.")
            for name, value in given:
                encodable(value, name)
            query = msgspec.convert(values, self.query, strict=False)
        elif self.face.no_query and call.scope["query_string"]:
            raise InvalidInput("is unknown", "query", "This call takes no query.")
        if self.decoder is not None:
            call.body = await self._body(call, self.decoder)
        elif call.caller is not None and not self.takes:
            await call.visit.enter()
        parts = {**call.parts, "body": call.body, "query": query}
        answer = await self.handler(call, *[parts[name] for name in self.arguments])
        if isinstance(answer, Response):
            return answer
        text, media = (b"", "") if answer is None else (_encode(answer), self.media)
        return Reply(text, self.status, {}, media)

    async def _body(self, call: Call, decoder: msgspec.json.Decoder[Any]) -> Any:
        settings = call.gateway.settings
        limit_bytes = self.limit_bytes or max(self.face.limit_bytes, settings.body_bytes)
        if not (body := await call.visit.body_of(limit_bytes)):
            if self.body_default is not inspect.Parameter.empty:
                return self.body_default
            raise BadBody("the body is empty, and this call needs one")
        media_type = call.header(b"content-type").partition(";")[0].strip().lower()
        is_json = media_type == "application/json" or media_type.endswith("+json")
        if self.face.media_type and not is_json:
            raise BadBody("the body is not declared as application/json", status=415)
        _check_depth(body, settings.depth)
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
    """One API: what differs between the APIs.

    ``schemes`` are the lower-case schemes of ``Authorization``. A key of another dialect is refused with 403,
    or with ``hides_others`` as an unknown key. ``limit_bytes`` is the maximum of a body if it is larger than
    the setting. With ``media_type`` a body must be declared as JSON, and with ``no_query`` an unexpected
    query is an error.
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
    paths: ClassVar[tuple[str, ...]] = ("",)

    def owns(self, path: str) -> bool:
        """Whether this API answers for a path without an operation: one that begins as its ``paths``."""
        return path.startswith(self.paths)

    def refuse(self, error: Exception) -> Response:
        """Return the answer to an error. The text of a defect is not shown to the caller.

        An `HTTPException` of 404 or 405 is for a path or a method that does not exist.
        """
        raise NotImplementedError

    async def find(self, call: Call) -> ApiKey | Phone:
        """Return the caller. Raises `NotAllowed`, and `TooManyRequests` at the limit of an address."""
        key = await call.gateway.keys.find(call.secret())
        if key is None or (self.hides_others and key.dialect != self.dialect):
            call.refused()
            raise NotAllowed(self.no_key, status=401)
        if key.dialect != self.dialect:
            text = f"this key is for the {key.dialect} dialect: create one for {self.dialect}"
            raise NotAllowed(text)
        return key

    async def check(self, call: Call) -> None:
        """Raise `NotAllowed` or `NotFound` if the caller may not make this call."""
        operation, caller = call.operation, call.caller
        if not isinstance(caller, ApiKey):
            return
        call.need(operation.scope)
        if caller.groups is not None:
            if not operation.grouped:
                text = "this key is restricted to groups, and this call is not about groups"
                raise NotAllowed(text)
            if (activity := call.parts.get("activity")) is not None:
                await check_activity(call.gateway, caller, activity)
            if (stream := call.parts.get("stream")) is not None:
                await check_activity(call.gateway, caller, stream, missing=True, stream=True)

    def after(self, call: Call) -> None:
        """Add headers to every answer to an authenticated caller."""


class Paths:
    """Every operation by path and method. The first face that owns another path answers for it."""

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
        """Return the operation. The scope gets the path's parts, or the names of its other methods."""
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
        """Return the answer to an unknown path, a wrong method, overload or a defect."""
        headers: Mapping[str, str] | None = None
        if isinstance(error, HTTPException):
            if error.status_code == 404 and (methods := scope.get("apns_live.methods")):
                error = HTTPException(405, headers={"allow": methods})
            headers = error.headers
        face = next((one for one in self._faces if one.owns(path)), None)
        answer = respond(problem_of(error)) if face is None else face.refuse(error)
        answer.headers.update(headers or {})
        return answer


def operation(face: Face, place: str, handler: Handler, **options: Any) -> Operation:
    """Return an operation. ``place`` is method and path; body, query and answer are the handler's.

    A body that has a default may be absent.
    """
    method, _, path = place.partition(" ")
    parameters = inspect.signature(handler).parameters
    names = tuple(parameters)[1:]
    hints = get_type_hints(handler, include_extras=True)
    if "body" in names:
        kind = hints["body"]
        if kind == dict[str, Any]:
            kind = dict  # checked by hand: another type is an unreadable body
        options["decoder"] = msgspec.json.Decoder(Any if kind is dict else kind)
        options["body_default"] = parameters["body"].default
        options["body"] = kind
    if "query" in names:
        options["query"] = hints["query"]
    answer = options.setdefault("answer", None if hints["return"] is NoneType else hints["return"])
    options.setdefault("status", 204 if answer is None else 200)
    return Operation(
        face=face, method=method, path=path, handler=handler, arguments=names, **options
    )


def _check_depth(body: bytes, max_depth: int) -> None:
    """Raise `BadBody` when arrays and objects are nested deeper than ``max_depth``."""
    if body.count(b"{") + body.count(b"[") <= max_depth:
        return
    depth = 0
    for found in _STRUCTURE.finditer(body):
        depth += _DEEPER.get(found[0], 0)
        if depth > max_depth:
            raise BadBody(f"the body is nested over {max_depth} deep")


def _heads(path: str) -> tuple[str, str]:
    parts = path.split("/", 3)
    return parts[1] if len(parts) > 1 else "", parts[2] if len(parts) > 2 else ""
