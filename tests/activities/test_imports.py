"""Bulk import: what is in the file is in the store, once, whatever is wrong with other lines."""

import asyncio
import gzip
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from apns_live.activities.apps import App, Apps
from apns_live.activities.core import Core
from apns_live.activities.people.devices import Devices
from apns_live.activities.people.directory import Directory
from apns_live.activities.people.imports import Imports, Layout, Progress, Report
from apns_live.activities.people.imports.reading import MAX_LINE
from apns_live.activities.people.people import People
from apns_live.activities.people.records import DeviceRecord, TokenRecord
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import Sealer, new_key
from apns_live.errors import InvalidInput, InvalidSetting
from apns_live.testing.clock import SimulatedClock

A, B, C = "aa" * 32, "bb" * 32, "cc" * 32
TABLES = (
    schema.users,
    schema.user_aliases,
    schema.devices,
    schema.attributes,
    schema.groups,
    schema.group_members,
    schema.start_tokens,
    schema.device_tokens,
)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
async def app(database: Database, clock: SimulatedClock) -> App:
    apps = Apps(database, Sealer(new_key()), clock, lambda: "app-1")
    return await apps.create(name="Scores", bundle_id="com.example.scores", environment="sandbox")


@pytest.fixture
def imports(database: Database, clock: SimulatedClock) -> Imports:
    return Imports(Core(database, clock))


async def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """The whole content of the tables that an import may write."""
    async with database.read() as connection:
        return {
            table.name: [
                tuple(row) for row in await connection.execute(select(table).order_by(table.c.id))
            ]
            for table in TABLES
        }


def jsonl(*values: object) -> io.BytesIO:
    return io.BytesIO("".join(json.dumps(value) + "\n" for value in values).encode())


DEVICES_CSV = f"""\
id,user,language,country,session_count,last_session,push_enabled,tag.team,attribute.age:number,attribute.vip:boolean,attribute.likes:list,attribute.born:date,groups,start_token.MatchAttributes,device_token,registered_at,environment
phone-1,ana,en,de,12,2026-01-31T20:00:00Z,true,lions,31,yes,cats; dogs,1995-02-28,beta;press,{A},{B},1700000000000,
phone-2,,,,,,,,,,,,,,,,
"""
DEVICES_JSON = [
    {
        "id": "phone-1",
        "user": "ana",
        "language": "en",
        "country": "de",
        "session_count": 12,
        "last_session": 1769889600000,
        "push_enabled": True,
        "tags": {"team": "lions"},
        "attributes": {
            "age": 31,
            "vip": True,
            "likes": ["cats", "dogs"],
            "born": {"date": "1995-02-28"},
        },
        "groups": ["beta", "press"],
        "start_tokens": {"MatchAttributes": A},
        "device_token": B,
        "registered_at": 1700000000000,
    },
    {"id": "phone-2"},
]


async def test_csv_and_json_lines_say_the_same(
    imports: Imports, app: App, database: Database
) -> None:
    report = await imports.run(app, "devices", io.BytesIO(DEVICES_CSV.encode()))
    assert (report.lines, report.accepted, report.refused) == (3, 2, 0)
    assert (report.devices, report.tokens) == (2, 2)
    first = await everything(database)
    assert [len(first[table.name]) for table in TABLES] == [1, 0, 2, 6, 2, 2, 1, 1]
    report = await imports.run(app, "devices", jsonl(*DEVICES_JSON))
    assert (report.lines, report.accepted) == (2, 2)
    assert await everything(database) == first
    known = await Devices(Core(database, SimulatedClock())).get(app, "phone-1")
    assert (known["user"], known["country"], known["last_session"]) == ("ana", "DE", 1769889600000)
    assert known["start_tokens"][0]["registered_at"] == 1_700_000_000_000
    assert known["start_tokens"][0]["environment"] == "sandbox"


