"""``apns-live budget simulate``: a match against phones whose law the engine does not know."""

from __future__ import annotations

import json
import random

import pytest
from click.testing import CliRunner

from apns_live.cli.app import load
from apns_live.cli.budget_simulation import Planned, plot, read_plan, simulate
from apns_live.errors import InvalidInput, InvalidSetting
from tests.counts import count

SEEDS = count(40, soak=100)


def match_plan(seed: int) -> list[Planned]:
    """Four hours, 600 updates and 20 alerts at moments drawn from the seed, and an end."""
    draw = random.Random(seed)
    plan = [Planned(draw.uniform(0, 4 * 3600)) for _ in range(600)]
    plan += [Planned(draw.uniform(0, 4 * 3600), alert=True) for _ in range(20)]
    return [*plan, Planned(4 * 3600 + 5, end=True)]


def test_a_match_never_exhausts_phones_whose_law_is_not_known():
    at_once = alive = constant = 0
    for seed in range(SEEDS):
        draw = random.Random(f"phone {seed}")
        phone = {"capacity": draw.randint(12, 20), "hour_offset": draw.uniform(0, 3600)}
        ours = simulate(match_plan(seed), **phone)
        at_once += ours.alerts_shown_at_once == len([p for p in ours.sent if p.kind == "alert"])
        alive += not ours.exhausted
        urgent = [Planned(one.at, "urgent", one.alert, one.end) for one in match_plan(seed)]
        constant += simulate(urgent, **phone).exhausted
        assert ours.ended
        assert ours.sent[-1].kind == "end"
    assert at_once >= 0.95 * SEEDS
    assert alive >= 0.95 * SEEDS
    assert constant == SEEDS


def test_the_simulation_as_json_and_plot(tmp_path):
    got = simulate(match_plan(1), capacity=12)
    values = json.loads(json.dumps(got.as_json()))
    assert values["updates"] == 621
    assert values["sent_at_10"] + values["sent_at_5"] == len(values["sent"])
    assert values["demoted"] > 0
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        plot(got, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(InvalidSetting, match=r"png or \.svg"):
        plot(got, tmp_path / "a.gif")


def test_the_command(tmp_path):
    plan = tmp_path / "plan.jsonl"
    plan.write_text(
        "".join(json.dumps({"at": p.at, "alert": p.alert}) + "\n" for p in match_plan(2))
    )
    options = ["budget", "simulate", "--updates", str(plan), "--plot", str(tmp_path / "a.svg")]
    ran = CliRunner().invoke(load(), [*options, "--phone-capacity", "12"])
    assert ran.exit_code == 0, ran.output
    assert "unverified" in ran.output
    assert (tmp_path / "a.svg").exists()
    ran = CliRunner().invoke(
        load(), [*options, "--json", "--budget", "40", "--phone-law", "rolling"]
    )
    assert json.loads(ran.stdout)["budget"]["per_hour"] == 40


def test_plans_are_read_from_json_lines_and_csv(tmp_path):
    file = tmp_path / "plan"
    file.write_text('{"at": 1, "alert": true}\n\n{"at": 2.5, "urgency": "quiet", "end": false}\n')
    assert read_plan(file) == [Planned(1.0, alert=True), Planned(2.5, "quiet")]
    file.write_text("at,urgency,alert,end\n1,,yes,\n2,urgent,,true\n")
    assert read_plan(file) == [Planned(1.0, alert=True), Planned(2.0, "urgent", end=True)]
    for text in ("", '{"when": 1}', '{"at": -1}', '{"at": 1, "urgency": "x"}', "{]", "at\nx\n"):
        file.write_text(text)
        with pytest.raises(InvalidInput, match="updates"):
            read_plan(file)
