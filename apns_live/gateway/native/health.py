"""Liveness, readiness and Prometheus metrics."""

from __future__ import annotations

import hmac
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.responses import Response

from ...errors import NotAllowed, NotFound
from ..calls import Call
from ..figures import MEDIA_TYPE, Figures
from ..problems import problem, respond
from . import openapi
from .face import NATIVE, Routes

routes = Routes("health")
PLAIN = "text/plain"


class HealthAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The gateway works. It may have warnings."""

    status: str
    warnings: list[str] = []


@routes("GET /healthz", "Does the process live", who="anyone")
async def health(call: Call) -> HealthAnswer:
    """Liveness. Does not use the database, so that a supervisor does not restart the gateway for it."""
    return HealthAnswer(status="alive")


@routes("GET /readyz", "Can it serve", who="anyone", answer=HealthAnswer, refusals={503})
async def ready(call: Call) -> Any:
    """Readiness. Writes to the database and decrypts the provider keys. A 503 says what fails.

    With ``warnings`` the gateway still serves; an example is a system clock that was set.
    """
    readiness = call.gateway.readiness
    if call.gateway.leaving:
        problems = ["this gateway is about to stop: call another one"]
    else:
        problems = await readiness.problems()
    if problems:
        return respond(problem("store_unavailable", 503, "; ".join(problems), retry_after=5.0))
    return HealthAnswer(status="ready", warnings=readiness.warnings())


@routes(
    "GET /metrics",
    "Figures for Prometheus",
    who="anyone",
    answer=str,
    media=PLAIN,
    refusals={401, 404, 429},
)
async def metrics(call: Call) -> Response:
    """Prometheus metrics of this process, without names of apps, keys or devices.

    The operator may switch it off (404), or require ``Authorization: Bearer TOKEN``.
    """
    settings = call.gateway.settings
    if not settings.metrics:
        raise NotFound("figures are not served here")
    if settings.metrics_token:
        given = call.secret()
        if not hmac.compare_digest(given.encode(), settings.metrics_token.encode()):
            call.refused()
            raise NotAllowed("give the token of the figures as Authorization: Bearer", status=401)
    return Response(Figures(call.gateway).text(), media_type=MEDIA_TYPE)


@routes("GET /openapi.json", "This description", who="anyone", refusals={404})
async def description(call: Call) -> dict[str, Any]:
    """OpenAPI 3.1 of the native API; 404 if the operator switched it off."""
    if not call.gateway.settings.pages:
        raise NotFound("the description is not served here")
    return openapi.describe(NATIVE.operations, version("apns-live"))
