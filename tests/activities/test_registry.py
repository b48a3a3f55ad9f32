"""Apps, devices, tokens and people: what is told is kept, newest wins, on both databases."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from apns_live.activities.apps import App, Apps
from apns_live.activities.core import Core
from apns_live.activities.people.devices import Devices
from apns_live.activities.people.directory import Directory
from apns_live.activities.people.people import People
from apns_live.activities.people.records import DeviceRecord, TokenRecord
from apns_live.activities.send.results import Batch, write
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import Sealer, new_key
from apns_live.activities.store.upgrade import upgrade
from apns_live.errors import ActivitiesError, InvalidInput, InvalidToken, NotFound, StoreError
from apns_live.payload import StartToken
from apns_live.testing.clock import SimulatedClock
from tests.activities.plans import every_query_indexed

T0 = 1_700_000_000_000
A, B = "aa" * 32, "bb" * 80


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def apps(database: Database, clock: SimulatedClock) -> Apps:
    numbers = itertools.count(1)
    return Apps(database, Sealer(new_key()), clock, lambda: f"app-{next(numbers)}")


@pytest.fixture
async def app(apps: Apps) -> App:
    return await apps.create(name="Scores", bundle_id="com.example.scores", environment="sandbox")


@pytest.fixture
def devices(database: Database, clock: SimulatedClock) -> Devices:
    return Devices(Core(database, clock))


@pytest.fixture
def people(database: Database, clock: SimulatedClock) -> People:
    return People(Core(database, clock))


def start(device: str, token: str, at: int, scope: str = "Match", **more: object) -> TokenRecord:
    return TokenRecord(
        device=device, kind="start", token=token, registered_at=at, scope=scope, **more
    )


async def living(database: Database) -> dict[tuple[str, str], str]:
    tokens, owners = schema.start_tokens, schema.devices
    async with database.read() as connection:
        rows = await connection.execute(
            select(owners.c.public_id, tokens.c.attributes_type, tokens.c.token)
            .join(owners, owners.c.id == tokens.c.device_id)
            .where(tokens.c.retired_at.is_(None))
        )
        return {(row[0], row[1]): row[2] for row in rows}


async def test_apps_have_settings_and_ids_of_their_own(apps: Apps) -> None:
    app = await apps.create(name="A", bundle_id="com.example.a", id="alpha", settings={"x_a": 1})
    assert (app.id, app.environment, app.settings) == ("alpha", "production", {"x_a": 1})
    assert (await apps.configure(app, {"x_b": 2, "x_a": None})).settings == {"x_b": 2}
    with pytest.raises(InvalidInput, match="taken"):
        await apps.create(name="B", bundle_id="com.example.b", id="alpha")
    with pytest.raises(NotFound, match="beta"):
        await apps.get("beta")
    await apps.create(name="B", bundle_id="com.example.b")
    assert [app.name for app in await apps.list()] == ["A", "B"]


async def test_an_app_opens_its_key_for_an_environment(apps: Apps, app: App, pem: str) -> None:
    with pytest.raises(ActivitiesError, match="no provider key for sandbox"):
        await apps.key(app, "sandbox")
    await apps.add_key(app, pem, key_id="ABC123DEFG", team_id="DEF123GHIJ", environment="any")
    assert (await apps.key(app, "sandbox")).key_id == "ABC123DEFG"
    await apps.add_key(app, pem, key_id="XYZ123DEFG", team_id="DEF123GHIJ", environment="sandbox")
    assert (await apps.key(app, "sandbox")).key_id == "XYZ123DEFG"
    assert (await apps.key(app, "production")).key_id == "ABC123DEFG"
    await apps.add_key(app, pem, key_id="XYZ123DEFG", team_id="DEF123GHIJ", environment="sandbox")
    assert (await apps.key(app, "sandbox")).key_id == "XYZ123DEFG"


async def test_a_key_does_not_open_with_another_sealing_key(
    apps: Apps, app: App, pem: str, database: Database, clock: SimulatedClock
) -> None:
    await apps.add_key(app, pem, key_id="ABC123DEFG", team_id="DEF123GHIJ", environment="any")
    others = Apps(database, Sealer(new_key()), clock, lambda: "x")
    with pytest.raises(StoreError, match="does not open"):
        await others.key(app, "sandbox")
    async with database.read() as connection:
        stored = (await connection.execute(select(schema.credentials.c.sealed_key))).scalar_one()
    assert b"PRIVATE" not in stored


async def test_what_was_not_told_stays(devices: Devices, app: App) -> None:
    await devices.tell(
        app, [DeviceRecord(id="d1", language="de", country="at", app_version="1.10", user="u1")]
    )
    await devices.tell(app, [DeviceRecord(id="d1", push_enabled=False), DeviceRecord(id="d2")])
    known = await devices.get(app, "d1")
    assert (known["language"], known["country"], known["user"]) == ("de", "AT", "u1")
    assert known["push_enabled"] is False
    assert (await devices.get(app, "d2"))["push_enabled"] is True
    with pytest.raises(NotFound):
        await devices.get(app, "d3")
    await devices.forget(app, "d1")
    with pytest.raises(NotFound):
        await devices.get(app, "d1")


async def test_one_wrong_record_stores_nothing(
    devices: Devices, app: App, database: Database
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await devices.tell(app, [DeviceRecord(id="d1"), DeviceRecord(id="d2", latitude=91.0)])
    assert caught.value.field == "devices[1].latitude"
    with pytest.raises(InvalidToken) as caught:
        await devices.register(app, [start("d1", A, T0), start("d2", "not hex", T0)])
    assert caught.value.field == "tokens[1].token"
    async with database.read() as connection:
        for table in (schema.devices, schema.start_tokens, schema.users):
            assert (await connection.execute(select(func.count()).select_from(table))).scalar() == 0


async def test_a_late_old_token_never_replaces_a_newer_one(
    devices: Devices, app: App, database: Database
) -> None:
    await devices.register(app, [start("d1", B, T0 + 10)])
    await devices.register(app, [start("d1", A, T0)])
    assert await living(database) == {("d1", "Match"): B}
    await devices.register(app, [start("d1", A, T0 + 20), start("d1", B, T0 + 15)])
    assert await living(database) == {("d1", "Match"): A}


async def test_start_tokens_are_one_per_type_and_environment(
    devices: Devices, app: App, database: Database
) -> None:
    await devices.register(
        app,
        [
            start("d1", A, T0),
            start("d1", A, T0, scope="Ride"),
            start("d1", B, T0, environment="production"),
        ],
    )
    async with database.read() as connection:
        rows = (
            await connection.execute(
                select(schema.start_tokens.c.environment, schema.start_tokens.c.attributes_type)
            )
        ).all()
    assert sorted(map(tuple, rows)) == [
        ("production", "Match"),
        ("sandbox", "Match"),
        ("sandbox", "Ride"),
    ]


async def test_a_410_retires_only_what_was_registered_before(
    devices: Devices, app: App, database: Database
) -> None:
    await devices.register(app, [start("d1", A, T0 + 50), start("d2", B, T0)])
    async with database.write() as connection:
        refused = [(app.row, token, T0 + 49, "Unregistered") for token in (A, B)]
        await write(connection, Batch(refused_starts=refused), now=T0 + 55)
    assert await living(database) == {("d1", "Match"): A}
    # Told again with the old time it stays retired; registered after the 410 it lives again.
    await devices.register(app, [start("d2", B, T0)])
    assert await living(database) == {("d1", "Match"): A}
    await devices.register(app, [start("d2", B, T0 + 60)])
    assert await living(database) == {("d1", "Match"): A, ("d2", "Match"): B}


async def test_a_token_that_moves_to_another_device_leaves_the_old_one(
    devices: Devices, app: App, database: Database
) -> None:
    await devices.register(app, [start("old", A, T0)])
    await devices.register(app, [start("new", A, T0 + 1)])
    assert await living(database) == {("new", "Match"): A}
    await devices.register(app, [start("old", A, T0)])  # a late repeat of the first call
    assert await living(database) == {("new", "Match"): A}


async def test_a_registration_from_the_future_is_cut_to_now(
    devices: Devices, app: App, database: Database, clock: SimulatedClock
) -> None:
    now = int(clock.time() * 1000)
    await devices.register(app, [start("d1", A, now + 10**9)])
    clock.advance_sync(5)
    await devices.register(app, [start("d1", B, now + 5000)])
    assert await living(database) == {("d1", "Match"): B}


async def test_a_withdrawn_token_is_not_used(
    devices: Devices, app: App, database: Database
) -> None:
    await devices.register(app, [start("d1", A, T0), start("d1", A, T0, scope="Ride")])
    assert await devices.withdraw(app, "d1", "Match") is True
    assert await devices.withdraw(app, "d1", "Match") is False
    assert await living(database) == {("d1", "Ride"): A}


async def test_apps_do_not_see_each_other(
    apps: Apps, app: App, devices: Devices, people: People, database: Database
) -> None:
    other = await apps.create(name="Other", bundle_id="com.example.other")
    await devices.register(app, [start("d1", A, T0)])
    await devices.register(other, [start("d1", A, T0 + 5)])
    assert list((await living(database)).values()) == [A]  # keyed alike, so look at the count
    async with database.write() as connection:
        refused = [(other.row, A, T0 + 10, "Unregistered")]
        await write(connection, Batch(refused_starts=refused), now=T0 + 10)
    assert (await devices.get(app, "d1"))["start_tokens"]
    assert not (await devices.get(other, "d1"))["start_tokens"]
    with pytest.raises(NotFound):
        await people.set_tags(other, "user", "u1", {"a": "b"})
    assert A not in str(await devices.get(app, "d1"))


async def test_users_aliases_tags_and_groups(people: People, devices: Devices, app: App) -> None:
    first = await people.add_user(app, "u1", aliases={"crm": "7"})
    assert first == await people.add_user(app, "u1")
    await people.add_user(app, "u2", aliases={"crm": "7"})
    await people.set_tags(app, "user", "u1", {"team": "red", "level": 12})
    await people.set_tags(app, "user", "u1", {"team": ""})
    await people.set_attributes(app, "user", "u1", {"likes": ["a", "b"], "vip": True})
    await devices.tell(app, [DeviceRecord(id="d1")])
    assert await people.move_devices(app, ["d1", "none"], "u1") == 1
    assert (await devices.get(app, "d1"))["user"] == "u1"
    await people.add_group(app, "staff", name="Staff")
    await people.add_group(app, "staff")
    assert (await Directory(people.core).group(app, "staff"))["name"] == "Staff"
    for _ in range(2):
        await people.join_group(app, "staff", "device", "d1")
    await people.leave_group(app, "staff", "device", "d1")
    with pytest.raises(NotFound, match="nowhere"):
        await people.join_group(app, "nowhere", "device", "d1")
    with pytest.raises(NotFound, match="u9"):
        await people.join_group(app, "staff", "user", "u9")
    await people.forget_user(app, "u1")
    assert (await devices.get(app, "d1"))["user"] is None


@pytest.mark.parametrize(
    "aliases", [{"external_id": "x"}, {"onesignal_id": "x"}, {"a": ""}, {"": "x"}]
)
async def test_bad_aliases(people: People, app: App, aliases: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        await people.add_user(app, "u1", aliases=aliases)


@pytest.mark.parametrize(
    "attributes",
    [
        {"x": object()},
        {"x": float("nan")},
        {"x": {"nested": 1}},
        {"x": [[1]]},
        {"x": [True]},
        {"x": "y" * 1025},
        {"": 1},
        {"x": 10**400},
    ],
)
async def test_bad_attributes(people: People, app: App, attributes: dict[str, object]) -> None:
    await people.add_user(app, "u1")
    with pytest.raises(InvalidInput) as caught:
        await people.set_attributes(app, "user", "u1", attributes)
    assert caught.value.field.startswith("attributes")


REGISTRATIONS = st.lists(
    st.tuples(st.sampled_from(["d1", "d2"]), st.sampled_from([A, B, "cc" * 32]), st.integers(0, 9)),
    min_size=1,
    max_size=8,
    unique_by=lambda entry: entry[2],
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(REGISTRATIONS, st.randoms(use_true_random=False))
async def test_the_order_of_calls_does_not_matter(tmp_path_factory, registrations, random) -> None:
    """Whatever the order: newest token a device, one device a token, the last one told lives."""
    path = tmp_path_factory.mktemp("order") / "s.db"
    async with Database.open(path) as database:
        await upgrade(database)
        apps = Apps(database, Sealer(new_key()), SimulatedClock(), lambda: "app")
        app = await apps.create(name="A", bundle_id="com.example.a")
        devices = Devices(Core(database, SimulatedClock()))
        shuffled = list(registrations)
        random.shuffle(shuffled)
        for device, token, at in shuffled:
            await devices.register(app, [start(device, token, T0 + at)])
        newest: dict[str, tuple[int, str]] = {}
        for device, token, at in registrations:
            newest[device] = max(newest.get(device, (-1, "")), (at, token))
        alive = await living(database)
        assert len(set(alive.values())) == len(alive)
        for (device, _), token in alive.items():
            assert token == newest[device][1]
        last = max(newest, key=lambda name: newest[name][0])
        assert alive[last, "Match"] == newest[last][1]
        # A device is without a token only if the token moved away at a later time.
        for device, (at, token) in newest.items():
            if (device, "Match") not in alive:
                assert any(t == token and when > at for d, t, when in registrations if d != device)


async def test_typed_tokens_are_tokens(devices: Devices, app: App) -> None:
    record = TokenRecord(
        device="phone", kind="start", token=StartToken(A), registered_at=T0, scope="Match"
    )
    assert await devices.register(app, [record]) == 1


async def test_a_registration_looks_up_its_own_tokens_alone(
    database: Database, app: App, devices: Devices
) -> None:
    """Along the index of everyone who can be started, each token would read all tokens of the app.

    PostgreSQL chooses by what it knows of the rows, of which there are none here.
    """
    everyone: set[str] = set()
    if database.is_sqlite:
        everyone = {
            "ix_start_tokens_app_id_attributes_type_retired_at_id",
            "ix_device_tokens_app_id_environment_retired_at_id",
        }
    plain = TokenRecord(device="d2", kind="device", token=B, registered_at=T0)
    async with every_query_indexed(database, without=everyone):
        await devices.register(app, [start("d1", A, T0), plain])
        await devices.register(app, [start("d2", A, T0 + 1)])
    assert await living(database) == {("d2", "Match"): A}
