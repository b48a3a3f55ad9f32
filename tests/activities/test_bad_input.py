"""Bad input for every write: refused with field, reason and remedy, and nothing half-written.

For each room a table of calls. The whole store is dumped before and after each call.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select

from apns_live.activities.accept.idempotency import Key
from apns_live.activities.accept.notifications import Notifications
from apns_live.activities.accept.receipts import ReceiptRecord, Receipts
from apns_live.activities.accept.tokens import Joining
from apns_live.activities.people.imports import Imports
from apns_live.activities.people.imports.importer import Layout
from apns_live.activities.people.records import DeviceRecord, TokenRecord
from apns_live.activities.requests import AlertText, End, Presentation, Update
from apns_live.activities.requests.audience import Audience
from apns_live.activities.requests.notify import Notify
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.errors import InvalidInput
from tests.activities.world import ALERT, Rooms, a_key, a_start

NOW = 1_800_000_000
MILLISECONDS = NOW * 1000
EVERYONE = Audience(everyone=True)


class World(Rooms):
    """Every room that writes, over a store with something in it."""

    async def open(self) -> None:
        await self.fill(3)
        await self.activities.start(self.app, a_start(id="running", revision=5))
        await self.activities.start(self.app, a_start(id="over"))
        await self.activities.end(self.app, End(id="over"))
        await self.streams.put(self.app, a_start(id=None, stream_key="nightly"))
        await self.people.add_user(self.app, "ada", aliases={"crm": "7"})
        await self.people.set_tags(self.app, "user", "ada", {"team": "red"})
        await self.people.add_group(self.app, "fans")
        await self.segments.save(
            self.app, "English", {"field": "language", "relation": "=", "value": "en"}
        )
        self.notifications = Notifications(self.database, self.clock, self.new_id, self.audiences)
        self.receipts = Receipts(self.database, self.clock)
        self.joining = Joining(self.database, self.clock, self.devices)
        self.imports = Imports(self.database, self.clock)

    async def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table."""
        found: dict[str, list[tuple[Any, ...]]] = {}
        async with self.database.read() as connection:
            for table in schema.metadata.sorted_tables:
                query = select(table).order_by(*table.primary_key.columns)
                found[table.name] = [tuple(row) for row in await connection.execute(query)]
        return found


Call = Callable[[World], Awaitable[Any]]
Entry = tuple[str, Call]
"""How the field begins that is named, and the call."""


def starts(key: bool = True, **changes: Any) -> Call:
    return lambda world: world.activities.start(
        world.app, a_start(**changes), key=a_key("k") if key else None
    )


def updates(**changes: Any) -> Call:
    request = Update(**{"id": "running", "content_state": {"home": 1}, **changes})
    return lambda world: world.activities.update(world.app, request, key=a_key("k"))


def ends(**changes: Any) -> Call:
    request = End(**{"id": "running", **changes})
    return lambda world: world.activities.end(world.app, request, key=a_key("k"))


def puts(**changes: Any) -> Call:
    request = a_start(**{"id": None, "stream_key": "nightly", **changes})
    return lambda world: world.streams.put(world.app, request, key=a_key("k"))


def shown(**values: Any) -> Presentation:
    return Presentation(**{"alert": ALERT.alert, **values})


class Custom:
    """Something that is no JSON."""


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


STATES: list[tuple[str, Any]] = [
    ("content_state", None),
    ("content_state", [1]),
    ("content_state", "text"),
    ("content_state.n", {"n": float("nan")}),
    ("content_state.n", {"n": float("inf")}),
    ("content_state.n", {"n": 2**64}),
    ("content_state.when", {"when": datetime.datetime.now(datetime.UTC)}),
    ("content_state.who", {"who": Custom()}),
    ("content_state.who", {"who": {1, 2}}),
    ("content_state", {1: "number"}),
    ("content_state.text", {"text": "\ud800"}),
    ("content_state", deep(40)),
    ("content_state", deep(5_000)),
    ("payload", {"text": "x" * 5_000}),
]

