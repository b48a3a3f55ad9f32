"""The gateway beside its fake without what takes time: phones that dawdle, and a schema made anew."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from apns_live.cli import with_fake
from apns_live.testing import FakeApns
from apns_live.testing.phones import PhoneSettings


@pytest.fixture
def quick_phones(monkeypatch: pytest.MonkeyPatch, sqlite_template: Path) -> None:
    """Let cards have their tokens at once: a phone takes up to two real seconds otherwise."""
    settings = PhoneSettings(token_delay=(0.0, 0.05))
    monkeypatch.setattr(with_fake, "FakeApns", partial(FakeApns, phone_settings=settings))
    set_up = with_fake.embedded_database

    async def copied(given: str | None, directory: Path, *, file: str) -> str:
        if given is None:
            shutil.copy(sqlite_template, directory / file)
        return await set_up(given, directory, file=file)

    monkeypatch.setattr(with_fake, "embedded_database", copied)
