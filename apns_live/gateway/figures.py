"""The Prometheus metrics of /metrics: process, service, pushes.

Durations are histograms in seconds, with the buckets of `apns_live.client.statistics`. Labels are routes,
methods, statuses, verdicts and Apple's reasons, so callers cannot add values, and none names an app or device.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from prometheus_client import core

from ..activities.send.apns_clients import CarrierStatistics
from ..activities.store.ownership import PARTITIONS
from ..client.statistics import BOUNDS, Times
from ..reasons import TABLE as REASONS
from .context import Gateway

MEDIA_TYPE = "text/plain; version=0.0.4"
_SERVICE_GAUGES = {
    "waiting": "Activities that are to be looked at.",
    "starting": "Starts that are being fanned out.",
    "living": "Activities in memory.",
    "tokens": "Activity tokens in memory.",
    "unwritten": "Results that are not in the store yet.",
    "watchers": "Who follows operations and activities.",
}
_SERVICE_COUNTERS = {"batches": "Batches of results written.", "results": "Results written."}
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
_CLIENT_TIMES = {
    "queue_times": ("push_queue_seconds", "From taking a push on until it leaves."),
    "round_trips": ("push_round_trip_seconds", "From sending a push until APNs answers."),
}
_DELIVERY_GAUGES = {"tokens_behind": "Activity tokens without the newest state."}
_DELIVERY_COUNTERS = {
    "demoted": "States sent at priority 5 to save a budget.",
    "over_budget": "States sent at priority 10 although the budget was spent.",
}


class Figures:
    """Reads the figures of a gateway, as one of Prometheus' collectors."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[core.Metric]:
        """Read the current figures."""
        gateway = self._gateway
        answers, admission, door = gateway.answers, gateway.admission, gateway.door
        counts = {(*place, str(status)): n for (*place, status), n in answers.counts.items()}
        what = "Answers by route, method and status."
        yield _counter("http_answers", what, counts, "route", "method", "status")
        yield _histogram(
            "http_request_duration_seconds",
            "From a request's arrival until its answer begins, by route.",
            "route",
            {route: times.times() for route, times in answers.times.items()},
        )
        yield _gauge("http_requests", "Requests in progress.", admission.under_way)
        yield _gauge("http_bodies", "Bodies of requests on their way.", admission.bodies)
        yield _gauge("http_connections", "Open connections of callers.", door.open)
        yield _counter("http_connections_opened", "Connections of callers.", door.opened)
        refused = {(reason,): count for reason, count in door.refused.items()}
        what = "Connections turned away, or closed to make room, by reason."
        yield _counter("http_connections_refused", what, refused, "reason")
        yield _gauge("followers", "Open streams of events.", gateway.followers.total())
        yield _gauge("imports", "Imports in progress.", gateway.importing.total())
        statistics = gateway.service.statistics()
        for name, what in _SERVICE_GAUGES.items():
            yield _gauge(f"service_{name}", what, getattr(statistics, name))
        for name, what in _SERVICE_COUNTERS.items():
            yield _counter(f"service_{name}", what, getattr(statistics, name))
        yield _counter(
            "start_tokens_suspected",
            "Push-to-start tokens that became suspect: their starts are not answered.",
            gateway.service.scheduler.suspected,
        )
        kinds = statistics.operations
        yield _histogram(
            "operation_duration_seconds", "From accepting to the last answer.", "kind", kinds
        )
        ages = {"": statistics.state_ages}
        yield _histogram("state_age_seconds", "Age of states when APNs took them.", "", ages)
        ownership = gateway.service.ownership
        yield _gauge("partitions", "Partitions that there are.", PARTITIONS)
        owned = len(ownership.partitions)
        yield _gauge("partitions_owned", "Partitions that this process sends for.", owned)
        yield _gauge("leases_lost", "1 while sending waits for the leases.", ownership.fenced)
        yield from self._pushes(statistics.carriers)

    def _pushes(self, carriers: Iterable[CarrierStatistics]) -> Iterator[core.Metric]:
        gauges: Counter[str] = Counter()
        counts: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
        for carrier in carriers:
            client, delivery = carrier.client, carrier.delivery
            own = counts.setdefault((carrier.app, carrier.environment), Counter())
            gauges["connections"] += len(client.connections)
            for verdict, count in client.verdicts.items():
                own["verdict", verdict.name.lower()] += count
            for reason, count in client.reasons.items():
                # An unknown reason counts as "other", so that the labels stay bounded.
                own["reason", reason if reason in REASONS else "other"] += count
            for source, names in ((client, _CLIENT_COUNTERS), (delivery, _DELIVERY_COUNTERS)):
                for name in names:
                    own["plain", name] += getattr(source, name)
            for source, names in ((client, _CLIENT_GAUGES), (delivery, _DELIVERY_GAUGES)):
                for name in names:
                    gauges[name] += getattr(source, name)
            for name in _CLIENT_TIMES:
                times: Times = getattr(client, name)
                own[name, "count"], own[name, "micros"] = times.count, int(times.total * 1e6)
                own.update({(name, str(at)): n for at, n in zip(BOUNDS, times.counts, strict=True)})
        sums = self._gateway.pushes.add(counts)
        for name, (family, what) in _CLIENT_TIMES.items():
            summed = tuple(int(sums[name, str(bound)]) for bound in BOUNDS)
            total = Times(int(sums[name, "count"]), sums[name, "micros"] / 1e6, summed)
            yield _histogram(family, what, "", {"": total})
        for family, what, label in (
            ("pushes", "Pushes by verdict.", "verdict"),
            ("push_refusals", "Pushes that were not accepted, by reason.", "reason"),
        ):
            counted = {(value,): count for (kind, value), count in sums.items() if kind == label}
            yield _counter(family, what, counted, label)
        yield _gauge("connections", "Open connections to APNs.", gauges["connections"])
        for name, what in (_CLIENT_GAUGES | _DELIVERY_GAUGES).items():
            yield _gauge(f"pushes_{name}", what, gauges[name])
        for name, what in (_CLIENT_COUNTERS | _DELIVERY_COUNTERS).items():
            yield _counter(f"pushes_{name}", what, sums["plain", name])


def _histogram(
    name: str, what: str, label: str, series: Mapping[str, Times]
) -> core.HistogramMetricFamily:
    """Return histograms by the values of a label; without one there is a single series."""
    family = core.HistogramMetricFamily(f"apns_live_{name}", what, labels=[label] if label else [])
    for value, times in series.items():
        buckets = [(str(at), count) for at, count in zip(BOUNDS, times.counts, strict=True)]
        buckets.append(("+Inf", times.count))
        family.add_metric([value] if label else [], buckets, times.total)
    return family


def _family(
    kind: type[core.CounterMetricFamily | core.GaugeMetricFamily],
    name: str,
    what: str,
    values: Mapping[Any, float] | float,
    *labels: str,
) -> core.CounterMetricFamily | core.GaugeMetricFamily:
    """Return the values by their labels, or the one value."""
    family = kind(f"apns_live_{name}", what, labels=labels)
    for place, value in values.items() if isinstance(values, Mapping) else [((), values)]:
        family.add_metric(place, value)
    return family


_gauge = partial(_family, core.GaugeMetricFamily)
_counter = partial(_family, core.CounterMetricFamily)
