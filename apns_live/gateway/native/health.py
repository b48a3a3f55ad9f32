"""Whether the gateway lives, whether it can serve, and its figures for Prometheus."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

import msgspec
from sqlalchemy import text
from starlette.responses import Response

from ...errors import ApnsLiveError, NotAllowed, NotFound
from ..callers import refuse, secret_of
from ..figures import MEDIA_TYPE
from ..problems import problem, respond
from .api import Call, Routes

routes = Routes("health")
PLAIN = "text/plain"
_READY_WITHIN = 2.0


class HealthAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All is well."""

    status: str


@routes("GET", "/healthz", "Does the process live", who="anyone", answers={200: HealthAnswer})
async def health(call: Call) -> HealthAnswer:
    """Asks nothing of the database: a supervisor must not restart a gateway for its sake."""
    return HealthAnswer(status="alive")


@routes(
    "GET",
    "/readyz",
    "Can it serve",
    who="anyone",
    answers={200: HealthAnswer},
    refusals=frozenset({503}),
)
async def ready(call: Call) -> Any:
    """Reads from the database; 503 when that fails, or while starting and closing."""
    try:
        async with asyncio.timeout(_READY_WITHIN):
            async with call.service.database.read() as connection:
                await connection.execute(text("SELECT 1"))
    except (TimeoutError, OSError, ApnsLiveError):
        return respond(
            problem("store_unavailable", 503, "the database does not answer", retry_after=5.0)
        )
    return HealthAnswer(status="ready")


@routes(
    "GET",
    "/metrics",
    "Figures for Prometheus",
    who="anyone",
    answers={200: str},
    media=PLAIN,
    refusals=frozenset({401, 404, 429}),
)
async def metrics(call: Call) -> Response:
    """Counts and gauges of this process; no app, key or device is named.

    The operator may switch it off (404), or ask for a token as ``Authorization: Bearer TOKEN``.
    """
    settings = call.gateway.settings
    if not settings.metrics:
        raise NotFound("figures are not served here")
    if settings.metrics_token:
        given = secret_of(call.request, ("bearer",))
        if not hmac.compare_digest(given.encode(), settings.metrics_token.encode()):
            refuse(call.gateway, call.request)
            raise NotAllowed("give the token of the figures as Authorization: Bearer", status=401)
    return Response(call.gateway.figures.text(), media_type=MEDIA_TYPE)
