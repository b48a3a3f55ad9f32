"""What values look like to those who print, compare and encode them."""

from __future__ import annotations

import json
from itertools import repeat

import msgspec
import pytest

from apns_live import Outcome, Update, Verdict
from apns_live.client import Endpoint
from apns_live.errors import InvalidSetting
from apns_live.outcome import alike
from apns_live.pool.endpoint import ENVIRONMENTS, resolve_environment
from apns_live.settings import suggestion
from apns_live.testing import FakeApns
from tests.client.conftest import client_for, token


def test_a_verdict_is_text() -> None:
    assert json.dumps({"verdict": Verdict.DROP_TOKEN}) == '{"verdict": "drop_token"}'
    assert json.dumps({Verdict.ACCEPTED: 1}) == '{"accepted": 1}'
    assert msgspec.json.encode(Verdict.UNKNOWN) == b'"unknown"'
    assert Verdict("not_sent") is Verdict.NOT_SENT
    assert f"{Verdict.EXPIRED}" == "expired"


def test_outcomes_alike_differ_in_their_columns_alone() -> None:
    like = Outcome(token="", verdict=Verdict.ACCEPTED, status=200, attempts=2, detail="so")
    made = alike(like, apns_id=repeat("id"), token=["ab" * 32, "cd" * 32])
    assert made == [
        msgspec.structs.replace(like, token=token, apns_id="id") for token in ("ab" * 32, "cd" * 32)
    ]
    assert alike(like, token=[]) == []


def test_an_outcome_shows_eight_digits_of_its_token() -> None:
    outcome = Outcome(token=token(10**30), verdict=Verdict.DROP_TOKEN, reason="Unregistered")
    shown = repr([outcome])
    assert outcome.token not in shown
    assert outcome.token[:8] in shown
    assert "Unregistered" in shown


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("prod", "production"),
        ("Production", "production"),
        ("dev", "sandbox"),
        ("development", "sandbox"),
        ("sandbx", "sandbox"),
    ],
)
def test_an_environment_that_is_nearly_one_is_suggested(given: str, meant: str) -> None:
    with pytest.raises(InvalidSetting, match=f'mean "{meant}"'):
        resolve_environment(given)
    assert isinstance(resolve_environment(meant), Endpoint)


def test_a_setting_suggests_what_an_abbreviation_means() -> None:
    assert suggestion("prod", ENVIRONMENTS) == "Did you mean production?"
    assert suggestion("staging", ENVIRONMENTS) == ""


@pytest.mark.wire
async def test_the_pushes_of_a_fake_compare_with_a_list(fake: FakeApns) -> None:
    assert fake.pushes == []
    async with client_for(fake) as client:
        await client.send(Update(content_state={}), token(1))
    assert fake.pushes != []
    assert fake.pushes == list(fake.pushes)
