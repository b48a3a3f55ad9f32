"""Audiences on both databases: the meaning of every field and relation, by example."""

import asyncio
import datetime
import itertools
import shutil
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.activities.apps import App, Apps
from apns_live.activities.core import Core
from apns_live.activities.people.audience import Audiences, Segments, recipient_pages
from apns_live.activities.people.devices import Devices
from apns_live.activities.people.filters import RELATIONS, parse_filter, write_filter
from apns_live.activities.people.people import People
from apns_live.activities.people.records import DeviceRecord, TokenRecord
from apns_live.activities.requests import Audience
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import Sealer, new_key
from apns_live.errors import InvalidInput, NotFound
from apns_live.testing.clock import SimulatedClock

HOUR = 3_600_000


@pytest.fixture
async def world(database: Database) -> "World":
    world = World(database)
    await world.fill()
    return world


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a world's database, for all tests that only read: to fill it takes a while."""

    async def fill() -> None:
        async with Database.open(address) as database:
            world = World(database)
            await world.fill()
            await world.segments.save(world.app, "Red", tag("=", "red"))

    server = None
    if request.param == "sqlite":
        address = f"{tmp_path_factory.mktemp('audience')}/filled.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), address)
    else:
        server = request.getfixturevalue("postgres_server")
        address = server.borrow()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, fill()).result()
    yield address
    if server is not None:
        server.give_back(address)


@pytest.fixture
async def readable(filled: str) -> AsyncIterator["World"]:
    """A world to read; it has the segment Red."""
    async with Database.open(filled) as database:
        world = World(database)
        world.app = await world.apps.get("id-1")
        yield world


