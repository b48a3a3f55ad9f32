"""PostgreSQL is told of tables that grow, in time and not too often."""

from sqlalchemy import event

from apns_live.activities.apps import Apps
from apns_live.activities.core import Core
from apns_live.activities.people.devices import Devices
from apns_live.activities.people.records import DeviceRecord
from apns_live.activities.store.database import Database, Growth, analyse_outgrown
from apns_live.activities.store.sealing import Sealer, new_key
from apns_live.testing.clock import SimulatedClock


async def fill(database: Database, begin: int, count: int) -> None:
    clock = SimulatedClock()
    apps = Apps(database, Sealer(new_key()), clock, lambda: "app-1")
    app = (await apps.list() or [await apps.create(name="A", bundle_id="com.example.a")])[0]
    devices = Devices(Core(database, clock))
    async with database.write() as connection:
        await devices.tell_within(
            connection, app, [DeviceRecord(id=f"d{n}") for n in range(begin, begin + count)]
        )


async def test_a_table_that_has_doubled_is_looked_at_once(database: Database) -> None:
    await fill(database, 0, 1_000)
    if database.is_sqlite:
        return
    assert await analyse_outgrown(database) == ["devices"]
    assert await analyse_outgrown(database) == []
    await fill(database, 1_000, 100)
    assert await analyse_outgrown(database) == []
    await fill(database, 2_000, 2_000)
    assert await analyse_outgrown(database) == ["devices"]


async def test_a_writer_looks_ever_more_seldom(database: Database) -> None:
    looked: list[str] = []

    @event.listens_for(database._reader.sync_engine, "before_cursor_execute")
    def note(*details: object) -> None:
        looked.append(str(details[2]))

    growth = Growth(database)
    await growth.stored(999)
    assert looked == []
    for _ in range(64):
        await growth.stored(1_000)
    assert len([one for one in looked if "relpages" in one]) == (0 if database.is_sqlite else 7)