PRESENTATIONS: list[tuple[str, Any]] = [
    ("presentation", None),
    ("presentation", "alert"),
    ("presentation.alert", Presentation(alert="Goal")),  # type: ignore[arg-type]
    ("presentation.alert.title", shown(alert=AlertText(title=5, body="x"))),  # type: ignore[arg-type]
    ("presentation.alert.title", shown(alert=AlertText(title={"de": "Tor"}, body="x"))),
    ("presentation.alert.title.x!", shown(alert=AlertText(title={"en": "a", "x!": "b"}, body="x"))),
    ("presentation.alert.body", shown(alert=AlertText(title="a", body={"en": 5}))),  # type: ignore[dict-item]
    ("alert.sound", shown(alert=AlertText(title="a", body="b", sound=""))),
    ("presentation.stale_after", shown(stale_after=-1.0)),
    ("presentation.stale_after", shown(stale_after=float("nan"))),
    ("presentation.stale_after", shown(stale_after="60")),
    ("stale_date", shown(stale_date=NOW * 1000.0)),
    ("presentation.stale_date", shown(stale_date="soon")),
    ("relevance_score", shown(relevance_score=float("inf"))),
    ("presentation.relevance_score", shown(relevance_score="high")),
    ("presentation.urgency", shown(urgency="now")),
]

LABELS: list[tuple[str, dict[str, Any]]] = [
    ("tags[0]", {"tags": ("\ud800",)}),
    ("metadata.a", {"metadata": {"a": "\ud800"}}),
    ("metadata", {"metadata": {"\ud800": "a"}}),
    ("tags", {"tags": "text"}),
    ("tags[0]", {"tags": ("",)}),
    ("tags[0]", {"tags": ("x" * 65,)}),
    ("tags", {"tags": tuple(str(n) for n in range(21))}),
    ("tags", {"tags": (5,)}),
    ("metadata", {"metadata": {"a": [1]}}),
    ("metadata", {"metadata": {"a": None}}),
    ("metadata", {"metadata": {"": 1}}),
    ("metadata.a", {"metadata": {"a": float("nan")}}),
    ("metadata.a", {"metadata": {"a": "x" * 4_001}}),
    ("metadata", {"metadata": {str(n): n for n in range(51)}}),
    ("metadata", {"metadata": {f"k{n}": "x" * 4_000 for n in range(5)}}),
]

KEYS: list[tuple[str, Key]] = [
    ("idempotency_key", Key(caller="server", key="")),
    ("idempotency_key", Key(caller="server", key="a\nb")),
    ("idempotency_key", Key(caller="server", key="x" * 256)),
    ("idempotency_key", Key(caller="server", key=5)),  # type: ignore[arg-type]
]

START: list[Entry] = [
    ("id", starts(id="")),
    ("id", starts(id="a\nb")),
    ("id", starts(id=" a")),
    ("id", starts(id="x" * 256)),
    ("id", starts(id=5)),
    ("attributes_type", starts(attributes_type="")),
    ("attributes_type", starts(attributes_type="com.example.Match")),
    ("attributes_type", starts(attributes_type=None)),
    ("attributes", starts(attributes=[1])),
    ("attributes.n", starts(attributes={"n": float("nan")})),
    ("attributes", starts(attributes={"who": Custom()})),
    ("attributes.onesignal", starts(attributes={"onesignal": 5}, id_attribute="onesignal.id")),
    ("audience", starts(audience=Audience())),
    ("audience", starts(audience=None)),
    ("audience.users", starts(audience=Audience(users=(5,)))),  # type: ignore[arg-type]
    ("environment", starts(environment="test")),
    ("channel", starts(channel="not base64!")),
    ("revision", starts(revision="1")),
    ("revision", starts(revision=2**63)),
    ("start_at", starts(start_at=MILLISECONDS)),
    ("start_at", starts(start_at=-1.0)),
    ("start_at", starts(start_at=float("nan"))),
    ("start_at", starts(start_at="noon")),
    ("end_at", starts(end_at=NOW - 1.0)),
    ("end_at", starts(start_at=NOW + 60.0, end_at=NOW + 60.0)),
    ("end_at", starts(end_at=float("inf"))),
    ("end_presentation", starts(end_presentation=Presentation(dismiss_after=1.0))),
    (
        "end_presentation.dismiss_after",
        starts(end_at=NOW + 60.0, end_presentation=Presentation(dismiss_after=-1.0)),
    ),
    ("presentation.alert", starts(presentation=Presentation())),
    ("presentation.dismiss", starts(presentation=shown(dismiss_after=5.0))),
    ("presentation.dismiss", starts(presentation=shown(dismissal_date=NOW + 5.0))),
    ("stream_key", starts(stream_key="a b")),
    ("dialect", starts(dialect="x" * 17)),
    *((field, starts(content_state=state)) for field, state in STATES),
    *((field, starts(presentation=value)) for field, value in PRESENTATIONS),
    *((field, starts(**changes)) for field, changes in LABELS),
    *(
        (field, lambda world, key=key: world.activities.start(world.app, a_start(), key=key))
        for field, key in KEYS
    ),
]

