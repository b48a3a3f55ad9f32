"""Start, update and end as the store sees them: one transaction each, done once."""

import asyncio
import itertools
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, insert, select, text

from apns_live.activities.accept.activities import Activities
from apns_live.activities.accept.idempotency import KEPT_MILLISECONDS, Key, fingerprint
from apns_live.activities.accept.streams import Streams
from apns_live.activities.apps import App, Apps
from apns_live.activities.core import Core
from apns_live.activities.people.devices import Devices
from apns_live.activities.people.records import DeviceRecord
from apns_live.activities.requests import AlertText, Audience, End, Presentation, Start, Update
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import Sealer, new_key
from apns_live.errors import ActivityEnded, Conflict, InvalidInput, NotFound
from apns_live.testing.clock import SimulatedClock

ALERT = Presentation(alert=AlertText(title="Kick-off", body="It begins"))


def a_start(**changes: Any) -> Start:
    values: dict[str, Any] = {
        "id": "match-17",
        "attributes_type": "Match",
        "content_state": {"home": 0, "away": 0},
        "presentation": ALERT,
        "audience": Audience(everyone=True),
    }
    return Start(**{**values, **changes})


def an_update(home: Any, **changes: Any) -> Update:
    return Update(id="match-17", content_state={"home": home, "away": 0}, **changes)


def key(text: str, caller: str = "server") -> Key:
    return Key(caller=caller, key=text)


class World:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = SimulatedClock()
        numbers = itertools.count(1)
        ids = lambda: f"id-{next(numbers)}"  # noqa: E731
        self.apps = Apps(database, Sealer(new_key()), self.clock, ids)
        self.written: list[int] = []
        core = Core(database, self.clock, ids)
        core.hooks.written = lambda app, row: self.written.append(row)
        self.activities = Activities(core)
        self.app: App

    async def count(self, table: Any) -> int:
        async with self.database.read() as connection:
            return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


@pytest.fixture
async def world(database: Database) -> World:
    world = World(database)
    world.app = await world.apps.create(name="A", bundle_id="com.example.a", environment="sandbox")
    return world


async def test_a_life(world: World) -> None:
    started = (await world.activities.start(world.app, a_start(tags=("x",), revision=1))).answer
    assert (started.activity, started.status, started.version) == ("match-17", "accepted", 1)
    updated = (await world.activities.update(world.app, an_update(1, metadata={"a": 1}))).answer
    assert (updated.status, updated.version) == ("accepted", 2)
    known = await world.activities.get(world.app, "match-17")
    assert known["content_state"] == {"home": 1, "away": 0}
    assert (known["status"], known["tags"], known["metadata"]) == ("active", ["x"], {"a": 1})
    ended = (await world.activities.end(world.app, End(id="match-17", tags=()))).answer
    assert (ended.status, ended.version) == ("accepted", 3)
    known = await world.activities.get(world.app, "match-17")
    assert (known["status"], known["end_reason"], known["tags"]) == ("ended", "requested", [])
    assert known["content_state"] == {"home": 1, "away": 0}
    with pytest.raises(ActivityEnded, match="start a new one"):
        await world.activities.update(world.app, an_update(2))
    again = (await world.activities.end(world.app, End(id="match-17"))).answer
    assert (again.status, again.version) == ("ignored", 3)
    pages = [page async for page in world.activities.history(world.app, "match-17", page=2)]
    assert [[entry["kind"] for entry in page] for page in pages] == [["start", "update"], ["end"]]
    assert len(world.written) == 3


