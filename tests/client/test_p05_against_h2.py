"""P5, and P1 once more, against a server on the h2 library; how far httpx falls behind."""

from __future__ import annotations

import asyncio
import collections
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apns_live import Client, ProviderKey, Update, Verdict
from apns_live.testing import SimulatedClock
from tests.client.conftest import token, tokens
from tests.client.witness import Witness, reset

pytestmark = pytest.mark.wire
UPDATE = Update(content_state={"home": 71})
KEY_FILE = Path(__file__).parents[2] / "fixtures" / "keys" / "AuthKey_TEST123KEY.p8"
KEY = ProviderKey.from_file(KEY_FILE, team_id="TEAM123456")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("witness")


def client_of(server: Witness, **options) -> Client:
    options.setdefault("uniform", lambda: 0.0)
    return Client(KEY, bundle_id="com.example.scores", environment=server.endpoint, **options)


async def test_p5_refused_twice_on_the_wire_is_replayed_once(folder: Path) -> None:
    """RST_STREAM with code 7, then again with code 5, for each of the first fifty streams."""
    refused: set[str] = set()

    def handler(connection, stream_id, headers, body) -> None:
        path = headers[":path"]
        if len(refused) < 50 and path not in refused and stream_id > 1:
            refused.add(path)
            connection.h2.reset_stream(stream_id, 7)
            connection.raw(reset(stream_id, 5))
        else:
            connection.accept(stream_id, headers)

    async with Witness(handler).run(folder) as server, client_of(server) as client:
        async with client.fan_out(UPDATE, tokens(200)) as run:
            outcomes = [outcome async for outcome in run]
        assert client.statistics().connections_opened == 1
    assert collections.Counter(outcome.verdict for outcome in outcomes) == {Verdict.ACCEPTED: 200}
    assert collections.Counter(outcome.attempts for outcome in outcomes) == {1: 150, 2: 50}
    assert sorted(server.served) == [f"/3/device/{each}" for each in tokens(200)]
    assert not server.connections[0].errors


async def test_p5_a_server_that_refuses_for_ever_ends_in_retry_later(folder: Path) -> None:
    count = 0

    def handler(connection, stream_id, headers, body) -> None:
        nonlocal count
        count += 1
        connection.h2.reset_stream(stream_id, 7)

    clock = SimulatedClock()
    async with Witness(handler).run(folder) as server, client_of(server, clock=clock) as client:
        task = asyncio.ensure_future(client.send(UPDATE, token(1)))
        while not task.done():
            await clock.settle(until=lambda: task.done() or not client.statistics().in_flight)
            await clock.advance(0.5)
    outcome = task.result()
    assert outcome.verdict is Verdict.RETRY_LATER
    assert not outcome.may_have_been_sent
    assert outcome.attempts == count < 12


async def test_no_request_is_half_open_or_out_of_order(folder: Path) -> None:
    """The h2 library checks every frame of ours; ids rise, bodies are whole, limits hold."""
    seen: list[tuple[int, int]] = []

    def handler(connection, stream_id, headers, body) -> None:
        seen.append((stream_id, len(body)))
        assert len(connection.requests) <= 100
        connection.accept(stream_id, headers)

    async with Witness(handler, streams=100).run(folder) as server:
        async with client_of(server, max_connections=1) as client:
            big = Update(content_state={"pad": "x" * 3500})
            report = await client.fan_out(big, tokens(1000)).wait()
        assert report.accepted == 1000
        assert not server.connections[0].errors
    assert [stream_id for stream_id, _ in seen] == list(range(1, 2001, 2))
    assert len({size for _, size in seen}) == 1


