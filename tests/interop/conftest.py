"""A fake on the wire face for senders that are not ours."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from apns_live import ProviderKey
from apns_live.testing.fake import FakeApns


@pytest.fixture
async def wire_fake() -> AsyncIterator[FakeApns]:
    """Yield a fake on our own HTTP/2 server."""
    async with FakeApns() as fake:
        yield fake


def bearer(fake: FakeApns) -> str:
    """Return an authorization header that the fake accepts, made with PyJWT."""
    token = jwt.encode(
        {"iss": fake.team_id, "iat": int(time.time())},
        fake.key_file.read_text(),
        algorithm="ES256",
        headers={"kid": fake.key_id},
    )
    return f"bearer {token}"


@pytest.fixture
def provider_key() -> ProviderKey:
    """Return a key made for this test; the servers that get it do not look at it."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ProviderKey.from_pem(pem, key_id="ABC123DEFG", team_id="DEF123GHIJ")
