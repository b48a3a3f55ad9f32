"""Our client completes against servers that nobody here wrote, at their default limits.

nginx ends a connection with GOAWAY after 1,000 requests, so ten thousand pushes need ten
connections at least; every push gets exactly one outcome, and none is lost.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Literal

import pytest

from apns_live import Client, Endpoint, Outcome, ProviderKey, Update, Verdict
from apns_live.clock import SystemClock, Timer
from apns_live.testing import asgi
from apns_live.testing.fake import FakeApns
from tests.counts import count
from tests.servers import nghttpd, nginx

PUSHES = 10_000
TOKENS = [f"{number:064x}" for number in range(PUSHES)]
UPDATE = Update(content_state={"home": 71, "away": 68})


class Unhurried(SystemClock):
    """Seconds that last ten, so that a busy machine does not look like a dead server."""

    def monotonic(self) -> float:
        return time.perf_counter() / 10

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        return super().call_later(delay * 10, callback)


async def complete(
    key: ProviderKey, endpoint: Endpoint, bundle_id: str, tokens: list[str] = TOKENS
) -> list[Outcome]:
    """Send every token one push; return the outcomes, which are exactly one for each."""
    outcomes: list[Outcome] = []
    async with (
        Client(key, bundle_id=bundle_id, environment=endpoint, clock=Unhurried()) as client,
        client.fan_out(UPDATE, tokens) as run,
    ):
        async for outcome in run:
            outcomes.append(outcome)  # noqa: PERF401 - this is how a caller reads them
    assert sorted(outcome.token for outcome in outcomes) == tokens
    return outcomes


def verdicts(outcomes: list[Outcome]) -> dict[Verdict, int]:
    return dict(collections.Counter(outcome.verdict for outcome in outcomes))


@pytest.mark.external("nginx")
async def test_nginx_at_its_default_limits(provider_key: ProviderKey) -> None:
    with nginx() as server:
        endpoint = Endpoint(server.host, server.port, ca_file=server.ca_file)
        outcomes = await complete(provider_key, endpoint, "com.example.scores")
    assert verdicts(outcomes) == {Verdict.ACCEPTED: PUSHES}
    connections = {outcome.connection_id for outcome in outcomes}
    assert len(connections) >= PUSHES // 1_000, "nginx ends a connection after 1,000 requests"


@pytest.mark.external("nghttpd")
async def test_nghttpd_at_its_default_limits(provider_key: ProviderKey) -> None:
    with nghttpd() as server:
        endpoint = Endpoint(server.host, server.port, ca_file=server.ca_file)
        outcomes = await complete(provider_key, endpoint, "com.example.scores")
    assert verdicts(outcomes) == {Verdict.ACCEPTED: PUSHES}


async def complete_on_fake(
    face: Literal["asgi", "wire"], tokens: list[str] = TOKENS
) -> list[Outcome]:
    """Send to a fake, and check that it got each push exactly once."""
    async with FakeApns(face=face, record_limit=2 * PUSHES) as fake:
        key = ProviderKey.from_file(fake.key_file, team_id=fake.team_id, key_id=fake.key_id)
        outcomes = await complete(key, Endpoint(*fake.endpoint), fake.bundle_id, tokens)
        received = collections.Counter(push.token for push in fake.pushes)
    assert received == dict.fromkeys(tokens, 1), "nothing lost, nothing doubled"
    return outcomes


async def test_the_wire_face() -> None:
    assert verdicts(await complete_on_fake("wire")) == {Verdict.ACCEPTED: PUSHES}


async def test_the_hypercorn_face() -> None:
    pushes = count(3_000, soak=PUSHES)
    outcomes = await complete_on_fake("asgi", TOKENS[:pushes])
    assert verdicts(outcomes) == {Verdict.ACCEPTED: pushes}


async def test_hypercorn_at_a_limit_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    # After 1,000 requests hypercorn says GOAWAY with the newest stream as the last one it will
    # answer, and then drops the answers of the streams that are still open. What it processed and
    # did not answer must be UNKNOWN: not lost, and not sent again.
    monkeypatch.setattr(asgi, "MAX_REQUESTS", 1_000)
    # Each connection that it ends costs the seconds of a PING that is not answered.
    outcomes = await complete_on_fake("asgi", TOKENS[:3_000])
    seen = verdicts(outcomes)
    assert set(seen) <= {Verdict.ACCEPTED, Verdict.UNKNOWN}
    unknown = [outcome for outcome in outcomes if outcome.verdict is Verdict.UNKNOWN]
    assert all(outcome.may_have_been_sent for outcome in unknown)
    assert {outcome.reason for outcome in unknown} <= {"connection_lost"}
    assert len({outcome.connection_id for outcome in outcomes}) >= 2
