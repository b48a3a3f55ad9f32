from __future__ import annotations

from pathlib import Path

import pytest

from apns_live.credentials import ProviderKey

KEYS = Path(__file__).parents[2] / "fixtures" / "keys"


@pytest.fixture
def keys() -> Path:
    return KEYS


@pytest.fixture
def key() -> ProviderKey:
    return ProviderKey.from_file(KEYS / "AuthKey_TEST123KEY.p8", team_id="TEAM123456")
