"""The table of endpoints: the input and output of each, for validation and for OpenAPI 3.1.

The signature of an endpoint is its description. If its path has a parameter in braces, the first
argument is the object that it names (`ControlApi.found`). Every other parameter is a field of the JSON
body, or of the query of a GET. A trailing underscore of a name is dropped.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from apns_live.testing.faults import FAULT_DURATIONS
from apns_live.testing.phones import PhoneSettings
from apns_live.testing.scenario import ScenarioFile

from ...misfits import misfit
from .rows import ErrorRow

LARGEST_BODY = 65_536
_REFERENCE = "#/components/schemas/{name}"
_ERRORS = {
    400: "the request cannot be served as it is",
    401: "the token is missing or wrong",
    403: "another site's page, or a Host that is not this machine",
    404: "there is no such thing",
    409: "it cannot be done in this state",
    413: "the body is too large",
    415: "the body is not declared as JSON",
    429: "too many readers of the event stream",
}
_IN_LOWER_CASE = {"token", "apns_id"}
_DURATION = [{"type": "number", "minimum": 0}, {"type": "string"}, {"type": "null"}]

E = TypeVar("E", bound=Callable[..., object])
Filters = Mapping[str, Callable[[Any], object]]
Fits = Callable[[Any], bool]


class Empty(msgspec.Struct, forbid_unknown_fields=True):
    """A body or query without fields. An unknown field is refused, so that a misspelt filter fails."""


class BadRequestError(Exception):
    """A request that is refused. ``status`` is the HTTP status."""

    def __init__(
        self, problem: str, *, field: str = "", remedy: str = "", status: int = 400
    ) -> None:
        super().__init__(problem)
        self.row = ErrorRow(problem, field, remedy)
        self.status = status


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. ``gives`` is a row, and ``lists`` says that the answer is a page of them.

    ``call`` gets the fake's API, or its phones if ``of_phones``, then the object of the path, then the
    fields. With ``filters`` its parameter ``fits`` tells whether an object matches those of the query.
    ``raw`` is the type of a body that ``call`` gets as a dict, and checks itself.
    """

    method: str
    path: str
    call: Callable[..., Any]
    name: str
    about: str
    fields: type[msgspec.Struct]
    gives: type | None = None
    status: int = 200
    lists: bool = False
    media_type: str = "application/json"
    may_be_empty: bool = False
    of_phones: bool = False
    filters: Filters = field(default_factory=dict)
    raw: type | None = None

    @property
    def body(self) -> type | None:
        """The type of the body, or None."""
        return None if self.method in {"GET", "DELETE"} else self.raw or self.fields

    def values(self, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Return the fields that a request gives. Raises ``BadRequestError``."""
        given = self._fields_of(query, body if self.body else b"")
        if not self.filters:
            return given
        wanted = {name: given.pop(name) for name in self.filters}
        asked = [
            (self.filters[name], value.lower() if name in _IN_LOWER_CASE else value)
            for name, value in wanted.items()
            if value is not None
        ]
        return given | {"fits": lambda item: all(_text(read(item)) == v for read, v in asked)}

    def _fields_of(self, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        shape = self.fields if self.body is None else Empty
        known = shape.__struct_fields__
        try:
            given = msgspec.convert(dict(query), shape, strict=False)
            if self.raw is not None:
                return {"order": msgspec.json.decode(body or b"{}", type=dict[str, Any])}
            if self.body is not None:
                known = ()
                given = msgspec.json.decode(body or b"{}", type=self.fields)
        except msgspec.ValidationError as error:
            found = misfit(error)
            remedy = found.remedy
            if known and found.field not in known:
                remedy = f"Use {', '.join(sorted(known))}."
            where = found.field or ("body" if self.body else "")
            raise BadRequestError(found.problem, field=where, remedy=remedy) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequestError(f"the body is not valid JSON: {error}") from None
        return msgspec.structs.asdict(given)


def _text(value: object) -> str:
    return "" if value is None else str(value)


class Routes(list[Route]):
    """The endpoints that a class declares above its methods."""

    def __call__(
        self, method: str, path: str, gives: type | None = None, status: int = 200, **more: Any
    ) -> Callable[[E], E]:
        """Declare the endpoint below; ``more`` are fields of `Route`."""

        def declare(endpoint: E) -> E:
            self.add(method, path, endpoint, gives, status, **more)
            return endpoint

        return declare

    def add(
        self,
        method: str,
        path: str,
        endpoint: Callable[..., object],
        gives: type | None = None,
        status: int = 200,
        *,
        name: str = "",
        like: Callable[..., object] | None = None,
        rename: Mapping[str, str] | None = None,
        optional: Sequence[str] = (),
        **more: Any,
    ) -> None:
        """Add an endpoint, with the fields of another function if it is ``like`` one.

        ``rename`` are fields with other names outside than in Python, ``optional`` the names of its
        ``**`` parameter.
        """
        called = name or endpoint.__name__
        signature = inspect.signature(like or endpoint, eval_str=True).parameters.values()
        given = [each for each in signature if each.name != "fits"][1 + ("{" in path) :]
        fields: list[Any] = [(each, str | None, None) for each in more.get("filters", ())]
        for each in given:
            if each.kind is each.VAR_KEYWORD:
                fields += [(name, each.annotation, None) for name in optional]
            else:
                kind = (each.name, each.annotation)
                fields.append(kind if each.default is each.empty else (*kind, each.default))
        shape = (
            Empty
            if not fields
            else msgspec.defstruct(
                called.title().replace("_", ""),
                fields,
                kw_only=True,
                forbid_unknown_fields=True,
                rename=rename,
            )
        )
        about = inspect.cleandoc((like or endpoint).__doc__ or "")
        self.append(Route(method, path, endpoint, called, about, shape, gives, status, **more))

    def phones(self, *table: Any, **more: Any) -> None:
        """Add a method of `SimulatedPhones`. The answer is its result, else the object of the path."""
        self.add(*table, of_phones=True, **more)


def document(routes: list[Route], version: str) -> dict[str, Any]:
    """Return the OpenAPI document."""
    types: set[type] = {ErrorRow, ScenarioFile, PhoneSettings}
    for route in routes:
        types |= {each for each in (route.body, route.gives) if each not in {None, dict}}
    ordered = sorted(types, key=lambda each: each.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REFERENCE)
    for name in ("Fault", "FaultRow"):
        for duration in FAULT_DURATIONS:
            components[name]["properties"][duration] = {"anyOf": _DURATION}
    scenario = components["ScenarioFile"]["properties"]
    scenario["fault"]["items"] = {"$ref": _REFERENCE.format(name="Fault")}
    scenario["phones"] = {"$ref": _REFERENCE.format(name="PhoneSettings")}
    by_type: dict[type | None, Any] = dict(zip(ordered, schemas, strict=True))
    by_type[dict] = {"type": "object"}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Control API of the fake APNs",
            "version": version,
            "description": "Phones, tokens, activities, pushes, faults and the clock of a local APNs.",
        },
        "servers": [
            {"url": "/"},
            {
                "url": "/namespaces/{namespace}",
                "description": "The same endpoints over one namespace, for tests that share a fake.",
                "variables": {"namespace": {"default": "test-1"}},
            },
        ],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(route: Route, by_type: Mapping[type | None, Any]) -> dict[str, Any]:
    summary, _, about = route.about.partition("\n\n")
    operation: dict[str, Any] = {"operationId": route.name, "summary": summary}
    if about:
        operation["description"] = about
    parameters: list[dict[str, Any]] = [
        {"name": each, "in": "path", "required": True, "schema": {"type": "string"}}
        for each in re.findall(r"{(\w+)}", route.path)
    ]
    if route.body is not None:
        body = {"application/json": {"schema": by_type[route.body]}}
        operation["requestBody"] = {"required": True, "content": body}
    else:
        parameters += _query(route.fields)
    if parameters:
        operation["parameters"] = parameters
    good: dict[str, Any] = {"description": "done"}
    if route.gives is not None:
        schema = by_type[route.gives]
        if route.lists:
            properties = {
                "items": {"type": "array", "items": schema},
                "next": {"type": ["integer", "null"]},
            }
            schema = {"type": "object", "required": list(properties), "properties": properties}
        if route.media_type != "application/json":
            schema = {"type": "string"}
        good["content"] = {route.media_type: {"schema": schema}}
    responses: dict[str, Any] = {str(route.status): good}
    if route.may_be_empty:
        responses["204"] = {"description": "nothing came within the timeout"}
    error = {"application/json": {"schema": by_type[ErrorRow]}}
    for status, meaning in _ERRORS.items():
        responses[str(status)] = {"description": meaning, "content": error}
    operation["responses"] = responses
    return operation


def _query(shape: type[msgspec.Struct]) -> Iterator[dict[str, Any]]:
    """Yield the parameters of a query. They may be absent, but not null."""
    _, components = msgspec.json.schema_components([shape])
    for name, schema in components[shape.__name__].get("properties", {}).items():
        yield {"name": name, "in": "query", "schema": schema.get("anyOf", [schema])[0]}
