"""Whether the gateway lives, whether it can serve, and its figures for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import text
from starlette.responses import Response

from ...errors import ApnsLiveError
from ..context import Gateway
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
)
async def metrics(call: Call) -> Response:
    """Counts and gauges of this process; no app, key or device is named."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(call.gateway))
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")


class _Figures(Collector):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        """Read the figures of this moment."""
        gateway = self._gateway
        answers = CounterMetricFamily(
            "apns_live_http_answers",
            "Answers by route, method and status.",
            labels=("route", "method", "status"),
        )
        for (route, method, status), count in gateway.counts.items():
            answers.add_metric((route, method, str(status)), count)
        yield answers
        yield _gauge("apns_live_http_requests", "Requests under way.", gateway.under_way)
        yield _gauge("apns_live_followers", "Open streams of events.", gateway.followers)
        yield from _numbers("apns_live_service", gateway.service.statistics())


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what)
    family.add_metric((), value)
    return family


def _numbers(prefix: str, value: Any) -> Iterator[Metric]:
    """Read the numbers of a snapshot, however it is built; lists are counted, texts left out."""
    if is_dataclass(value) and not isinstance(value, type):
        names = {entry.name: getattr(value, entry.name) for entry in fields(value)}
    elif isinstance(value, msgspec.Struct):
        names = msgspec.structs.asdict(value)
    elif isinstance(value, dict):
        numbers = {key: one for key, one in value.items() if isinstance(one, int | float)}
        if numbers:
            family = GaugeMetricFamily(prefix, "A snapshot's figure.", labels=("of",))
            for key, one in numbers.items():
                family.add_metric((str(key),), float(one))
            yield family
        return
    else:
        return
    for name, entry in names.items():
        if isinstance(entry, int | float):
            yield _gauge(f"{prefix}_{name}", "A snapshot's figure.", float(entry))
        else:
            yield from _numbers(f"{prefix}_{name}", entry)
