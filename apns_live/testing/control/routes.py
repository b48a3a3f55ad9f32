"""The table of endpoints, for the application and the OpenAPI document."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from .queries import Query

Endpoint = Callable[..., object]
E = TypeVar("E", bound=Endpoint)


class Route(NamedTuple):
    """One endpoint. ``takes``, ``gives`` and ``query`` are structs; ``lists``: it gives a list of them.

    The endpoint is called with what its parameters name: ``query``, the body as ``order``, and what the path
    names. It returns what is sent (`ControlApi.shown`), None for 204, or a whole response, or awaits it.
    """

    method: str
    path: str
    endpoint: Endpoint
    gives: type | None = None
    takes: type | None = None
    status: int = 200
    query: type[Query] = Query
    lists: bool = False
    media_type: str = "application/json"
    may_be_empty: bool = False

    @property
    def parameters(self) -> list[str]:
        """What the endpoint asks for."""
        return list(inspect.signature(self.endpoint).parameters)


class Routes:
    """The rows that a class declares above its methods."""

    def __init__(self) -> None:
        self._rows: list[Route] = []

    def __call__(self, method: str, path: str, *more: object, **named: object) -> Callable[[E], E]:
        """Declare the endpoint below; the rest are fields of `Route`, from ``gives`` on."""

        def declare(endpoint: E) -> E:
            self._rows.append(Route(method, path, endpoint, *more, **named))  # type: ignore[arg-type]
            return endpoint

        return declare

    def of(self, api: object) -> list[Route]:
        """Return the rows with the methods of ``api``."""
        return [row._replace(endpoint=getattr(api, row.endpoint.__name__)) for row in self._rows]
