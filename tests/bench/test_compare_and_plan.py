"""Comparing results that are given, and planning, checked against a simulated pool."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

from apns_live import Client, Endpoint, ProviderKey
from apns_live.bench.processes import Answering
from apns_live.bench.results import (
    POOL_SHARE,
    Costs,
    Needs,
    Result,
    Run,
    compare,
    compare_contenders,
    costs_of,
    load,
    plan,
    seconds_for,
)
from apns_live.bench.runner import message_of
from apns_live.bench.senders import provider_key
from apns_live.cli import run
from tests.simulation.effects import Effects
from tests.simulation.loop import SimulatedClock, SimulatedLoop
from tests.simulation.network import Link, Weather
from tests.simulation.plan import Plan as World


def result(rates: dict[str, list[float]], *, at: list[float]) -> Result:
    runs = [
        Run(name=name, round=turn, count=round(rate), wall=1.0, cpu=0.1, at=moment)
        for name, each in rates.items()
        for turn, (rate, moment) in enumerate(zip(each, at, strict=True))
    ]
    return Result(measure="throughput", title="", conditions={}, runs=runs)


def test_rounds_that_alternate_are_compared_in_pairs():
    # The machine slows down by half in between; B is a tenth faster in every pair.
    before = result({"fan_out": [1000, 800, 600, 500]}, at=[0, 2, 4, 6])
    after = result({"fan_out": [1100, 882, 658, 552]}, at=[1, 3, 5, 7])
    (one,) = compare(before, after)
    assert one.alternating
    assert one.ratio == pytest.approx(1.1, abs=0.01)
    assert 1.08 < one.low < one.high < 1.12
    assert one.verdict == "faster"


def test_rounds_that_do_not_alternate_show_nothing_when_they_spread():
    before = result({"fan_out": [1000, 800, 600, 500]}, at=[0, 1, 2, 3])
    after = result({"fan_out": [1100, 882, 658, 552]}, at=[4, 5, 6, 7])
    (one,) = compare(before, after)
    assert not one.alternating
    assert one.low < 1 < one.high
    assert one.verdict == "no difference shown"


def test_one_round_proves_nothing():
    (one,) = compare(result({"a": [1000]}, at=[0]), result({"a": [2000]}, at=[1]))
    assert (one.low, one.ratio) == (0.0, pytest.approx(2.0))
    assert one.verdict == "no difference shown"


def test_a_wide_interval_is_that_of_the_textbook():
    # Differences of logarithms 1 and 3: mean 2, standard error 1, t for one degree 12.71.
    first = result({"a": [1e6, 1e6]}, at=[0, 2])
    second = result({"a": [1e6 * math.e, 1e6 * math.e**3]}, at=[1, 3])
    (one,) = compare(first, second)
    assert math.log(one.low) == pytest.approx(2 - 12.71, abs=1e-4)


def test_contenders_of_one_result_are_compared_with_its_first():
    both = result({"ours": [100, 200], "theirs": [50, 100]}, at=[0, 2])
    (one,) = compare_contenders(both)
    assert (one.name, one.ratio, one.verdict) == ("theirs / ours", pytest.approx(0.5), "slower")


def test_the_command_compares_files(capsys, tmp_path: Path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    files[0].write_bytes(result({"fan_out": [100, 101]}, at=[0, 2]).json())
    files[1].write_bytes(result({"fan_out": [200, 202]}, at=[1, 3]).json())
    assert load(files[0]).runs[1].count == 101
    assert run(["bench", "compare", *map(str, files), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["verdict"] == "faster"
    assert run(["bench", "compare", *map(str, files)]) == 0
    assert "95 % confidence" in capsys.readouterr().out
    files[1].write_text("{}")
    assert run(["bench", "compare", *map(str, files)]) == 2
    assert "holds no result" in capsys.readouterr().err


def test_the_command_plans_from_given_figures(capsys, tmp_path: Path):
    figures = tmp_path / "throughput.json"
    figures.write_bytes(result({"apns_live fan_out": [10_000], "start": [5_000]}, at=[0]).json())
    words = ["--audience", "5e6", "--updates-per-minute", "2", "--rtt", "80", "--body", "600"]
    assert run(["bench", "plan", *words, "--figures", str(figures), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pushes a second"] == pytest.approx(5e6 / 30)
    # 65,535 / (600 x 0.08) = 1,365 a connection, of which the pool is trusted with 0.8.
    assert found["a connection carries, pushes a second"] == pytest.approx(1365.3, abs=0.1)
    assert found["connections"] == math.ceil(5e6 / 30 / (65_535 / 600 / 0.08 * 0.8))
    # 10 us a push: 70,000 a second of a core that is used to 0.7.
    assert found["client: processes"] == 3
    assert found["service: processes"] == math.ceil(5e6 / 30 / 35_000)
    assert found["client: connections a process"] * 3 >= found["connections"]


def test_without_the_service_no_service_is_planned():
    costs = costs_of([result({"apns_live fan_out": [10_000]}, at=[0])])
    assert costs == Costs(client=pytest.approx(10.0), service=0.0)
    needs = Needs(audience=100, updates_per_minute=1, round_trip=0.1, body=350)
    assert not [name for name in plan(needs, costs) if name.startswith("service")]
    assert costs_of([result({"aioapns": [10]}, at=[0])]) is None


class Far:
    """A network to sinks as far away as the needs say."""

    def __init__(self, loop: SimulatedLoop, needs: Needs) -> None:
        self.loop = loop
        self.needs = needs
        self.weather = Weather("plan")
        self.weather.delay = needs.round_trip / 2
        self.links: list[Link] = []

    async def tcp_connect(self, address: object) -> None:
        await asyncio.sleep(self.needs.round_trip)

    async def connect(self, make_protocol: Any) -> Any:
        await asyncio.sleep(2 * self.needs.round_trip)
        link = Link(len(self.links), self.loop, self.weather, Effects(World(0, {}, ())))
        self.links.append(link)
        link.client.set_write_buffer_limits = lambda **_: None  # type: ignore[method-assign]
        link.client._high = 2**30
        options = self.needs.options
        link.client.protocol = make_protocol()
        link.server.protocol = Answering(options.streams, options.window)
        self.loop.call_later(link.delay(), link.server.protocol.connection_made, link.server)
        link.client.protocol.connection_made(link.client)
        return link.client, link.client.protocol


@pytest.mark.parametrize(("body", "round_trip"), [(1_000, 0.08), (350, 0.15)])
def test_the_arithmetic_holds_in_a_simulated_pool(body: int, round_trip: float):
    """A state takes an audience no longer than planned, and no less than windows can carry."""
    connections = 4
    needs = Needs(audience=6_000, updates_per_minute=2, round_trip=round_trip, body=body)
    loop = SimulatedLoop()
    loop.network = Far(loop, needs)

    async def fan_out() -> float:
        key = ProviderKey.from_pem(
            provider_key().encode(), key_id="ABC123DEFG", team_id="DEF123GHIJ"
        )
        async with Client(
            key,
            bundle_id="com.example.scores",
            environment=Endpoint("far.example", 443),
            max_connections=connections,
            clock=SimulatedClock(loop),
        ) as client:
            tokens = [f"{number:064x}" for number in range(needs.audience)]
            # The first opens the connections; the second finds them as a running service does.
            for _ in range(2):
                report = await client.fan_out(message_of(body), iter(tokens)).wait()
                assert report.accepted == needs.audience
            assert report.connections == connections
            return report.elapsed

    asyncio.set_event_loop(loop)
    try:
        took = loop.run_until_complete(fan_out())
    finally:
        asyncio.set_event_loop(None)
        for each in loop.sockets:
            each.close()
        loop.close()
    planned = seconds_for(needs, connections, math.inf)
    assert planned * POOL_SHARE * 0.98 - round_trip < took < planned
