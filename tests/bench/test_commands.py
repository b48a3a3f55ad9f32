"""Every command of ``apns-live bench`` once, very small. Counts are asserted, never rates."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from apns_live.bench import results
from apns_live.bench.processes import Sink, SinkOptions, sink
from apns_live.bench.results import Result
from apns_live.bench.runner import Setup, Stand, contenders_of, message_of
from apns_live.bench.senders import Plan, our_client
from apns_live.cli import run
from apns_live.errors import BenchError


@pytest.fixture(autouse=True)
def a_machine_that_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrate in no time, and pin nothing: other tests run beside."""
    monkeypatch.setattr(results.calibrate, "__defaults__", (1_000, 1))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})


def measured(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code = run(["bench", *words, "--json"])
    said = capsys.readouterr()
    assert code == 0, said
    result: dict[str, Any] = json.loads(said.out)
    assert result["conditions"]["libraries"]
    return result


def counts(result: dict[str, Any]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in result["runs"]:
        found[one["name"]] += one["count"]
        assert not one.get("failed", 0), one
    return dict(found)


def test_throughput_writes_what_was_asked_for(capsys, tmp_path: Path) -> None:
    payload = tmp_path / "update.json"
    payload.write_text('{"aps": {"event": "update", "content-state": {"home": 1}}}')
    sender = """python3 -c 'print("{\\"count\\": {count}, \\"wall\\": 2.0, \\"failed\\": 0}")'"""
    files = [tmp_path / f"result.{form}" for form in ("json", "csv", "png")]
    written = [word for file in files for word in ("--output", str(file))]
    words = ["throughput", "--payload", str(payload), "--count", "40", "--rounds", "1"]
    words += ["--against", "aioapns", "--concurrent", "20", "--sender", sender, *written]
    result = measured(capsys, *words)
    names = ["apns_live fan_out", "apns_live send()", "aioapns", "python3"]
    assert counts(result) == dict.fromkeys(names, 40)
    assert result["runs"][3]["wall"] == 2.0
    assert all("sink_busy" in one for one in result["runs"])
    assert json.loads(files[0].read_text())["runs"] == result["runs"]
    assert len(files[1].read_text().splitlines()) == 5
    assert files[2].read_bytes().startswith(b"\x89PNG")


def test_every_other_round_goes_backwards() -> None:
    result = Result(measure="throughput", title="", conditions={})
    both = contenders_of([], ["true", "sh -c 'exit 0'"], None)
    place = Stand(result, Sink("", 1, "", lambda: 0.0), Setup())
    place.run(both, Plan(message=message_of(350), count=1), rounds=2)
    assert [(one.name, one.round) for one in result.runs] == [
        ("true", 0), ("sh", 0), ("sh", 1), ("true", 1)
    ]  # fmt: skip


def test_a_command_that_fails_is_left_out_and_named() -> None:
    result = Result(measure="throughput", title="", conditions={})
    place = Stand(result, Sink("", 1, "", lambda: 0.0), Setup())
    every = contenders_of([], ["true", "sh -c 'exit 3'"], None)
    place.run(every, Plan(message=message_of(350), count=1), rounds=2)
    assert [one.name for one in result.runs] == ["true", "true"]
    assert result.notes == ["sh is left out: sh ended with 3: "]
    with pytest.raises(BenchError, match="ended with 3"):
        place.run(every[1:], Plan(message=message_of(350), count=1))


@pytest.mark.parametrize("kind", ["auto", "own"])
@pytest.mark.parametrize("window", [5_000, 200_000])
async def test_a_sink_keeps_to_its_window(kind: str, window: int) -> None:
    with sink(SinkOptions(kind=kind, window=window)) as running:
        plan = Plan(message=message_of(1_000), count=300).at(running)
        async with our_client(plan) as client:
            report = await client.fan_out(plan.message, plan.tokens()).wait()
            assert report.accepted == 300
            assert running.cpu() >= 0


def test_latency_appends_to_a_file(capsys, tmp_path: Path) -> None:
    file = tmp_path / "latency.json"
    words = ["latency", "--rate", "500", "--count", "20", "--sink", "own", "--output", str(file)]
    assert counts(measured(capsys, *words)) == {"500 pushes/s": 20}
    again = measured(capsys, *words, "--append")
    assert "our own HTTP/2 server" in again["settings"]["sink"]
    assert [one.get("round", 0) for one in again["runs"]] == [0, 1]
    assert json.loads(file.read_text())["runs"] == again["runs"]


def test_distance_counts_beside_what_windows_can_carry(capsys) -> None:
    words = ["distance", "--rtt", "2", "--window", "5000", "--connections", "2", "--count", "300"]
    result = measured(capsys, *words, "--body", "1000")
    assert counts(result) == {"2 connections": 300}
    assert result["runs"][0]["figures"]["can carry/s"] == 2 * 5 / 0.002


def test_fan_out_counts_an_audience(capsys) -> None:
    result = measured(capsys, "fan-out", "--audience", "30", "--updates", "1", "--every", "1")
    assert counts(result) == {"live activity": 30}
    assert "An audience of 30 gets a state in" in result["notes"][0]


def test_memory_counts_tokens(capsys) -> None:
    result = measured(capsys, "memory", "--count", "100")
    assert counts(result) == {"fan_out": 100}


def test_service_registers_and_starts(capsys) -> None:
    result = measured(capsys, "service", "--devices", "20")
    assert counts(result) == {"register": 40, "start": 20, "fan_out": 20}


def test_gateway_serves_three_apis(capsys) -> None:
    words = ["gateway", "--count", "6", "--connections", "2", "--rounds", "1", "--phones", "2"]
    result = measured(capsys, *words, "--overload", "3", "--start", "20")
    names = ["empty route", "update", "braze", "onesignal", "one token a call", "update, half load"]
    names.append("update, during a start")
    assert counts(result) == dict.fromkeys([*names, "3 connections"], 6)


def test_a_peer_that_is_not_installed_is_named(capsys, tmp_path: Path) -> None:
    (tmp_path / "senders.json").write_text('{"rust": "no-such-program {port}"}')
    words = ["throughput", "--senders", str(tmp_path / "senders.json"), "--against", "rust"]
    assert run(["bench", *words]) == 2
    assert "rust needs no-such-program, which is not installed here" in capsys.readouterr().err


def test_a_form_that_nobody_writes_is_refused_before_anything_runs(capsys) -> None:
    assert run(["bench", "throughput", "--output", "result.xls"]) == 2
    assert run(["bench", "throughput", "--against", "nobody"]) == 2
    assert run(["bench", "throughput", "--sink", "nginx"]) == 2
    said = capsys.readouterr().err
    assert "End it with .json, .csv, .png" in said
    assert "Use one of aioapns, httpx, pyapns, h2load" in said
