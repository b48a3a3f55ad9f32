"""OneSignal's own Python SDK against the gateway, judged by what arrives at the phones.

The base address is swapped by ``Configuration(host=...)``; nothing else differs.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import onesignal
import pytest
from onesignal.api.default_api import DefaultApi
from onesignal.errors import OneSignalErrors
from onesignal.exceptions import ApiException, ForbiddenException, NotFoundException
from onesignal.models import (
    Filter,
    IncludeAliases,
    LanguageStringMap,
    Operator,
    StartLiveActivityRequest,
    UpdateLiveActivityRequest,
)

from apns_live.activities import DeviceRecord
from apns_live.gateway import GatewaySettings, Limit
from tests.gateway.braze.serving import served
from tests.gateway.braze.world import TYPE, VendorWorld
from tests.gateway.onesignal.caller import Sdk

ACTIVITY = "match 17/final"


def a_start(**changes: Any) -> StartLiveActivityRequest:
    values: dict[str, Any] = {
        "name": "Boccia final",
        "event": "start",
        "activity_id": ACTIVITY,
        "event_attributes": {"ground": "Hall 3"},
        "event_updates": {"home": 0, "away": 0, "by": {"points": [1, 2.5, None, True]}},
        "contents": LanguageStringMap(en="It begins", de="Es beginnt", zh_hans="比赛开始"),
        "headings": LanguageStringMap(en="Kick-off", de="Anpfiff", zh_hans="开球"),
        "include_aliases": IncludeAliases(external_id=["user-0", "user-1"]),
    }
    values |= changes
    given = {name: value for name, value in values.items() if value is not ...}
    return StartLiveActivityRequest(**given)


def a_change(event: str = "update", **changes: Any) -> UpdateLiveActivityRequest:
    values: dict[str, Any] = {
        "name": "Boccia final",
        "event": event,
        "event_updates": {"home": 1, "away": 0},
    }
    return UpdateLiveActivityRequest(**{**values, **changes})


async def test_from_start_to_end(world: VendorWorld, sdk: Sdk) -> None:
    *players, other = await world.add_users(3)
    answer = await sdk("start_live_activity", "scores", TYPE, a_start())
    uuid.UUID(answer.notification_id)
    await world.shows(players, "active", home=0, by={"points": [1, 2.5, None, True]})
    await world.have_tokens(players)
    for phone in players:
        attributes = json.loads(phone.activities[-1].attributes)
        assert attributes == {"ground": "Hall 3", "onesignal": {"activityId": ACTIVITY}}
        state = json.loads(phone.activities[-1].content)
        assert state["onesignal"] == {"notificationId": answer.notification_id}
    change = a_change(
        contents=LanguageStringMap(en="1:0"),
        headings=LanguageStringMap(en="Goal"),
        ios_sound="cheer.caf",
        stale_date=2_000_000_000,
        priority=10,
        ios_relevance_score=0.75,
    )
    answer = await sdk("update_live_activity", "scores", ACTIVITY, change)
    assert answer.id
    await world.shows(players, "active", home=1)
    for phone in players:
        activity = phone.activities[-1]
        assert json.loads(activity.alert) == {"title": "Goal", "body": "1:0", "sound": "cheer.caf"}
        assert activity.relevance_score == 0.75
        assert activity.stale_date == 2_000_000_000
    end = a_change("end", event_updates={"home": 2}, dismissal_date=1)
    assert (await sdk("update_live_activity", "scores", ACTIVITY, end)).id
    await world.until(
        lambda: all(p.activities[-1].state in ("ended", "dismissed") for p in players)
    )
    assert not other.activities


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        ({"include_aliases": IncludeAliases(external_id=["user-1"])}, [1]),
        ({"include_aliases": IncludeAliases(crm=["c-0", "c-2"])}, [0, 2]),
        ({"include_subscription_ids": ["scores-2"]}, [2]),
        ({"included_segments": ["All"]}, [0, 1, 2]),
        ({"included_segments": ["All"], "excluded_segments": ["Reds"]}, [1, 2]),
        (
            {
                "filters": [
                    Filter(field="tag", key="team", relation="=", value="red"),
                    Operator(operator="OR"),
                    Filter(field="tag", key="level", relation=">", value="10"),
                ]
            },
            [0, 2],
        ),
        ({"filters": [Filter(field="language", relation="=", value="de")]}, [1]),
    ],
)
async def test_targets(
    world: VendorWorld, sdk: Sdk, target: dict[str, Any], reached: list[int]
) -> None:
    phones = await world.add_users(3)
    people = world.service.people
    for number in range(3):
        await people.add_user(world.app, f"user-{number}", aliases={"crm": f"c-{number}"})
    await people.set_tags(world.app, "user", "user-0", {"team": "red", "level": "3"})
    await people.set_tags(world.app, "user", "user-2", {"level": "12"})
    await world.service.devices.tell(world.app, [DeviceRecord(id="scores-1", language="de-AT")])
    rule = {"field": "tag", "key": "team", "relation": "=", "value": "red"}
    await world.service.segments.save(world.app, "Reds", rule)
    request = a_start(**{"include_aliases": ..., **target})
    assert (await sdk("start_live_activity", "scores", TYPE, request)).notification_id
    await world.shows([phones[number] for number in reached], "active", home=0)
    await world.settled()
    assert [number for number in range(3) if phones[number].activities] == reached


async def test_the_same_key_starts_once(world: VendorWorld, sdk: Sdk) -> None:
    [phone] = await world.add_users(1)
    request = a_start(idempotency_key=str(uuid.uuid4()))
    first, _, headers = await sdk(
        "start_live_activity", "scores", TYPE, request, _return_http_data_only=False
    )
    assert "idempotent-replayed" not in {name.lower() for name in headers}
    again, status, headers = await sdk(
        "start_live_activity", "scores", TYPE, request, _return_http_data_only=False
    )
    assert (status, again.notification_id) == (201, first.notification_id)
    assert {name.lower(): value for name, value in headers.items()}["idempotent-replayed"] == "true"
    await world.shows([phone], "active", home=0)
    await world.settled()
    assert len(phone.activities) == 1


async def test_errors(world: VendorWorld, sdk: Sdk) -> None:
    async def refused(*arguments: Any, **options: Any) -> Any:
        with pytest.raises(ApiException) as caught:
            await sdk(*arguments, **options)
        return caught.value

    start = ("start_live_activity", "scores", TYPE)
    error = await refused(*start, a_start(), key="os_v2_app_wrong")
    assert isinstance(error, ForbiddenException)
    assert error.error_messages == [OneSignalErrors.INVALID_API_KEY]
    error = await refused(*start, a_start())
    assert error.status == 400
    assert "push-to-start token" in error.error_messages[0]
    await world.add_users(1)
    error = await refused(*start, a_start(include_aliases=...))
    assert error.error_messages == [OneSignalErrors.NO_TARGETING_SPECIFIED]
    assert (await refused(*start, a_start(priority=7))).status == 400
    assert (await refused("start_live_activity", "other", TYPE, a_start())).status == 403
    error = await refused("update_live_activity", "scores", "unknown", a_change())
    assert isinstance(error, NotFoundException)
    assert error.error_messages == ["activity_id not found in this app"]
    narrow = await world.key("onesignal", scopes={"activities:end"})
    error = await refused("update_live_activity", "scores", "unknown", a_change(), key=narrow)
    assert error.status == 403
    assert await world.operations() == []


async def test_over_the_limit(world: VendorWorld) -> None:
    await world.http.aclose()
    world.serve(GatewaySettings(limits={"onesignal": Limit(per_minute=1)}))
    secret = await world.key("onesignal")
    async with served(world) as (host, port, run):

        def work() -> Any:
            configuration = onesignal.Configuration(
                host=f"http://{host}:{port}", rest_api_key=secret
            )
            with onesignal.ApiClient(configuration) as client:
                api = DefaultApi(client)
                errors = []
                for _ in range(2):
                    with pytest.raises(ApiException) as caught:
                        api.update_live_activity("scores", "unknown", a_change())
                    errors.append(caught.value)
                return errors

        first, second = await run(work)
    assert (first.status, second.status) == (404, 429)
    assert second.error_messages == ["API rate limit exceeded"]
    assert int(second.headers["retry-after"]) >= 1
