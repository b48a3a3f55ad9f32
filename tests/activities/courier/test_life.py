"""Start, update and end over real sockets, as the phones show them."""

from __future__ import annotations

from tests.activities.courier.world import World, a_start, an_end, an_update


async def test_a_life_from_start_to_end(world: World) -> None:
    phones = await world.add_phones(30)
    activities = world.service.activities
    await activities.start(world.app, a_start())
    await world.until(lambda: world.shown(phones) == [("active", 0)] * 30)
    await world.until(lambda: all(phone.activities[-1].token for phone in phones))
    await world.settled()
    await activities.update(world.app, an_update(1))
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 30)
    await activities.end(world.app, an_end(2))
    await world.until(lambda: world.shown(phones) == [("ended", 2)] * 30)
    await world.settled()
    operations = await world.operations()
    assert [(row.kind, row.status, row.accepted, row.failed) for row in operations] == [
        ("start", "done", 30, 0),
        ("update", "done", 30, 0),
        ("end", "done", 30, 0),
    ]
    assert {row.retired_reason for row in await world.members()} == {"ended"}
    outcomes = await world.outcomes()
    assert len(outcomes) == 90
    assert {(row.verdict, row.status) for row in outcomes} == {("accepted", 200)}
    assert len({row.apns_id for row in outcomes}) == 90
    assert world.service.statistics().living == 0
