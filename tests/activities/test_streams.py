"""Streams by key: started, updated, rotated, left alone, paused and ended."""

import asyncio
import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select, text, update

from apns_live.activities.accept.activities import Activities
from apns_live.activities.accept.idempotency import Key
from apns_live.activities.accept.streams import Streamed, Streams
from apns_live.activities.apps import App, Apps
from apns_live.activities.core import Core
from apns_live.activities.requests import AlertText, Audience, End, Presentation, Start, Update
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import Sealer, new_key
from apns_live.activities.store.upgrade import upgrade
from apns_live.errors import InvalidInput, KeyReused, NotFound
from apns_live.testing.clock import SimulatedClock
from tests.activities.world import Rooms, a_start


class World:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = SimulatedClock()
        numbers = itertools.count(1)
        ids = lambda: f"id-{next(numbers)}"  # noqa: E731
        self.apps = Apps(database, Sealer(new_key()), self.clock, ids)
        core = Core(database, self.clock, ids)
        self.activities = Activities(core)
        self.touched: list[int] = []
        core.hooks.written = lambda app, row: self.touched.append(row)
        self.streams = Streams(core, self.activities)
        self.app: App

    async def put(self, state: dict[str, Any], key: Key | None = None, **changes: Any) -> Any:
        request: dict[str, Any] = {
            "stream_key": "backup",
            "attributes_type": "Card",
            "content_state": state,
            "presentation": Presentation(alert=AlertText(title="Backup", body="It runs")),
            "audience": Audience(everyone=True),
        }
        start = Start(**{**request, **changes})
        return (await self.streams.put(app=self.app, request=start, key=key)).answer

    async def living(self) -> list[str]:
        table = schema.activities
        async with self.database.read() as connection:
            rows = await connection.execute(
                select(table.c.public_id).where(table.c.status != "ended").order_by(table.c.id)
            )
            return list(rows.scalars())


@pytest.fixture
async def world(database: Database) -> World:
    world = World(database)
    world.app = await world.apps.create(name="A", bundle_id="com.example.a", environment="sandbox")
    return world


async def test_a_stream_starts_updates_and_leaves_alone(world: World) -> None:
    started = await world.put({"type": "progress", "percentage": 9})
    assert (started.operation, started.version) == ("started", 1)
    same = await world.put({"percentage": 9.0, "type": "progress"})
    assert (same.operation, same.activity, same.id) == ("noop", started.activity, "")
    updated = await world.put({"type": "progress", "percentage": 10})
    assert (updated.operation, updated.activity, updated.version) == (
        "updated",
        started.activity,
        2,
    )
    assert len(world.touched) == 2
    # A phone decodes 1 and true differently, although they are equal in Python.
    assert (await world.put({"type": "progress", "percentage": 1})).operation == "updated"
    assert (await world.put({"type": "progress", "percentage": True})).operation == "updated"


@pytest.mark.parametrize(
    "change",
    [
        {"state": {"type": "alert", "percentage": 1}},
        {"attributes_type": "Other"},
        {"attributes_type": "Another"},
        {"audience": Audience(users=("staff",))},
    ],
)
async def test_another_type_or_target_rotates(world: World, change: dict[str, Any]) -> None:
    first = await world.put({"type": "progress", "percentage": 0})
    rotated = await world.put(**{"state": {"type": "progress", "percentage": 1}, **change})
    assert (rotated.operation, rotated.previous) == ("rotated", first.activity)
    assert await world.living() == [rotated.activity]
    known = await world.activities.get(world.app, first.activity)
    assert (known["status"], known["end_reason"]) == ("ended", "rotated")
    table = schema.activities
    query = select(table.c.message).where(table.c.public_id == first.activity)
    # The old card leaves the Lock Screen at once, where the new one is.
    assert json.loads(await world.database.scalar(query)) == {"dismiss_after": 0}
    # The stream goes on with the new one.
    same = await world.put(**{"state": {"type": "progress", "percentage": 1}, **change})
    assert (same.operation, same.activity) == ("noop", rotated.activity)


async def test_a_put_starts_anew_when_the_activity_has_ended(world: World) -> None:
    state = {"type": "progress", "percentage": 1}
    first = await world.put(state)
    await world.activities.end(world.app, End(id=first.activity))
    second = await world.put(state)
    assert (second.operation, second.version) == ("started", 1)
    assert await world.living() == [second.activity]


