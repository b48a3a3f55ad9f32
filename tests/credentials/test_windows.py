"""Which provider token a connection shows, and when it changes."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.credentials import ProviderKey, ProviderTokens

from .conftest import KEYS

KEY = ProviderKey.from_file(KEYS / "AuthKey_TEST123KEY.p8", team_id="TEAM123456")
START = 1500 * 1_196_808
HOUR = 3600


@dataclasses.dataclass
class Clock:
    """Only the time of day: the tokens ask for nothing else."""

    now: float = float(START)

    def time(self):
        return self.now


def test_a_window_is_first_used_when_it_has_settled():
    clock = Clock(START + 179.9)
    tokens = ProviderTokens(KEY, clock)
    assert tokens.current().issued_at == START - 1500
    clock.now = START + 180
    assert tokens.current().issued_at == START
    assert tokens.current().window == 1_196_808
    clock.now = START + 1679.9
    assert tokens.current().issued_at == START
    clock.now = START + 1680
    assert tokens.current().issued_at == START + 1500


def test_the_value_is_the_header_and_is_signed_once_a_window():
    clock = Clock(START + 200)
    tokens = ProviderTokens(KEY, clock)
    first = tokens.current()
    assert first.value == b"bearer " + KEY.sign(START).encode()
    clock.now += 1000
    assert tokens.current() is first
    assert tokens.for_connection(None) is first


def test_another_key_signs_its_own_token_at_once():
    """A key that was replaced may be revoked."""
    clock = Clock(START + 200)
    tokens = ProviderTokens(KEY, clock)
    tokens.current()
    newer = ProviderKey.from_file(KEYS / "AuthKey_TEST456KEY.p8", team_id="TEAM123456")
    assert tokens.with_key(newer).current() == ProviderTokens(newer, clock).current()


def test_a_connection_keeps_its_token_for_fifty_minutes():
    clock = Clock(START + 180)
    tokens = ProviderTokens(KEY, clock)
    held = tokens.for_connection(None)
    clock.now = START + 2999
    assert tokens.for_connection(held) is held
    assert tokens.current() is not held
    clock.now = START + 3000
    assert tokens.for_connection(held).issued_at == START + 1500


def test_a_token_from_the_future_is_replaced():
    clock = Clock(START + 7200)
    tokens = ProviderTokens(KEY, clock)
    ahead = tokens.current()
    clock.now = float(ahead.issued_at)
    assert tokens.for_connection(ahead) is ahead
    clock.now -= 1
    assert tokens.for_connection(ahead) is not ahead


def test_another_process_derives_the_same_bytes():
    one = ProviderTokens(KEY, Clock(START + 200))
    two = ProviderTokens(
        ProviderKey.from_pem(
            (KEYS / "AuthKey_TEST123KEY.p8").read_bytes(), key_id="TEST123KEY", team_id="TEAM123456"
        ),
        Clock(START + 1600),
    )
    assert one.current() == two.current()


@pytest.mark.parametrize(("seconds", "last"), [(3000, 2), (2981, 2), (2980, 2), (2979, 1)])
def test_what_is_signed_ahead_covers_the_windows_up_to_then(seconds: float, last: int):
    tokens = ProviderTokens(KEY, Clock(START + 200))
    ahead = tokens.signed_ahead(seconds)
    assert list(ahead) == [START + 1500 * number for number in range(-2, last + 1)]
    assert f"bearer {ahead[START]}".encode() == tokens.current().value


def test_random_signatures_are_kept_for_their_window():
    clock = Clock(START + 200)
    tokens = ProviderTokens(KEY, clock, deterministic=False)
    first = tokens.current()
    assert tokens.current() is first
    assert ProviderTokens(KEY, clock, deterministic=False).current() != first


def test_the_repr_shows_no_secret():
    tokens = ProviderTokens(KEY, Clock(START + 200))
    tokens.current()
    shown = "ProviderTokens(key=ProviderKey(key_id='TEST123KEY', team_id='TEAM123456'), "
    assert repr(tokens) == f"{shown}deterministic=True)"


class Unsigned(ProviderKey):
    """A key whose signature costs nothing: the property is about times."""

    __slots__ = ()

    def sign(self, issued_at, *, deterministic=True):
        return str(issued_at)


UNSIGNED = Unsigned.from_pem(
    (KEYS / "AuthKey_TEST123KEY.p8").read_bytes(), key_id="TEST123KEY", team_id="TEAM123456"
)


@given(
    opened=st.floats(START, START + 2 * HOUR),
    pauses=st.lists(st.floats(0, 1000) | st.floats(1000, 4 * HOUR), max_size=60),
)
def test_two_tokens_on_a_connection_are_twenty_minutes_apart(opened, pauses):
    # The connection opens at any moment, also just before another connection's change, and
    # pushes leave after any pauses.
    clock = Clock(opened)
    tokens = ProviderTokens(UNSIGNED, clock)
    held, first_shown = None, opened
    for pause in [0.0, *pauses]:
        clock.now += pause
        shown = tokens.for_connection(held)
        age = clock.now - shown.issued_at
        assert 180 - 1e-6 <= age < HOUR
        if held is not None and shown != held:
            assert clock.now - first_shown >= 1200 - 1e-6
            first_shown = clock.now
        held = shown


@given(before=st.floats(0.001, 1200), later=st.floats(0, 1199))
def test_a_connection_opened_just_before_anothers_change(before, later):
    # A changes at the moment its token is 50 minutes old; B opened `before` seconds earlier.
    clock = Clock(START + 180)
    tokens = ProviderTokens(UNSIGNED, clock)
    a = tokens.for_connection(None)
    clock.now = START + 3000 - before
    b = tokens.for_connection(None)
    clock.now = START + 3000
    assert tokens.for_connection(a) != a
    assert tokens.for_connection(b) == b or b == a
    opened = START + 3000 - before
    clock.now = min(opened + 1199, START + 3000 + later)
    assert tokens.for_connection(b) == b


@given(now=st.floats(START, START + 10_000), skew=st.floats(0, 180))
def test_a_clock_that_runs_ahead_by_less_than_the_settling_time_does_no_harm(now, skew):
    ahead = ProviderTokens(UNSIGNED, Clock(now + skew)).current()
    assert ahead.issued_at <= now + 1e-6


@pytest.mark.parametrize("jump", [-10 * HOUR, 10 * HOUR])
def test_a_clock_that_jumps_still_gives_a_token_of_its_time(jump):
    clock = Clock(START + 200)
    tokens = ProviderTokens(KEY, clock)
    tokens.current()
    clock.now += jump
    assert 0 <= clock.now - tokens.current().issued_at < HOUR
