"""What the fixture gives, used here as other people's tests use it."""

import asyncio

import httpx
import pytest

from apns_live.errors import FakeError

from .senders import Backend


@pytest.fixture
def backend(fake_apns):
    backend = Backend(fake_apns)
    yield backend
    backend.client.close()


@pytest.fixture
def phone(fake_apns):
    return fake_apns.devices.add("phone", attributes_types=["GameAttributes"])


def test_a_whole_activity(fake_apns, backend, phone):
    assert backend.start(phone.start_token("GameAttributes"), {"home": 0}).status_code == 200
    phone.assert_shows({"home": 0})
    backend.update(phone.activity_token(), {"home": 1}, **{"stale-date": 1})
    assert phone.shows({"home": 1}, is_stale=True)
    fake_apns.pushes.assert_one(event="update", content_state={"home": 1}, priority=10)
    backend.end(phone.activity_token(), {"home": 2})
    assert phone.activity.state == "ended"
    fake_apns.clock.advance(4 * 3600)
    assert phone.activity.state == "dismissed"
    assert not phone.shows({"home": 2})
    assert [push.event for push in fake_apns.pushes] == ["start", "update", "end"]
    assert fake_apns.devices[phone.start_token()].id == "phone"
    assert list(fake_apns.devices) == ["phone"]
    assert len(fake_apns.connections) == 1


@pytest.mark.parametrize("_time", [1, 2])
def test_nothing_of_another_test_is_there(fake_apns, backend, _time):
    assert len(fake_apns.pushes) == len(fake_apns.devices) == len(fake_apns.faults) == 0
    fake_apns.faults.add("answer", status=503, reason="ServiceUnavailable", skip=1)
    backend.start("ab" * 32, {"n": 1})
    assert len(fake_apns.pushes) == len(fake_apns.devices) == 1
    assert backend.start("ab" * 32, {"n": 1}).status_code == 503
    fake_apns.refused.assert_one(status=503, reason="ServiceUnavailable")


def test_a_missing_push_is_explained(fake_apns, backend, phone):
    token = phone.start_activity("GameAttributes", {"home": 0}).token
    with pytest.raises(AssertionError, match="none was recorded"):
        fake_apns.pushes.assert_one(token=token, timeout=0)
    backend.update(token, {"home": 1, "away": 3})
    with pytest.raises(AssertionError) as caught:
        fake_apns.pushes.assert_one(token=token, content_state={"home": 2, "away": 3}, timeout=0)
    text = str(caught.value)
    assert "the closest is <push 1: update to" in text
    assert "content_state differs (home)" in text
    assert '-   "home": 2' in text
    assert '+   "home": 1' in text
    backend.update(token, {"home": 2, "away": 3})
    backend.update(token, {"home": 2, "away": 3})
    with pytest.raises(AssertionError, match="found 2"):
        fake_apns.pushes.assert_one(content_state={"home": 2, "away": 3})
    with pytest.raises(AssertionError, match="expected no push"):
        fake_apns.pushes.assert_none(event="update")
    fake_apns.pushes.assert_none(event="end")
    with pytest.raises(TypeError, match="colour"):
        fake_apns.pushes.where(colour="red")


def test_a_phone_says_why_it_shows_something_else(backend, phone):
    with pytest.raises(AssertionError, match="phone shows no activity"):
        phone.assert_shows({}, timeout=0)
    backend.start(phone.start_token(), {"home": 0}, alert=None)
    with pytest.raises(AssertionError, match="start 1 was discarded: no alert"):
        phone.assert_shows({}, timeout=0)
    backend.start(phone.start_token(), {"home": 0})
    backend.update(phone.activity_token(), {"home": 9}, timestamp=5)
    with pytest.raises(AssertionError) as caught:
        phone.assert_shows({"home": 9}, timeout=0)
    assert "older timestamp" in str(caught.value)
    assert '-   "home": 9' in str(caught.value)
    with pytest.raises(TypeError, match="colour"):
        phone.shows(colour=1)


def test_true_is_not_one(backend, phone):
    token = phone.start_activity("GameAttributes", {"on": True}).token
    backend.update(token, {"on": True})
    assert phone.shows({"on": True})
    assert not phone.shows(alerts=False)
    assert phone.shows(alerts=0)


async def test_async_tests_wait_without_blocking(fake_apns, phone):
    token = phone.start_token()

    async def later():
        backend = Backend(fake_apns)
        await asyncio.to_thread(backend.start, token, {"home": 0})
        backend.client.close()

    task = asyncio.create_task(later())
    push = await fake_apns.pushes.expect_one(token=token, timeout=20)
    assert push.content_state == {"home": 0}
    await task


def test_what_users_do(fake_apns, backend, phone):
    token = phone.start_activity("GameAttributes", {"home": 0}).token
    phone.go_offline()
    backend.update(token, {"home": 1})
    assert phone.shows({"home": 0})
    phone.go_online()
    assert phone.shows({"home": 1})
    phone.go_offline(60)
    backend.update(token, {"home": 2})
    fake_apns.clock.advance(61)
    assert phone.shows({"home": 2})
    assert [entry.state for entry in fake_apns.log][-2:] == ["stored", "delivered from storage"]
    phone.dismiss()
    assert phone.activity.state == "dismissed"
    phone.open_app()
    backend.send(phone.device_token(), {"alert": "hello"}, push_type="alert")
    assert phone.notifications[0].alert == "hello"
    phone.kill_token(token)
    assert backend.update(token, {}).status_code == 410
    phone.delete_app()
    with pytest.raises(FakeError):
        phone.start_token()
    with pytest.raises(KeyError):
        fake_apns.devices["phone"]


@pytest.mark.fake_apns(
    devices="strict", seed=5, schemas={"GameAttributes": {"type": "object", "required": ["home"]}}
)
def test_options_by_marker(fake_apns, backend, phone):
    assert backend.update("ab" * 32, {}).status_code == 400
    fake_apns.refused.assert_one(reason="BadDeviceToken")
    backend.start(phone.start_token(), {"away": 1})
    fake_apns.pushes.assert_one(why="undecodable")


def test_a_fault_is_removed(fake_apns, backend):
    fault = fake_apns.faults.add("answer", status=500, reason="InternalServerError")
    assert [each.fault.status for each in fake_apns.faults] == [500]
    assert fake_apns.faults.remove(fault)
    assert backend.update("ab" * 32, {}).status_code == 200


def test_the_inspector_is_there_when_asked_for(fake_apns):
    fake_apns.devices.add("phone")
    answer = httpx.get(fake_apns.inspector + "/v1/devices")
    assert [each["id"] for each in answer.json()["items"]] == ["phone"]
    assert fake_apns.inspector == fake_apns.inspector


def test_channels(fake_apns):
    channel = fake_apns.add_channel(storage_policy=1)
    assert channel.storage_policy == 1
