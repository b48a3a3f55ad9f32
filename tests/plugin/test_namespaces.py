"""Namespaces through the Python handles: tests that share one fake do not see each other."""

from __future__ import annotations

import asyncio
import time

import pytest

from apns_live.errors import FakeError
from apns_live.testing import FakeApns
from apns_live.testing.clock import SimulatedClock
from apns_live.testing.handles import RunningFake
from apns_live.testing.state import QuietPhones

from .senders import Backend

GAME = "GameAttributes"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with RunningFake(directory=tmp_path_factory.mktemp("fake"), devices="strict") as running:
        yield running


@pytest.fixture
def backend(shared):
    backend = Backend(shared)
    yield backend
    backend.client.close()


@pytest.fixture
def pair(shared):
    with shared.namespace() as one, shared.namespace() as two:
        yield one, two
    shared.reset()


def test_phones_tokens_and_pushes_are_each_ones_own(shared, backend, pair):
    one, two = pair
    first, second = (each.devices.add("phone", attributes_types=[GAME]) for each in pair)
    assert first.start_token() != second.start_token()
    assert backend.start(first.start_token(), {"home": 0}).status_code == 200
    assert backend.update(first.activity_token(), {"home": 1}).status_code == 200
    first.assert_shows({"home": 1})
    assert [push.event for push in one.pushes] == ["start", "update"]
    assert (len(two.pushes), len(shared.pushes), second.activities) == (0, 0, [])
    assert (list(one.devices), list(two.devices), list(shared.devices)) == (["phone"],) * 2 + ([],)
    assert [push.number for push in one.pushes] == [1, 2]
    # What is shared is the fake's.
    assert (one.url, one.key_file, one.bundle_id) == (shared.url, shared.key_file, shared.bundle_id)
    with pytest.raises(AssertionError, match="none was recorded"):
        two.pushes.assert_one(event="start", timeout=0)


def test_a_reset_forgets_what_is_the_namespaces_own(shared, backend, pair):
    one, two = pair
    phones = [each.devices.add("phone", attributes_types=[GAME]) for each in (*pair, shared)]
    for phone in phones:
        backend.start(phone.start_token(), {"home": 0})
    two.faults.add("delay", delay=0.001)
    one.reset()
    assert (len(one.devices), len(one.pushes)) == (0, 0)
    assert (len(two.devices), len(two.pushes), len(two.faults)) == (1, 1, 1)
    assert (len(shared.devices), len(shared.pushes)) == (1, 1)
    shared.reset()
    assert (len(two.devices), len(two.pushes), len(two.faults)) == (1, 1, 1)
    assert len(shared.devices) == 0


def test_faults_strike_pushes_to_their_own_tokens(shared, backend, pair):
    first, second, third = (
        each.devices.add("phone", attributes_types=[GAME]).start_token() for each in (*pair, shared)
    )

    def statuses():
        return [backend.start(token, {"home": 0}).status_code for token in (first, second, third)]

    pair[0].faults.add("answer", status=503, reason="ServiceUnavailable")
    assert statuses() == [503, 200, 200]
    pair[0].faults.clear()
    shared.faults.add("answer", status=500, reason="InternalServerError")
    assert statuses() == [200, 200, 500]
    pair[1].faults.add("answer", status=429, reason="TooManyRequests", nth=(2,))
    # Pushes to a token are counted where the fault is.
    assert statuses() == [200, 200, 500]
    assert statuses() == [200, 429, 500]
    shared.faults.clear()
    for action in ("refuse_connection", "fail_tls", "slow_window", "settings"):
        with pytest.raises(FakeError, match=f"{action} cannot be done here"):
            pair[0].faults.add(action)


def test_refused_pushes_are_found_where_their_token_is(shared, backend, pair):
    one, two = pair
    phone = one.devices.add("phone", attributes_types=[GAME])
    phone.kill_token(phone.start_token())
    assert backend.start(phone.start_token(), {"home": 0}).status_code == 410
    assert backend.start("ab" * 32, {"home": 0}).status_code == 400
    assert one.refused.assert_one().reason == "Unregistered"
    assert len(two.refused) == 0
    assert shared.refused.assert_one().reason == "BadDeviceToken"


