"""``apns-live explain`` and the low table behind it."""

from __future__ import annotations

import json

import pytest

from apns_live.cli import run
from apns_live.explain import ROWS, find, near
from apns_live.outcome import Verdict
from apns_live.reasons import TABLE
from apns_live.testing import log as words

SYMPTOMS = {
    "started while the app was closed": "no token",
    "200 and nothing shown": "nothing shown",
    "dead start token": "dead start token",
    "start budget": "start budget",
    "decode mismatch": "undecodable",
    "date mismatch": "date mismatch",
    "8-hour end": "eight hours",
    "BadDeviceToken in TestFlight": "testflight",
    "two cards": "two cards",
    "sound on a silent update": "sound on a silent update",
    "delays at events": "delays at events",
}


@pytest.mark.parametrize("said", SYMPTOMS)
def test_every_symptom_of_the_field_is_explained(said: str) -> None:
    found = find(said)
    assert found is not None
    assert found.name == SYMPTOMS[said]
    assert found.remedy
    assert found.fault


def test_every_verdict_and_every_word_of_a_phone_is_explained() -> None:
    assert all(find(verdict.value) for verdict in Verdict)
    assert all(find(why) for why in words.DISCARD_REASONS)
    assert find(words.DEVICE_OFFLINE)
    assert find(words.POWER)
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_no_two_rows_share_a_word() -> None:
    every = [(word, row.name) for row in ROWS for word in (row.name, *row.words)]
    for word, name in every:
        found = find(word)
        assert found is not None
        assert found.name == name, word


def test_what_is_not_known_has_neighbours() -> None:
    assert near("two card")[0] == "two cards"
    assert "eight hours" in near("my card stops after hours")


@pytest.mark.parametrize("word", [*TABLE, "BADDEVICETOKEN", "Service Unavailable", "Two-Cards"])
def test_any_reason_is_explained(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", word, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["meaning"]
    assert facts["remedy"]


def test_an_unknown_word_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "gargle"]) == 2
    assert "Did you mean" in capsys.readouterr().err
    assert run(["explain"]) == 0
    assert "BadDeviceToken" in capsys.readouterr().out
    assert run(["explain", "two cards"]) == 0
    assert "whose fault: the sender's" in capsys.readouterr().out
