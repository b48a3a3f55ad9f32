"""OneSignal's example requests, with our own values, as the phones show them."""

from __future__ import annotations

import json
import uuid
from typing import Any

from apns_live.activities import DeviceRecord
from tests.gateway.braze.world import TYPE, VendorWorld
from tests.gateway.onesignal.caller import ACTIVITY, Caller, start_body, without


async def test_from_start_to_end(world: VendorWorld, caller: Caller) -> None:
    *players, other = await world.add_users(3)
    answer = await caller.start()
    assert answer.status_code == 201
    assert answer.json().keys() == {"notification_id"}
    await world.shows(players, "active", home=0)
    await world.have_tokens(players)
    answer = await caller.change(stale_date=2_200_000_000, priority=10)
    assert answer.status_code == 201
    assert answer.json().keys() == {"id"}
    await world.shows(players, "active", home=1, away=0)
    answer = await caller.change("end", event_updates={"home": 2, "away": 1})
    assert answer.status_code == 201
    await world.shows(players, "ended", home=2, away=1)
    assert not other.activities
    answer = await caller.change()
    assert answer.status_code == 404
    answer = await caller.change("end")
    assert answer.status_code == 201


async def test_ids_travel_where_the_apps_sdk_looks_for_them(
    world: VendorWorld, caller: Caller
) -> None:
    [phone] = await world.add_users(1)
    answer = await caller.start(
        event_attributes={"data": {"ground": "Hall 3"}, "onesignal": {"other": 1}},
        include_aliases={"external_id": ["user-0"]},
    )
    await world.shows([phone], "active", home=0)
    activity = phone.activities[-1]
    assert json.loads(activity.attributes) == {
        "data": {"ground": "Hall 3"},
        "onesignal": {"other": 1, "activityId": ACTIVITY},
    }
    assert json.loads(activity.content)["onesignal"] == {
        "notificationId": answer.json()["notification_id"]
    }


async def test_the_id_of_a_notification_is_that_of_an_operation(
    world: VendorWorld, caller: Caller
) -> None:
    [phone] = await world.add_users(1)
    operations = world.service.operations
    answer = await caller.start(
        include_aliases={"external_id": ["user-0"]}, idempotency_key=str(uuid.uuid4())
    )
    start = answer.json()["notification_id"]
    await world.shows([phone], "active", home=0)
    await world.have_tokens([phone])
    update = (await caller.change()).json()["id"]
    end = (await caller.change("end")).json()["id"]
    for name, kind in ((start, "start"), (update, "update"), (end, "end")):
        found = await operations.get(world.app, name)
        assert (found["kind"], found["dialect"]) == (kind, "onesignal")
    again = (await caller.change("end")).json()["id"]
    assert again not in (start, update, end)
    # The phone confirms by the id of the notification alone, too.
    await world.service.apps.configure(world.app, {"onesignal_device_calls": "open"})
    confirmed = await world.http.put(
        f"/notifications/{start}/report_received",
        json={"app_id": "scores", "player_id": phone.id, "device_type": 0},
    )
    assert confirmed.status_code == 200
    [receipt] = await world.service.receipts.page(world.app, operation=start)
    assert receipt["device"] == phone.id


async def test_an_end_without_a_state_leaves_the_last_one(
    world: VendorWorld, caller: Caller
) -> None:
    [phone] = await world.add_users(1)
    await caller.start(include_aliases={"external_id": ["user-0"]})
    await world.shows([phone], "active", home=0)
    await world.have_tokens([phone])
    assert (await caller.change("end", event_updates={}, dismissal_date=1)).status_code == 201
    await world.until(lambda: phone.activities[-1].state in ("ended", "dismissed"))
    assert json.loads(phone.activities[-1].content)["home"] == 0


async def test_an_activity_that_its_devices_made_known(world: VendorWorld, caller: Caller) -> None:
    """The app starts it by itself and enters: then the server's first word is an update."""
    await world.service.apps.configure(world.app, {"onesignal_device_calls": "open"})
    [phone] = await world.add_users(1)
    world.registering = False
    started = world.fake.devices.start_activity(
        phone, TYPE, {"onesignal": {"activityId": "own"}}, {"home": 0, "away": 0}
    )
    await world.until(lambda: started.token)
    assert (await caller.change(activity="own")).status_code == 404
    path = "/apps/scores/live_activities/own/token"
    body = {"push_token": started.token.text, "subscription_id": phone.id, "device_type": 0}
    answer = await world.http.post(path, json=body)
    assert answer.status_code == 200
    assert (await caller.change(activity="own")).status_code == 201
    await world.shows([phone], "active", home=1)
    answer = await world.http.delete(f"{path}/{phone.id}")
    assert answer.status_code == 200
    answer = await caller.change(activity="own", event_updates={"home": 7})
    assert answer.json()["warnings"]
    await world.settled()
    await world.shows([phone], "active", home=1)


async def test_the_same_key_starts_once(world: VendorWorld, caller: Caller) -> None:
    [phone] = await world.add_users(1)
    given = {"idempotency_key": str(uuid.uuid4()), "include_aliases": {"external_id": ["user-0"]}}
    first = await caller.start(**given)
    assert "idempotent-replayed" not in first.headers
    again = await caller.start(**given)
    other = await caller.start(**{**given, "event_updates": {"home": 9}, "activity_id": "other"})
    old_name = await caller.start_with(
        {**without(start_body(**given), "idempotency_key"), "external_id": given["idempotency_key"]}
    )
    for answer in (again, other, old_name):
        assert answer.status_code == 201
        assert answer.headers["idempotent-replayed"] == "true"
        assert answer.json() == first.json()
    await world.shows([phone], "active", home=0)
    await world.settled()
    assert len(phone.activities) == 1


