"""Bad input for every write: refused with field, reason and remedy, and nothing half-written.

For each room a table of calls. The whole store is dumped before and after each call.
"""

from __future__ import annotations

import pytest

from apns_live.activities.store.database import Database
from apns_live.errors import InvalidInput
from tests.activities.bad_calls import Entry, World
from tests.activities.bad_records import APP, AUDIENCE, DEVICE, IMPORT, PEOPLE, RECEIPT, TOKEN
from tests.activities.bad_sends import CHANGE, START, STREAM

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
