"""What happens at the same moment, in orders that hypothesis draws, down to what phones show."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from apns_live.activities import Audience, Database, TokenRecord
from apns_live.activities.store import schema
from apns_live.errors import ActivityEnded, Conflict
from apns_live.testing import FakeApns, SimulatedClock
from tests.activities.send.world import World, a_start, an_end, an_update, phone_settings

EXAMPLES = settings(
    max_examples=max(12, settings.default.max_examples // 4),
    suppress_health_check=[HealthCheck.too_slow],
)
PHONES = 2
# How many turns of the event loop each step waits before it is made.
TURNS = st.integers(0, 12)


async def wait(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


class Stage:
    """A world that many examples are played in, each with phones of its own."""

    def __init__(self, runner: asyncio.Runner, world: World) -> None:
        self.runner = runner
        self.world = world
        self.numbers = itertools.count(1)

    def play(self, work: Callable[[str, list[Any], Audience], Coroutine[Any, Any, None]]) -> None:
        self.runner.run(self._play(work))

    async def _play(self, work: Any) -> None:
        number = next(self.numbers)
        phones = await self.world.add_phones(PHONES, first=number * PHONES, user=f"user-{number}")
        await work(f"activity-{number}", phones, Audience(users=(f"user-{number}",)))
        await self.world.settled()


@contextmanager
def stage(address: str) -> Iterator[Stage]:
    """Open a service over a fake with phones, on a loop of its own."""
    with asyncio.Runner() as runner:
        database = Database.open(address)
        clock = SimulatedClock()
        fake = FakeApns(clock=clock, devices="strict", phone_settings=phone_settings())

        async def begin() -> World:
            await fake.start()
            world = World(fake, clock, database)
            await world.open()
            world.app = await world.add_app()
            return world

        async def end() -> None:
            await world.close()
            await fake.aclose()
            await database.aclose()

        world = runner.run(begin())
        try:
            yield Stage(runner, world)
        finally:
            runner.run(end())


async def followed(world: World, activity: str, phones: list[Any], audience: Audience) -> None:
    """Start an activity and wait for its tokens."""
    await world.service.activities.start(world.app, a_start(activity, audience=audience))
    await world.until(
        lambda: all(phone.activities and phone.activities[-1].token for phone in phones)
    )
    await world.settled()


async def stored(world: World, activity: str) -> tuple[Any, list[Any]]:
    """The activity's row, by its id or its stream's key, and its operations."""
    table, operations = schema.activities, schema.operations
    async with world.database.read() as connection:
        row = (
            await connection.execute(
                select(table).where(
                    (table.c.public_id == activity) | (table.c.stream_key == activity)
                )
            )
        ).one()
        found = await connection.execute(
            select(operations).where(operations.c.activity_id == row.id).order_by(operations.c.id)
        )
        return row, list(found.all())


def shown_by(phones: list[Any]) -> list[tuple[str, int, int]]:
    """State and content of each phone's newest card, and how many cards it has."""
    return [
        (
            phone.activities[-1].state,
            json.loads(phone.activities[-1].content)["n"],
            len(phone.activities),
        )
        for phone in phones
    ]


def test_puts_of_eight_writers_start_one_activity_that_shows_the_last_state(
    store_address: str,
) -> None:
    with stage(store_address) as scene:

        @EXAMPLES
        @given(st.lists(st.lists(TURNS, max_size=3), min_size=8, max_size=8).filter(any))
        def example(writers: list[list[int]]) -> None:
            async def play(key: str, phones: list[Any], audience: Audience) -> None:
                world = scene.world
                answers: list[Any] = []

                async def write(number: int, waits: list[int]) -> None:
                    for step, turns in enumerate(waits):
                        await wait(turns)
                        request = a_start(
                            key,
                            stream_key=key,
                            content_state={"n": 10 * number + step},
                            audience=audience,
                        )
                        answers.append((await world.service.streams.put(world.app, request)).answer)

                await world.result_of(
                    asyncio.gather(*(write(number, waits) for number, waits in enumerate(writers)))
                )
                await world.settled()
                row, operations = await stored(world, key)
                assert [answer.operation for answer in answers].count("started") == 1
                assert {answer.operation for answer in answers} <= {"started", "updated"}
                assert len(operations) == len(answers) == row.version
                state = json.loads(row.content_state)["n"]
                await world.until(lambda: shown_by(phones) == [("active", state, 1)] * PHONES)

            scene.play(play)

        example()


