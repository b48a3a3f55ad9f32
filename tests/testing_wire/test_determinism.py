"""One scenario, twice: the same outcome, over sockets and in another order of arrival."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from apns_live.testing import FakeApns, SimulatedClock
from apns_live.testing.control.rows import row_of
from apns_live.testing.state import ConnectionIdentity, RegisteredKey, Response

from .requests import KEY_ID, Signer, broadcast_request, device_request, manage_request
from .wire_client import WireClient, push_headers, token_of

SCENARIO: dict[str, Any] = {
    "seed": 11,
    "fault": [
        {
            "action": "answer",
            "status": 503,
            "reason": "ServiceUnavailable",
            "token": "0",
            "fraction": 0.1,
        },
        {
            "action": "answer",
            "reason": "Unregistered",
            "timestamp": 5,
            "token": "0",
            "fraction": 0.1,
            "nth": 1,
        },
        {"action": "reset", "error_code": 8, "token": "0", "fraction": 0.05},
        {"action": "refuse_stream", "token": "0", "fraction": 0.05},
        {"action": "withhold", "token": "0", "fraction": 0.05},
    ],
    "phones": {"token_never": 0.3, "budget": {"kind": "rolling", "frequent_capacity": [1, 4]}},
}
TOKENS, ROUNDS = 60, 5


async def play(order_seed: int, connections: int) -> dict[str, Any]:
    """Send every token its pushes, the tokens of a round in a drawn order over connections."""
    clock = SimulatedClock()
    async with FakeApns(scenario=SCENARIO, clock=clock) as fake:
        clients = [await WireClient.connect(fake) for _ in range(connections)]
        headers = push_headers(fake)
        outcomes: dict[tuple[str, int], tuple[object, ...]] = {}
        for client in clients:
            await client.until(lambda client=client: client.http.ready)
            fake.faults.clear()
            await client.exchange(token_of(10_000), headers)
            await client.until(lambda client=client: client.http.max_concurrent_streams == 1000)
        fake.reset()
        for fault in fake.scenario.faults:
            fake.faults.add(fault)
        order = random.Random(order_seed)
        for nth in range(1, ROUNDS + 1):
            numbers = list(range(TOKENS))
            order.shuffle(numbers)
            body = b'{"aps":{"timestamp":%d,"event":"update","content-state":{"n":%d}}}' % (
                clock.time(),
                nth,
            )
            sent: list[tuple[WireClient, int, str]] = []
            for index, number in enumerate(numbers):
                client = clients[index % connections]
                sent.append(
                    (client, client.push(token_of(number), headers, body), token_of(number))
                )
            for client in clients:
                client.flush()
            for client in clients:
                # Its answers are in order: once this has one, all before it were judged.
                await client.exchange("nonsense", headers)
            for client, stream, token in sent:
                outcomes[token, nth] = outcome(client, stream)
                if outcomes[token, nth] == ("withheld",):
                    client.http.reset_stream(stream)
            await clock.advance(60)
        log = sorted(
            (entry.record.push.token, entry.time, entry.state, entry.why)
            for entry in fake.log.entries
            if entry.record.push.token != "nonsense"
        )
        for client in clients:
            client.abort()
            await client.until(lambda client=client: client.closed)
        return {"outcomes": dict(sorted(outcomes.items())), "log": log}


def outcome(client: WireClient, stream: int) -> tuple[object, ...]:
    for event in client.events:
        if getattr(event, "stream_id", None) == stream:
            if hasattr(event, "status"):
                return ("answered", event.status, event.body)
            return ("reset", getattr(event, "error_code", None))
    return ("withheld",)


async def test_two_socket_runs_of_one_scenario_agree() -> None:
    first = await play(order_seed=1, connections=1)
    assert first == await play(order_seed=1, connections=1)
    kinds = {outcome[:2] for outcome in first["outcomes"].values()}
    assert {("answered", 200), ("answered", 503), ("answered", 410)} <= kinds
    assert ("reset", 8) in kinds
    assert ("reset", 7) in kinds
    assert ("withheld",) in kinds
    assert len(first["outcomes"]) == TOKENS * ROUNDS
    states = {state for _, _, state, _ in first["log"]}
    assert {"received", "delivered", "discarded"} <= states


async def test_another_order_of_arrival_changes_nothing() -> None:
    assert await play(order_seed=1, connections=1) == await play(order_seed=99, connections=3)


def test_one_recorded_sequence_gives_the_same_log_byte_for_byte() -> None:
    def replay() -> tuple[bytes, list[Response]]:
        clock = SimulatedClock()
        fake = FakeApns(scenario=SCENARIO, clock=clock)
        fake.state.verifier.register(RegisteredKey(KEY_ID, fake.team_id, private.public_key()))
        for fault in fake.scenario.faults:
            fake.faults.add(fault)
        channel = fake.add_channel(1)
        connection, manage = ConnectionIdentity(1), ConnectionIdentity(2, "manage")
        answers = []
        for number in range(1500):
            if number % 3 == 0:
                clock.advance_sync(7.0)
            source = random.Random(number)
            body = b'{"aps":{"timestamp":%d,"event":"%s","content-state":{"n":%d}}}' % (
                clock.time(), source.choice((b"update", b"update", b"end")), number,
            )  # fmt: skip
            kind = source.randrange(20)
            if kind == 0:
                request, identity = (
                    broadcast_request(jwt, channel.channel_id, body=body),
                    connection,
                )
            elif kind == 1:
                request, identity = manage_request(jwt, "GET", resource="all-channels"), manage
            else:
                token = token_of(source.randrange(40))
                request, identity = device_request(jwt, token=token, body=body), connection
            answer = fake.engine.answer(request, identity)
            answers.append(answer.response)
        return b"".join(
            msgspec.json.encode(row_of(entry, fake)) + b"\n" for entry in fake.log.entries
        ), [each for each in answers if each is not None]

    private = ec.generate_private_key(ec.SECP256R1())
    jwt = Signer({KEY_ID: private})(issued_at=int(SimulatedClock().time()))
    log, answers = replay()
    assert (log, answers) == replay()
    assert log.count(b"\n") > 1500
    assert {answer.status for answer in answers} >= {200, 410, 503}