async def test_fed_twice_later_nothing_changes(
    imports: Imports, app: App, database: Database, clock: SimulatedClock
) -> None:
    lines = [
        {
            "id": f"phone-{n:03}",
            "user": f"user-{n % 7}",
            "tags": {"n": n},
            "device_token": f"{n:064x}",
        }
        for n in range(250)
    ]
    await imports.run(app, "devices", jsonl(*lines), batch=60)
    before = await everything(database)
    await clock.advance(3600)
    report = await imports.run(app, "devices", jsonl(*lines), batch=100)
    assert report.accepted == 250
    assert await everything(database) == before


async def test_a_dry_run_writes_nothing_and_reports_the_same(
    imports: Imports, app: App, database: Database
) -> None:
    before = await everything(database)
    lines = [*DEVICES_JSON, {"id": ""}, {"id": "x", "colour": "red"}]
    dry = await imports.run(app, "devices", jsonl(*lines), dry_run=True)
    assert await everything(database) == before
    real = await imports.run(app, "devices", jsonl(*lines))
    assert (dry.dry_run, real.dry_run) == (True, False)
    names = ("lines", "accepted", "refused", "devices", "tokens", "errors")
    assert [getattr(dry, name) for name in names] == [getattr(real, name) for name in names]


async def test_people_with_aliases_tags_attributes_and_groups(
    imports: Imports, app: App, database: Database, clock: SimulatedClock
) -> None:
    people = People(Core(database, clock))
    await people.add_user(app, "old", aliases={"crm": "7"})
    csv = "id,alias.crm,tag.level,attribute.city,groups\nana,7,12,Bonn,vip\nben,8,,,\n"
    report = await imports.run(app, "users", io.BytesIO(csv.encode()))
    assert (report.users, report.accepted) == (2, 2)
    async with database.read() as connection:
        users, aliases = schema.users, schema.user_aliases
        rows = await connection.execute(
            select(users.c.external_id, aliases.c.value).join(
                aliases, aliases.c.user_id == users.c.id
            )
        )
        assert {row[0]: row[1] for row in rows} == {"ana": "7", "ben": "8"}
        rows = await connection.execute(
            select(schema.attributes.c.name, schema.attributes.c.text, schema.attributes.c.number)
        )
        assert sorted(tuple(row) for row in rows) == [("city", "Bonn", None), ("level", "12", 12.0)]
    assert (await Directory(people.core).group(app, "vip"))["name"] == "vip"


async def test_a_shorter_list_and_a_removed_value_leave_nothing_behind(
    imports: Imports, app: App, database: Database
) -> None:
    await imports.run(
        app,
        "devices",
        jsonl({"id": "p", "tags": {"a": "1", "b": "2"}, "attributes": {"l": ["x", "y", "z"]}}),
    )
    await imports.run(
        app, "devices", jsonl({"id": "p", "tags": {"a": None}, "attributes": {"l": ["x"]}})
    )
    async with database.read() as connection:
        table = schema.attributes
        rows = await connection.execute(select(table.c.name, table.c.position, table.c.text))
        assert sorted(tuple(row) for row in rows) == [("b", 0, "2"), ("l", 0, "x")]


async def test_the_last_word_on_a_device_wins_within_a_batch(
    imports: Imports, app: App, database: Database, clock: SimulatedClock
) -> None:
    await imports.run(
        app,
        "devices",
        jsonl({"id": "p", "language": "en"}, {"id": "o"}, {"id": "p", "language": "de"}),
    )
    assert (await Devices(Core(database, clock)).get(app, "p"))["language"] == "de"


async def test_tokens_without_a_time_never_replace_one_with_a_time(
    imports: Imports, app: App, database: Database, clock: SimulatedClock
) -> None:
    devices = Devices(Core(database, clock))
    await devices.register(
        app,
        [
            TokenRecord(
                device="p", kind="start", scope="Match", token=A, registered_at=1_700_000_000_000
            )
        ],
    )
    csv = f"device,kind,token,attributes_type\np,start,{B},Match\nq,start,{C},Match\n"
    report = await imports.run(app, "tokens", io.BytesIO(csv.encode()))
    assert (report.tokens, report.refused) == (2, 0)
    assert (await devices.get(app, "p"))["start_tokens"][0]["token"] == f"{A[:8]}…"
    at = Layout(registered_at=1_700_000_000_001)
    await imports.run(app, "tokens", io.BytesIO(csv.encode()), layout=at)
    assert (await devices.get(app, "p"))["start_tokens"][0]["token"] == f"{B[:8]}…"


