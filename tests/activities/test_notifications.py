"""Accepting notifications: what is refused, what is stored, once."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from apns_live.activities.accept.notifications import Notifications
from apns_live.activities.requests import Audience
from apns_live.activities.requests.notify import Notify
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.errors import Conflict, InvalidInput, NotFound
from tests.activities.world import Rooms, a_key, a_start

EVERYONE = Audience(everyone=True)


class World(Rooms):
    async def open(self) -> None:
        await self.fill(2)
        self.accepted: list[int] = []
        self.core.hooks.accepted = lambda app, row: self.accepted.append(row)
        self.notifications = Notifications(self.core)

    async def send(self, **values: Any) -> str:
        request = Notify(**{"audience": EVERYONE, **values})
        return (await self.notifications.send(self.app, request)).answer.operation

    async def done(self, name: str) -> None:
        table = schema.operations
        async with self.database.write() as connection:
            await connection.execute(
                update(table)
                .where(table.c.public_id == name)
                .values(status="done", finished_at=self.now)
            )


@pytest.fixture
async def world(database: Database) -> World:
    world = World(database)
    await world.open()
    return world


async def test_a_notification_is_stored_as_an_operation(world: World) -> None:
    name = await world.send(title="Goal", body={"en": "1:0", "de": "eins null"}, tags=("x",))
    [row] = await world.rows(schema.operations)
    assert (row.public_id, row.kind, row.status) == (name, "notification", "accepted")
    assert world.accepted == [row.id]
    stored = msgspec.json.decode(row.request, type=Notify)
    assert stored.body == {"en": "1:0", "de": "eins null"}
    assert (stored.collapse_id, stored.environment) == (name, "sandbox")
    assert (stored.tags, stored.audience) == (("x",), EVERYONE)


async def test_a_repeated_one_is_accepted_once(world: World) -> None:
    request = Notify(audience=EVERYONE, title="Goal")
    first = await world.notifications.send(world.app, request, key=a_key("k"))
    again = await world.notifications.send(world.app, request, key=a_key("k"))
    assert (first.replayed, again.replayed, again.answer) == (False, True, first.answer)
    assert world.accepted == [1]
    with pytest.raises(Conflict, match="another request"):
        await world.notifications.send(
            world.app, msgspec.structs.replace(request, title="No goal"), key=a_key("k")
        )
    assert await world.count(schema.operations) == 1
    [row] = await world.rows(schema.operations)
    assert row.caller == "server"


async def test_a_badge_alone_and_a_background_push_are_fine(world: World) -> None:
    await world.send(badge=0)
    await world.send(background=True, custom={"refresh": True})
    badge, background = await world.rows(schema.operations)
    assert msgspec.json.decode(badge.request, type=Notify).badge == 0
    assert msgspec.json.decode(background.request, type=Notify).collapse_id is None


async def test_a_replacement_takes_the_place_of_the_first(world: World) -> None:
    first = await world.send(title="Goal")
    with pytest.raises(Conflict, match="still being sent"):
        await world.send(audience=Audience(), replaces=first, title="No goal")
    await world.done(first)
    second = await world.send(audience=Audience(), replaces=first, title="No goal")
    await world.done(second)
    await world.send(audience=Audience(), replaces=second, title="Goal after all")
    stored = [
        msgspec.json.decode(row.request, type=Notify).collapse_id
        for row in await world.rows(schema.operations)
    ]
    assert stored == [first] * 3


async def test_what_cannot_be_replaced(world: World) -> None:
    with pytest.raises(NotFound):
        await world.send(audience=Audience(), replaces="none", title="x")
    start = (await world.activities.start(world.app, a_start())).answer.operation
    with pytest.raises(Conflict, match="not a notification but a start"):
        await world.send(audience=Audience(), replaces=start, title="x")
    background = await world.send(background=True)
    await world.done(background)
    with pytest.raises(Conflict, match="background push"):
        await world.send(audience=Audience(), replaces=background, title="x")
    other = await world.notifications.send(world.other, Notify(audience=EVERYONE, title="x"))
    with pytest.raises(NotFound):
        await world.send(audience=Audience(), replaces=other.answer.operation, title="x")


LONG = "x" * 3_000
BAD: list[tuple[dict[str, Any], str]] = [
    ({"audience": Audience()}, "audience"),
    ({"audience": Audience(segments=("none",))}, "audience.segments[0]"),
    ({"audience": Audience(groups=("none",))}, "audience.groups[0]"),
    ({"audience": Audience(filter={"field": "wrong", "relation": "=", "value": 1})}, "audience"),
    ({"title": None}, "body"),
    ({"title": 5}, "title"),
    ({"title": {"de": "Tor"}}, "title"),
    ({"title": {}}, "title"),
    ({"title": {"en": "Goal", "x!": "?"}}, "title.x!"),
    ({"title": {"en": "Goal", "de": 5}}, "title"),
    ({"title": "a\ud800"}, "title"),
    ({"badge": -1}, "badge"),
    ({"badge": 2**31}, "badge"),
    ({"badge": True}, "badge"),
    ({"badge": "1"}, "badge"),
    ({"sound": ""}, "sound"),
    ({"category": "a\nb"}, "category"),
    ({"thread_id": 7}, "thread_id"),
    ({"interruption_level": "loud"}, "interruption_level"),
    ({"relevance_score": 2.0}, "relevance_score"),
    ({"collapse_id": "x" * 65}, "collapse_id"),
    ({"custom": {"aps": {}}}, "custom"),
    ({"custom": {"when": float("nan")}}, "custom"),
    ({"custom": {"when": {1}}}, "custom"),
    ({"body": LONG, "subtitle": LONG}, "payload"),
    ({"body": {"en": "short", "de": LONG + LONG}}, "payload"),
    ({"urgency": "now"}, "urgency"),
    ({"expire_after": -1.0}, "expire_after"),
    ({"expire_after": float("nan")}, "expire_after"),
    ({"expire_after": 1e9}, "expire_after"),
    ({"environment": "test"}, "environment"),
    ({"tags": ("",)}, "tags[0]"),
    ({"metadata": {"a": [1]}}, "metadata"),
    ({"background": True}, "title"),
    ({"background": True, "title": None, "badge": 1}, "badge"),
    ({"replaces": "id-1"}, "audience"),
    ({"replaces": "id-1", "audience": Audience(), "collapse_id": "x"}, "collapse_id"),
    ({"replaces": "a\nb", "audience": Audience()}, "replaces"),
    ({"replaces": "id-1", "audience": Audience(), "background": True}, "background"),
]


@pytest.mark.parametrize(("changes", "field"), BAD, ids=[str(entry)[:60] for entry in BAD])
async def test_a_bad_one_is_refused(world: World, changes: dict[str, Any], field: str) -> None:
    request = Notify(**{"audience": EVERYONE, "title": "Goal", **changes})
    with pytest.raises(InvalidInput) as caught:
        await world.notifications.send(world.app, request, key=a_key("k"))
    assert caught.value.field.startswith(field), caught.value
    assert caught.value.problem
    assert caught.value.remedy
    assert await world.count(schema.operations) == 0
    assert await world.count(schema.idempotency) == 0
    assert world.accepted == []
