"""The control API and the inspector page as an application, and serving it beside a fake."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles

import apns_live.testing.asgi  # noqa: F401 - lets hypercorn close what its client has closed
from apns_live.errors import FakeError
from apns_live.testing.fake import FakeApns
from apns_live.testing.faults import Fault
from apns_live.testing.listener import is_loopback, listening_sockets

from .api import ControlApi, answer, read_body, route
from .openapi import document
from .queries import BadRequestError, check_names
from .routes import Route
from .security import Application, Guard
from .shapes import ErrorRow
from .views import fake_row

STATIC_FILES = Path(__file__).parent.parent / "inspector" / "static"


def make_app(api: ControlApi, *, token: str | None = None) -> Application:
    """Return the ASGI application of an API, with its guard in front."""
    rows = route.of(api)
    description = document(rows, fake_row(api.fake, 0.0).version)

    async def get_description(_request: Request) -> Response:
        return answer(description)

    def handler(row: Route) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                check_names(request.query_params, row.query)
                order: tuple[object, ...] = ()
                if row.takes is not None:
                    # A fault says itself what is wrong with it.
                    shape = dict if row.takes is Fault else row.takes
                    order = (await read_body(request, shape),)
                result = await row.endpoint(request, *order)
            except BadRequestError as error:
                return answer(ErrorRow(error.problem, error.field, error.remedy), error.status)
            except FakeError as error:
                return answer(ErrorRow(str(error)), 400)
            if isinstance(result, Response):
                return result
            return Response(status_code=204) if result is None else answer(result, row.status)

        return handle

    table: list[Any] = [StarletteRoute("/v1/openapi.json", get_description, methods=["GET"])]
    table += [StarletteRoute(row.path, handler(row), methods=[row.method]) for row in rows]
    # Starlette answers 405 by the first path that fits, so a path's methods stand together.
    table.sort(key=lambda each: ("{" in each.path, each.path))
    if STATIC_FILES.is_dir():
        table.append(Mount("/", StaticFiles(directory=STATIC_FILES, html=True)))
    app = Starlette(
        routes=_merged(table), exception_handlers={HTTPException: cast("Any", _http_problem)}
    )
    return Guard(cast("Application", app), token=token)


def _merged(table: list[Any]) -> list[Any]:
    """Join routes of one path, so that an unknown method is a 405 that names the others."""
    merged: list[Any] = []
    by_path: dict[str, dict[str, Any]] = {}
    for each in table:
        if not isinstance(each, StarletteRoute):
            merged.append(each)
            continue
        methods = by_path.get(each.path)
        if methods is None:
            methods = by_path[each.path] = {}
            merged.append(_switch(each.path, methods))
        for method in each.methods or ():
            if method != "HEAD":
                methods[method] = each.endpoint
    return merged


def _switch(path: str, methods: dict[str, Any]) -> StarletteRoute:
    async def choose(request: Request) -> Response:
        endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            allowed = ", ".join(sorted(methods))
            return Response(
                answer(ErrorRow(f"use {allowed}")).body,
                405,
                {"allow": allowed},
                media_type="application/json",
            )
        response: Response = await endpoint(request)
        return response

    every = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return StarletteRoute(path, choose, methods=every)


async def _http_problem(_request: Request, error: HTTPException) -> Response:
    return answer(ErrorRow(error.detail), error.status_code)


@contextlib.asynccontextmanager
async def serve_control(
    fake: FakeApns, *, host: str = "localhost", port: int = 0, token: str | None = None
) -> AsyncIterator[str]:
    """Serve the control API and the inspector of a running fake; yields its URL.

    On an address other than this machine's own it needs ``token``: raises ``FakeError`` without.
    """
    if not token and not is_loopback(host):
        raise FakeError(
            f"{host} can be reached from other machines: give a token, or serve on localhost"
        )
    api = ControlApi(fake)
    listeners = listening_sockets(host, port)
    bound = listeners[0].getsockname()[1]
    config = Config()
    # Hypercorn makes its own sockets of the numbers, and closes them.
    config.bind = [f"fd://{listener.detach()}" for listener in listeners]
    config.include_server_header = False
    config.errorlog = None
    config.accesslog = None
    config.graceful_timeout = 0.2
    config.shutdown_timeout = 1.0
    stop = asyncio.Event()
    task = asyncio.get_running_loop().create_task(
        serve(
            cast("Any", make_app(api, token=token)),
            config,
            shutdown_trigger=stop.wait,
            mode="asgi",
        )
    )
    await asyncio.sleep(0)
    if task.done():
        raise FakeError("the control API did not start") from task.exception()
    name = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{name}:{bound}"
    finally:
        api.hub.close()
        stop.set()
        await task
