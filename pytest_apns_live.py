"""The pytest plugin of apns_live: the fixture ``fake_apns``, a local APNs for each test.

pytest loads this module in every run of every project that has apns_live installed, so it stands
outside the package and imports nothing of it until a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from apns_live.testing.handles import RunningFake, RunningNamespace


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "fake_apns(**options): what the fixture fake_apns is made with: devices='strict', seed=7, "
        "scenario={...}, schemas={...}, latency=0.04; see apns_live.testing.FakeApns",
    )


@pytest.fixture(scope="session")
def fake_apns_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the fake's certificates and key are: the same files for the whole session."""
    return tmp_path_factory.mktemp("fake-apns")


@pytest.fixture
def fake_apns(request: pytest.FixtureRequest, fake_apns_directory: Path) -> Iterator[RunningFake]:
    """Run a fake APNs on its own thread for one test; nothing of another test is in it."""
    from apns_live.testing.handles import RunningFake  # noqa: PLC0415

    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("fake_apns"))):
        if marker.args:
            pytest.fail("fake_apns takes named options only", pytrace=False)
        options.update(marker.kwargs)
    with RunningFake(directory=fake_apns_directory, **options) as running:
        yield running


@pytest.fixture(scope="session")
def fake_apns_session(fake_apns_directory: Path) -> Iterator[RunningFake]:
    """Run one fake APNs for the whole session: override it to give it other options."""
    from apns_live.testing.handles import RunningFake  # noqa: PLC0415

    with RunningFake(directory=fake_apns_directory) as running:
        yield running


@pytest.fixture
def fake_apns_namespace(fake_apns_session: RunningFake) -> Iterator[RunningNamespace]:
    """Return a namespace of the session's fake: a test's own phones, pushes, faults and time."""
    with fake_apns_session.namespace() as namespace:
        yield namespace