async def test_a_stream_keeps_its_activity_for_days(world: World) -> None:
    """Over 48 simulated hours, a put each ten minutes: its cards are handed over, not the activity."""
    operations = []
    for number in range(48 * 6):
        operations.append((await world.put({"percentage": number})).operation)
        world.clock.advance_sync(600)
    assert operations == ["started"] + ["updated"] * (48 * 6 - 1)
    assert len(await world.living()) == 1


async def test_too_many_updates_are_warned_of_and_sent(world: World) -> None:
    answers = []
    for number in range(14):
        answers.append(await world.put({"n": number}))
        world.clock.advance_sync(30)
    assert [bool(answer.warning) for answer in answers] == [False] * 13 + [True]
    assert answers[-1].operation == "updated"
    world.clock.advance_sync(3600)
    assert (await world.put({"n": 99})).warning == ""


async def test_an_update_in_two_minutes_is_not_too_many(world: World) -> None:
    await world.put({"n": 0})
    table = schema.activities
    for number, (before, age, warned) in enumerate(
        (
            (11, 0, False),
            (12, 13 * 120_000 - 1, True),
            (12, 13 * 120_000, False),
            (13, 14 * 120_000 - 1, True),
            (13, 14 * 120_000, False),
            (12, -1_000, True),  # the machine's clock was set back
        ),
        start=1,
    ):
        started = int(world.clock.time() * 1000) - age
        sent = update(table).values(update_count=before, started_at=started)
        assert await world.database.change(sent) == 1
        assert bool((await world.put({"n": number})).warning) is warned, (before, age)


async def test_a_put_of_the_state_that_is_shown_writes_and_counts_nothing(world: World) -> None:
    started = await world.put({"n": 1})
    written: list[str] = []
    event.listen(
        world.database._writer.sync_engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, *_: written.append(statement),
    )
    same = await world.put({"n": 1})
    assert written
    assert [each for each in written if each.startswith("UPDATE activities")] == []
    await world.streams.pause(world.app, "backup")
    paused = await world.put({"n": 2})
    nothing = {"key": "backup", "previous": None, "id": "", "devices": 0, "queued": 0}
    nothing |= {"warning": "", "ignored": False}
    known = {"operation": "noop", "activity": started.activity, "version": 1}
    assert msgspec.structs.asdict(same) == {**nothing, **known}
    known = {"operation": "paused", "activity": None, "version": 0}
    assert msgspec.structs.asdict(paused) == {**nothing, **known}


async def test_a_stream_stays_on_its_channel_and_moves_to_another(world: World) -> None:
    one, two = "dHN0LXNyY2gtY2hubA==", "dHN0LXNyY2gtY2huMg=="
    await world.put({"n": 1}, channel=one)
    assert (await world.put({"n": 2}, channel=one)).operation == "updated"
    assert (await world.put({"n": 3}, channel=two)).operation == "rotated"
    # The caller of a put does not know of a channel that the service made itself.
    made = update(schema.activities).values(channel_asked_at=1)
    assert await world.database.change(made) == 2
    assert (await world.put({"n": 4})).operation == "updated"


async def test_pause_ends_and_resume_lets_the_next_put_start(world: World) -> None:
    first = await world.put({"n": 1})
    since = await world.streams.pause(world.app, "backup")
    assert since == int(world.clock.time() * 1000)
    assert await world.living() == []
    paused = await world.put({"n": 2})
    assert (paused.operation, paused.activity) == ("paused", None)
    world.clock.advance_sync(5)
    assert await world.streams.pause(world.app, "backup") == since
    await world.streams.resume(world.app, "backup")
    assert await world.living() == []
    again = await world.put({"n": 2})
    assert again.operation == "started"
    assert again.activity != first.activity


