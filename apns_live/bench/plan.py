"""Computes connections, processes, machines and database load for an audience.

One connection carries at most min(streams / RTT, window / (body x RTT)) pushes a second. The share of it
that the pool reaches, and the CPU time of a push, are measured. The plan uses only a part of each core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .results import Result, median
from .sinks import SinkOptions, carries

POOL_SHARE = 0.8
"""Of what windows can carry, what the pool is promised to use (docs/measurements/distance.md)."""
CORE_SHARE = 0.7
"""Of a core, what a process is planned to use: the rest is for bursts, retries and the collector."""
MOST_CONNECTIONS = 64
"""Connections of one process: so many are measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The needs. ``round_trip`` is seconds, ``body`` bytes, ``within`` the seconds for a state."""

    audience: int
    updates_per_minute: float
    round_trip: float
    body: int
    within: float | None = None
    cores_a_machine: int = 8
    options: SinkOptions = field(default_factory=SinkOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Microseconds of CPU per push: of the client alone, and of the service with all outcomes."""

    client: float
    service: float


def costs_of(results: Sequence[Result]) -> Costs | None:
    """Return the costs from results of ``throughput`` and ``service``; None without a fan_out."""
    cpu: dict[str, list[float]] = {}
    for result in results:
        for run in result.runs:
            if run.count and run.cpu:
                name = "fan_out" if run.name.endswith("fan_out") else run.name
                cpu.setdefault(name, []).append(run.cpu / run.count * 1e6)
    if "fan_out" not in cpu:
        return None
    client = median(cpu["fan_out"])
    return Costs(client=client, service=median(cpu["start"]) if "start" in cpu else 0.0)


def plan(needs: Needs, costs: Costs) -> dict[str, float]:
    """Return the required resources; the keys name their units."""
    interval = 60.0 / needs.updates_per_minute
    window = interval if needs.within is None else min(needs.within, interval)
    rate = needs.audience / window
    one = carries(1, needs.body, needs.round_trip, needs.options)
    connections = math.ceil(rate / (one * POOL_SHARE))
    found: dict[str, float] = {
        "pushes a second": rate,
        "a connection carries, pushes a second": one,
        "connections": connections,
    }
    for name, cost in (("client", costs.client), ("service", costs.service)):
        if not cost:
            continue
        able = 1e6 * CORE_SHARE / cost
        processes = max(math.ceil(rate / able), math.ceil(connections / MOST_CONNECTIONS))
        each = math.ceil(connections / processes)
        found |= {
            f"{name}: CPU us a push": cost,
            f"{name}: processes": processes,
            f"{name}: connections a process": each,
            f"{name}: machines of {needs.cores_a_machine} cores": math.ceil(
                processes / needs.cores_a_machine
            ),
            f"{name}: a state reaches everyone in s": seconds_for(
                needs, processes * each, processes * able
            ),
        }
    return found | {
        "database: rows read and outcomes written a second": rate,
        "database: states written a minute": needs.updates_per_minute,
        "network out, Mbit/s": rate * (needs.body + 130) * 8 / 1e6,
    }


def seconds_for(needs: Needs, connections: int, able: float) -> float:
    """Return the seconds until every token has a state, with these connections and this CPU."""
    carried = carries(connections, needs.body, needs.round_trip, needs.options) * POOL_SHARE
    return needs.audience / min(carried, able) + needs.round_trip