async def test_languages(world: VendorWorld, caller: Caller) -> None:
    """Each phone reads its own language, its base language, or English."""
    people = {"user-0": "de-AT", "user-1": "zh-Hans", "user-2": "fr"}
    phones = await world.add_users(3)
    await world.service.devices.tell(
        world.app,
        [
            DeviceRecord(id=phone.id, language=language)
            for phone, language in zip(phones, people.values(), strict=True)
        ],
    )
    await caller.start(
        include_aliases={"external_id": list(people)},
        headings={"en": "Kick-off", "de": "Anpfiff", "zh-Hans": "开球"},
        contents={"en": "It begins", "de": "Es beginnt", "zh-Hans": "比赛开始"},
    )
    await world.shows(phones, "active", home=0)
    assert [title_on(phone) for phone in phones] == ["Anpfiff", "开球", "Kick-off"]


def title_on(phone: Any) -> Any:
    return json.loads(phone.activities[-1].alert)["title"]


async def test_a_notification_is_looked_up_by_its_id(world: VendorWorld, caller: Caller) -> None:
    phones = await world.add_users(2)
    name = (await caller.start()).json()["notification_id"]
    await world.shows(phones, "active", home=0)
    await world.settled()
    for report in ({"live_activity_id": ACTIVITY}, {}):
        await world.http.put(
            f"/notifications/{name}/report_received",
            headers=caller.headers,
            json={"app_id": "scores", "player_id": phones[0].id, **report},
        )
    found = await caller.message("GET", name)
    assert found.status_code == 200
    said = found.json()
    counts = {"successful": 2, "failed": 0, "errored": 0, "received": 1, "converted": 0}
    assert counts.items() <= said.items()
    assert (said["id"], said["remaining"], said["canceled"]) == (name, 0, False)
    assert said["completed_at"] >= said["queued_at"] > 1e9
    assert said["platform_delivery_stats"] == {"ios": counts}
    assert (await caller.message("GET", "x")).status_code == 404
    # All of it has left, so there is nothing to call off.
    answer = await caller.message("DELETE", name)
    assert answer.status_code == 400
    assert answer.json() == {"errors": ["Notification has already been sent to all recipients"]}


async def test_a_start_that_waits_is_called_off(world: VendorWorld, caller: Caller) -> None:
    [phone] = await world.add_users(1)
    name = (await caller.start(include_aliases={"external_id": ["user-0"]})).json()[
        "notification_id"
    ]
    answer = await caller.message("DELETE", name)
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    await world.settled()
    assert not [card for card in phone.activities if card.state == "active"]
    assert (await caller.change()).status_code == 404
    assert (await caller.message("GET", name)).json()["canceled"] is True


async def test_an_id_that_no_address_can_hold(world: VendorWorld, caller: Caller) -> None:
    await world.add_users(1)
    for activity in (".", ".."):
        answer = await caller.start(activity_id=activity)
        assert answer.status_code == 400
        assert "cannot stand in an address" in answer.json()["errors"][0]


async def test_headings_have_the_languages_of_contents(world: VendorWorld, caller: Caller) -> None:
    await world.add_users(1)
    for answer in (
        await caller.start(headings={"en": "Kick-off"}),
        await caller.change(headings={"en": "Goal", "fr": "But"}, contents={"en": "1:0"}),
    ):
        assert answer.status_code == 400
        assert "has other languages than contents" in answer.json()["errors"][0]


async def test_one_language_for_both_texts(world: VendorWorld, caller: Caller) -> None:
    spoken = {
        "zh-CN": "zh-Hans",
        "zh-Hans-CN": "zh-Hans",
        "zh-TW": "zh-Hant",
        "no": "nb",
        "nn-NO": "nb",
        "iw": "he",
        "de-AT": "de",
        "fr": "en",
    }
    phones = await world.add_users(len(spoken))
    await world.service.devices.tell(
        world.app,
        [
            DeviceRecord(id=phone.id, language=tag)
            for phone, tag in zip(phones, spoken, strict=True)
        ],
    )
    texts = {tag: tag for tag in dict.fromkeys(spoken.values())}
    await caller.start(
        headings=texts,
        contents=texts,
        include_aliases={"external_id": [f"user-{n}" for n in range(len(spoken))]},
    )
    await world.shows(phones, "active", home=0)
    for phone, tag in zip(phones, spoken.values(), strict=True):
        alert = json.loads(phone.activities[-1].alert)
        assert (alert["title"], alert["body"]) == (tag, tag)


async def test_deltas_of_a_user_count(world: VendorWorld, caller: Caller) -> None:
    [phone] = await world.add_users(1, session_count=2)
    path = "/users/by/external_id/user-0"
    purchase = {"sku": "cup", "amount": "1.50", "iso": "EUR", "count": 2}
    deltas = {"session_count": 3, "session_time": 60, "purchases": [purchase]}
    assert (await caller.call("PATCH", path, {"deltas": deltas})).status_code == 202
    known = await world.service.devices.get(world.app, phone.id)
    facts = known["session_count"], known["session_time"], known["amount_spent"]
    assert facts == (5, 60, 3.0)
    assert known["last_session"] >= int(world.clock.time() * 1000) - 1_000
    for bad in (
        {"session_count": -1},
        {"session_time": "1"},
        {"purchases": {}},
        {"purchases": [{"amount": "x"}]},
        {"purchases": [{"amount": "nan", "count": 1}]},
        [],
    ):
        body = {"deltas": bad, "properties": {"tags": {"level": "9"}}}
        assert (await caller.call("PATCH", path, body)).status_code == 400, bad
        # What is refused has changed nothing.
        assert (await caller.call("GET", path)).json()["properties"]["tags"] == {}
