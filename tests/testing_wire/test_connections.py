"""How connections behave, over real sockets, TLS and HTTP/2: the good days and the bad ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl

import pytest

from apns_live.http2 import ErrorCode, Setting
from apns_live.testing import ConnectionChange, FakeApns, FaultStruck, Push, SimulatedClock

from .wire_client import WireClient, push_headers, token_of

MANY = 1000


async def test_one_stream_until_the_first_accepted_token_then_a_thousand() -> None:
    async with FakeApns() as fake, await WireClient.connect(fake) as client:
        assert client.http.max_concurrent_streams == 1
        settings = client.http._peers
        assert settings[Setting.INITIAL_WINDOW_SIZE] == 65_535
        assert settings[Setting.MAX_FRAME_SIZE] == 16_384
        assert settings[Setting.HEADER_TABLE_SIZE] == 4096
        assert settings[Setting.MAX_HEADER_LIST_SIZE] == 8000
        assert client.http.connection_window == 65_535
        headers = push_headers(fake)
        refused = await client.exchange(token_of(1), {**headers, "authorization": "bearer x"})
        assert refused.status == 403
        assert client.http.max_concurrent_streams == 1
        assert (await client.exchange(token_of(1), headers)).status == 200
        await client.until(lambda: client.http.max_concurrent_streams == MANY)
        streams = [client.push(token_of(n), headers) for n in range(500)]
        client.flush()
        for stream in streams:
            assert (await client.answer(stream)).status == 200
        assert len(fake.pushes) == 501
        (snapshot,) = fake.connections
        assert (snapshot.accepted, snapshot.refused, snapshot.max_streams) == (501, 1, MANY)
        assert (snapshot.bound_key, snapshot.team_id) == (fake.key_id, fake.team_id)
        assert (snapshot.state, snapshot.open_streams, snapshot.face) == ("open", 0, "device")
    assert fake.recorder.changes[0].kind == "opened"


async def test_a_refusal_cuts_the_streams_to_one_and_a_success_brings_them_back() -> None:
    async with FakeApns(cut_streams=True) as fake, await WireClient.connect(fake) as client:
        headers = push_headers(fake)
        await client.exchange(token_of(1), headers)
        await client.until(lambda: client.http.max_concurrent_streams == MANY)
        assert (await client.exchange("nonsense", headers)).status == 400
        await client.until(lambda: client.http.max_concurrent_streams == 1)
        assert (await client.exchange(token_of(1), headers)).status == 200
        await client.until(lambda: client.http.max_concurrent_streams == MANY)


async def test_streams_can_be_changed_with_pushes_in_flight() -> None:
    async with FakeApns() as fake, await WireClient.connect(fake) as client:
        headers = push_headers(fake)
        await client.exchange(token_of(0), headers)
        await client.until(lambda: client.http.max_concurrent_streams == MANY)
        fault = fake.fault("withhold")
        for number in range(500):
            client.push(token_of(number), headers)
        client.flush()
        await client.until(lambda: fake.connections[0].open_streams == 500)
        for limit in (1, 500, 1, MANY):
            assert fake.change_settings({Setting.MAX_CONCURRENT_STREAMS: limit}) == 1
            await client.until(lambda limit=limit: client.http.max_concurrent_streams == limit)
        fake.faults.remove(fault)
        assert (await client.exchange(token_of(1), headers)).status == 200
        assert not client.resets()


async def test_too_many_errors_end_in_goaway() -> None:
    async with FakeApns(error_limit=4) as fake, await WireClient.connect(fake) as client:
        headers = push_headers(fake)
        await client.exchange(token_of(1), headers)
        assert (await client.exchange("nonsense", headers)).status == 400
        await client.until(lambda: client.closed)
        assert client.goaways()


@pytest.mark.parametrize(
    ("arguments", "debug"),
    [
        ({"reason": "Shutdown"}, b'{"reason":"Shutdown"}'),
        ({"reason": "BadCertificateEnvironment"}, b'{"reason":"BadCertificateEnvironment"}'),
        ({}, b""),
        ({"debug": "null"}, b"null"),
        ({"debug": "not JSON", "error_code": 11}, b"not JSON"),
    ],
)
async def test_goaway_in_the_middle_of_a_burst(arguments: dict[str, object], debug: bytes) -> None:
    async with FakeApns() as fake, await WireClient.connect(fake) as client:
        headers = push_headers(fake)
        await client.exchange(token_of(999), headers)
        await client.until(lambda: client.http.max_concurrent_streams == MANY)
        fake.fault("goaway", token=token_of(40), **arguments)
        streams = [client.push(token_of(number), headers) for number in range(100)]
        client.flush()
        await client.until(client.goaways)
        (goaway,) = client.goaways()
        assert goaway.debug_data == debug
        assert goaway.error_code == arguments.get("error_code", 0)
        assert goaway.last_stream_id == streams[40]
        assert goaway.unprocessed == streams[41:]
        for stream in streams[:41]:
            assert (await client.answer(stream)).status == 200
        # Exactly what was promised was processed: nothing more, and the connection stays open.
        assert [push.token for push in fake.pushes[1:]] == [token_of(n) for n in range(41)]
        assert not client.closed
        assert fake.connections[0].state == "going away"


async def test_goaway_may_leave_out_the_push_that_caused_it_and_close() -> None:
    async with FakeApns() as fake, await WireClient.connect(fake) as client:
        headers = push_headers(fake)
        await client.exchange(token_of(999), headers)
        await client.until(lambda: client.http.max_concurrent_streams == MANY)
        fake.fault("goaway", token=token_of(3), processed=False, close=True, reason="Shutdown")
        streams = [client.push(token_of(number), headers) for number in range(6)]
        client.flush()
        await client.until(lambda: client.closed)
        assert client.goaways()[0].unprocessed == streams[3:]
        assert client.answered()[1:] == streams[:3]
        assert len(fake.pushes) == 4
        await client.until(lambda: fake.connections[0].state == "closed")


async def test_goaway_asked_for_from_outside() -> None:
    async with FakeApns() as fake, await WireClient.connect(fake) as client:
        await client.exchange(token_of(1))
        assert fake.go_away("Shutdown", timestamp=1_800_000_000_000) == 1
        await client.until(client.goaways)
        assert json.loads(client.goaways()[0].debug_data) == {
            "reason": "Shutdown",
            "timestamp": 1_800_000_000_000,
        }
        assert client.goaways()[0].last_stream_id == 1
        assert fake.go_away(connection_id=77) == 0


async def test_an_idle_connection_is_told_to_go_and_a_busy_one_is_not() -> None:
    clock = SimulatedClock()
    async with (
        FakeApns(clock=clock, idle_timeout=600) as fake,
        await WireClient.connect(fake) as client,
    ):
        await client.exchange(token_of(1))
        await clock.advance(500)
        await client.exchange(token_of(1))
        await clock.advance(599)
        assert not client.goaways()
        await clock.advance(2)
        await client.until(lambda: client.closed)
        assert client.goaways()[0].debug_data == b'{"reason":"IdleTimeout"}'


async def test_latency_passes_on_the_fake_s_clock() -> None:
    clock = SimulatedClock()
    async with (
        FakeApns(clock=clock, latency=0.040) as fake,
        await WireClient.connect(fake) as client,
    ):
        stream = client.push(token_of(1))
        client.flush()
        await client.until(lambda: len(fake.pushes) == 1)
        await clock.advance(0.039)
        assert not client.answered()
        await clock.advance(0.002)
        assert (await client.answer(stream)).status == 200


async def test_the_spread_of_latency_is_drawn_per_push_not_per_arrival() -> None:
    async def order_of(tokens: list[str]) -> list[str]:
        clock = SimulatedClock()
        async with (
            FakeApns(clock=clock, spread=100.0, seed=5, first_streams=100) as fake,
            await WireClient.connect(fake) as client,
        ):
            headers = push_headers(fake)
            sent = {client.push(token, headers): token for token in tokens}
            client.flush()
            await client.until(lambda: len(fake.pushes) == len(tokens))
            await clock.advance(2000)
            await client.until(lambda: len(client.answered()) == len(tokens))
            return [sent[stream] for stream in client.answered()]

    tokens = [token_of(number) for number in range(30)]
    first = await order_of(tokens)
    assert first != tokens
    assert await order_of(tokens[::-1]) == first


async def test_withheld_answers_and_stalled_streams_concern_one_stream_only() -> None:
    async with FakeApns() as fake, await WireClient.connect(fake) as client:
        headers = push_headers(fake)
        await client.exchange(token_of(0), headers)
        await client.until(lambda: client.http.max_concurrent_streams == MANY)
        fake.fault("withhold", token=token_of(1))
        fake.fault("stall", token=token_of(2))
        silent = [client.push(token_of(1), headers), client.push(token_of(2), headers)]
        assert (await client.exchange(token_of(3), headers)).status == 200
        assert not set(silent) & set(client.answered())
        assert len(fake.pushes) == 4  # the phones had them all the same
        assert fake.connections[0].open_streams == 2
        for stream in silent:
            client.http.reset_stream(stream)
        client.flush()
        assert (await client.exchange(token_of(3), headers)).status == 200
        await client.until(lambda: fake.connections[0].open_streams == 0)


@pytest.mark.parametrize(
    ("action", "arguments", "code", "processed"),
    [
        ("refuse_stream", {}, ErrorCode.REFUSED_STREAM, False),
        ("reset", {}, ErrorCode.INTERNAL_ERROR, True),
        ("reset", {"error_code": 8}, ErrorCode.CANCEL, True),
        ("reset", {"error_code": 11, "processed": True}, ErrorCode.ENHANCE_YOUR_CALM, True),
    ],
)
async def test_resets(
    action: str, arguments: dict[str, object], code: ErrorCode, processed: bool
) -> None:
    async with FakeApns() as fake, await WireClient.connect(fake) as client:
        headers = push_headers(fake)
        await client.exchange(token_of(0), headers)
        fake.faults.add(action=action, token=token_of(1), **arguments)
        client.push(token_of(1), headers)
        client.flush()
        await client.until(client.resets)
        assert (client.resets()[0].error_code, client.resets()[0].processed) == (code, processed)
        assert (await client.exchange(token_of(2), headers)).status == 200
        assert len(fake.pushes) == (3 if arguments.get("processed") else 2)


async def test_a_silent_peer_answers_nothing_not_even_ping() -> None:
    async with FakeApns() as fake, await WireClient.connect(fake) as client:
        await client.exchange(token_of(0))
        assert fake.silence() == 1
        before = len(client.events)
        client.push(token_of(1))
        client.http.ping(b"12345678")
        client.flush()
        async with await WireClient.connect(fake) as other:
            # A whole exchange on another connection is time enough to answer on the first.
            await other.exchange(token_of(2))
        assert len(client.events) == before
        assert [push.token for push in fake.pushes] == [token_of(0), token_of(2)]
        assert fake.connections[0].state == "silent"


async def test_a_push_can_make_the_peer_fall_silent_or_disconnect() -> None:
    async with FakeApns() as fake:
        async with await WireClient.connect(fake) as client:
            fake.fault("silence", token=token_of(1))
            client.push(token_of(1))
            client.flush()
            await client.until(lambda: fake.connections[0].state == "silent")
        fake.fault("disconnect", token=token_of(2))
        async with await WireClient.connect(fake) as client:
            client.push(token_of(2))
            client.flush()
            await client.until(lambda: client.closed)
        assert len(fake.pushes) == 0


async def test_windows_that_are_never_given_back() -> None:
    async with FakeApns() as fake:
        fake.fault("slow_window")
        async with await WireClient.connect(fake) as client:
            headers = push_headers(fake)
            body = b"x" * 4000
            await client.exchange(token_of(0), headers, body)
            await client.until(lambda: client.http.max_concurrent_streams == MANY)
            while client.http.room_for(len(body)):
                await client.exchange(token_of(1), headers, body)
            assert len(fake.pushes) == 65_535 // 4000
            assert client.http.connection_window == 65_535 % 4000


async def test_windows_that_are_given_back_slowly() -> None:
    clock = SimulatedClock()
    async with FakeApns(clock=clock) as fake:
        fake.fault("slow_window", window=2000, rate=10_000)
        async with await WireClient.connect(fake) as client:
            stream = client.push(token_of(0), None, b"x" * 4000)
            client.flush()
            await client.until(lambda: fake.connections[0].open_streams == 1)
            assert not client.answered()
            await clock.advance_until(client.answered, at_most=10)
            assert (await client.answer(stream)).status == 200


async def test_refused_connections_and_broken_tls() -> None:
    async with FakeApns() as fake:
        refused = fake.fault("refuse_connection")
        with pytest.raises((OSError, ssl.SSLError)):
            await WireClient.connect(fake)
        fake.faults.remove(refused)
        alert = fake.fault("fail_tls", times=1)
        with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
            await WireClient.connect(fake)
        fake.faults.remove(alert)
        fake.fault("fail_tls", untrusted=True, times=1)
        with pytest.raises(ssl.SSLCertVerificationError):
            await WireClient.connect(fake)
        async with await WireClient.connect(fake) as client:
            assert (await client.exchange(token_of(1))).status == 200


async def test_a_port_that_nobody_listens_on_and_its_return() -> None:
    async with FakeApns() as fake:
        port = fake.port
        async with await WireClient.connect(fake) as client:
            fake.stop_listening()
            with pytest.raises(ConnectionRefusedError):
                await WireClient.connect(fake)
            assert (await client.exchange(token_of(1))).status == 200
            fake.listen_again()
            async with await WireClient.connect(fake, port=port) as another:
                assert (await another.exchange(token_of(1))).status == 200


async def test_other_settings_for_one_connection() -> None:
    async with FakeApns() as fake:
        fake.fault("settings", settings={3: 500, 4: 1000}, connection=1)
        async with await WireClient.connect(fake) as first:
            assert first.http.max_concurrent_streams == 500
            assert first.http._peers[Setting.INITIAL_WINDOW_SIZE] == 1000
        async with await WireClient.connect(fake) as second:
            assert second.http.max_concurrent_streams == 1


async def test_throttling_of_one_token() -> None:
    clock = SimulatedClock()
    async with FakeApns(clock=clock) as fake, await WireClient.connect(fake) as client:
        fake.fault("throttle", limit=2, per=10, retry_after=7)
        headers = push_headers(fake)
        statuses = [(await client.exchange(token_of(1), headers)).status for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        answer = await client.exchange(token_of(1), headers)
        assert answer.body == b'{"reason":"TooManyRequests"}'
        assert (b"retry-after", b"7") in answer.headers
        assert (await client.exchange(token_of(2), headers)).status == 200
        await clock.advance(5)
        assert (await client.exchange(token_of(1), headers)).status == 200


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        ({"status": 503, "reason": "ServiceUnavailable"}, 503, b'{"reason":"ServiceUnavailable"}'),
        ({"reason": "Shutdown"}, 503, b'{"reason":"Shutdown"}'),
        ({"status": 500}, 500, b""),
        ({"status": 418, "reason": "IAmATeapot"}, 418, b'{"reason":"IAmATeapot"}'),
        ({"status": 502, "body": "<html>Bad Gateway</html>"}, 502, b"<html>Bad Gateway</html>"),
        ({"status": 400, "body": ""}, 400, b""),
        (
            {"reason": "Unregistered", "timestamp": 1_800_000_000_123},
            410,
            b'{"reason":"Unregistered","timestamp":1800000000123}',
        ),
    ],
)
async def test_any_answer_at_all(fault: dict[str, object], status: int, body: bytes) -> None:
    async with FakeApns() as fake, await WireClient.connect(fake) as client:
        fake.fault("answer", headers={"X-Trace": "7"}, **fault)
        answer = await client.exchange(token_of(1))
        assert (answer.status, answer.body) == (status, body)
        assert (b"x-trace", b"7") in answer.headers
        assert len(fake.pushes) == 0
        assert len(fake.refusals) == 1
        # The token was accepted before the fault struck, as with Apple's own refusals.
        await client.until(lambda: client.http.max_concurrent_streams == MANY)


async def test_an_answer_in_pieces_with_padding_and_continuation() -> None:
    async with FakeApns() as fake, await WireClient.connect(fake) as client:
        fake.fault("answer", reason="BadDeviceToken", in_pieces=True)
        headers = push_headers(fake)
        for _ in range(50):
            answer = await client.exchange(token_of(1), headers)
            assert (answer.status, answer.body) == (400, b'{"reason":"BadDeviceToken"}')
        assert fake.connections[0].open_streams == 0


async def test_an_answer_can_come_late_and_an_accepted_push_look_lost() -> None:
    clock = SimulatedClock()
    async with FakeApns(clock=clock) as fake, await WireClient.connect(fake) as client:
        fake.fault("answer", status=500, reason="InternalServerError", processed=True, delay=2.0)
        stream = client.push(token_of(1))
        client.flush()
        await client.until(lambda: len(fake.pushes) == 1)
        await clock.advance(3)
        assert (await client.answer(stream)).status == 500


async def test_delay_of_some_pushes() -> None:
    clock = SimulatedClock()
    async with FakeApns(clock=clock) as fake, await WireClient.connect(fake) as client:
        headers = push_headers(fake)
        await client.exchange(token_of(0), headers)
        fake.fault("delay", delay=5, token=token_of(1))
        late = client.push(token_of(1), headers)
        assert (await client.exchange(token_of(2), headers)).status == 200
        assert late not in client.answered()
        await clock.advance(6)
        assert (await client.answer(late)).status == 200


async def test_listeners_hear_everything_and_one_that_fails_is_dropped() -> None:
    heard: list[object] = []

    def fails(_: object) -> None:
        raise ValueError("a listener's own fault")

    async with FakeApns() as fake:
        stop = fake.listen(heard.append)
        fake.listen(fails)
        fake.fault("answer", reason="Shutdown", token=token_of(2))
        async with await WireClient.connect(fake) as client:
            headers = push_headers(fake)
            await client.exchange(token_of(1), headers)
            await client.exchange(token_of(2), headers)
        await client.until(lambda: any(getattr(each, "kind", "") == "closed" for each in heard))
        stop()
        kinds = [type(each).__name__ for each in heard]
        assert kinds.count("Push") == kinds.count("FaultStruck") == kinds.count("Refusal") == 1
        assert isinstance(heard[0], ConnectionChange)
        assert any(isinstance(each, Push) and each.token == token_of(1) for each in heard)
        assert any(isinstance(each, FaultStruck) and each.nth == 1 for each in heard)


async def test_rings_are_bounded_and_reset_empties_them() -> None:
    async with FakeApns(record_limit=10) as fake, await WireClient.connect(fake) as client:
        headers = push_headers(fake)
        for number in range(25):
            await client.exchange(token_of(number), headers)
        assert (len(fake.pushes), fake.pushes.total) == (10, 25)
        assert [push.token for push in fake.pushes[-2:]] == [token_of(23), token_of(24)]
        fake.fault("answer", reason="Shutdown")
        fake.reset()
        assert (len(fake.pushes), fake.pushes.total, len(fake.faults)) == (0, 0, 0)
        assert (await client.exchange(token_of(1), headers)).status == 200


async def test_a_client_that_speaks_something_else_is_turned_away() -> None:
    async with FakeApns() as fake:
        context = fake.certificates.client_context()
        for first in (b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", b"\x00" * 100, b"PRI * HTTP"):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", fake.port, ssl=context, server_hostname="localhost"
            )
            writer.write(first)
            if first == b"PRI * HTTP":
                writer.write(b"/1.0\r\n\r\nSM\r\n\r\n")
            assert b"HTTP/1.1 200" not in await asyncio.wait_for(reader.read(), 20)
            writer.close()
        plain_reader, plain_writer = await asyncio.open_connection("127.0.0.1", fake.port)
        plain_writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            await asyncio.wait_for(plain_reader.read(), 20)
        plain_writer.close()
        async with await WireClient.connect(fake) as client:
            assert (await client.exchange(token_of(1))).status == 200
