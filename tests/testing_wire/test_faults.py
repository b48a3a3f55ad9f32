"""Faults and scenarios as data: draws, matching, counting, files, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.errors import FakeError
from apns_live.testing import FakeApns, Fault, Scenario, SimulatedClock
from apns_live.testing.faults import Faults, Target, draw
from apns_live.testing.scenario import parse_duration
from apns_live.testing.serve import parse_latency

from .wire_client import WireClient, bearer, push_headers, token_of


def struck(faults: Faults, token: str, **details: Any) -> bool:
    target = Target(1, "device", token, **details)
    return bool(faults.choose(target, faults.nth(token)))


def test_a_draw_depends_on_nothing_but_its_arguments() -> None:
    assert draw(1, "f", "ab", 1) == draw(1, "f", "ab", 1)
    values = {draw(*each) for each in [(1, "f", "ab", 1), (2, "f", "ab", 1), (1, "g", "ab", 1)]}
    values |= {draw(1, "f", "ac", 1), draw(1, "f", "ab", 2)}
    assert len(values) == 5
    assert all(0 <= value < 1 for value in values)
    mean = sum(draw(7, "f", str(number), 1) for number in range(10_000)) / 10_000
    assert 0.48 < mean < 0.52


@given(st.permutations(range(40)), st.integers(0, 5))
def test_a_fraction_does_not_depend_on_the_order_of_arrival(order: list[int], seed: int) -> None:
    def hit(numbers: list[int]) -> set[tuple[str, int]]:
        faults = Faults(seed=seed)
        faults.add(action="answer", status=503, fraction=0.3)
        found = set()
        for nth in (1, 2):
            for number in numbers:
                token = token_of(number)
                if struck(faults, token):
                    found.add((token, nth))
        return found

    assert hit(list(order)) == hit(list(range(40)))


def test_a_fraction_hits_about_its_share_and_two_faults_hit_different_ones() -> None:
    faults = Faults(seed=3)
    faults.add(action="answer", status=503, fraction=0.14)
    faults.add(action="answer", status=500, fraction=0.14)
    counts = {1: 0, 2: 0, 3: 0}
    for number in range(10_000):
        target = Target(1, "device", token_of(number))
        for active in faults.choose(target, 1):
            counts[active.fault_id] += 1
    assert 1200 < counts[1] < 1600
    assert 1200 < counts[2] < 1600
    both = sum(
        1
        for n in range(10_000)
        if draw(3, "answer 1", token_of(n), 1) < 0.14 > draw(3, "answer 2", token_of(n), 1)
    )
    assert 100 < both < 320


@pytest.mark.parametrize(
    ("narrow", "target", "expected"),
    [
        ({}, {}, True),
        ({"token": "00"}, {}, True),
        ({"token": "FF"}, {}, False),
        ({"topic": "com.a"}, {"topic": "com.a"}, True),
        ({"topic": "com.a"}, {"topic": "com.b"}, False),
        ({"push_type": "alert"}, {"push_type": "alert"}, True),
        ({"push_type": "alert"}, {"push_type": "voip"}, False),
        ({"priority": 5}, {"priority": "5"}, True),
        ({"priority": 5}, {}, False),
        ({"priority": 10}, {}, True),
        ({"face": "manage"}, {}, False),
        ({"face": "device"}, {}, True),
        ({"connection": 1}, {}, True),
        ({"connection": 2}, {}, False),
    ],
)
def test_whom_a_fault_strikes(narrow: Any, target: Any, expected: bool) -> None:
    faults = Faults()
    faults.add(action="withhold", **narrow)
    assert struck(faults, token_of(1), **target) is expected


def test_when_a_fault_strikes() -> None:
    now = 0.0
    faults = Faults(monotonic=lambda: now)
    faults.add(action="withhold", after=10, lasting=5)
    seen = []
    for moment in (0, 9.9, 10, 14.9, 15, 100):
        now = moment
        seen.append(struck(faults, token_of(1)))
    assert seen == [False, False, True, True, False, False]


def test_how_often_a_fault_strikes() -> None:
    faults = Faults()
    faults.add(action="withhold", skip=2, every=3, times=2)
    assert [struck(faults, token_of(n)) for n in range(12)] == [
        False, False, True, False, False, True, False, False, False, False, False, False,
    ]  # fmt: skip


def test_the_nth_push_to_each_token() -> None:
    faults = Faults()
    faults.add(action="withhold", nth=[2, 3])
    for token in (token_of(1), token_of(2)):
        assert [struck(faults, token) for _ in range(4)] == [False, True, True, False]


def test_removing_and_clearing() -> None:
    faults = Faults()
    first, second = faults.add(action="withhold"), faults.add(Fault(action="stall"))
    assert [active.fault_id for active in faults] == [first, second]
    assert faults.remove(first)
    assert not faults.remove(first)
    assert struck(faults, token_of(1))
    faults.clear()
    assert not struck(faults, token_of(1))
    assert faults.nth(token_of(1)) == 2  # counted anew since the clearing


def test_throttling_is_a_bucket_per_token() -> None:
    now = 0.0
    faults = Faults(monotonic=lambda: now)
    faults.add(action="throttle", limit=3, per=6)
    (active,) = faults
    assert [faults.over_limit(active, "a") for _ in range(5)] == [False, False, False, True, True]
    assert not faults.over_limit(active, "b")
    now = 2.0
    assert [faults.over_limit(active, "a") for _ in range(2)] == [False, True]


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "action"),
    ({"action": "explode"}, "explode"),
    ({"action": "answer"}, "status or a reason"),
    ({"action": "answer", "reason": "NoSuchReason"}, "NoSuchReason"),
    ({"action": "answer", "status": 99}, "between 200 and 599"),
    ({"action": "delay"}, "delay or spread"),
    ({"action": "withhold", "fraction": 1.5}, "fraction"),
    ({"action": "withhold", "every": 0}, "every"),
    ({"action": "withhold", "after": -1}, "after"),
    ({"action": "throttle", "per": 0}, "per"),
    ({"action": "withhold", "tokn": "ab"}, "tokn"),
]


@pytest.mark.parametrize(("data", "named"), BAD)
def test_a_wrong_fault_is_refused_by_name(data: dict[str, Any], named: str) -> None:
    with pytest.raises(FakeError, match=named):
        Fault.from_mapping(data)


def test_a_fault_goes_to_json_and_back() -> None:
    fault = Fault(action="answer", status=503, nth=(1, 2), headers={"a": "b"}, settings={3: 1})
    assert Fault.from_mapping(asdict(fault)) == fault


SCENARIO = """
seed = 7
latency = "40ms"
spread = 0.01
devices = "strict"
idle_timeout = "10min"
cut_streams = true

