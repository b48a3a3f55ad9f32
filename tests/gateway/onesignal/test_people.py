"""Users, aliases, subscriptions and segments through OneSignal's Python SDK, then a start by them."""

from __future__ import annotations

from typing import Any

import pytest
from onesignal.exceptions import ApiException
from onesignal.models import (
    Filter,
    IdentityObject,
    IncludeAliases,
    PropertiesObject,
    Segment,
    Subscription,
    SubscriptionBody,
    TransferSubscriptionRequestBody,
    UpdateSegmentRequest,
    UpdateUserRequest,
    User,
    UserIdentityBody,
)

from tests.gateway.braze.world import TYPE, VendorWorld
from tests.gateway.onesignal.caller import Caller, Sdk
from tests.gateway.onesignal.test_python_sdk import a_start

ANNA = ("scores", "external_id", "anna")


def aliases(**labels: str) -> UserIdentityBody:
    return UserIdentityBody(identity=IdentityObject(**labels))


async def refused(work: Any) -> Any:
    with pytest.raises(ApiException) as caught:
        await work
    return caught.value


@pytest.fixture
async def phones(world: VendorWorld) -> list[Any]:
    return await world.add_phones(2)


@pytest.fixture
async def anna(phones: list[Any], sdk: Sdk) -> Any:
    """A user, made by the SDK, whose subscription is the first of two phones."""
    return await sdk(
        "create_user",
        "scores",
        User(
            identity=IdentityObject(external_id="anna", crm="c-1"),
            properties=PropertiesObject(tags={"team": "red", "level": "12"}, language="de"),
            subscriptions=[
                Subscription(
                    type="iOSPush", id="scores-0", token="a1" * 32, app_version="2.1", enabled=True
                )
            ],
        ),
    )


async def test_users(world: VendorWorld, sdk: Sdk, anna: Any) -> None:
    identity = dict(anna.identity.to_dict())
    assert identity["external_id"] == "anna"
    assert identity["crm"] == "c-1"
    [subscription] = anna.subscriptions
    assert (subscription.id, subscription.app_version) == ("scores-0", "2.1")
    found = await sdk("get_user", "scores", "crm", "c-1")
    assert found.properties.tags == {"team": "red", "level": "12"}
    assert found.properties.language == "de"
    found = await sdk("get_user", "scores", "onesignal_id", identity["onesignal_id"])
    assert found.identity.to_dict()["external_id"] == "anna"
    change = UpdateUserRequest(properties=PropertiesObject(tags={"team": "", "level": "3"}))
    changed = await sdk("update_user", *ANNA, change)
    assert changed.properties.tags == {"level": "3"}
    await sdk("delete_user", *ANNA)
    assert (await refused(sdk("get_user", *ANNA))).status == 404


async def test_aliases(world: VendorWorld, sdk: Sdk, anna: Any) -> None:
    await world.service.people.add_user(world.app, "ben", aliases={"crm": "c-2"})
    found = await sdk("create_alias", *ANNA, aliases(shop="s-1"))
    assert found.identity.to_dict()["shop"] == "s-1"
    assert "shop" in (await sdk("get_aliases", *ANNA)).identity.to_dict()
    found = await sdk("delete_alias", *ANNA, "shop")
    assert "shop" not in found.identity.to_dict()
    assert (await refused(sdk("delete_alias", *ANNA, "shop"))).status == 404
    conflict = await refused(sdk("create_alias", *ANNA, aliases(crm="c-2")))
    assert conflict.status == 409
    assert "another user" in conflict.error_messages[0]
    found = await sdk("create_alias_by_subscription", "scores", "scores-0", aliases(club="x"))
    assert found.identity.to_dict()["club"] == "x"
    found = await sdk("get_aliases_by_subscription", "scores", "scores-0")
    assert found.identity.to_dict()["external_id"] == "anna"


