"""An endpoint's row: the application is built from it, and so is the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

Endpoint = Callable[..., Awaitable[object]]
E = TypeVar("E", bound=Endpoint)


class Route(NamedTuple):
    """One endpoint. ``takes`` and ``gives`` are structs; ``lists`` wraps ``gives`` in a list.

    The endpoint is called with the request, and with the body where it ``takes`` one. It returns
    what is sent as JSON, None for 204, or a whole response.
    """

    method: str
    path: str
    endpoint: Endpoint
    gives: type | None = None
    takes: type | None = None
    status: int = 200
    query: tuple[str, ...] = ()
    lists: bool = False
    media_type: str = "application/json"
    may_be_empty: bool = False


class Routes:
    """The rows that a class declares above its methods."""

    def __init__(self) -> None:
        self._rows: list[Route] = []

    def __call__(
        self,
        method: str,
        path: str,
        gives: type | None = None,
        takes: type | None = None,
        status: int = 200,
        *,
        query: tuple[str, ...] = (),
        lists: bool = False,
        media_type: str = "application/json",
        may_be_empty: bool = False,
    ) -> Callable[[E], E]:
        """Declare the endpoint below."""

        def declare(endpoint: E) -> E:
            more = (gives, takes, status, query, lists, media_type, may_be_empty)
            self._rows.append(Route(method, path, endpoint, *more))
            return endpoint

        return declare

    def of(self, api: object) -> list[Route]:
        """Return the rows with the methods of ``api``."""
        return [row._replace(endpoint=getattr(api, row.endpoint.__name__)) for row in self._rows]