class World:
    """Six devices: ada has d1 and d2, ben d3, cyn d4; d5 and d6 belong to nobody."""

    def __init__(self, database: Database) -> None:
        self.clock = SimulatedClock()
        self.now = int(self.clock.time() * 1000)
        numbers = itertools.count(1)
        ids = lambda: f"id-{next(numbers)}"  # noqa: E731
        self.apps = Apps(database, Sealer(new_key()), self.clock, ids)
        core = Core(database, self.clock, ids)
        self.devices = Devices(core)
        self.people = People(core)
        self.segments = Segments(core)
        self.audiences = Audiences(core)
        self.app: App
        self.other: App

    async def fill(self) -> None:
        now = self.now
        self.app = await self.apps.create(name="A", bundle_id="com.example.a")
        self.other = await self.apps.create(name="B", bundle_id="com.example.b")
        await self.devices.tell(
            self.app,
            [
                DeviceRecord(id="d1", user="ada", language="en-GB", country="GB", app_version="1.9",
                             last_session=now - 2 * HOUR, session_count=9, latitude=51.5, longitude=-0.12),
                DeviceRecord(id="d2", user="ada", language="en", country="FR", app_version="1.10",
                             last_session=now - 200 * HOUR, session_count=2, push_enabled=False),
                DeviceRecord(id="d3", user="ben", language="de", country="AT", app_version="2.0-beta",
                             last_session=now - HOUR, session_count=3, latitude=48.2, longitude=16.37, amount_spent=9.5),
                DeviceRecord(id="d4", user="cyn", language="zh-Hans", app_version="2.0", first_session=now - 10 * HOUR),
                DeviceRecord(id="d5"),
                DeviceRecord(id="d6", language="de", country="DE", os_version="18.1"),
            ],
        )  # fmt: skip
        await self.devices.tell(self.other, [DeviceRecord(id="d1", user="ada", language="en")])
        people = self.people
        await people.add_user(self.app, "ada", aliases={"crm": "7"})
        await people.set_tags(self.app, "user", "ada", {"team": "red", "level": "12"})
        await people.set_tags(self.app, "user", "ben", {"team": "blue", "level": 9})
        await people.set_tags(
            self.app, "device", "d5", {"team": "red", "joined": str(now // 1000 - 60)}
        )
        await people.set_attributes(self.app, "user", "ben", {"likes": ["ski", "tea"], "vip": True})
        await people.set_attributes(
            self.app, "user", "cyn",
            {"vip": False, "age": 30, "likes": ["tea"],
             "born": datetime.datetime.fromtimestamp(now / 1000 - 3600, datetime.UTC)},
        )  # fmt: skip
        await people.add_group(self.app, "staff")
        await people.join_group(self.app, "staff", "user", "ada")
        await people.join_group(self.app, "staff", "device", "d6")
        await self.devices.register(
            self.app,
            [
                TokenRecord(device=f"d{n}", kind="start", token=f"{n:02x}" * 32,
                            registered_at=now - 1000, scope="Match", environment="sandbox")
                for n in range(1, 7)
            ],
        )  # fmt: skip

    async def pages(self, audience: Audience, page: int, after: int = 0) -> Any:
        """The pages of the start tokens that an audience has."""
        query = await self.audiences.start_tokens(
            self.app, audience, attributes_type="Match", environment="sandbox"
        )
        place = schema.start_tokens.c.id
        async for part in recipient_pages(self.audiences.database, query, place, after, page):
            yield part

    async def who(self, audience: Audience) -> list[str]:
        """The devices that a start would be sent to."""
        found = []
        async for page in self.pages(audience, page=2):
            assert 1 <= len(page) <= 2
            found += [f"d{int(recipient.token[:2], 16)}" for recipient in page]
        assert len(set(found)) == len(found)
        dry = await self.audiences.dry_run(self.app, audience, attributes_type="Match")
        assert dry.devices == dry.reachable == len(found)
        assert set(dry.sample) <= set(found)
        return sorted(found)


def tag(relation: str, value: Any = None, key: str = "team") -> dict[str, Any]:
    return {"field": "tag", "key": key, "relation": relation, "value": value}


def custom(key: str, relation: str, value: Any = None) -> dict[str, Any]:
    return {"field": "custom", "key": key, "relation": relation, "value": value}


def plain(field: str, relation: str, value: Any = None) -> dict[str, Any]:
    return {"field": field, "relation": relation, "value": value}


def session(field: str, relation: str, hours: Any) -> dict[str, Any]:
    return {"field": field, "relation": relation, "hours_ago": hours}


def near(lat: float, long: float, radius: float) -> dict[str, Any]:
    return {"field": "location", "relation": "within", "lat": lat, "long": long, "radius": radius}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (tag("=", "red"), "d1 d2 d5"),
        (tag("!=", "red"), "d3 d4 d6"),
        (tag("exists"), "d1 d2 d3 d5"),
        (tag("not_exists"), "d4 d6"),
        (tag("in_array", ["red", "blue"]), "d1 d2 d3 d5"),
        (tag("not_in_array", ["red"]), "d3 d4 d6"),
        (tag(">", 9, "level"), "d1 d2"),
        (tag(">", "9", "level"), "d1 d2"),
        (tag("<=", 12, "level"), "d1 d2 d3"),
        (tag("=", 9, "level"), "d3"),
        (tag("time_elapsed_gt", 59, "joined"), "d5"),
        (tag("time_elapsed_lt", 59, "joined"), ""),
        (custom("likes", "=", "tea"), "d3 d4"),
        (custom("likes", "=", "ski"), "d3"),
        (custom("likes", "!=", "ski"), "d1 d2 d4 d5 d6"),
        (custom("vip", "=", True), "d3"),
        (custom("vip", "=", False), "d4"),
        (custom("vip", "!=", True), "d1 d2 d4 d5 d6"),
        (custom("age", "=", 30.0), "d4"),
        (custom("age", ">=", 30), "d4"),
        (custom("age", "in_array", [29, 30]), "d4"),
        (custom("born", "time_elapsed_gt", 3599), "d4"),
        (custom("born", "time_elapsed_lt", 3599), ""),
        (plain("language", "=", "en"), "d1 d2"),
        (plain("language", "=", "en-GB"), "d1"),
        (plain("language", "!=", "en"), "d3 d4 d5 d6"),
        (plain("language", "=", "zh"), "d4"),
        (plain("language", "in_array", ["de", "en"]), "d2 d3 d6"),
        (plain("country", "=", "at"), "d3"),
        (plain("country", "not_exists"), "d4 d5"),
        (plain("country", "not_in_array", ["AT", "DE"]), "d1 d2 d4 d5"),
        (plain("app_version", ">", "1.9"), "d2 d3 d4"),
        (plain("app_version", ">=", "2"), "d4"),
        (plain("app_version", "<", "2.0"), "d1 d2 d3"),
        (plain("app_version", "=", "2"), "d4"),
        (plain("app_version", "in_array", ["1.9.0", "2"]), "d1 d4"),
        (plain("os_version", "=", "18.1"), "d6"),
        (session("last_session", ">", 100), "d2"),
        (session("last_session", "<", "1.5"), "d3"),
        (session("last_session", ">=", 2), "d1 d2"),
        ({"field": "last_session", "relation": "not_exists"}, "d4 d5 d6"),
        (session("first_session", "<", 11), "d4"),
        (plain("session_count", ">=", 3), "d1 d3"),
        (plain("session_count", "=", 0), "d4 d5 d6"),
        (plain("amount_spent", ">", 9), "d3"),
        (plain("session_time", "<", 1), "d1 d2 d3 d4 d5 d6"),
        (plain("push_enabled", "=", False), "d2"),
        (plain("push_enabled", "!=", False), "d1 d3 d4 d5 d6"),
        (near(48.2, 16.3, 6_000), "d3"),
        (near(48.2, 16.3, 5_000), ""),
        (near(50, 8, 1_000_000), "d1 d3"),
        (near(0, 0, 20_015_000), "d1 d3"),
        ({"field": "location", "relation": "exists"}, "d1 d3"),
        ({"field": "location", "relation": "not_exists"}, "d2 d4 d5 d6"),
        ({"and": [tag("=", "red"), plain("country", "=", "FR")]}, "d2"),
        ({"or": [tag("=", "blue"), plain("country", "=", "FR")]}, "d2 d3"),
        ({"not": tag("=", "red")}, "d3 d4 d6"),
        ({"not": plain("country", "=", "GB")}, "d2 d3 d4 d5 d6"),
        (
            {
                "and": [
                    {"or": [tag("=", "red"), tag("=", "blue")]},
                    {"not": plain("language", "=", "en")},
                ]
            },
            "d3 d5",
        ),
    ],
)
async def test_a_filter_means(readable: World, rule: dict[str, Any], expected: str) -> None:
    tree = parse_filter(rule)
    assert parse_filter(__import__("json").loads(write_filter(tree))) == tree
    if expected:
        assert await readable.who(Audience(filter=rule)) == expected.split()
    else:
        assert await readable.who(Audience(filter=rule)) == []


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        (Audience(everyone=True), "d1 d2 d3 d4 d5 d6"),
        (Audience(users=("ada", "nobody")), "d1 d2"),
        (Audience(aliases={"crm": ("7", "8")}), "d1 d2"),
        (Audience(devices=("d3", "d3", "d9")), "d3"),
        (Audience(users=("ada",), devices=("d1", "d5")), "d1 d2 d5"),
        (Audience(groups=("staff",)), "d1 d2 d6"),
        (Audience(segments=("Red",)), "d1 d2 d5"),
        (Audience(segments=("Subscribed Users",)), "d1 d3 d4 d5 d6"),
        (Audience(segments=("Active Users",)), "d1 d3"),
        (Audience(segments=("Inactive Users",)), ""),
        (Audience(segments=("Engaged Users",)), "d1"),
        (Audience(segments=("All",), exclude_segments=("Red",)), "d3 d4 d6"),
        (Audience(everyone=True, exclude_users=("ada",), exclude_devices=("d5",)), "d3 d4 d6"),
        (Audience(everyone=True, exclude_groups=("staff",)), "d3 d4 d5"),
    ],
)
async def test_an_audience_means(readable: World, audience: Audience, expected: str) -> None:
    assert await readable.who(audience) == expected.split()


