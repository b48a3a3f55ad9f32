"""Creates the ASGI app: the native API and the vendors' APIs over one service.

::

    app = create_app(lambda: Service.open("sqlite:///live.db"))      # opened by the app's lifespan
    app = create_app(service)                                        # opened and closed by you
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ..errors import ApnsLiveError
from .activitysmith import ActivitySmith
from .braze import Braze
from .calls import Face, Paths
from .context import Gateway
from .fcm import Fcm
from .guard import Guard
from .logs import keep_secrets_out
from .native import NATIVE, describe
from .onesignal import OneSignal
from .settings import GatewaySettings

if TYPE_CHECKING:
    from ..activities import Service

logger = logging.getLogger("apns_live.gateway")

FACES: Mapping[str, Face] = {
    face.dialect: face for face in (ActivitySmith(), Braze(), OneSignal(), Fcm())
}
DIALECTS = tuple(FACES)
FOLDER = Path(__file__).with_name("reference")
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_PAGE_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}

Opening = Callable[[], "AbstractAsyncContextManager[Service]"]


def create_app(
    service: Service | Opening,
    *,
    settings: GatewaySettings | None = None,
    dialects: tuple[str, ...] = DIALECTS,
) -> FastAPI:
    """Return the app over an open service, or over one that the app's lifespan opens.

    ``app.state.gateway`` is the `Gateway`. With an open service the app works without a lifespan
    as well, as when it is mounted into another one; then the last use of keys is not stored, and the
    audit log is not pruned.
    """
    keep_secrets_out()
    gateway = Gateway(settings)
    paths = Paths((*(FACES[name] for name in dialects), NATIVE))
    opening: Opening | None = None
    if callable(service):
        opening = service
    else:
        gateway.attach(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if opening is not None:
                gateway.attach(await stack.enter_async_context(opening()))
            upkeep = asyncio.create_task(_upkeep(gateway))
            try:
                yield
            finally:
                upkeep.cancel()
                await asyncio.gather(upkeep, return_exceptions=True)
                await gateway.readiness.aclose()
                if gateway.relay is not None:
                    await gateway.relay.aclose()
                await gateway.keys.write_usage()
                gateway.is_open = opening is None

    middleware = [Middleware(Guard, gateway=gateway, paths=paths)]
    if trusted := sorted(gateway.settings.trusted_proxies):
        # Takes the caller's address from X-Forwarded-For.
        middleware.insert(0, Middleware(ProxyHeadersMiddleware, trusted_hosts=trusted))
    app = FastAPI(
        title="apns_live",
        version=version("apns-live"),
        lifespan=lifespan,
        middleware=middleware,
        # The framework's own pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        # The guard creates the spans, named by route. The framework would name them by path.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.gateway = gateway

    async def refuse(request: Request, error: Exception) -> Response:
        return paths.refuse(request.scope, get_route_path(request.scope), error)

    app.add_exception_handler(ApnsLiveError, refuse)
    app.add_exception_handler(HTTPException, refuse)
    if gateway.settings.pages:
        app.router.routes += _pages()
    app.openapi = lambda: describe(app.version)  # type: ignore[method-assign]
    return app


async def _upkeep(gateway: Gateway) -> None:
    """Store the last uses of keys and prune the audit log. An error is logged, and the loop goes on."""
    clock, pruned = gateway.clock, float("-inf")
    while True:
        try:
            gateway.service.scheduler.time.look()
            if gateway.keys.usage_is_due():
                await gateway.keys.write_usage()
            if clock.monotonic() - pruned >= 3_600.0:
                pruned = clock.monotonic()
                await gateway.audit.prune(gateway.settings.audit_days)
        except Exception as error:  # noqa: BLE001 - it is logged
            gateway.service.database.outage.failed("maintenance failed", error)
        await clock.sleep(15.0)


def _pages() -> list[Route]:
    """Return the routes of the API reference, which has a form for each call, and of ``/``.

    The page reads /openapi.json of the same gateway. It asks for an API key and does not store it.
    """
    # Relative: the gateway may be mounted below a path.
    found = [Route("/", lambda _: RedirectResponse("reference"))]
    for file in sorted(FOLDER.iterdir()):
        path = "/reference" if file.name == "index.html" else f"/{file.name}"
        page = {"content": file.read_bytes(), "media_type": _TYPES[file.suffix]}
        found.append(Route(path, lambda _, page=page: Response(headers=_PAGE_HEADERS, **page)))
    return found
