"""The native API: ``/v1``, health and metrics."""

from __future__ import annotations

from functools import cache
from typing import Any

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ...errors import NotFound
from ..context import Gateway
from . import (
    activities,
    admin,
    audiences,
    channels,
    devices,
    events,
    health,
    imports,
    listing,
    openapi,
    operations,
    people,
    phone,
    streams,
)
from .api import Answer, Call, Endpoint, Operation, Routes

_description = Routes("health")


@_description(
    "GET",
    "/openapi.json",
    "This description",
    who="anyone",
    answer=dict[str, Any],
    refusals=frozenset({404}),
)
async def description(call: Call) -> Answer:
    """OpenAPI 3.1 of the native API; 404 where the operator switched it off."""
    if not call.gateway.settings.pages:
        raise NotFound("the description is not served here")
    return Answer(body=describe(call.request.app.version))


@cache
def all_operations() -> tuple[Operation, ...]:
    """Return every operation; the busiest come first, for routes are looked through in order."""
    parts = (
        activities,
        streams,
        phone,
        devices,
        operations,
        events,
        audiences,
        channels,
        imports,
        listing,
        people,
        admin,
        health,
    )
    return tuple(
        one
        for routes in (*(part.routes for part in parts), _description)
        for one in routes.operations
    )


class _Methods:
    """The operations of one path by method. One route a path: a 405 then names all it has."""

    def __init__(self, endpoints: dict[str, Endpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._endpoints[method](scope, receive, send)


def native_routes(gateway: Gateway) -> list[Route]:
    """Return the routes of the native API."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for one in all_operations():
        by_path.setdefault(one.path, {})[one.method] = Endpoint(gateway, one)
    return [
        Route(path, _Methods(endpoints), methods=list(endpoints), name=path)
        for path, endpoints in by_path.items()
    ]


@cache
def describe(version: str) -> dict[str, Any]:
    """Return the OpenAPI description."""
    return openapi.describe(all_operations(), version)
