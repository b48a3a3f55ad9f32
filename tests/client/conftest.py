"""A fake APNs with our client in front of it, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from apns_live import Client, Endpoint, Outcome, ProviderKey
from apns_live.testing import FakeApns, SimulatedClock

MakeClient = Callable[..., Client]


@pytest.fixture(scope="session")
def fake_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates and keys are made once."""
    return tmp_path_factory.mktemp("fake")


@pytest.fixture
async def fake(fake_directory: Path) -> AsyncIterator[FakeApns]:
    async with FakeApns(directory=fake_directory) as fake:
        yield fake


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
async def timed_fake(fake_directory: Path, clock: SimulatedClock) -> AsyncIterator[FakeApns]:
    """A fake that lives on the simulated clock, provider tokens included."""
    async with FakeApns(directory=fake_directory, clock=clock) as fake:
        yield fake


@pytest.fixture(params=["http2", "httpx"])
def transport(request: pytest.FixtureRequest) -> str:
    """For tests marked `http`: both transports."""
    return request.param


class _Client(Client):
    """Gives up at once when a test fails: its simulated clock would not move while it drains."""

    async def __aexit__(self, kind, error, traceback) -> None:
        await self.aclose(drain=None if kind is None else 0.0)


def client_for(fake: FakeApns, **options: Any) -> Client:
    """Return a client of this fake; close it with ``async with``."""
    key = ProviderKey.from_file(fake.key_file, team_id=fake.team_id)
    options.setdefault("environment", Endpoint(**fake.endpoint._asdict()))
    return _Client(key, bundle_id=fake.bundle_id, **options)


def token(number: int) -> str:
    return f"{number:064x}"


def tokens(count: int) -> list[str]:
    return [token(number) for number in range(count)]


async def pass_time(client: Client, clock: SimulatedClock, sending: Awaitable[Outcome]) -> Outcome:
    """Await an outcome while time passes, but only while nothing is on the wire.

    Sockets do not know the simulated clock: an answer that is under way takes no time of it.
    """
    task = asyncio.ensure_future(sending)

    def quiet() -> bool:
        statistics = client.statistics()
        states = {link.state for link in statistics.connections}
        opening = states & {"connecting", "waiting for settings"}
        return task.done() or not (statistics.in_flight or opening)

    while not task.done():
        await clock.settle()
        await clock.settle(until=quiet)
        await clock.settle()  # what follows from an answer or a failure has its timers now
        if not task.done() and quiet():
            now = clock.monotonic()
            await clock.advance((clock.next_due or now + 1.0) - now)
    return task.result()
