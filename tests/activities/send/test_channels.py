"""Broadcast channels through the app's client, on the fake's management host."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apns_live.activities import CreateChannel, Key
from apns_live.activities.store import schema
from apns_live.errors import ActivitiesError, ChannelError, Conflict, InvalidInput, NotFound
from apns_live.testing import channels as apples
from tests.activities.plans import every_query_indexed
from tests.activities.send.world import World

KEY = Key(caller="server", key="k1")


async def create(world: World, key: Key | None = None, **values: Any) -> Any:
    work = world.service.channels.create(world.app, CreateChannel(**values), key=key)
    return await world.result_of(work)


def at_apple(world: World) -> list[str]:
    """The channels that Apple has."""
    return [channel.channel_id for channel in world.fake.state.channels.of(world.app.bundle_id)]


async def test_a_channel_is_made_and_remembered(world: World) -> None:
    made = (await create(world, name="Final", storage_policy=0)).answer
    assert at_apple(world) == [made.id]
    assert (made.storage_policy, made.name, made.environment) == (0, "Final", "sandbox")
    requests = world.fake.state.channels.get(world.app.bundle_id, made.id)
    assert requests is not None
    assert requests.storage_policy == 0
    assert await world.service.channels.list(world.app) == [made]
    assert await world.service.channels.get(world.app, made.id) == made
    assert await world.result_of(world.service.channels.delete(world.app, made.id))
    assert at_apple(world) == []
    assert await world.service.channels.list(world.app) == []
    assert not await world.result_of(world.service.channels.delete(world.app, made.id))
    with pytest.raises(NotFound, match="no channel"):
        await world.result_of(world.service.channels.get(world.app, made.id))


async def test_the_same_key_makes_one(world: World) -> None:
    first = await create(world, KEY)
    again = await create(world, KEY)
    assert (first.replayed, again.replayed, again.answer) == (False, True, first.answer)
    with pytest.raises(Conflict, match="another request"):
        await create(world, KEY, storage_policy=0)
    assert len(at_apple(world)) == 1


async def test_the_same_key_at_the_same_moment_leaves_one(world: World) -> None:
    work = [world.service.channels.create(world.app, CreateChannel(), key=KEY) for _ in range(4)]
    done = await world.result_of(asyncio.gather(*work))
    assert len({one.answer.id for one in done}) == 1
    assert at_apple(world) == [done[0].answer.id]


async def test_a_key_is_free_again_after_thirty_days(world: World) -> None:
    await world.close()
    await world.open()
    await create(world, KEY)
    table = schema.idempotency
    async with world.database.write() as connection:
        await connection.execute(table.update().values(created_at=1_000))
    again = await create(world, KEY)
    assert not again.replayed
    assert len(at_apple(world)) == 2


async def test_pages_are_read_by_id(world: World) -> None:
    made = [(await create(world)).answer.id for _ in range(5)]
    found: list[str] = []
    after = None
    while page := await world.service.channels.list(world.app, after=after, limit=2):
        assert len(page) <= 2
        found += [view.id for view in page]
        after = page[-1].id
    assert found == sorted(made)
    assert await world.service.channels.list(world.app, environment="production") == []


async def test_apples_list_is_taken_over(world: World) -> None:
    kept = (await create(world, name="kept")).answer
    gone = (await create(world)).answer
    world.fake.state.channels.delete(world.app.bundle_id, gone.id)
    new = world.fake.add_channel(1, bundle_id=world.app.bundle_id).channel_id
    await world.pass_time(0.1)
    result = await world.result_of(world.service.channels.reconcile(world.app))
    assert (result.channels, result.added, result.removed) == (2, [new], [gone.id])
    views = {view.id: view for view in await world.service.channels.list(world.app)}
    assert views[kept.id] == kept
    assert views[new].storage_policy is None
    # Its policy is looked up when somebody asks, and remembered.
    view = await world.result_of(world.service.channels.get(world.app, new))
    assert view.storage_policy == 1
    views = {view.id: view for view in await world.service.channels.list(world.app)}
    assert views[new].storage_policy == 1
    again = await world.result_of(world.service.channels.reconcile(world.app))
    assert (again.added, again.removed) == ([], [])


async def test_one_that_apple_lists_again_is_back(world: World) -> None:
    made = (await create(world)).answer
    async with world.database.write() as connection:
        await connection.execute(schema.channels.update().values(deleted_at=1))
    result = await world.result_of(world.service.channels.reconcile(world.app))
    assert result.added == [made.id]
    assert len(await world.service.channels.list(world.app)) == 1


async def test_the_limit_is_explained(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apples, "LIMIT", 2)
    await create(world)
    world.fake.add_channel(bundle_id=world.app.bundle_id)
    with pytest.raises(ChannelError) as caught:
        await create(world)
    error = caught.value
    assert (error.status, error.reason) == (400, "CannotCreateChannelConfig")
    assert "has the 10,000 channels that Apple allows in sandbox (1 of them" in str(error)
    assert "reconcile first" in error.remedy
    assert len(await world.service.channels.list(world.app)) == 1


async def test_what_apple_refuses_is_not_remembered(world: World) -> None:
    world.fake.fault(
        "answer", face="manage", status=400, reason="BroadcastFeatureNotEnabled", times=1
    )
    with pytest.raises(ChannelError, match="BroadcastFeatureNotEnabled"):
        await create(world, KEY)
    assert await world.service.channels.list(world.app) == []
    assert not (await create(world, KEY)).replayed  # the key was not used up


async def test_an_app_without_a_key_is_told_so(world: World) -> None:
    world.app = await world.add_app("keyless", with_key=False)
    with pytest.raises(ActivitiesError, match="no provider key"):
        await create(world)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"storage_policy": 2}, "storage_policy"),
        ({"storage_policy": True}, "storage_policy"),
        ({"storage_policy": "1"}, "storage_policy"),
        ({"environment": "test"}, "environment"),
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x" * 201}, "name"),
    ],
)
async def test_a_bad_request_is_refused(world: World, values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await create(world, KEY, **values)
    assert caught.value.field == field
    assert caught.value.remedy
    assert at_apple(world) == []
    assert await world.count(schema.idempotency) == 0


@pytest.mark.parametrize("channel", ["", "not base64!", 5, "a\nb"])
async def test_a_bad_id_is_refused(world: World, channel: Any) -> None:
    for call in (world.service.channels.get, world.service.channels.delete):
        with pytest.raises(InvalidInput) as caught:
            await call(world.app, channel)
        assert caught.value.remedy


async def test_no_query_scans_a_table(world: World) -> None:
    async with every_query_indexed(world.database, small={"apps", "credentials"}):
        made = (await create(world, KEY)).answer
        await create(world, KEY)
        await world.service.channels.list(world.app, after="A")
        await world.result_of(world.service.channels.reconcile(world.app))
        await world.result_of(world.service.channels.delete(world.app, made.id))