CHANGE: list[Entry] = [
    ("id", updates(id="")),
    ("id", updates(id=5)),
    ("revision", updates(revision="1")),
    ("revision", updates(revision=2**63)),
    ("presentation.dismiss", updates(presentation=Presentation(dismiss_after=5.0))),
    *((field, updates(content_state=state)) for field, state in STATES),
    *((field, updates(presentation=value)) for field, value in PRESENTATIONS),
    *((field, updates(**changes)) for field, changes in LABELS),
    ("id", ends(id="")),
    ("reason", ends(reason=5)),
    ("reason", ends(reason="x" * 65)),
    ("presentation.dismiss_after", ends(presentation=Presentation(dismiss_after=-1.0))),
    ("dismissal_date", ends(presentation=Presentation(dismissal_date=NOW * 1000.0))),
    *((field, ends(content_state=state)) for field, state in STATES[1:]),
    *((field, ends(**changes)) for field, changes in LABELS),
    *(
        (
            field,
            lambda world, key=key: world.activities.end(world.app, End(id="running"), key=key),
        )
        for field, key in KEYS
    ),
]

STREAM: list[Entry] = [
    ("stream_key", puts(stream_key=None)),
    ("stream_key", puts(stream_key="")),
    ("stream_key", puts(stream_key="a/b")),
    ("stream_key", puts(stream_key="x" * 256)),
    ("audience", puts(audience=Audience())),
    (
        "content_state.n",
        lambda world: world.streams.put(
            world.app,
            a_start(id=None, stream_key="nightly"),
            change=Update(id="", content_state={"n": float("nan")}),
        ),
    ),
    ("revision", puts(revision="1")),
    *((field, puts(content_state=state)) for field, state in STATES),
    *((field, puts(presentation=value)) for field, value in PRESENTATIONS),
    *((field, puts(**changes)) for field, changes in LABELS),
    ("stream_key", lambda world: world.streams.end(world.app, "a b")),
    ("stream_key", lambda world: world.streams.pause(world.app, "")),
    ("stream_key", lambda world: world.streams.resume(world.app, "a b")),
    *(
        (
            field,
            lambda world, state=state: world.streams.end(
                world.app, "nightly", End(id="", content_state=state)
            ),
        )
        for field, state in STATES[1:]
    ),
    *(
        (
            field,
            lambda world, state=state: world.streams.pause(
                world.app, "nightly", End(id="", content_state=state)
            ),
        )
        for field, state in STATES[1:]
    ),
]


def tells(**changes: Any) -> Call:
    records = [DeviceRecord(id="new"), DeviceRecord(**{"id": "d0", "language": "de", **changes})]
    return lambda world: world.devices.tell(world.app, records)