async def test_a_cancelled_push_resets_its_stream(folder: Path) -> None:
    def handler(connection, stream_id, headers, body) -> None:
        if not headers[":path"].endswith("0" + "7"):
            connection.accept(stream_id, headers)

    async with Witness(handler).run(folder) as server, client_of(server) as client:
        assert (await client.send(UPDATE, token(1))).accepted
        task = asyncio.ensure_future(client.send(UPDATE, token(7)))
        while not client.statistics().in_flight:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert (await client.send(UPDATE, token(2))).accepted
        assert server.connections[0].resets == [(3, 8)]


@settings(max_examples=25)
@given(
    count=st.integers(1, 120),
    plan=st.lists(
        st.tuples(st.integers(1, 100), st.integers(0, 40), st.booleans()), min_size=1, max_size=4
    ),
)
def test_p1_random_goaways_by_the_h2_library(
    folder: Path, count: int, plan: list[tuple[int, int, bool]]
) -> None:
    """After ``after`` requests: GOAWAY with a last stream ``behind`` requests back.

    Those behind are never answered nor counted as served; the answers to the others may come
    before or after the GOAWAY.
    """

    async def check() -> None:
        held: list[tuple] = []

        def handler(connection, stream_id, headers, body) -> None:
            place = connection.number - 1
            if place >= len(plan):
                connection.accept(stream_id, headers)
                return
            after, behind, late = plan[place]
            held.append((stream_id, headers))
            if len(held) < after:
                loop = asyncio.get_running_loop()
                # A client with little to send must not wait for ever for the others.
                loop.call_later(0.003, release, connection, len(held), behind, late)
            else:
                release(connection, len(held), behind, late)

        def release(connection, when: int, behind: int, late: bool) -> None:
            if len(held) != when or connection.last_served is not None:
                return
            pending = list(held)
            held.clear()
            served = pending[: max(0, len(pending) - behind)]
            last = served[-1][0] if served else 0
            if late:
                connection.go_away(last)
            for stream_id, headers in served:
                connection.accept(stream_id, headers)
            connection.flush()
            if not late:
                connection.go_away(last)

        async with (
            Witness(handler).run(folder) as server,
            client_of(server, max_connections=1) as client,
            client.fan_out(UPDATE, tokens(count)) as run,
        ):
            outcomes = [outcome async for outcome in run]
        assert collections.Counter(outcome.verdict for outcome in outcomes) == {
            Verdict.ACCEPTED: count
        }
        assert sorted(server.served) == [f"/3/device/{each}" for each in tokens(count)]

    asyncio.run(check())


@pytest.mark.parametrize("trouble", ["goaway", "refused"])
async def test_httpx_is_one_sided_unknown_where_ours_replays(folder: Path, trouble: str) -> None:
    """The same trouble over both: ours accepts all; httpx may say UNKNOWN, and nothing else."""
    verdicts: dict[str, dict[str, Verdict]] = {}
    for transport in ("http2", "httpx"):
        refused: set[str] = set()

        def handler(connection, stream_id, headers, body, refused=refused) -> None:
            if connection.number > 1 or len(connection.served) < 20:
                connection.accept(stream_id, headers)
            elif trouble == "goaway" and connection.last_served is None:
                connection.go_away(stream_id - 2)
            elif trouble == "refused" and len(refused) < 10:
                refused.add(headers[":path"])
                connection.h2.reset_stream(stream_id, 7)
            elif trouble == "refused":
                connection.accept(stream_id, headers)

        async with (
            Witness(handler).run(folder) as server,
            client_of(server, transport=transport, max_connections=1) as client,
            client.fan_out(UPDATE, tokens(60)) as run,
        ):
            verdicts[transport] = {each.token: each.verdict async for each in run}
        assert len(set(server.served)) == len(server.served)
    assert set(verdicts["http2"].values()) == {Verdict.ACCEPTED}
    assert len(verdicts["http2"]) == len(verdicts["httpx"]) == 60
    assert set(verdicts["httpx"].values()) <= {Verdict.ACCEPTED, Verdict.UNKNOWN}
    if trouble == "refused":
        assert Verdict.UNKNOWN in verdicts["httpx"].values()