[[app]]
bundle_id = "com.example.quiet"
broadcast = false

[[token]]
token = "{token}"
condition = "expired"
since = 1800000000

[[fault]]
action = "answer"
status = 503
reason = "ServiceUnavailable"
after = "10s"
lasting = "1.5min"
fraction = 0.1
retry_after = 3

[phones]
token_never = 0.25
start_budget = false
[phones.budget]
capacity = [10, 20]

[schemas]
GameAttributes = "game.json"
"""


def test_a_scenario_file(tmp_path: Path) -> None:
    (tmp_path / "game.json").write_text('{"type": "object", "required": ["home"]}')
    path = tmp_path / "bad-day.toml"
    path.write_text(SCENARIO.format(token=token_of(1)))
    fake = FakeApns(scenario=path, clock=SimulatedClock(), spread=0.5)
    assert fake.seed == 7
    assert (fake.engine.latency, fake.engine.spread) == (0.04, 0.5)
    assert fake.state.devices == "strict"
    assert fake.state.cut_streams
    assert fake.state.apps["com.example.quiet"].broadcast is False
    assert fake.state.overrides[token_of(1)].since == 1_800_000_000_000
    (fault,) = fake.scenario.faults
    assert (fault.after, fault.lasting, fault.retry_after) == (10.0, 90.0, 3.0)
    settings = fake.devices.settings
    assert settings.token_never == 0.25
    assert settings.start_budget is None
    assert settings.budget is not None
    assert settings.budget.capacity == (10, 20)
    assert settings.seed == 7
    assert "GameAttributes" in settings.schemas


WRONG_SCENARIOS: list[tuple[str, str]] = [
    ("seed = ", "not TOML"),
    ("sed = 7", "sed"),
    ('devices = "all"', "devices"),
    ("strict = 1", "strict"),
    ('latency = "soon"', "latency"),
    ("latency = -1", "latency"),
    ('[[fault]]\naction = "answer"', "fault 1"),
    ('[[fault]]\naction = "delay"\ndelay = "x"', "fault 1: delay"),
    ('[[token]]\ntoken = "xyz"\ncondition = "live"', "token 1"),
    (f'[[token]]\ntoken = "{token_of(1)}"\ncondition = "dead"', "condition"),
    ("[[app]]\nbroadcast = true", "bundle_id"),
    ("[phones]\nbatteries = 3", "phones"),
    ('[schemas]\nGame = "absent.json"', "absent.json"),
]


@pytest.mark.parametrize(("text", "named"), WRONG_SCENARIOS)
def test_a_wrong_scenario_is_refused_by_name(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    with pytest.raises(FakeError, match=named):
        FakeApns(scenario=path)


def test_an_absent_scenario_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FakeError, match="cannot read"):
        Scenario.load(tmp_path / "none.toml")


def test_durations_and_latencies() -> None:
    assert [parse_duration(each) for each in (2, 0.5, "40ms", "2s", "1.5min", "2h", "3")] == [
        2.0, 0.5, 0.04, 2.0, 90.0, 7200.0, 3.0,
    ]  # fmt: skip
    for wrong in ("", "ms", "1 day", -1, None, True, "1e3"):
        with pytest.raises(FakeError):
            parse_duration(wrong)
    assert parse_latency("40ms+10ms") == (0.04, 0.01)
    assert parse_latency(None) == (None, None)
    assert parse_latency(0.25) == (0.25, None)


async def test_delayed_answers_keep_their_order() -> None:
    clock = SimulatedClock()
    seen: list[int] = []
    for number in range(1000):
        clock.call_later((number * 7919 % 100) / 1000, lambda number=number: seen.append(number))
    await clock.advance(0.2)
    due = [number * 7919 % 100 for number in seen]
    assert due == sorted(due)
    assert len(seen) == 1000
    assert [n for n in seen if n * 7919 % 100 == 0] == sorted(
        n for n in seen if n * 7919 % 100 == 0
    )


async def test_an_expired_token_on_demand_is_no_update_too_many(tmp_path: Path) -> None:
    """A client that obeys mints a new token at once, within the 20 minutes of the rule."""
    async with FakeApns(directory=tmp_path) as fake, await WireClient.connect(fake) as client:
        fake.fault("answer", reason="ExpiredProviderToken", times=1, skip=1)
        first = push_headers(fake)
        second = {**first, "authorization": bearer(fake, age=5)}
        for headers, status in ((first, 200), (first, 403), (second, 200), (first, 429)):
            assert (await client.exchange(token_of(1), headers)).status == status


async def test_the_clock_may_age_provider_tokens_too(tmp_path: Path) -> None:
    async with FakeApns(directory=tmp_path) as fake, await WireClient.connect(fake) as client:
        headers = push_headers(fake)
        await fake.advance(3700)
        assert (await client.exchange(token_of(1), headers)).status == 200
        await fake.advance(3700, tokens=True)
        refused = await client.exchange(token_of(1), headers)
        assert (refused.status, refused.body) == (403, b'{"reason":"ExpiredProviderToken"}')


async def test_a_refused_body_is_kept_as_far_as_apns_would_read(tmp_path: Path) -> None:
    async with FakeApns(directory=tmp_path) as fake, await WireClient.connect(fake) as client:
        await client.exchange(token_of(1), push_headers(fake), b"x" * 50_000)
        assert [len(refusal.body) for refusal in fake.refusals] == [5121]
        assert [len(record.push.body) for record in fake.log.pushes] == [5121]
