"""Explains reasons, outcomes and symptoms, and why a device shows nothing."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ...activities.read.diagnosis import diagnose
from ...activities.times import milliseconds
from ...reasons import explained, listed
from ..calls import Call
from .face import Routes
from .shapes import Strict

routes = Routes("explaining", scope="devices:read")


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


@routes("GET /v1/explain", "Explain a reason, an outcome or a symptom", answer=ExplanationsAnswer)
async def explain(call: Call, query: ExplainQuery) -> dict[str, Any]:
    """Without ``about`` it lists every word with its meaning."""
    return {"items": [explained(query.about, "about")] if query.about else listed()}


@routes("GET /v1/devices/{device}/doctor", "Say why a device shows nothing", answer=FindingsAnswer)
async def examine_device(call: Call, device: str) -> dict[str, Any]:
    """Checks its tokens, cards, budgets, receipts and APNs' last answers, and says what to do."""
    service = call.service
    now = milliseconds(call.gateway.clock)
    found = await diagnose(service.database, service.devices, call.app, device, now)
    ok = not any(each.state == "fail" for each in found)
    return {"ok": ok, "findings": [each._asdict() for each in found]}
