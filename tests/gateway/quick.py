"""Phones of the gateway beside its fake that do not take their time."""

from __future__ import annotations

from functools import partial

import pytest

from apns_live.cli import with_fake
from apns_live.testing import FakeApns
from apns_live.testing.phones import PhoneSettings


@pytest.fixture
def quick_phones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cards have their tokens at once: a phone takes up to two real seconds otherwise."""
    settings = PhoneSettings(token_delay=(0.0, 0.05))
    monkeypatch.setattr(with_fake, "FakeApns", partial(FakeApns, phone_settings=settings))
