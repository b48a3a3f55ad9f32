"""The control API and the inspector page as an ASGI app, and serving it with a fake."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from apns_live.errors import FakeError
from apns_live.testing.asgi import Served
from apns_live.testing.fake import FakeApns
from apns_live.testing.faults import Fault
from apns_live.testing.listener import is_loopback, listening_sockets

from .api import ControlApi, read_body, route
from .openapi import document
from .queries import BadRequestError, read_query
from .routes import Route
from .security import Guard
from .shapes import ErrorRow
from .views import fake_row

STATIC_FILES = Path(__file__).parent.parent / "inspector" / "static"


def make_app(
    api: ControlApi, *, token: str | None = None, beside: Sequence[BaseRoute] = ()
) -> ASGIApp:
    """Return the ASGI application of an API, with its guard in front.

    ``beside``: further routes behind the same guard. The page shows calls where ``/gateway`` is one.
    """
    declared, version = route.of(api), fake_row(api.fake, 0.0).version
    described = functools.cache(lambda: document(declared, version))
    rows = [*declared, Route("GET", "/v1/openapi.json", described)]
    by_path: dict[str, dict[str, Route]] = {}
    # A path with a place in it would take those below it that have a name.
    for row in sorted(rows, key=lambda row: ("{" in row.path, row.path)):
        by_path.setdefault(row.path, {})[row.method] = row
    table: list[Any] = [
        StarletteRoute(prefix + path, _endpoint(api, methods), methods=_METHODS)
        for path, methods in by_path.items()
        for prefix in ("", "/namespaces/{namespace}")
        if not (prefix and path.startswith("/v1/namespaces"))
    ]
    table += beside or [StarletteRoute("/gateway", lambda _: _answer(None))]
    if STATIC_FILES.is_dir():
        table.append(Mount("/", StaticFiles(directory=STATIC_FILES, html=True)))
    app = Starlette(routes=table, exception_handlers={HTTPException: cast("Any", _http_problem)})
    return Guard(app, token=token)


_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def _endpoint(
    api: ControlApi, methods: Mapping[str, Route]
) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers the requests of one path; a method that it has not is a 405."""
    parameters = {method: row.parameters for method, row in methods.items()}

    async def handle(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        row = methods.get(method)
        if row is None:
            allowed = ", ".join(sorted(methods))
            return _answer(ErrorRow(f"use {allowed}"), 405, allow=allowed)
        place, own = dict(request.path_params), api
        try:
            if "namespace" in place:
                own = api.within(place.pop("namespace"))
            known: dict[str, object] = {"query": read_query(request.query_params, row.query)}
            if row.takes is not None:
                # A fault says itself what is wrong with it.
                shape = dict if row.takes is Fault else row.takes
                known["order"] = await read_body(request, shape)
            for name in parameters[method]:
                if name not in known:
                    known[name] = own.found(name, place)
            endpoint = getattr(own, row.endpoint.__name__, row.endpoint)
            result = endpoint(**{name: known[name] for name in parameters[method]})
            if isinstance(result, Awaitable):
                result = await result
        except BadRequestError as error:
            return _answer(ErrorRow(error.problem, error.field, error.remedy), error.status)
        except FakeError as error:
            return _answer(ErrorRow(str(error)), 400)
        if isinstance(result, Response):
            return result
        if result is None:
            return Response(status_code=204)
        return _answer(own.shown(result), row.status)

    return handle


def _answer(content: object, status: int = 200, **headers: str) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


async def _http_problem(_request: Request, error: HTTPException) -> Response:
    return _answer(ErrorRow(error.detail), error.status_code)


@contextlib.asynccontextmanager
async def serve_control(
    fake: FakeApns,
    *,
    host: str = "localhost",
    port: int = 0,
    token: str | None = None,
    beside: Sequence[BaseRoute] = (),
) -> AsyncIterator[str]:
    """Serve the control API and the inspector of a running fake; yields its URL.

    On an address other than this machine's own it needs ``token``: raises ``FakeError`` without.
    ``beside``: further routes behind the same guard.
    """
    if not token and not is_loopback(host):
        raise FakeError(
            f"{host} can be reached from other machines: give a token, or serve on localhost"
        )
    api = ControlApi(fake)
    listeners = listening_sockets(host, port)
    bound = listeners[0].getsockname()[1]
    app = make_app(api, token=token, beside=beside)
    served = Served(app, listeners, accesslog=None, graceful_timeout=0.2, shutdown_timeout=1.0)
    await served.started()
    name = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{name}:{bound}"
    finally:
        api.close()
        await served.close()
