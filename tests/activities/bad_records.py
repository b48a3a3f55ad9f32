"""Bad devices, tokens, people, audiences, receipts, imports and apps, and the field that each names."""

from __future__ import annotations

import datetime
import io
from typing import Any

from apns_live.activities.accept.receipts import ReceiptRecord
from apns_live.activities.people.imports.importer import Layout
from apns_live.activities.people.records import DeviceRecord, TokenRecord
from apns_live.activities.requests import Audience
from apns_live.activities.requests.notify import Notify
from apns_live.errors import InvalidInput
from tests.activities.bad_calls import MILLISECONDS, NOW, Call, Custom, Entry, World
from tests.activities.world import a_key


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
