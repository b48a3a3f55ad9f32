"""A fake on the wire face for senders that are not ours."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import jwt
import pytest

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
