"""Generates the OpenAPI 3.1 document of the control API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from apns_live.testing.faults import FAULT_DURATIONS
from apns_live.testing.phones import PhoneSettings
from apns_live.testing.scenario import ScenarioFile

from .queries import Query
from .routes import Route
from .shapes import ErrorRow

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
_DURATION = [{"type": "number", "minimum": 0}, {"type": "string"}, {"type": "null"}]


def document(routes: list[Route], version: str) -> dict[str, Any]:
    """Return the document."""
    types: set[type] = {ErrorRow, ScenarioFile, PhoneSettings}
    for route in routes:
        types |= {each for each in (route.takes, route.gives) if each not in {None, dict}}
    ordered = sorted(types, key=lambda each: each.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REFERENCE)
    for name in ("Fault", "FaultRow"):
        for duration in FAULT_DURATIONS:
            components[name]["properties"][duration] = {"anyOf": _DURATION}
    scenario = components["ScenarioFile"]["properties"]
    scenario["fault"]["items"] = {"$ref": _REFERENCE.format(name="Fault")}
    scenario["phones"] = {"$ref": _REFERENCE.format(name="PhoneSettings")}
    by_type = dict(zip(ordered, schemas, strict=True))
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


def _operation(route: Route, by_type: dict[type, Any]) -> dict[str, Any]:
    name = getattr(route.endpoint, "__name__", "endpoint")
    text = (route.endpoint.__doc__ or "").strip()
    operation: dict[str, Any] = {"operationId": name, "summary": text.partition("\n")[0]}
    parameters: list[dict[str, Any]] = [
        {"name": each, "in": "path", "required": True, "schema": {"type": "string"}}
        for each in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += [
        {"name": name, "in": "query", "schema": schema} for name, schema in _query(route.query)
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(route.takes, by_type)}},
        }
    responses: dict[str, Any] = {}
    good: dict[str, Any] = {"description": "done"}
    if route.gives is not None:
        schema = _schema(route.gives, by_type)
        if route.lists:
            schema = {
                "type": "object",
                "required": ["items", "next"],
                "properties": {
                    "items": {"type": "array", "items": schema},
                    "next": {"type": ["integer", "null"]},
                },
            }
        if route.media_type != "application/json":
            schema = {"type": "string"}
        good["content"] = {route.media_type: {"schema": schema}}
    responses[str(route.status)] = good
    if route.may_be_empty:
        responses["204"] = {"description": "nothing came within the timeout"}
    error = {"application/json": {"schema": _schema(ErrorRow, by_type)}}
    for status, meaning in _ERRORS.items():
        responses[str(status)] = {"description": meaning, "content": error}
    operation["responses"] = responses
    return operation


def _schema(kind: type, by_type: dict[type, Any]) -> Any:
    return {"type": "object"} if kind is dict else by_type[kind]


def _query(shape: type[Query]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and schema of each parameter; one that is left out is not null."""
    _, components = msgspec.json.schema_components([shape])
    for name, schema in components[shape.__name__]["properties"].items():
        if "anyOf" in schema:
            schema = schema["anyOf"][0]  # noqa: PLW2901
        yield name, schema