async def test_columns_and_defaults(imports: Imports, app: App, database: Database) -> None:
    csv = f"Device Id;Push;Note\np;{A};old\n"
    layout = Layout(
        columns={"Device Id": "device", "Push": "token", "Note": ""},
        defaults={"kind": "start", "attributes_type": "Match", "environment": "production"},
    )
    report = await imports.run(app, "tokens", io.BytesIO(csv.encode()), layout=layout)
    assert (report.accepted, report.ignored) == (1, ("Note",))
    (row,) = (await everything(database))["start_tokens"]
    assert {"Match", "production", A} <= set(row)


@pytest.mark.parametrize(
    ("kind", "line", "field", "problem"),
    [
        ("devices", {}, "id", "missing"),
        ("devices", {"id": "a\nb"}, "id", "control character"),
        ("devices", {"id": "p", "colour": 1}, "colour", "unknown"),
        ("devices", {"id": "p", "language": "deutsch!"}, "language", "not allowed"),
        ("devices", {"id": "p", "latitude": 91.0}, "latitude", "is not a number <= 90"),
        ("devices", {"id": "p", "session_count": "many"}, "session_count", "not a whole number"),
        ("devices", {"id": "p", "session_count": 2**31}, "session_count", "number <= 2147483647"),
        ("devices", {"id": "p", "last_session": 1_700_000_000}, "last_session", "seconds"),
        ("devices", {"id": "p", "last_session": "yesterday"}, "last_session", "not a valid time"),
        ("devices", {"id": "p", "last_session": "2026-01-01T00:00:00"}, "last_session", "zone"),
        ("devices", {"id": "p", "tags": {"a": [1]}}, "tag.a", "not a string or a number"),
        ("devices", {"id": "p", "tags": "a"}, "tags", "not an object|unknown"),
        ("devices", {"id": "p", "attributes": {"a": {"b": 1}}}, "attribute.a", "not a valid date"),
        ("devices", {"id": "p", "groups": ["a b"]}, "groups", "not allowed"),
        ("devices", {"id": "p", "device_token": "xyz"}, "device_token", "not a token"),
        ("devices", {"id": "p", "start_tokens": {"Match": "xyz"}}, "start_token.Match", "not a token"),
        ("devices", {"id": "p", "start_tokens": {"a-b": A}}, "start_token.a-b|attributes_type", "not allowed"),
        ("devices", {"id": "p", "device_token": A, "environment": "test"}, "environment", "not a valid APNs"),
        ("users", {"id": 5}, "id", "not a string"),
        ("users", {"id": "u", "aliases": {"external_id": "x"}}, "aliases", "reserved"),
        ("tokens", {"device": "p", "token": A}, "kind", "missing"),
        ("tokens", {"device": "p", "token": A, "kind": "activity"}, "kind", "cannot be imported"),
        ("tokens", {"token": A, "kind": "device"}, "device", "missing"),
        ("tokens", {"device": "p", "kind": "device"}, "token", "missing"),
        ("tokens", {"device": "p", "kind": "start", "token": A}, "attributes_type", "not allowed"),
    ],
)  # fmt: skip
async def test_a_bad_line_is_refused_by_field_and_the_others_are_stored(
    imports: Imports, app: App, database: Database, kind: Any, line: Any, field: str, problem: str
) -> None:
    good = {"devices": {"id": "ok"}, "users": {"id": "ok"}}.get(
        kind, {"device": "ok", "kind": "device", "token": C}
    )
    report = await imports.run(app, kind, jsonl(line, good))
    (error,) = report.errors
    assert error.line == 1
    assert error.field in field.split("|")
    assert any(part in error.problem for part in problem.split("|")), error
    assert error.remedy
    assert (report.accepted, report.refused) == (1, 1)
    stored = await everything(database)
    assert len(stored["users" if kind == "users" else "devices"]) == 1