DEVICE: list[Entry] = [
    (f"devices[1].{field}", tells(**{field: value}))
    for field, value in [
        ("id", ""),
        ("id", "x" * 65),
        ("id", None),
        ("user", ""),
        ("user", 5),
        ("language", "english!"),
        ("language", 5),
        ("country", "Germany"),
        ("country", 49),
        ("latitude", 91.0),
        ("latitude", float("nan")),
        ("latitude", "52"),
        ("longitude", -181.0),
        ("app_version", ""),
        ("app_version", 1.0),
        ("os_version", "x" * 33),
        ("first_session", -1),
        ("first_session", "yesterday"),
        ("last_session", 2**60),
        ("session_count", 2**31),
        ("session_count", True),
        ("session_time", -1),
        ("amount_spent", float("nan")),
        ("amount_spent", -1.0),
        ("push_enabled", "yes"),
        ("push_enabled", 1),
        ("frequent_updates", "no"),
    ]
]

A_TOKEN = {"device": "d0", "kind": "start", "token": "ab" * 32, "registered_at": MILLISECONDS}


def registers(**changes: Any) -> Call:
    good = TokenRecord(**{**A_TOKEN, "device": "new", "scope": "Match"})
    bad = TokenRecord(**{**A_TOKEN, "scope": "Match", **changes})
    return lambda world: world.devices.register(world.app, [good, bad])


def joins(**changes: Any) -> Call:
    good = TokenRecord(**{**A_TOKEN, "device": "new", "kind": "activity", "scope": "own"})
    bad = TokenRecord(**{**A_TOKEN, "kind": "activity", "scope": "running", **changes})
    return lambda world: world.joining.register_activity_tokens(world.app, [good, bad])


TOKEN: list[Entry] = [
    *(
        (f"tokens[1].{field}", call(**{field: value}))
        for call in (registers, joins)
        for field, value in [
            ("device", ""),
            ("device", "x" * 65),
            ("device", None),
            ("kind", "widget"),
            ("token", ""),
            ("token", "abc"),
            ("token", "zz" * 32),
            ("token", "ab" * 300),
            ("token", b"abcd"),
            ("registered_at", NOW),
            ("registered_at", "now"),
            ("registered_at", None),
            ("environment", "test"),
            ("scope", ""),
            ("scope", None),
        ]
    ),
    ("tokens[1].scope", registers(scope="com.example.Match")),
    ("tokens[1].scope", registers(kind="device", scope="Match")),
    ("tokens[1].kind", registers(kind="activity", scope="running")),
    ("tokens[1].kind", joins(kind="start")),
    ("tokens[1].scope", joins(scope="a\nb")),
    (
        "attributes_type",
        lambda world: world.joining.register_activity_tokens(
            world.app,
            [TokenRecord(**{**A_TOKEN, "kind": "activity", "scope": "own"})],
            attributes_type="a.b",
        ),
    ),
]

VALUES: list[tuple[str, Any]] = [
    (".a", float("nan")),
    (".a", float("inf")),
    (".a", "x" * 1_025),
    (".a", "nul\x00"),
    (".a", Custom()),
    (".a", {"b": 1}),
    (".a", "\ud800"),
]

PEOPLE: list[Entry] = [
    ("external_id", lambda world: world.people.add_user(world.app, "")),
    ("external_id", lambda world: world.people.add_user(world.app, "a\nb")),
    ("external_id", lambda world: world.people.add_user(world.app, 5)),  # type: ignore[arg-type]
    ("external_id", lambda world: world.people.add_user(world.app, "\ud800")),
    ("aliases", lambda world: world.people.add_user(world.app, "b", aliases={"": "x"})),
    ("aliases.crm", lambda world: world.people.add_user(world.app, "b", aliases={"crm": ""})),
    ("aliases.crm", lambda world: world.people.add_user(world.app, "b", aliases={"crm": 7})),  # type: ignore[dict-item]
    ("aliases", lambda world: world.people.add_user(world.app, "b", aliases={"external_id": "x"})),
    (
        "aliases",
        lambda world: world.people.add_user(
            world.app, "b", aliases={str(n): "x" for n in range(21)}
        ),
    ),
    *(
        (
            "tags" + field,
            lambda world, value=value: world.people.set_tags(
                world.app, "user", "ada", {"team": "blue", "a": value}
            ),
        )
        for field, value in [*VALUES, (".a", [1])]
    ),
    ("tags", lambda world: world.people.set_tags(world.app, "user", "ada", {"": "x"})),
    *(
        (
            "attributes" + field,
            lambda world, value=value: world.people.set_attributes(
                world.app, "user", "ada", {"b": 1, "a": value}
            ),
        )
        for field, value in [*VALUES, (".a", [[1]]), (".a", [True]), (".a", list(range(501)))]
    ),
    (
        "attributes.a",
        lambda world: world.people.set_attributes(
            world.app,
            "user",
            "ada",
            {"a": datetime.datetime(2027, 1, 1)},  # noqa: DTZ001
        ),
    ),
    ("slug", lambda world: world.people.add_group(world.app, "a b")),
    ("slug", lambda world: world.people.add_group(world.app, "")),
    ("name", lambda world: world.people.add_group(world.app, "new", name="")),
    ("name", lambda world: world.people.add_group(world.app, "new", name=5)),  # type: ignore[arg-type]
    ("user", lambda world: world.people.move_devices(world.app, ["d0"], "")),
]