async def test_a_dry_run_counts_devices_and_persons(readable: World) -> None:
    dry = await readable.audiences.dry_run(
        readable.app, Audience(everyone=True), attributes_type="Nothing"
    )
    assert (dry.devices, dry.persons, dry.reachable) == (6, 5, 0)
    assert dry.sample == ["d1", "d2", "d3", "d4", "d5"]
    slow = {"and": [plain("session_count", ">", 1), tag("!=", "red"), tag("=", "red")]}
    dry = await readable.audiences.dry_run(readable.app, Audience(filter=slow))
    assert dry.unindexed == ["session_count", "tag:team"]


async def test_a_reading_can_be_taken_up_again(readable: World) -> None:
    first = [page async for page in readable.pages(Audience(everyone=True), page=4)]
    rest = [page async for page in readable.pages(Audience(everyone=True), 4, first[0][-1].row)]
    assert len(first) > 1
    assert rest == first[1:]


async def test_twenty_thousand_ids_are_one_parameter(readable: World) -> None:
    many = tuple(f"user-{number}" for number in range(19_999))
    assert await readable.who(Audience(users=("ben", *many), devices=many)) == ["d3"]
    with pytest.raises(InvalidInput, match="20001 ids"):
        await readable.who(Audience(users=("a", "b", *many)))