async def test_broken_lines_do_not_stop_the_file(imports: Imports, app: App) -> None:
    lines = b'{"id": "a"}\n{"id": \n[1]\n\n{"id": "\xff"}\n{"id": "\\ud800"}\n{"id": "b"}'
    report = await imports.run(app, "devices", io.BytesIO(lines))
    assert (report.accepted, report.refused) == (2, 4)
    assert [error.line for error in report.errors] == [2, 3, 5, 6]
    csv = b'id,language\na,en\nb\nc,de,x\n\xff,en\n"d\nd",en\ne,de\n'
    report = await imports.run(app, "devices", io.BytesIO(csv), layout=Layout(form="csv"))
    assert (report.accepted, report.refused) == (2, 4)
    assert [error.line for error in report.errors] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("content", "layout", "problem"),
    [
        (b"", Layout(form="csv"), "no header"),
        (b"id,id\n", Layout(), "two columns"),
        (b'id\n"a"b"\n', Layout(), "not CSV"),
        (b"id\na\n", Layout(columns={"id": "name"}), "does not apply"),
        (b"id\na\n", Layout(defaults={"colour": "red"}), "does not apply"),
        (b"id\na\n", Layout(vendor="pushwoosh"), "not known"),
        (b"id\na\n", Layout(vendor="braze", columns={"id": "id"}), "whole devices"),
        (b"id\na\n", Layout(form="xml"), "not a valid format"),  # type: ignore[arg-type]
        (b"\x1f\x8b\x08cut", Layout(), "cannot be read"),
        (b"a,b\n" + b"1,2\n" * 1500, Layout(), "all of the first 1,000 lines"),
    ],
)
async def test_a_file_that_makes_no_sense_is_refused_and_stores_nothing(
    imports: Imports, app: App, database: Database, content: bytes, layout: Layout, problem: str
) -> None:
    before = await everything(database)
    with pytest.raises(InvalidInput, match=problem):
        await imports.run(app, "devices", io.BytesIO(content), layout=layout)
    assert await everything(database) == before


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
async def test_rejects_can_be_corrected_and_fed_back(
    imports: Imports, app: App, database: Database, tmp_path: Path, suffix: str
) -> None:
    source, rejects = tmp_path / f"in.{suffix}", tmp_path / f"again.{suffix}"
    if suffix == "csv":
        source.write_text('id,language\na,en\nb,"?, ?"\nc,!\n')
    else:
        source.write_bytes(
            jsonl(
                {"id": "a"}, {"id": "b", "language": "?, ?"}, {"id": "c", "language": "!"}
            ).getvalue()
        )
    report = await imports.run(app, "devices", source, rejects=rejects)
    assert (report.accepted, report.refused) == (1, 2)
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    text = rejects.read_text()
    assert "refused_because" in text
    assert "language: " in text
    rejects.write_text(text.replace("?, ?", "de"))
    # In place: the file that is read is the file that is written.
    report = await imports.run(app, "devices", rejects, rejects=rejects)
    assert (report.accepted, report.refused) == (1, 1)
    assert rejects.read_text().count("refused_because") == 1
    rejects.write_text(rejects.read_text().replace("!", "fr"))
    report = await imports.run(app, "devices", rejects, rejects=rejects)
    assert (report.accepted, report.refused) == (1, 0)
    assert not rejects.exists()
    assert len((await everything(database))["devices"]) == 3
    assert not list(tmp_path.glob("*.partial"))


async def test_rejects_need_a_place(imports: Imports, app: App, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="cannot be written"):
        await imports.run(app, "devices", jsonl({"id": "a"}), rejects=tmp_path)
    with pytest.raises(InvalidSetting, match="cannot be written"):
        await imports.run(app, "devices", jsonl({"id": "a"}), rejects=tmp_path / "no" / "where.csv")