async def test_a_put_starts_anew_when_nobody_has_the_card_any_more(database: Database) -> None:
    rooms = Rooms(database)
    await rooms.fill(2)

    async def put(key: str, n: int) -> Any:
        request = a_start(id=None, stream_key=key, content_state={"n": n})
        return (await rooms.streams.put(rooms.app, request)).answer

    names = ("first", "other", "starting", "last")
    first, other, starting, last = [await put(name, 1) for name in names]
    operations = schema.operations
    started = update(operations).where(operations.c.public_id != starting.id)
    assert await database.change(started.values(status="done", finished_at=rooms.now)) == 3
    await put("first", 2)  # an update that is not finished holds nothing up
    for gone in (first, starting, last):
        await rooms.put_on(gone.activity, "d0", retired_at=rooms.now)
    await rooms.put_on(other.activity, "d1")
    again = await put("first", 3)
    assert (again.operation, again.activity == first.activity) == ("started", False)
    assert (await put("other", 2)).operation == "updated"
    assert (await put("starting", 2)).operation == "updated"
    # Neither the card of another stream nor its start is in the way.
    assert (await put("last", 2)).operation == "started"


async def test_a_scheduled_start_takes_the_newest_state(world: World) -> None:
    later = world.clock.time() + 600
    scheduled = await world.put({"n": 1}, start_at=later)
    assert (await world.put({"n": 2}, start_at=later)).operation == "updated"
    known = await world.activities.get(world.app, scheduled.activity)
    assert (known["status"], known["content_state"]) == ("scheduled", {"n": 2})


async def test_end_ends_and_forgets_the_key(world: World) -> None:
    first = await world.put({"n": 1})
    last = End(id="", content_state={"n": 2})
    ended = (await world.streams.end(app=world.app, name="backup", request=last)).answer
    assert (ended.operation, ended.activity, ended.ignored) == ("ended", first.activity, False)
    assert (await world.activities.get(world.app, first.activity))["content_state"] == {"n": 2}
    with pytest.raises(NotFound, match="backup"):
        await world.streams.end(world.app, "backup")
    assert (await world.put({"n": 3})).operation == "started"
    await world.streams.pause(world.app, "backup")
    nothing = (await world.streams.end(world.app, "backup")).answer
    assert (nothing.activity, nothing.ignored) == (None, True)


async def test_an_end_calls_off_a_start_and_ignores_an_ended_activity(world: World) -> None:
    scheduled = await world.put({"n": 1}, start_at=world.clock.time() + 600)
    ended = (await world.streams.end(world.app, "backup")).answer
    assert (ended.activity, ended.ignored) == (scheduled.activity, False)
    first = await world.put({"n": 1})
    await world.activities.end(world.app, End(id=first.activity))
    ended = (await world.streams.end(world.app, "backup")).answer
    assert (ended.activity, ended.ignored) == (None, True)


async def test_an_end_forgets_no_other_stream(world: World) -> None:
    for name in ("one", "two", "three"):
        await world.put({"n": 1}, stream_key=name)
    await world.streams.end(world.app, "two")
    for name, operation in (("one", "noop"), ("two", "started"), ("three", "noop")):
        assert (await world.put({"n": 1}, stream_key=name)).operation == operation


@pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("second", ["end", "pause", "resume"])
async def test_who_comes_while_a_stream_is_written_sees_what_was_written(
    world: World, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    """Else an end would miss the card that a put starts, and a resume the stream's end."""
    begun, go = asyncio.Event(), asyncio.Event()

    def held(work: Any) -> Any:
        async def wait(*values: Any) -> Any:
            if not begun.is_set():
                begun.set()
                await go.wait()
            return await work(*values)

        return wait

    first = await world.put({"n": 1})
    if second == "resume":
        monkeypatch.setattr(world.activities, "change_within", held(world.activities.change_within))
        writing: Any = world.streams.end(world.app, "backup")
    else:
        await world.activities.end(world.app, End(id=first.activity))
        monkeypatch.setattr(world.activities, "start_within", held(world.activities.start_within))
        writing = world.put({"n": 2})
    one = asyncio.create_task(writing)
    await begun.wait()
    other = asyncio.create_task(getattr(world.streams, second)(world.app, "backup"))
    waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while not await world.database.scalar(waits):
        assert not other.done()
    go.set()
    await one
    if second == "resume":
        with pytest.raises(NotFound):
            await other
    else:
        await other
    assert await world.living() == []


async def test_an_answer_is_made_by_names_and_does_not_change() -> None:
    answer: Any = Streamed(operation="noop", key="backup")
    with pytest.raises(AttributeError):
        answer.version = 1
    with pytest.raises(TypeError):
        Streamed("noop", "backup")  # type: ignore[misc]


async def test_a_repeated_put_is_done_once(world: World) -> None:
    key = Key(caller="c", key="k")
    first = await world.put({"n": 1}, key=key)
    await world.put({"n": 2})
    assert await world.put({"n": 1}, key=key) == first
    assert (await world.put({"n": 2})).operation == "noop"


async def test_what_a_running_card_gets_instead_is_a_part_of_the_request(world: World) -> None:
    request = Start(
        stream_key="backup",
        attributes_type="Card",
        content_state={"n": 2},
        presentation=Presentation(alert=AlertText(title="Backup", body="It runs")),
        audience=Audience(everyone=True),
    )
    quiet, urgent = (
        Update(id="", content_state={"n": 2}, presentation=Presentation(urgency=urgency))
        for urgency in ("quiet", "urgent")
    )
    key = Key(caller="c", key="k")
    done = await world.streams.put(world.app, request, change=quiet, key=key)
    again = await world.streams.put(world.app, request, change=quiet, key=key)
    assert (again.replayed, again.answer) == (True, done.answer)
    with pytest.raises(KeyReused):
        await world.streams.put(world.app, request, change=urgent, key=key)
    # A digest of the caller's own request stands for all of it.
    own = Key(caller="c", key="own", digest=b"one")
    done = await world.streams.put(world.app, request, change=quiet, key=own)
    again = await world.streams.put(world.app, request, change=urgent, key=own)
    assert (again.replayed, again.answer) == (True, done.answer)


async def test_the_newest_attributes_are_kept_for_second_cards(world: World) -> None:
    for number, side in enumerate(("home", "away", "host")):  # later and earlier in the alphabet
        await world.put({"n": number}, attributes={"side": side})
        table = schema.activities
        row = await world.database.row(select(table.c.attributes, table.c.version))
        assert row is not None
        assert (row.attributes, row.version) == (f'{{"side":"{side}"}}', number + 1)


@pytest.mark.parametrize("name", ["", "no spaces", "x" * 256, "a/b", "ä", "a\n"])
async def test_a_bad_key_is_refused(world: World, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await world.put({"n": 1}, stream_key=name)
    assert caught.value.field == "stream_key"
    with pytest.raises(InvalidInput):
        await world.streams.end(world.app, name)


async def test_first_puts_at_the_same_moment_start_one_activity(world: World) -> None:
    answers = await asyncio.gather(*(world.put({"n": number % 2}) for number in range(8)))
    assert [answer.operation for answer in answers].count("started") == 1
    assert len({answer.activity for answer in answers}) == 1
    assert len(await world.living()) == 1


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 2)),
        st.tuples(st.just("type"), st.integers(0, 2)),
        st.tuples(st.sampled_from(["end", "pause", "resume", "wait"]), st.just(0)),
    ),
    min_size=8,
    max_size=16,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(ACTIONS)
async def test_eight_writers_leave_at_most_one_card(tmp_path_factory, actions) -> None:
    """Whatever eight writers do at once, at most one activity lives, and it is the stream's own."""
    async with Database.open(tmp_path_factory.mktemp("race") / "s.db") as database:
        await upgrade(database)
        world = World(database)
        world.app = await world.apps.create(name="A", bundle_id="com.example.a")

        async def act(kind: str, value: int) -> None:
            try:
                match kind:
                    case "put":
                        await world.put({"type": "value", "n": value})
                    case "type":
                        await world.put({"type": f"kind-{value}", "n": 0})
                    case "end":
                        await world.streams.end(world.app, "backup")
                    case "pause":
                        await world.streams.pause(world.app, "backup")
                    case "resume":
                        await world.streams.resume(world.app, "backup")
                    case _:
                        world.clock.advance_sync(3 * 3600)
            except NotFound:
                pass  # ended by another writer

        for start in range(0, len(actions), 8):
            await asyncio.gather(*(act(*action) for action in actions[start : start + 8]))
            living = await world.living()
            assert len(living) <= 1
            streams, table = schema.streams, schema.activities
            async with database.read() as connection:
                behind = await connection.execute(
                    select(table.c.public_id)
                    .join(streams, streams.c.activity_id == table.c.id)
                    .where(table.c.status != "ended")
                )
                assert list(behind.scalars()) == living