def test_tokens_that_are_replaced_while_updates_run_get_the_last_state(store_address: str) -> None:
    steps = st.lists(st.tuples(st.sampled_from(["update", "replace"]), TURNS), max_size=8)
    with stage(store_address) as scene:

        @EXAMPLES
        @given(steps, steps)
        def example(first: list[tuple[str, int]], second: list[tuple[str, int]]) -> None:
            async def play(activity: str, phones: list[Any], audience: Audience) -> None:
                world = scene.world
                await followed(world, activity, phones, audience)
                numbers = itertools.count(1)
                order = itertools.count(1)

                async def act(steps: list[tuple[str, int]]) -> None:
                    for what, turns in steps:
                        await wait(turns)
                        if what == "update":
                            await world.service.activities.update(
                                world.app, an_update(next(numbers), activity)
                            )
                            continue
                        new = world.fake.devices.rotate(phones[0].activities[-1].token)
                        record = TokenRecord(
                            device=phones[0].id,
                            kind="activity",
                            token=new.text,
                            # Two of one millisecond have no order: a phone does not do that.
                            registered_at=world.now() - 1_000 + next(order),
                            scope=activity,
                        )
                        world.handed_in.clear()
                        await world.service.tokens.register_activity_tokens(world.app, [record])

                world.registering = False
                await world.pass_time(2.0)
                await world.result_of(asyncio.gather(act(first), act(second)))
                world.registering = True
                world.handed_in.clear()
                await world.settled()
                row, operations = await stored(world, activity)
                state = json.loads(row.content_state)["n"]
                await world.until(lambda: shown_by(phones) == [("active", state, 1)] * PHONES)
                assert {one.status for one in operations} <= {"done", "superseded"}

            scene.play(play)

        example()


def test_an_end_against_updates_is_last(store_address: str) -> None:
    with stage(store_address) as scene:

        @EXAMPLES
        @given(st.lists(TURNS, max_size=4), st.lists(TURNS, min_size=1, max_size=2))
        def example(updates: list[int], ends: list[int]) -> None:
            async def play(activity: str, phones: list[Any], audience: Audience) -> None:
                world = scene.world
                await followed(world, activity, phones, audience)

                async def update(number: int, turns: int) -> None:
                    await wait(turns)
                    try:
                        await world.service.activities.update(
                            world.app, an_update(number, activity)
                        )
                    except ActivityEnded:
                        refused.append(number)

                async def end(number: int, turns: int) -> None:
                    await wait(turns)
                    await world.service.activities.end(world.app, an_end(100 + number, activity))

                refused: list[int] = []
                await world.result_of(
                    asyncio.gather(
                        *(update(number, turns) for number, turns in enumerate(updates, 1)),
                        *(end(number, turns) for number, turns in enumerate(ends)),
                    )
                )
                await world.settled()
                row, operations = await stored(world, activity)
                assert [one.kind for one in operations].count("end") == 1
                assert operations[-1].kind == "end"
                assert len(operations) == 2 + len(updates) - len(refused)
                state = json.loads(row.content_state)["n"]
                assert state >= 100
                await world.until(lambda: shown_by(phones) == [("ended", state, 1)] * PHONES)
                assert all(one.finished_at for one in operations)

            scene.play(play)

        example()


def test_starts_with_the_same_id_start_one(store_address: str) -> None:
    with stage(store_address) as scene:

        @EXAMPLES
        @given(st.lists(TURNS, min_size=2, max_size=5))
        def example(starts: list[int]) -> None:
            async def play(activity: str, phones: list[Any], audience: Audience) -> None:
                world = scene.world

                async def start(number: int, turns: int) -> None:
                    await wait(turns)
                    request = a_start(activity, content_state={"n": number}, audience=audience)
                    try:
                        await world.service.activities.start(world.app, request)
                    except Conflict:
                        refused.append(number)

                refused: list[int] = []
                await world.result_of(asyncio.gather(*(start(*each) for each in enumerate(starts))))
                assert len(refused) == len(starts) - 1
                [won] = set(range(len(starts))) - set(refused)
                await world.until(lambda: all(phone.activities for phone in phones))
                await world.settled()
                assert shown_by(phones) == [("active", won, 1)] * PHONES
                _, operations = await stored(world, activity)
                assert [(one.status, one.accepted) for one in operations] == [("done", PHONES)]

            scene.play(play)

        example()
