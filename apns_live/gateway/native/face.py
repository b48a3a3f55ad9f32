"""The native API as a `Face`: authentication, errors, its operations and their OpenAPI description."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from inspect import Parameter
from typing import Any, ClassVar

import msgspec
from starlette.responses import Response

from ...errors import NotAllowed, NotFound
from ..calls import Call, Face, Handler, Operation, operation
from ..credentials import HEAD, Phone
from ..keys import ApiKey
from ..problems import JSON, MEDIA_TYPE, TITLES, Problem, problem_of, respond
from ..scopes import Dialect
from .shapes import is_time


class Native(Face):
    """The native API. It answers every path that belongs to no other API."""

    dialect: ClassVar[Dialect] = "native"
    no_key = "give a valid API key as Authorization: Bearer KEY"
    no_query = True

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def refuse(self, error: Exception) -> Response:
        """Return problem details."""
        return respond(problem_of(error))

    async def find(self, call: Call) -> ApiKey | Phone:
        """Return the key or, where a phone calls with its credential, the phone."""
        secret = call.secret()
        if call.operation.who == "phone":
            phone = await call.gateway.credentials.check(secret) if secret else None
            if phone is None:
                call.refused()
                raise NotAllowed(
                    "give a device credential that has not ended: your server mints one at "
                    "POST /v1/devices/{device}/credentials",
                    status=401,
                )
            return phone
        if secret.startswith(f"{HEAD}."):
            call.refused()
            raise NotAllowed("this is a device credential: phones call /v1/device only", status=401)
        return await super().find(call)

    async def check(self, call: Call) -> None:
        """Raise `NotFound` if a part of the path is not a valid id, and as `Face.check`."""
        for name, text in call.parts.items():
            if not text or not text.isprintable() or len(text) > 255:
                raise NotFound(f"there is no such {name}")
        if isinstance(call.caller, Phone) and (activity := call.parts.get("activity")):
            check_joins(call, activity)
        await super().check(call)


NATIVE = Native()


def check_joins(call: Call, *activities: str | None) -> None:
    """Raise `NotAllowed` if the phone's credential excludes one of the activities; None is skipped."""
    claims = call.phone.claims
    if not all(name is None or claims.may_join(name) for name in activities):
        raise NotAllowed("this credential is not for that activity")


