"""Liveness, readiness, metrics and the description; explanations of what went wrong."""

import hmac
from importlib.metadata import version
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from prometheus_client import generate_latest
from starlette.responses import Response

from ...activities.read.diagnosis import diagnose
from ...errors import NotAllowed, NotFound
from ...reasons import explained, listed
from ..calls import Call
from ..figures import MEDIA_TYPE, Figures
from ..problems import problem, respond
from .face import Routes, describe
from .shapes import Strict

routes = Routes("health", who="anyone")
explains = Routes("explaining", scope="devices:read")


class HealthAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The gateway works. It may have warnings."""

    status: str
    warnings: list[str] = []


@routes("GET /healthz", "Does the process live")
async def health(call: Call) -> HealthAnswer:
    """Liveness. Does not use the database, so that a supervisor does not restart the gateway for it."""
    return HealthAnswer(status="alive")


@routes("GET /readyz", "Can it serve", answer=HealthAnswer, refusals={503})
async def ready(call: Call) -> Any:
    """Readiness. Writes to the database and decrypts the provider keys. A 503 says what fails.

    With ``warnings`` the gateway still serves; an example is a system clock that was set.
    """
    problems = ["this gateway is about to stop: call another one"]
    if not call.gateway.leaving:
        problems = await call.gateway.readiness.problems()
    if problems:
        return respond(problem("store_unavailable", 503, "; ".join(problems), retry_after=5.0))
    warning = call.service.scheduler.time.warning()
    return HealthAnswer(status="ready", warnings=[warning] if warning else [])


@routes(
    "GET /metrics",
    "Figures for Prometheus",
    answer=str,
    media="text/plain",
    refusals={401, 404, 429},
)
async def metrics(call: Call) -> Response:
    """Prometheus metrics of this process, without names of apps, keys or devices.

    The operator may switch it off (404), or require ``Authorization: Bearer TOKEN``.
    """
    settings = call.gateway.settings
    if not settings.metrics:
        raise NotFound("figures are not served here")
    token = settings.metrics_token
    if token and not hmac.compare_digest(call.secret().encode(), token.encode()):
        call.refused()
        raise NotAllowed("give the token of the figures as Authorization: Bearer", status=401)
    return Response(generate_latest(Figures(call.gateway)), media_type=MEDIA_TYPE)


@routes("GET /openapi.json", "This description", refusals={404})
async def description(call: Call) -> dict[str, Any]:
    """OpenAPI 3.1 of the native API; 404 if the operator switched it off."""
    if not call.gateway.settings.pages:
        raise NotFound("the description is not served here")
    return describe(version("apns-live"))


class ExplainQuery(Strict, frozen=True, kw_only=True):
    """The word to explain; empty for all."""

    about: Annotated[str, Meta(max_length=100)] = ""


class ExplanationAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An explanation. ``kind``: reason (of APNs), outcome, phone or symptom.

    ``fault`` is who caused it, ``remedy`` what to do, ``log`` what to look for in the phone's log.
    Reasons have ``statuses`` and ``verdict``.
    """

    name: str
    kind: str
    meaning: str
    fault: str = ""
    remedy: str = ""
    log: str = ""
    statuses: list[int] = []
    verdict: str = ""


class ExplanationsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Explanations."""

    items: list[ExplanationAnswer]


class FindingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check. ``state``: ok, warn or fail. ``remedy`` is empty if there is nothing to do."""

    check: str
    state: str
    said: str
    remedy: str


class FindingsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All results. ``ok`` is true if none of them is a failure."""

    ok: bool
    findings: list[FindingAnswer]


@explains("GET /v1/explain", "Explain a reason, an outcome or a symptom", answer=ExplanationsAnswer)
async def explain(call: Call, query: ExplainQuery) -> dict[str, Any]:
    """Without ``about`` it lists every word with its meaning."""
    return {"items": [explained(query.about, "about")] if query.about else listed()}


@explains(
    "GET /v1/devices/{device}/doctor", "Say why a device shows nothing", answer=FindingsAnswer
)
async def examine_device(call: Call, device: str) -> dict[str, Any]:
    """Checks its tokens, cards, budgets, receipts and APNs' last answers, and says what to do."""
    service = call.service
    found = await diagnose(service.database, service.devices, call.app, device, call.now)
    findings = [each._asdict() for each in found]
    return {"ok": all(each["state"] != "fail" for each in findings), "findings": findings}