async def test_subscriptions(world: VendorWorld, sdk: Sdk, anna: Any) -> None:
    body = SubscriptionBody(subscription=Subscription(type="iOSPush", token="b2" * 32))
    made = await sdk("create_subscription", *ANNA, body)
    same = await sdk("create_subscription", *ANNA, body)
    assert made.subscription.id == same.subscription.id
    off = SubscriptionBody(subscription=Subscription(enabled=False, device_os="18.1"))
    await sdk("update_subscription", "scores", made.subscription.id, off)
    known = await world.service.devices.get(world.app, made.subscription.id)
    assert (known["push_enabled"], known["os_version"], known["user"]) == (False, "18.1", "anna")
    moved = await sdk(
        "transfer_subscription",
        "scores",
        made.subscription.id,
        TransferSubscriptionRequestBody(identity={"external_id": "ben"}),
    )
    assert moved.identity.to_dict()["external_id"] == "ben"
    await sdk("delete_subscription", "scores", made.subscription.id)
    error = await refused(sdk("delete_subscription", "scores", made.subscription.id))
    assert error.status == 404
    mail = SubscriptionBody(subscription=Subscription(type="Email", token="a@example.com"))
    assert (await refused(sdk("create_subscription", *ANNA, mail))).status == 400


async def test_segments(world: VendorWorld, sdk: Sdk, anna: Any, phones: list[Any]) -> None:
    rule = [Filter(field="tag", key="team", relation="=", value="red")]
    segment = Segment(name="Reds", filters=rule)
    made = await sdk("create_segment", "scores", segment=segment)
    assert made.success
    assert (await refused(sdk("create_segment", "scores", segment=segment))).status == 409
    page = await sdk("get_segments", "scores", limit=2, offset=0)
    assert page.total_count > 2
    first = page.segments[0]
    assert (first.id, first.name) == (made.id, "Reds")
    started = await sdk(
        "start_live_activity",
        "scores",
        TYPE,
        a_start(include_aliases=..., included_segments=["Reds"]),
    )
    assert started.notification_id
    await world.shows(phones[:1], "active", home=0)
    await world.settled()
    assert not phones[1].activities
    change = UpdateSegmentRequest(
        name="Reds", filters=[Filter(field="tag", key="x", relation="exists")]
    )
    assert (await sdk("update_segment", "scores", made.id, update_segment_request=change)).success
    assert (await sdk("delete_segment", "scores", made.id)).success
    assert (await refused(sdk("delete_segment", "scores", made.id))).status == 404


async def test_a_start_by_an_alias(
    world: VendorWorld, sdk: Sdk, anna: Any, phones: list[Any]
) -> None:
    target = IncludeAliases(onesignal_id=[anna.identity.to_dict()["onesignal_id"]])
    await sdk("start_live_activity", "scores", TYPE, a_start(include_aliases=target))
    await world.shows(phones[:1], "active", home=0)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/users", {"identity": []}),
        ("POST", "/users", {}),
        ("POST", "/users", {"identity": {"external_id": "a"}, "subscriptions": {}}),
        ("POST", "/users", {"identity": {"external_id": "a"}, "properties": []}),
        ("POST", "/users", {"identity": {"external_id": "a"}, "properties": {"lat": "x"}}),
        ("POST", "/segments", {"name": "x"}),
        ("POST", "/segments", {"filters": []}),
        ("GET", "/segments?limit=x", None),
    ],
)
async def test_bad_calls(
    world: VendorWorld, caller: Caller, method: str, path: str, body: Any
) -> None:
    answer = await caller.call(method, path, body)
    assert answer.status_code == 400
    assert answer.json()["errors"]


async def test_keys_for_groups_and_narrow_keys_stay_out(world: VendorWorld) -> None:
    await world.service.people.add_group(world.app, "demo")
    for options in ({"groups": {"demo"}}, {"scopes": {"activities:start"}}):
        caller = Caller(world, await world.key("onesignal", **options))
        for method, path in (("GET", "/segments"), ("GET", "/users/by/external_id/anna")):
            assert (await caller.call(method, path)).status_code == 403