def test_a_channel_belongs_to_who_made_it_or_followed_it_first(shared, backend, pair):
    one, two = pair
    made = one.add_channel()
    found = shared.add_channel()
    cards = []
    for channel in (made, found):
        for each in pair:
            phone = each.devices.add(attributes_types=[GAME])
            phone.start_activity(GAME, {"home": 0}, channel=channel.channel_id)
            cards.append(phone)

    def broadcast(channel):
        headers = backend.headers | {
            "apns-channel-id": channel.channel_id,
            "apns-push-type": "liveactivity",
            "apns-priority": "10",
            "apns-expiration": "0",
        }
        path = f"/4/broadcasts/apps/{backend.bundle_id}"
        aps = {"event": "update", "timestamp": int(time.time()) + 9, "content-state": {"home": 7}}
        return backend.client.post(path, headers=headers, json={"aps": aps}).status_code

    one.faults.add("answer", status=503, reason="ServiceUnavailable", times=1)
    assert [broadcast(made), broadcast(made), broadcast(found)] == [503, 200, 200]
    assert [phone.activity.content_state["home"] for phone in cards] == [7, 0, 7, 0]
    assert [push.channel for push in one.pushes] == [made.channel_id, found.channel_id]
    assert one.refused.assert_one().channel == made.channel_id
    assert (len(two.pushes), len(shared.pushes), len(shared.refused)) == (0, 0, 0)
    with shared.namespace() as third:
        gone = third.add_channel()
    assert (broadcast(gone), shared.refused[-1].reason) == (400, "ChannelNotRegistered")


def test_time_passes_in_one_namespace_alone(shared, backend, pair):
    phones = [each.devices.add("phone", attributes_types=[GAME]) for each in pair]
    for phone in phones:
        backend.start(phone.start_token(), {"home": 0})
    before = shared.clock.time()
    pair[0].clock.advance(9 * 3600)
    assert [phone.activity.state for phone in phones] == ["ended", "active"]
    assert pair[0].clock.time() - shared.clock.time() == pytest.approx(9 * 3600, abs=60)
    assert shared.clock.time() - before < 3600
    backend.start(phones[0].start_token(), {"home": 1})
    received = pair[0].pushes[-1].received_at
    assert received == pytest.approx(pair[0].clock.time(), abs=60)
    with pytest.raises(FakeError, match="provider tokens belong to no namespace"):
        pair[0].clock.advance(1, tokens=True)


def test_a_clock_that_was_given_is_everybodys(tmp_path):
    clock = SimulatedClock()
    with RunningFake(directory=tmp_path, clock=clock) as running, running.namespace() as namespace:
        assert namespace.clock.time() == running.clock.time()
        with pytest.raises(FakeError, match="all namespaces share"):
            namespace.clock.advance(1)
        running.clock.advance(60)
        assert namespace.clock.time() == clock.time()


def test_a_token_of_somebody_elses_is_given_to_one_namespace(shared, backend, pair):
    one, two = pair
    token = "cd" * 32
    adopt = lambda space: shared.call(  # noqa: E731
        lambda fake: fake.namespaces.adopt(fake.namespaces[space.name], token.upper()).text
    )
    assert backend.update(token, {"home": 1}).status_code == 400
    assert adopt(one) == token
    assert adopt(one) == token
    assert backend.update(token, {"home": 1}).status_code == 200
    assert one.pushes.assert_one(token=token, state="delivered").content_state == {"home": 1}
    with pytest.raises(FakeError, match="another namespace has this token"):
        adopt(two)
    with pytest.raises(FakeError, match="not a device token"):
        shared.call(lambda fake: fake.namespaces.adopt(fake, "no token"))


def test_names(shared, backend):
    with shared.namespace("checkout.flow-1") as named:
        assert named.name == "checkout.flow-1"
        token = named.devices.add(attributes_types=[GAME]).start_token()
        with pytest.raises(FakeError, match="already"):
            shared.namespace("checkout.flow-1")
    with pytest.raises(FakeError, match="there is no namespace"):
        named.devices.add()
    assert backend.start(token, {"home": 0}).status_code == 400
    for name in ("", "a/b", "-", "a" * 65, "naïve"):
        with pytest.raises(FakeError, match="is not a name"):
            shared.namespace(name)
    first, second = shared.namespace(), shared.namespace()
    first.close()
    third = shared.namespace()
    assert len({first.name, second.name, third.name}) == 3
    second.close()
    third.close()


async def test_nothing_of_a_namespace_outlives_its_fake():
    async with FakeApns() as fake:
        space = fake.namespaces.add()
        phone = space.devices.add_device(attributes_types=[GAME])
        space.devices.start_activity(phone, GAME, {}, {})
        assert space.clock.pending
        loop = asyncio.get_running_loop()
        before = len(loop._scheduled)
    assert len(list(fake.namespaces)) == 0
    assert [each for each in loop._scheduled if not each.cancelled()] == []
    assert before


def test_phones_of_the_callers_own_have_no_namespaces(tmp_path):
    with (
        RunningFake(directory=tmp_path, phones=QuietPhones()) as running,
        pytest.raises(FakeError, match="phones of its own"),
    ):
        running.namespace()


def test_the_fixtures(fake_apns_namespace, fake_apns_session):
    backend = Backend(fake_apns_namespace)
    phone = fake_apns_namespace.devices.add(attributes_types=[GAME])
    backend.start(phone.start_token(), {"home": 0})
    phone.assert_shows({"home": 0})
    assert len(fake_apns_session.devices) == 0
    backend.client.close()