async def test_devices_with_and_without_a_token_are_told_apart(world: World) -> None:
    await world.activities.start(world.app, a_start())
    devices = Devices(Core(world.database, world.clock))
    await devices.tell(world.app, [DeviceRecord(id=f"d{n}") for n in range(3)])
    async with world.database.write() as connection:
        rows = await devices.rows(connection, world.app, ["d0", "d1", "d2"])
        place = {"app_id": world.app.row, "activity_id": world.written[0], "environment": "sandbox"}
        await connection.execute(
            insert(schema.activity_devices),
            [
                place | {"device_id": rows["d0"], "token": "aa", "retired_at": None},
                place | {"device_id": rows["d1"], "token": None, "retired_at": None},
                place | {"device_id": rows["d2"], "token": "bb", "retired_at": 1},
            ],
        )
    answer = (await world.activities.update(world.app, an_update(1))).answer
    assert (answer.devices, answer.queued) == (1, 1)


async def test_an_older_revision_is_superseded(world: World) -> None:
    await world.activities.start(world.app, a_start(revision=5))
    for revision in (4, 5):
        answer = (await world.activities.update(world.app, an_update(9, revision=revision))).answer
        assert (answer.status, answer.version) == ("superseded", 1)
    assert (await world.activities.update(world.app, an_update(1, revision=6))).answer.version == 2
    assert (await world.activities.get(world.app, "match-17"))["content_state"]["home"] == 1


async def test_a_scheduled_start_is_stored_as_such(world: World) -> None:
    at = world.clock.time() + 60
    answer = (await world.activities.start(world.app, a_start(start_at=at, end_at=at + 60))).answer
    assert answer.status == "scheduled"
    assert (await world.activities.get(world.app, "match-17"))["started_at"] is None


async def test_a_repeated_write_is_done_once(world: World) -> None:
    first = await world.activities.start(world.app, a_start(id=None), key=key("k1"))
    again = await world.activities.start(world.app, a_start(id=None), key=key("k1"))
    assert (first.replayed, again.replayed) == (False, True)
    assert first.answer == again.answer
    assert await world.count(schema.activities) == 1
    await world.activities.start(world.app, a_start())
    update = await world.activities.update(world.app, an_update(1), key=key("k2"))
    repeat = await world.activities.update(world.app, an_update(1.0), key=key("k2"))
    assert repeat.replayed
    assert repeat.answer == update.answer
    assert await world.count(schema.operations) == 3


async def test_a_used_key_with_another_body_is_a_conflict(world: World) -> None:
    await world.activities.start(world.app, a_start(), key=key("k1"))
    with pytest.raises(Conflict, match="another request"):
        await world.activities.start(world.app, a_start(content_state={"home": 7}), key=key("k1"))
    with pytest.raises(Conflict, match="another request"):
        await world.activities.update(world.app, an_update(1), key=key("k1"))
    # Another caller's key of the same text is another key.
    await world.activities.update(world.app, an_update(1), key=key("k1", caller="other"))


async def test_a_write_that_fails_does_not_use_its_key_up(world: World) -> None:
    await world.activities.start(world.app, a_start())
    with pytest.raises(Conflict, match="already"):
        await world.activities.start(world.app, a_start(), key=key("k1"))
    assert await world.count(schema.idempotency) == 0
    assert not (await world.activities.start(world.app, a_start(id="b"), key=key("k1"))).replayed


async def test_a_key_is_free_again_after_thirty_days(world: World) -> None:
    await world.activities.start(world.app, a_start(id=None), key=key("k1"))
    world.clock.advance_sync(KEPT_MILLISECONDS / 1000 + 1)
    again = await world.activities.start(world.app, a_start(id=None), key=key("k1"))
    assert not again.replayed
    assert await world.count(schema.activities) == 2


async def test_the_same_key_at_the_same_moment_does_it_once(world: World) -> None:
    done = await asyncio.gather(
        *(world.activities.start(world.app, a_start(id=None), key=key("k")) for _ in range(8))
    )
    assert len({one.answer.activity for one in done}) == 1
    assert [one.replayed for one in done].count(False) == 1
    assert await world.count(schema.activities) == await world.count(schema.operations) == 1


async def test_starts_with_the_same_id_at_the_same_moment_start_one(world: World) -> None:
    done = await asyncio.gather(
        *(world.activities.start(world.app, a_start()) for _ in range(8)), return_exceptions=True
    )
    assert [isinstance(one, Conflict) for one in done].count(False) == 1
    assert await world.count(schema.activities) == await world.count(schema.operations) == 1