FILTERS: list[Any] = [
    None,
    "language",
    {},
    [],
    {"field": "colour", "relation": "=", "value": "red"},
    {"field": "language", "relation": "~", "value": "de"},
    {"field": "language", "relation": "="},
    {"field": "language", "relation": "=", "value": 5},
    {"field": "language", "relation": "in_array", "value": "de"},
    {"field": "tag", "relation": "=", "value": "x"},
    {"field": "last_session", "relation": ">", "hours_ago": "soon"},
    {"field": "location", "relation": "within", "latitude": 91, "longitude": 0, "radius": 5},
    {"and": []},
    {"or": [{"and": [5]}]},
    {"not": []},
    {"and": [{"field": "language", "relation": "=", "value": "en"}], "extra": 1},
]

AUDIENCES: list[tuple[str, Audience]] = [
    ("audience", Audience()),
    ("audience.segments[0]", Audience(segments=("none",))),
    ("audience.groups[0]", Audience(groups=("none",))),
    ("audience.users[0]", Audience(users=("",))),
    ("audience.devices[1]", Audience(devices=("d0", "a\nb"))),
    ("audience.aliases", Audience(aliases={"": ("x",)})),
    ("audience.aliases.crm[0]", Audience(aliases={"crm": ("",)})),
    ("audience.users", Audience(users=tuple(str(n) for n in range(20_001)))),
    ("audience.exclude_segments[0]", Audience(everyone=True, exclude_segments=("none",))),
    ("audience.exclude_groups[0]", Audience(everyone=True, exclude_groups=("none",))),
    ("audience.exclude_users[0]", Audience(everyone=True, exclude_users=("",))),
]

AUDIENCE: list[Entry] = [
    ("name", lambda world: world.segments.save(world.app, "", FILTERS[4])),
    ("name", lambda world: world.segments.save(world.app, "All", FILTERS[4])),
    (
        "id",
        lambda world: world.segments.save(
            world.app, "New", {"field": "language", "relation": "=", "value": "en"}, id="a\nb"
        ),
    ),
    *(
        ("filter", lambda world, rule=rule: world.segments.save(world.app, "English", rule))
        for rule in FILTERS
    ),
    *(
        (field, lambda world, audience=audience: world.audiences.dry_run(world.app, audience))
        for field, audience in AUDIENCES
    ),
    *(
        (
            "audience",
            lambda world, rule=rule: world.audiences.dry_run(world.app, Audience(filter=rule)),
        )
        for rule in FILTERS[1:]
    ),
    *(
        (
            field,
            lambda world, audience=audience: world.notifications.send(
                world.app, Notify(audience=audience, title="Goal"), key=a_key("k")
            ),
        )
        for field, audience in AUDIENCES
    ),
]


def reports(**changes: Any) -> Call:
    good = {"device": "d0", "event": "clicked", "activity": "running"}
    records = [ReceiptRecord(**good), ReceiptRecord(**{**good, **changes})]
    return lambda world: world.receipts.record(world.app, records)


RECEIPT: list[Entry] = [
    (f"receipts[1].{field}", reports(**{field: value}))
    for field, value in [
        ("device", ""),
        ("device", "nobody"),
        ("event", "seen"),
        ("activity", "none"),
        ("activity", None),
        ("at", NOW),
        ("at", "now"),
    ]
]