async def test_a_report_is_bounded_and_progress_is_told(
    imports: Imports, app: App, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl.gz"
    lines = [{"id": f"p{n}"} if n % 2 else {"id": ""} for n in range(600)]
    path.write_bytes(gzip.compress(jsonl(*lines).getvalue()))
    told: list[Progress] = []
    report = await imports.run(app, "devices", path, batch=100, telling=told.append)
    assert (report.accepted, report.refused, len(report.errors)) == (300, 300, 100)
    assert [one.accepted for one in told] == [50, 100, 150, 200, 250, 300]
    assert told[-1].size == path.stat().st_size
    assert told[-1].bytes_read <= path.stat().st_size


async def test_long_lines_make_smaller_batches(imports: Imports, app: App, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    long = {"tags": {f"tag-{n}": "x" * 1000 for n in range(500)}}
    path.write_bytes(jsonl(*({"id": f"p{n}", **long} for n in range(20))).getvalue())
    told: list[Progress] = []
    report = await imports.run(app, "devices", path, dry_run=True, telling=told.append)
    assert (report.accepted, len(told)) == (20, 3)


# Eleven bytes are around it: the second line has one byte too many, with its end.
@pytest.mark.parametrize("length", [3 << 20, MAX_LINE - 10])
async def test_a_line_that_is_too_long_is_one_refused_line(
    imports: Imports, app: App, length: int
) -> None:
    lines = b'{"id": "a"}\n{"id": "' + b"x" * length + b'"}\n{"id": "b"}\n'
    report = await imports.run(app, "devices", io.BytesIO(lines))
    assert (report.lines, report.accepted, report.refused) == (3, 2, 1)
    assert "longer than" in report.errors[0].problem
    assert report.errors[0].line == 2


async def test_a_pipe_is_read_as_it_comes(imports: Imports, app: App, database: Database) -> None:
    out, into = os.pipe()
    told: list[Progress] = []
    arrived = asyncio.Event()

    def telling(progress: Progress) -> None:
        told.append(progress)
        arrived.set()

    with os.fdopen(out, "rb") as pipe, os.fdopen(into, "wb", buffering=0) as writer:
        work = asyncio.create_task(
            imports.run(app, "devices", pipe, batch=2, telling=telling, layout=Layout(form="jsonl"))
        )
        writer.write(b'{"id": "a"}\n{"id": "b"}\n')
        await arrived.wait()
        assert len((await everything(database))["devices"]) == 2
        writer.write(b'{"id": "c"}\n')
        writer.close()
        report = await work
    assert isinstance(report, Report)
    assert report.accepted == 3


async def test_cancelling_does_not_wait_for_a_silent_pipe(imports: Imports, app: App) -> None:
    out, into = os.pipe()
    begun = asyncio.Event()
    with os.fdopen(into, "wb", buffering=0) as writer:
        pipe = os.fdopen(out, "rb")
        writer.write(b'{"id": "a"}\n')
        work = asyncio.create_task(
            imports.run(app, "devices", pipe, batch=1, telling=lambda _: begun.set())
        )
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    # The other end is closed, so the thread that reads comes to its end and lets the file go.
    with pipe:
        pass


ONESIGNAL = f"""\
id,identifier,session_count,language,timezone,game_version,device_os,device_type,device_model,ad_id,tags,last_active,playtime,amount_spent,created_at,invalid_identifier,badge_count,external_user_id,country,location
sub-1,{A},7,en,3600,2.1,17.2,0,iPhone15,,"{{""team"":""lions""}}",2026-01-31 20:00:00 UTC,90,1.5,2025-12-24 10:00:00 UTC,f,0,ana,DE,"50.7,7.1"
sub-2,{B},1,de,,,,0,,,,2026-01-01 00:00:00,0,0.0,2026-01-01 00:00:00,t,0,,,
sub-3,fcm:abc,1,de,,,,1,,,,,,,,f,0,,,
sub-4,nothex,1,de,,,,0,,,,,,,,f,0,,,
"""


async def test_a_list_of_onesignal(
    imports: Imports, app: App, database: Database, clock: SimulatedClock
) -> None:
    report = await imports.run(
        app, "devices", io.BytesIO(ONESIGNAL.encode()), layout=Layout(vendor="onesignal")
    )
    assert (report.accepted, report.skipped, report.refused, report.tokens) == (2, 1, 1, 1)
    assert (report.errors[0].line, report.errors[0].field) == (5, "device_token")
    devices = Devices(Core(database, clock))
    first = await devices.get(app, "sub-1")
    assert (first["user"], first["latitude"], first["session_time"]) == ("ana", 50.7, 90)
    assert first["last_session"] == 1769889600000
    assert (await devices.get(app, "sub-2"))["push_enabled"] is False
    (token,) = (await everything(database))["device_tokens"]
    assert A in token
    assert min(1769889600000, int(clock.time() * 1000)) in token


async def test_a_list_of_braze(
    imports: Imports, app: App, database: Database, clock: SimulatedClock
) -> None:
    line = {
        "external_id": "ana",
        "braze_id": "5f",
        "country": "de",
        "language": "en",
        "last_coordinates": [7.1, 50.7],
        "custom_attributes": {"plan": "gold"},
        "user_aliases": [{"alias_name": "7", "alias_label": "crm"}],
        "push_tokens": [
            {"app": "S", "platform": "iOS", "token": A, "device_id": "d1", "notifications_enabled": True},
            {"app": "S", "platform": "Android", "token": "fcm", "device_id": "d2"},
            {"app": "S", "platform": "iOS", "token": B, "device_id": "d3", "notifications_enabled": False},
        ],
    }  # fmt: skip
    report = await imports.run(
        app,
        "devices",
        jsonl(line, {"braze_id": "60", "push_tokens": []}),
        layout=Layout(vendor="braze"),
    )
    assert (report.accepted, report.skipped) == (1, 1)
    assert (report.devices, report.users, report.tokens) == (2, 1, 2)
    device = await Devices(Core(database, clock)).get(app, "d3")
    assert (device["user"], device["latitude"], device["push_enabled"]) == ("ana", 50.7, False)
    assert device["country"] == "DE"


async def test_it_runs_beside_what_phones_tell(
    imports: Imports, app: App, database: Database, clock: SimulatedClock
) -> None:
    devices = Devices(Core(database, clock))
    lines = [
        {"id": f"p{n}", "language": "en", "start_tokens": {"Match": f"{n:064x}"}}
        for n in range(400)
    ]

    async def phones() -> None:
        for n in range(0, 400, 10):
            await devices.tell(app, [DeviceRecord(id=f"p{n}", app_version="2.0")])

    async with asyncio.TaskGroup() as group:
        group.create_task(phones())
        first = group.create_task(imports.run(app, "devices", jsonl(*lines), batch=50))
        second = group.create_task(imports.run(app, "devices", jsonl(*reversed(lines)), batch=50))
    assert (first.result().accepted, second.result().accepted) == (400, 400)
    stored = await everything(database)
    assert (len(stored["devices"]), len(stored["start_tokens"])) == (400, 400)


async def test_the_earlier_names_of_an_import_work_and_warn(database, clock, app, tmp_path):
    file = tmp_path / "tokens.csv"
    file.write_text(f"device,token\nphone-1,{'ab' * 32}\n")
    layout = Layout(defaults={"kind": "start", "attributes_type": "Match"})
    with pytest.warns(DeprecationWarning, match=r"is now Service\.imports"):
        earlier = Imports(database, clock)
    with pytest.warns(DeprecationWarning, match=r"is now Imports\.run\(app, 'tokens', source\)"):
        report = await earlier.tokens(app, file, layout=layout)
    assert report.accepted == 1
    with pytest.raises(AttributeError):
        earlier.others  # noqa: B018