async def test_updates_and_an_end_at_the_same_moment_keep_one_order(world: World) -> None:
    await world.activities.start(world.app, a_start())
    done = await asyncio.gather(
        *(world.activities.update(world.app, an_update(n)) for n in range(6)),
        world.activities.end(world.app, End(id="match-17", content_state={"home": "end"})),
        *(world.activities.update(world.app, an_update(n)) for n in range(6)),
        return_exceptions=True,
    )
    versions = [one.answer.version for one in done if not isinstance(one, BaseException)]
    assert sorted(versions) == list(range(2, 2 + len(versions)))
    end = done[6]
    assert not isinstance(end, BaseException)
    assert end.answer.version == max(versions)
    assert all(isinstance(one, ActivityEnded) for one in done if isinstance(one, BaseException))
    assert (await world.activities.get(world.app, "match-17"))["content_state"] == {"home": "end"}


async def test_activities_are_read_in_pages_by_app(world: World) -> None:
    other = await world.apps.create(name="B", bundle_id="com.example.b")
    for name in "abc":
        await world.activities.start(world.app, a_start(id=name))
    await world.activities.start(other, a_start(id="a"))
    first = await world.activities.page(world.app, limit=2)
    rest = await world.activities.page(world.app, after=first[-1]["row"], limit=2)
    assert [entry["id"] for entry in first + rest] == ["a", "b", "c"]
    await world.activities.end(world.app, End(id="b"))
    assert [entry["id"] for entry in await world.activities.page(world.app, status="ended")] == [
        "b"
    ]
    with pytest.raises(NotFound):
        await world.activities.end(other, End(id="b"))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (a_start(audience=Audience()), "audience"),
        (a_start(id="a\nb"), "id"),
        (a_start(attributes_type="App.Match"), "attributes_type"),
        (a_start(presentation=Presentation()), "presentation.alert"),
        (a_start(environment="staging"), "environment"),
        (a_start(start_at=1e12), "start_at"),
        (a_start(end_at=1.5e9), "end_at"),
        (a_start(tags=("x" * 65,)), "tags[0]"),
        (a_start(metadata={"x": float("nan")}), "metadata.x"),
        (a_start(stream_key="no spaces"), "stream_key"),
        (a_start(content_state={"when": {1: 2}}), "content_state.when"),
        (a_start(content_state={"big": "x" * 5000}), "payload"),
        (
            a_start(presentation=Presentation(alert=AlertText(title={"de": "Los"}, body="b"))),
            "presentation.alert.title",
        ),
        (
            a_start(presentation=Presentation(alert=ALERT.alert, stale_after=-1)),
            "presentation.stale_after",
        ),
        (
            a_start(presentation=Presentation(alert=ALERT.alert, dismiss_after=5)),
            "presentation.dismissal_date",
        ),
        (a_start(presentation=Presentation(alert=ALERT.alert, stale_date=1.8e12)), "stale_date"),
    ],
)
async def test_a_bad_start_stores_nothing(world: World, request_: Start, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await world.activities.start(world.app, request_, key=key("k"))
    assert field in caught.value.field or field == "payload"
    assert caught.value.remedy
    for table in (schema.activities, schema.operations, schema.idempotency):
        assert await world.count(table) == 0
    assert world.written == []


def test_a_fingerprint_sees_values_not_spelling() -> None:
    left = an_update(1, metadata={"a": 1, "b": 2})
    right = an_update(1.0, metadata={"b": 2.0, "a": 1})
    assert fingerprint(left) == fingerprint(right)
    assert fingerprint(left) != fingerprint(an_update(True, metadata={"a": 1, "b": 2}))
    assert fingerprint(left) != fingerprint(msgspec.structs.replace(left, id="other"))


@pytest.mark.parametrize(
    ("audience", "field"),
    [
        (Audience(segments=("nobody's",)), "audience.segments[0]"),
        (Audience(groups=("nobody",)), "audience.groups[0]"),
        (Audience(everyone=True, exclude_groups=("nobody",)), "audience.exclude_groups[0]"),
        (Audience(filter={"field": "shoe", "relation": "=", "value": 1}), "audience.filter.field"),
        (
            Audience(filter={"field": "language", "relation": "~", "value": "e"}),
            "audience.filter.relation",
        ),
    ],
)
async def test_an_audience_that_nobody_knows_is_refused_at_once(
    world: World, audience: Audience, field: str
) -> None:
    """Not accepted and failed later: it must never quietly mean nobody, or everyone."""
    streams = Streams(world.activities.core, world.activities)
    for write in (
        world.activities.start(world.app, a_start(audience=audience), key=key("k")),
        streams.put(world.app, a_start(audience=audience, stream_key="s"), key=key("k")),
    ):
        with pytest.raises(InvalidInput) as caught:
            await write
        assert caught.value.field == field
        assert caught.value.remedy
    for table in (schema.activities, schema.operations, schema.idempotency, schema.streams):
        assert await world.count(table) == 0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"budget": "endless"}, "settings.budget"),
        ({"device_limit": 0}, "settings.device_limit"),
        ({"device_limit": "3"}, "settings.device_limit"),
        ({"device_limit_ends": "newest"}, "settings.device_limit_ends"),
        ({"language": "not a language"}, "settings.language"),
        ({"device_limits": 3}, "settings.device_limits"),
        ({"mine": 1}, "settings.mine"),
        ({"braze_app_id": [1]}, "settings.braze_app_id"),
        ({"braze_max_external_ids": "50"}, "settings.braze_max_external_ids"),
        ({"onesignal_device_calls": "on"}, "settings.onesignal_device_calls"),
        ({"fcm_unregistered": "yes"}, "settings.fcm_unregistered"),
        ({"activitysmith": 4}, "settings.activitysmith"),
    ],
)
async def test_a_setting_that_nobody_can_follow_is_refused(
    world: World, settings: dict[str, Any], field: str
) -> None:
    for write in (
        world.apps.configure(world.app, settings),
        world.apps.create(name="C", bundle_id="com.example.c", settings=settings),
    ):
        with pytest.raises(InvalidInput) as caught:
            await write
        assert caught.value.field == field
    assert (await world.apps.get(world.app.id)).settings == {}
    known = await world.apps.configure(
        world.app, {"language": "de", "device_limit": 2, "x_mine": 1}
    )
    assert known.settings == {"language": "de", "device_limit": 2, "x_mine": 1}
    assert (await world.apps.configure(world.app, {"device_limit": None})).settings == {
        "language": "de",
        "x_mine": 1,
    }


async def test_a_group_of_several_apps_locks_in_the_order_of_the_rows(postgres_store: str) -> None:
    """Results lock activities by row; a group that locked app by app would wait in a circle with them."""
    async with Database.open(postgres_store) as database:
        world = World(database)
        first, second = [
            await world.apps.create(name=name, bundle_id=f"com.example.{name}") for name in "ab"
        ]
        for app in (second, first):  # the first app has the second row
            await world.activities.start(app, a_start())
        rows = select(schema.activities.c.id).order_by(schema.activities.c.id)
        async with database.read() as connection:
            low, high = (await connection.scalars(rows)).all()
        held = select(schema.activities.c.id).with_for_update(nowait=True)
        async with database.write() as connection:
            await connection.execute(held.where(schema.activities.c.id == low))
            updates = asyncio.gather(
                *(world.activities.update(app, an_update(1)) for app in (first, second))
            )
            while not await somebody_waits(database):
                await asyncio.sleep(0)
            await connection.execute(held.where(schema.activities.c.id == high))
        assert [done.answer.version for done in await updates] == [2, 2]


async def somebody_waits(database: Database) -> bool:
    """Whether a transaction waits for another one's lock."""
    async with database.read() as connection:
        return bool(
            await connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        )
