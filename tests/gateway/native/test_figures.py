"""/metrics: Prometheus' own parser reads it, labels are few, sums never sink."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apns_live.client.statistics import BOUNDS, Histogram
from apns_live.gateway import GatewaySettings
from apns_live.gateway.context import Tally
from apns_live.gateway.figures import Figures
from apns_live.outcome import Verdict

from .conftest import Live

TOKEN = "a-token-for-the-figures"


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> GatewaySettings:
    name = request.node.name
    if "token" in name:
        return GatewaySettings(metrics_token=TOKEN, refused_per_minute=3)
    return GatewaySettings(metrics="switched_off" not in name, pages="switched_off" not in name)


def read(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the samples by name and label values, as Prometheus reads them, strictly."""
    assert text.endswith("\n")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"apns_live_[a-z0-9_]+", family.name), family.name
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}, family.name
        for sample in family.samples:
            if family.type == "histogram":
                assert family.name.endswith("_seconds")
            else:
                assert sample.name == family.name + ("_total" if family.type == "counter" else "")
            place = tuple(sample.labels.values())
            assert place not in found.setdefault(sample.name, {}), "a series twice"
            found[sample.name][place] = sample.value
    return found


async def test_what_was_done_is_counted(live: Live) -> None:
    await live.add_phones(3)
    await live.start("m1")
    await live.hand_in()
    await live.http.post("/v1/activities/m1/update", json={"content_state": {"n": 1}})
    await live.service.settled()
    async with live.caller() as anyone:
        answer = await anyone.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    figures = read(answer.text)
    assert figures["apns_live_pushes_total"] == {("accepted",): 6}
    assert figures["apns_live_connections"][()] >= 1
    assert figures["apns_live_service_results_total"][()] >= 6
    place = ("POST", "/v1/activities/{activity}/update", "202")
    assert figures["apns_live_http_answers_total"][place] == 1
    for times, least in (
        ("push_queue_seconds", 6),
        ("push_round_trip_seconds", 6),
        ("state_age_seconds", 3),
    ):
        counts = figures[f"apns_live_{times}_bucket"]
        assert list(counts.values()) == sorted(counts.values())
        assert counts["+Inf",] == figures[f"apns_live_{times}_count"][()] >= least
        assert figures[f"apns_live_{times}_sum"][()] > 0
    assert figures["apns_live_operation_duration_seconds_count"] == {("start",): 1, ("update",): 1}
    assert figures["apns_live_http_request_duration_seconds_count"][place[1],] == 1
    assert figures["apns_live_partitions_owned"] == figures["apns_live_partitions"] == {(): 256}
    assert figures["apns_live_leases_lost"] == {(): 0}
    assert figures["apns_live_start_tokens_suspected_total"] == {(): 0}
    for word in (live.app.id + '"', "m1", "phone-1", "sandbox", live.key):
        assert word not in answer.text


async def test_labels_are_few_whatever_callers_do(live: Live) -> None:
    async with live.caller() as caller:
        for number in range(50):
            await caller.get(f"/v1/activities/a{number}", headers={"x": str(number)})
            await caller.request("BREW", f"/pot/{number}")
            await caller.request(f"VERB{number}", "/v1/activities")
        series = read((await caller.get("/metrics")).text)["apns_live_http_answers_total"]
    assert len(series) < 20
    assert {route for _, route, _ in series} <= {
        "other",
        "/v1/activities/{activity}",
        "/v1/activities",
        "/v1/devices/{device}",
        "/v1/tokens",
        "/metrics",
    }


async def test_reasons_that_a_server_invents_are_one_label(live: Live) -> None:
    client = SimpleNamespace(
        connections=(),
        verdicts={Verdict.UNKNOWN: 3},
        reasons={"BadDeviceToken": 2, 'x"} 1\nevil 1': 1, "Invented": 4},
        waiting=0,
        in_flight=0,
        retries=0,
        replays=0,
        connections_opened=1,
        connections_failed=0,
        queue_times=Histogram().times(),
        round_trips=Histogram().times(),
    )
    delivery = SimpleNamespace(tokens_behind=0, demoted=0, over_budget=0)
    carrier: Any = SimpleNamespace(app="a", environment="sandbox", client=client, delivery=delivery)
    metrics = {metric.name: metric for metric in Figures(live.gateway)._pushes([carrier])}
    samples = metrics["apns_live_push_refusals"].samples
    assert {(sample.labels["reason"], sample.value) for sample in samples} == {
        ("BadDeviceToken", 2),
        ("other", 5),
    }


def test_times_are_counted_up_to_each_bound() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.004, 0.02, 0.02, 7.0, 1_000.0):
        histogram.add(seconds)
    times = histogram.times()
    counts = dict(zip(BOUNDS, times.counts, strict=True))
    assert (counts[0.001], counts[0.005], counts[0.01], counts[0.025]) == (1, 2, 2, 4)
    assert (counts[5.0], counts[10.0], counts[300.0], times.count) == (4, 5, 5, 6)
    assert times.total == pytest.approx(1_007.044)


def test_sums_never_sink_when_a_source_goes_or_begins_anew() -> None:
    tally = Tally()
    one, other = ("a", "sandbox"), ("b", "sandbox")
    name = ("plain", "retries")
    assert tally.add({one: Counter({name: 5})})[name] == 5
    assert tally.add({one: Counter({name: 7}), other: Counter({name: 2})})[name] == 9
    assert tally.add({other: Counter({name: 3})})[name] == 10
    assert tally.add({one: Counter({name: 1}), other: Counter({name: 3})})[name] == 11
    assert tally.add({one: Counter({name: 1}), other: Counter()})[name] == 11
    assert tally.add({})[name] == 11


async def test_figures_for_who_has_the_token(live: Live) -> None:
    async with live.caller() as anyone:
        assert (await anyone.get("/metrics")).status_code == 401
        for wrong in (live.key, TOKEN[:-1], TOKEN + "x", "é"):
            header = b"Bearer " + wrong.encode()
            answer = await anyone.get("/metrics", headers=[(b"authorization", header)])
            assert answer.status_code in {401, 429}
            assert TOKEN not in answer.text
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert (await anyone.get("/metrics", headers=bearer)).status_code == 200
        # Health is for everyone, and tells nothing.
        assert (await anyone.get("/healthz")).status_code == 200
    assert TOKEN not in repr(live.gateway.settings)


async def test_figures_and_description_switched_off(live: Live) -> None:
    async with live.caller() as anyone:
        for path in ("/metrics", "/openapi.json"):
            answer = await anyone.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
