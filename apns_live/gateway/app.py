"""The app: the native API and every dialect over one service.

::

    app = create_app(lambda: Service.open("sqlite:///live.db"))      # opened by the app's lifespan
    app = create_app(service)                                        # opened and closed by you
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ..errors import ApnsLiveError
from .context import Gateway
from .guard import Guard
from .logs import keep_secrets_out
from .native import describe, native_routes
from .settings import GatewaySettings

if TYPE_CHECKING:
    from ..activities import Service

logger = logging.getLogger("apns_live.gateway")

DIALECTS = ("activitysmith", "braze", "onesignal", "fcm")
_SMALL = frozenset({"braze", "fcm"})
"""Those of two routes go before the native API's eighty: routes are looked through in order."""
_UPKEEP_SECONDS = 15.0
_PRUNE_EVERY = 3_600.0

Opening = Callable[[], "AbstractAsyncContextManager[Service]"]


def create_app(
    service: Service | Opening,
    *,
    settings: GatewaySettings | None = None,
    dialects: tuple[str, ...] = DIALECTS,
) -> FastAPI:
    """Return the app over an open service, or over one that the app's lifespan opens.

    ``app.state.gateway`` is the `Gateway`. With an open service the app works without a lifespan
    as well, as when it is mounted into another one; then nothing writes down when keys were last
    used, and nothing prunes the audit log.
    """
    keep_secrets_out()
    gateway = Gateway(settings)
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
                await gateway.keys.write_usage()
                if opening is not None:
                    gateway.detach()

    app = FastAPI(
        title="apns_live",
        version=version("apns-live"),
        lifespan=lifespan,
        middleware=[*_proxies(gateway.settings), Middleware(Guard, gateway=gateway)],
        # The framework's own pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.gateway = gateway

    async def refuse(request: Request, error: Exception) -> Response:
        return gateway.faces.refuse(request.scope, error)

    app.add_exception_handler(ApnsLiveError, refuse)
    app.add_exception_handler(HTTPException, refuse)

    def add(names: Iterable[str]) -> None:
        for name in names:
            router = _dialect(name, gateway)
            if router is not None:
                app.include_router(router, include_in_schema=False)

    add(name for name in dialects if name in _SMALL)
    app.router.routes.extend(native_routes(gateway))
    add(name for name in dialects if name not in _SMALL)
    app.openapi = lambda: describe(app.version)  # type: ignore[method-assign]
    return app


def _proxies(settings: GatewaySettings) -> list[Middleware]:
    """Return what puts the caller's address in the place of a trusted proxy's."""
    trusted = sorted(settings.trusted_proxies)
    return [Middleware(ProxyHeadersMiddleware, trusted_hosts=trusted)] if trusted else []


def _dialect(name: str, gateway: Gateway) -> APIRouter | None:
    try:
        package = import_module(f"{__package__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}.{name}":
            raise
        return None
    routes: Callable[[Gateway], APIRouter] | None = getattr(package, "routes", None)
    if routes is None:
        return None
    gateway.faces.add(package.refusal)
    return routes(gateway)


async def _upkeep(gateway: Gateway) -> None:
    """Write last uses of keys, prune the audit log. One bad moment does not end it."""
    clock = gateway.clock
    pruned = clock.monotonic() - _PRUNE_EVERY
    while True:
        try:
            gateway.service.scheduler.time.look()
            if gateway.keys.usage_is_due():
                await gateway.keys.write_usage()
            if clock.monotonic() - pruned >= _PRUNE_EVERY:
                pruned = clock.monotonic()
                await gateway.audit.prune(gateway.settings.audit_days)
        except Exception:
            logger.exception("upkeep failed; it is tried again")
        await clock.sleep(_UPKEEP_SECONDS)
