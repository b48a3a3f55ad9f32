"""The provider token's bytes: fixed by us, and readable by others."""

from __future__ import annotations

import base64
import json

import jwt
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from apns_live.credentials import ProviderKey
from apns_live.errors import CredentialError, InvalidSetting

GOLDEN = (
    "eyJhbGciOiJFUzI1NiIsImtpZCI6IlRFU1QxMjNLRVkifQ"
    ".eyJpc3MiOiJURUFNMTIzNDU2IiwiaWF0IjoxNzk1MjEyMDAwfQ"
    ".f_GUV2KWg2i8ZEawudtvkN9Slc4G9Gl3ylgVRgCUKSs36HuvP9lJFH1qIZpbu32G5Vp4p0Wo1WOmQh50LTj_tw"
)


def test_the_golden_token(key):
    # Every process of a fleet, of every version, must derive these bytes. A change here would
    # make old and new processes show APNs different tokens.
    assert key.sign(1_795_212_000) == GOLDEN


def test_the_signing_input_is_ours_byte_for_byte(key):
    header, claims, signature = key.sign(1_795_212_000).split(".")
    assert _bytes(header) == b'{"alg":"ES256","kid":"TEST123KEY"}'
    assert _bytes(claims) == b'{"iss":"TEAM123456","iat":1795212000}'
    assert len(_bytes(signature)) == 64


@pytest.mark.parametrize("deterministic", [True, False])
def test_pyjwt_verifies_it(key, keys, deterministic):
    public = load_pem_public_key((keys / "public.pem").read_bytes())
    token = key.sign(1_795_212_000, deterministic=deterministic)
    options = {"verify_iat": False}
    assert jwt.decode(token, public, algorithms=["ES256"], options=options) == {
        "iss": "TEAM123456",
        "iat": 1_795_212_000,
    }
    other = ProviderKey.from_file(keys / "AuthKey_TEST456KEY.p8", team_id="TEAM123456")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(other.sign(1_795_212_000), public, algorithms=["ES256"], options=options)


def test_random_signatures_differ(key):
    assert key.sign(1, deterministic=False) != key.sign(1, deterministic=False)


def test_an_openssl_without_rfc_6979_is_explained(key, monkeypatch):
    class OldEcdsa(ec.ECDSA):
        def __init__(self, algorithm, deterministic_signing=False):
            if deterministic_signing:
                raise UnsupportedAlgorithm("ECDSA with deterministic signature is not supported")
            super().__init__(algorithm)

    monkeypatch.setattr(ec, "ECDSA", OldEcdsa)
    with pytest.raises(CredentialError, match=r"RFC 6979.*deterministic=False"):
        key.sign(1_795_212_000)
    assert key.sign(1_795_212_000, deterministic=False).count(".") == 2


def test_the_first_second_of_1970_and_the_last_before_milliseconds_are_times(key):
    assert key.sign(0) == key.sign(0)
    assert key.sign(10**11 - 1).count(".") == 2


@pytest.mark.parametrize("issued_at", [1.5, "1", True, -1, 10**11, 1_795_212_000_000])
def test_a_time_that_is_no_whole_second_is_refused(key, issued_at):
    with pytest.raises(InvalidSetting, match=r"issued_at.*seconds since 1970"):
        key.sign(issued_at)


def _bytes(part: str) -> bytes:
    assert "=" not in part
    json_or_signature = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if json_or_signature[:1] == b"{":
        json.loads(json_or_signature)
    return json_or_signature