@pytest.mark.parametrize(
    ("audience", "field"),
    [
        (Audience(), "audience"),
        (Audience(aliases={"crm": ()}), "audience"),
        (Audience(exclude_users=("ada",)), "audience"),
        (Audience(segments=("No such",)), "audience.segments[0]"),
        (Audience(everyone=True, exclude_segments=("No such",)), "audience.exclude_segments[0]"),
        (Audience(groups=("none",)), "audience.groups[0]"),
        (Audience(users=("",)), "audience.users[0]"),
        (Audience(filter={"field": "mood", "relation": "="}), "audience.filter.field"),
    ],
)
async def test_a_bad_audience_is_an_error_and_never_everyone(
    readable: World, audience: Audience, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await readable.who(audience)
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ([], "filter"),
        ({}, "filter.field"),
        ({"and": []}, "filter.and"),
        ({"or": {}}, "filter.or"),
        ({"and": [tag("=", "x")], "or": []}, "filter.or"),
        ({"and": [{"field": "tag", "relation": "="}]}, "filter.and[0].key"),
        (plain("language", ">", "en"), "filter.relation"),
        (plain("language", "=", "not a language!"), "filter.value"),
        (plain("country", "=", "Austria"), "filter.value"),
        (plain("session_count", "=", "many"), "filter.value"),
        (plain("push_enabled", "=", "yes"), "filter.value"),
        (tag("in_array", []), "filter.value"),
        (tag("in_array", "red"), "filter.value"),
        (tag(">", "red"), "filter.value"),
        (session("last_session", ">", -1), "filter.hours_ago"),
        ({"field": "last_session", "relation": ">"}, "filter.hours_ago"),
        (near(91, 0, 5), "filter.lat"),
        (near(0, 181, 5), "filter.long"),
        (near(0, 0, 0), "filter.radius"),
        (plain("language", "=", "en") | {"key": "x"}, "filter.key"),
        (tag("=", "x") | {"colour": "x"}, "filter.colour"),
        ({"not": [tag("=", "x")]}, "filter.not"),
        ({"and": [tag("=", "x")] * 201}, "filter.and[200]"),
        (custom("x", "=", float("nan")), "filter.value"),
    ],
)
def test_a_bad_filter_names_the_place(rule: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_filter(rule)
    assert caught.value.field == field
    assert caught.value.remedy


def test_a_filter_too_deep_is_refused() -> None:
    rule: dict[str, Any] = tag("=", "x")
    for _ in range(10):
        rule = {"not": rule}
    with pytest.raises(InvalidInput, match="8 deep"):
        parse_filter(rule)


async def test_segments_are_saved_changed_and_deleted(world: World) -> None:
    first = await world.segments.save(world.app, "Red", tag("=", "red"), id="seg-1")
    again = await world.segments.save(world.app, "Red", tag("=", "blue"))
    assert (first.id, again.id, again.filter["value"]) == ("seg-1", "seg-1", "blue")
    assert await world.who(Audience(segments=("seg-1",))) == ["d3"]
    with pytest.raises(InvalidInput):
        await world.audiences.dry_run(world.other, Audience(segments=("seg-1",)))
    with pytest.raises(InvalidInput, match="every app has"):
        await world.segments.save(world.app, "All", tag("=", "red"))
    await world.segments.delete(world.app, "seg-1")
    assert await world.segments.list(world.app) == []
    with pytest.raises(NotFound):
        await world.segments.delete(world.app, "Red")


LEAVES = st.one_of(
    *(
        st.builds(
            lambda field, relation, value: {
                "field": field,
                "relation": relation,
                "value": value,
                "hours_ago": value,
                "key": "k",
            },
            st.just(field),
            st.sampled_from(sorted(relations)),
            st.none()
            | st.booleans()
            | st.integers()
            | st.text(max_size=5)
            | st.lists(st.text(max_size=3)),
        )
        for field, relations in RELATIONS.items()
    )
)


@given(
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3).map(lambda parts: {"and": parts})
    )
)
def test_a_filter_is_read_or_refused_and_written_as_it_was_read(rule: dict[str, Any]) -> None:
    import json

    try:
        tree = parse_filter(rule)
    except InvalidInput as error:
        assert error.field.startswith("filter")
    else:
        assert parse_filter(json.loads(write_filter(tree))) == tree