def imports(kind: str, text: str, **options: Any) -> Call:
    return lambda world: world.imports.run(
        world.app,
        kind,
        io.BytesIO(text.encode()),
        **options,  # type: ignore[arg-type]
    )


def refuses(kind: str, *lines: str) -> Call:
    """A file whose lines are refused one by one: the report says each."""

    async def call(world: World) -> None:
        source = io.BytesIO("\n".join(lines).encode("utf-8", "surrogatepass"))
        report = await world.imports.run(world.app, kind, source)  # type: ignore[arg-type]
        assert (report.accepted, report.refused) == (0, len(report.errors)), report
        error = report.errors[-1]
        raise InvalidInput(error.problem, field=error.field, remedy=error.remedy)

    return call


IMPORT: list[Entry] = [
    ("kind", imports("widgets", "id\nd9\n")),
    ("", imports("devices", "id\nd9\n", layout=Layout(columns={"id": "colour"}))),
    ("", imports("devices", "id\nd9\n", layout=Layout(vendor="nobody"))),
    ("colour", refuses("devices", "id,colour", "d9,red")),
    ("language", refuses("devices", "id,language", "d8,5", "d9,english!")),
    ("latitude", refuses("devices", "id,latitude", "d9,north")),
    ("push_enabled", refuses("devices", "id,push_enabled", "d9,perhaps")),
    ("language", refuses("devices", '{"id": "d9", "language": 5}')),
    ("token", refuses("tokens", "device,kind,token,attributes_type", "d9,start,zz,Match")),
    ("kind", refuses("tokens", "device,kind,token,attributes_type", "d9,widget,abcd,Match")),
    ("id", refuses("users", '{"id": ""}')),
]

APP: list[Entry] = [
    ("name", lambda world: world.apps.create(name="", bundle_id="com.example.x")),
    ("id", lambda world: world.apps.create(name="x", bundle_id="com.example.x", id="a\nb")),
    ("bundle_id", lambda world: world.apps.create(name="x", bundle_id="")),
    (
        "bundle_id",
        lambda world: world.apps.create(name="x", bundle_id="com.example.x.push-type.liveactivity"),
    ),
    (
        "environment",
        lambda world: world.apps.create(name="x", bundle_id="com.example.x", environment="test"),
    ),
    ("id", lambda world: world.apps.create(name="x", bundle_id="com.example.x", id=world.app.id)),
    (
        "",
        lambda world: world.apps.add_key(
            world.app, "no key", key_id="ABC123DEFG", team_id="ABC123DEFG", environment="any"
        ),
    ),
]

TABLES: dict[str, list[Entry]] = {
    "start": START,
    "update and end": CHANGE,
    "stream": STREAM,
    "device": DEVICE,
    "token": TOKEN,
    "people": PEOPLE,
    "audience": AUDIENCE,
    "receipt": RECEIPT,
    "import": IMPORT,
    "app": APP,
}


@pytest.mark.parametrize("room", TABLES)
async def test_bad_input_is_refused_and_changes_nothing(room: str, database: Database) -> None:
    world = World(database)
    await world.open()
    before = await world.dump()
    assert sum(len(rows) for rows in before.values()) > 20
    problems: list[str] = []
    for index, (field, call) in enumerate(TABLES[room]):
        where = f"{room}[{index}], expected {field!r}"
        try:
            await call(world)
        except InvalidInput as error:
            if not error.field.startswith(field):
                problems.append(f"{where}: names {error.field!r} ({error})")
            if not error.problem or not error.remedy:
                problems.append(f"{where}: says no reason or no remedy ({error})")
        except Exception as error:  # noqa: BLE001 - what a caller must never see
            problems.append(f"{where}: {type(error).__name__}: {str(error)[:200]}")
        else:
            problems.append(f"{where}: was taken")
        after = await world.dump()
        if after != before:
            changed = [name for name in before if before[name] != after[name]]
            problems.append(f"{where}: changed {changed}")
            before = after
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems)