@cache
def _examples() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the bodies and answers that the description shows, by operation and then by name."""
    text = resources.files(__package__).joinpath("examples.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, dict[str, dict[str, Any]]])


class Routes:
    """Adds operations to the native API. ``shared`` are options of `Operation` that all of them have."""

    def __init__(self, tag: str, **shared: Any) -> None:
        self._shared = {"tag": tag, **shared}

    def __call__(self, place: str, summary: str, **options: Any) -> Callable[[Handler], Handler]:
        """Return a decorator that makes the function the handler of method and path."""

        def add(handler: Handler) -> Handler:
            shown = _examples().get(handler.__name__, {})
            given = {"summary": summary, **self._shared, **options}
            given |= {"examples": shown.get("body", {}), "answer_examples": shown.get("answer", {})}
            NATIVE.operations.append(operation(NATIVE, place, handler, **given))
            return handler

        return add


Schemas = Mapping[Any, Any]
"""Schemas by the type that they were made of."""

_PART = re.compile(r"{(\w+)(?::path)?}")
_REF = "#/components/schemas/{name}"
_COMMON = {"key": (401, 403, 429, 503), "phone": (401, 429, 503), "anyone": (503,)}
_BODY = (400, 408, 413, 415)
_MEANINGS = {
    400: "The body or the query cannot be read.",
    401: "No valid key or credential.",
    403: "The key lacks the scope, or does not reach this.",
    404: "There is no such thing in this app.",
    408: "The body did not come in time.",
    409: "It cannot be done in the state that it is in.",
    413: "The body is too large.",
    415: "The body is not declared as what this call takes.",
    422: "A field is wrong; `field` says which, `remedy` what to do. Nothing was done.",
    429: "Too many requests of this key; `Retry-After` says when to come back.",
    503: "Too much is waiting, or the database is away; `Retry-After` says when to come back.",
}
_DESCRIPTION = """The native API of apns_live: Live Activities started, updated and ended through
Apple's push service. Every write answers as soon as it is stored; an operation then tells what
became of it on every device. Errors are problem details (RFC 9457) with a stable `code`."""


def describe(version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of every operation of the API."""
    types: list[Any] = [Problem]
    for one in NATIVE.operations:
        types += [kind for kind in (one.body, one.query, one.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    found = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in NATIVE.operations:
        text = (one.handler.__doc__ or "").strip()
        described: dict[str, Any] = {
            "operationId": one.handler.__name__,
            "summary": one.summary,
            "description": f"{text}\n\nNeeds the scope `{one.scope}`." if one.scope else text,
            "tags": [one.tag],
            "parameters": list(_parameters(one, found, components)),
            "responses": _responses(one, found),
        }
        if one.scope:
            described["x-scope"] = one.scope
        if one.who != "key":
            described["security"] = [{"device": []}] if one.who == "phone" else []
        if one.body is not None:
            described["requestBody"] = {
                "required": one.body_default is Parameter.empty,
                "content": {JSON: _content(found[one.body], one.examples)},
            }
        elif one.takes:
            schema = {"type": "string", "minLength": 1}
            taken = {media: {"schema": schema, "example": one.takes[media]} for media in one.takes}
            described["requestBody"] = {"required": True, "content": taken}
        paths.setdefault(_PART.sub(r"{\1}", one.path), {})[one.method.lower()] = described
    for schema in components.values():
        for name, field in schema.get("properties", {}).items():
            number = next(iter(field.get("anyOf", [field])))
            if is_time(name) and number.get("type") == "integer":
                # `shown_times` converts the time to text.
                number |= {"type": "string", "description": "ISO 8601 in UTC"}
    components["Problem"]["properties"]["code"] = {"type": "string", "enum": list(TITLES)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "apns_live",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A server's API key."},
                "device": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A device credential, minted by POST "
                    "/v1/devices/{device}/credentials; the only one that belongs on a phone.",
                },
            },
        },
    }


def _content(schema: Any, examples: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a JSON body, with its examples."""
    shown = {name: {"value": value} for name, value in examples.items()}
    return {"schema": schema, **({"examples": shown} if shown else {})}


def _parameters(
    one: Operation, schemas: Schemas, components: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    text = {"type": "string", "minLength": 1, "maxLength": 255}
    for name in _PART.findall(one.path):
        yield {"name": name, "in": "path", "required": True, "schema": text}
    if one.query is not None:
        kind = schemas[one.query]["$ref"].rpartition("/")[2]
        for name, schema in components[kind]["properties"].items():
            yield {"name": name, "in": "query", "required": False, "schema": schema}
    if one.idempotent:
        yield {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "A fresh value for each request, the same one to repeat it: the "
            "first answer comes again for 30 days, with `Idempotent-Replayed: true`.",
            "schema": {**text, "pattern": "^[!#-~]+$"},
        }


def _responses(one: Operation, schemas: Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {"description": one.summary}
    if one.answer is not None:
        content = _content(schemas[one.answer], one.answer_examples)
        if one.media != JSON:
            content = _content({"type": "string"}, {})
        response["content"] = {one.media: content}
    if one.idempotent:
        response["headers"] = {
            "Idempotent-Replayed": {
                "description": "The first answer said again.",
                "schema": {"type": "string", "enum": ["true"]},
            }
        }
    responses = {str(one.status): response}
    refusals = {*_COMMON[one.who], *one.refusals, 422}
    if _PART.search(one.path):
        refusals.add(404)
    if one.body is not None or one.takes:
        refusals.update(_BODY)
    seconds = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
    problem = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}}
    for status in sorted(refusals):
        refusal = responses[str(status)] = {"description": _MEANINGS[status], "content": problem}
        if status in (429, 503):
            refusal["headers"] = {"Retry-After": seconds}
    return responses
