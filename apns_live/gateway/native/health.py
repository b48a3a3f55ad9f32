"""Whether the gateway lives, whether it can serve, and its figures for Prometheus."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import text
from starlette.responses import Response

from ...errors import ApnsLiveError, NotAllowed, NotFound
from ...reasons import TABLE as REASONS
from ..callers import refuse, secret_of
from ..context import Gateway
from ..problems import problem, respond
from .api import Call, Routes

if TYPE_CHECKING:
    from ...activities.courier.carrier import CarrierStatistics

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
        yield _gauge("apns_live_imports", "Imports under way.", gateway.imports)
        statistics = gateway.service.statistics()
        for name, what in _SERVICE_GAUGES.items():
            yield _gauge(f"apns_live_service_{name}", what, getattr(statistics, name))
        for name, what in _SERVICE_COUNTERS.items():
            yield _counter(f"apns_live_service_{name}", what, getattr(statistics, name))
        yield from _pushes(statistics.carriers)


_SERVICE_GAUGES = {
    "waiting": "Activities that are to be looked at.",
    "starting": "Starts that are being fanned out.",
    "living": "Activities in memory.",
    "tokens": "Activity tokens in memory.",
    "unwritten": "Results that are not in the store yet.",
    "watchers": "Who follows operations and activities.",
}
_SERVICE_COUNTERS = {
    "batches": "Batches of results written.",
    "results": "Results written.",
}
_CLIENT_GAUGES = {
    "waiting": "Pushes taken on that are not on the wire.",
    "in_flight": "Pushes without an answer yet.",
}
_CLIENT_COUNTERS = {
    "retries": "Pushes sent again because APNs asked for it.",
    "replays": "Pushes sent again because they were certainly not processed.",
    "connections_opened": "Connections to APNs that were opened.",
    "connections_failed": "Connections to APNs that could not be opened.",
}
_DELIVERY_GAUGES = {"tokens_behind": "Activity tokens without the newest state."}
_DELIVERY_COUNTERS = {
    "demoted": "States sent at priority 5 to save a budget.",
    "over_budget": "States sent at priority 10 although the budget was spent.",
}


def _pushes(carriers: Iterable[CarrierStatistics]) -> Iterator[Metric]:
    """Sum the figures of all apps: how many apps there are is nobody's business here."""
    verdicts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    connections = 0
    for carrier in carriers:
        client, delivery = carrier.client, carrier.delivery
        connections += len(client.connections)
        for verdict, count in client.verdicts.items():
            verdicts[verdict.name.lower()] += count
        for reason, count in client.reasons.items():
            # What is none of Apple's words would be a label without an end.
            reasons[reason if reason in REASONS else "other"] += count
        for name in (*_CLIENT_GAUGES, *_CLIENT_COUNTERS):
            sums[name] += getattr(client, name)
        for name in (*_DELIVERY_GAUGES, *_DELIVERY_COUNTERS):
            sums[name] += getattr(delivery, name)
    for family, what, label, counts in (
        ("apns_live_pushes", "Pushes by verdict.", "verdict", verdicts),
        ("apns_live_push_refusals", "Pushes that APNs refused, by reason.", "reason", reasons),
    ):
        metric = CounterMetricFamily(family, what, labels=(label,))
        for value, count in counts.items():
            metric.add_metric((value,), count)
        yield metric
    yield _gauge("apns_live_connections", "Open connections to APNs.", connections)
    for names in (_CLIENT_GAUGES, _DELIVERY_GAUGES):
        for name, what in names.items():
            yield _gauge(f"apns_live_pushes_{name}", what, sums[name])
    for names in (_CLIENT_COUNTERS, _DELIVERY_COUNTERS):
        for name, what in names.items():
            yield _counter(f"apns_live_pushes_{name}", what, sums[name])


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what)
    family.add_metric((), value)
    return family


def _counter(name: str, what: str, value: float) -> CounterMetricFamily:
    family = CounterMetricFamily(name, what)
    family.add_metric((), value)
    return family
