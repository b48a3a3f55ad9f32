"""Connections of many apps: not more than may be open, idle ones closed, and nothing lost by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from apns_live.activities import App, TokenRecord
from tests.activities.send.test_recovery import follow
from tests.activities.send.world import World, a_start, an_end, an_update

APPS = 30


async def limited(world: World, **changes: Any) -> None:
    await world.close()
    world.settings = replace(world.settings, **changes)
    await world.open()


async def many_apps(world: World, count: int) -> list[tuple[App, Any]]:
    """Return many apps of one team, each with a phone."""
    made = []
    for number in range(count):
        app = await world.add_app(f"app-{number}")
        [phone] = await world.add_phones(1, app)
        made.append((app, phone))
    return made


def in_use(world: World) -> int:
    return len(world.service.courier.carriers)


async def test_many_apps_share_the_few_that_may_be_open(world: World) -> None:
    await limited(world, carriers_open=5)
    world.registering = False
    made = await many_apps(world, APPS)
    phones = [phone for _, phone in made]
    for app, _ in made:
        await world.service.activities.start(app, a_start("match"))
    await world.until(lambda: None not in world.shown(phones), at_most=600.0)
    await world.until(lambda: len(world.handed_in) == APPS, at_most=600.0)
    tokens, world.handed_in = world.handed_in, []
    by_device = {token.device: token for token in tokens}
    for app, phone in made:
        await world.service.tokens.register_activity_tokens(app, [by_device[phone.id]])
    await world.settled()
    assert in_use(world) <= 5
    for app, _ in made[:20]:
        await world.service.activities.update(app, an_update(1))
    newest = [("active", 1)] * 20 + [("active", 0)] * (APPS - 20)
    await world.until(lambda: world.shown(phones) == newest)
    await world.settled()
    await world.until(lambda: not world.service.courier.carriers._closing)
    assert in_use(world) <= 5
    assert len(world.service.statistics().carriers) == in_use(world)
    assert {row.status for row in await world.operations()} == {"done"}
    assert len(await world.outcomes()) == APPS + 20


async def test_what_is_under_way_is_never_closed(world: World) -> None:
    await limited(world, carriers_open=1)
    carriers = world.service.courier.carriers
    apps = [await world.add_app(f"app-{number}") for number in range(3)]
    async with (
        carriers.use(apps[0], "sandbox") as first,
        carriers.use(apps[1], "sandbox"),
        carriers.use(apps[2], "sandbox"),
    ):
        assert in_use(world) == 3
        assert await carriers.get(apps[0], "sandbox") is first
    assert in_use(world) == 1


async def test_an_idle_one_is_closed_after_its_time_and_comes_back(world: World) -> None:
    await limited(world, carrier_idle=5.0, key_check=1.0)
    phones = await follow(world, 2)
    await world.pass_time(2.0)
    assert in_use(world) == 1
    # Updates use it, although it is not opened anew for them.
    for n in (1, 2, 3):
        await world.service.activities.update(world.app, an_update(n))
        await world.settled()
        await world.pass_time(2.5)
    assert world.service.courier.carriers.opened == 1
    await world.pass_time(5.0)
    assert in_use(world) == 0
    assert world.service.statistics().living == 0
    await world.service.activities.end(world.app, an_end(9))
    await world.until(lambda: world.shown(phones) == [("ended", 9)] * 2)
    await world.settled()
    assert world.service.courier.carriers.opened == 2
    assert (await world.operations())[-1].accepted == 2


async def test_a_late_token_opens_it_again(world: World) -> None:
    await limited(world, carrier_idle=2.0, key_check=1.0)
    world.registering = False
    [phone] = await world.add_phones(1)
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: world.handed_in)
    await world.service.activities.update(world.app, an_update(1))
    await world.pass_time(4.0)
    assert in_use(world) == 0
    token: TokenRecord = world.handed_in[0]
    assert token.device == phone.id
    await world.hand_in()
    await world.until(lambda: world.showing(phone) == ("active", 1))
