"""Provider keys, tokens in every wrong form, and a state for the rules."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from apns_live.testing.channels import Channels
from apns_live.testing.jwt import TokenVerifier
from apns_live.testing.state import ApnsState, RegisteredKey

from .requests import BUNDLE_ID, KEY_ID, NOW, OTHER_KEY_ID, OTHER_TEAM_ID, TEAM_ID, Signer


@pytest.fixture(scope="session")
def keys() -> dict[str, ec.EllipticCurvePrivateKey]:
    names = (
        KEY_ID,
        OTHER_KEY_ID,
        "STRANGEKEY",
        "PRODKEY001",
        "TOPICKEY01",
        "TOPICKEY02",
        "OTHERTEAMK",
    )
    return {name: ec.generate_private_key(ec.SECP256R1()) for name in names}


@pytest.fixture
def sign(keys: dict[str, ec.EllipticCurvePrivateKey]) -> Signer:
    return Signer(keys)


@pytest.fixture
def state(keys: dict[str, ec.EllipticCurvePrivateKey]) -> ApnsState:
    return make_state(keys)


@pytest.fixture
def strict_state(keys: dict[str, ec.EllipticCurvePrivateKey]) -> ApnsState:
    return make_state(keys, strict=True)


def make_state(keys: dict[str, ec.EllipticCurvePrivateKey], *, strict: bool = False) -> ApnsState:
    verifier = TokenVerifier(strict=strict)
    serial = iter(range(1, 10**9))
    state = ApnsState(
        environment="development",
        channels=Channels(environment="development", seed=1),
        verifier=verifier,
        new_id=lambda: f"00000000-0000-4000-a000-{next(serial):012x}",
        strict=strict,
    )
    state.add_app(BUNDLE_ID, TEAM_ID)
    state.add_app("com.example.second", TEAM_ID)
    state.add_app("com.example.silent", TEAM_ID, broadcast=False)
    state.add_app("com.other.app", OTHER_TEAM_ID)
    public = {name: key.public_key() for name, key in keys.items()}
    for key in (
        RegisteredKey(KEY_ID, TEAM_ID, public[KEY_ID]),
        RegisteredKey(OTHER_KEY_ID, TEAM_ID, public[OTHER_KEY_ID]),
        RegisteredKey("PRODKEY001", TEAM_ID, public["PRODKEY001"], environment="production"),
        RegisteredKey(
            "TOPICKEY01",
            TEAM_ID,
            public["TOPICKEY01"],
            topics=frozenset({BUNDLE_ID}),
            related=frozenset({"TOPICKEY02"}),
        ),
        RegisteredKey(
            "TOPICKEY02",
            TEAM_ID,
            public["TOPICKEY02"],
            topics=frozenset({"com.example.second"}),
            related=frozenset({"TOPICKEY01"}),
        ),
        RegisteredKey("OTHERTEAMK", OTHER_TEAM_ID, public["OTHERTEAMK"]),
    ):
        verifier.register(key)
    assert NOW > 0
    return state
