"""Registers activity tokens, newest first, and devices that leave an activity.

A token belongs to one activity on one device. The newest registration wins by the phone's time, so the
order of calls does not matter. If the activity's id is unknown, the app started it itself; the activity
is then created without a state.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .. import checks
from ..apps import App
from ..core import Core, Evicted, Part
from ..finding import find_id, hold_activities, id_named
from ..people.devices import Devices, Guard, Registration, admitted, checked_tokens, newest
from ..people.records import TokenRecord
from ..people.suspects import note_answers
from ..requests import Member
from ..store import schema
from ..store.commit import Batch
from ..store.ownership import partition_of
from ..store.statements import chunks, in_turns, insert_into, rows_of, with_rows

_GIVEN = "{app, activity, device, token TEXT, environment TEXT, registered, card TEXT}"
# True for the token of a second card, not for a new token of the first card. Where the app tells no card id, the
# time of registration decides.
_SECOND = """known.handed_over_at IS NOT NULL AND known.token <> excluded.token
        AND excluded.registered_at > known.handed_over_at - 60000
        AND COALESCE(known.card <> excluded.card, true)"""
_ALIVE = """COALESCE(known.retired_reason, '') <> 'limit' AND (known.token IS NULL
        OR known.token <> excluded.token OR excluded.registered_at > known.retired_at)"""
_REGISTER = f"""
INSERT INTO activity_devices AS known
    (app_id, activity_id, device_id, token, environment, registered_at, joined_at, card)
SELECT app, activity, device, token, environment, registered, :now, card
FROM {_GIVEN} WHERE true
ON CONFLICT (activity_id, device_id) DO UPDATE SET
    token = excluded.token,
    card = CASE WHEN known.token = excluded.token THEN COALESCE(excluded.card, known.card)
        ELSE excluded.card END,
    environment = excluded.environment,
    registered_at = excluded.registered_at,
    retired_at = CASE WHEN {_ALIVE} THEN NULL ELSE known.retired_at END,
    retired_reason = CASE WHEN {_ALIVE} THEN NULL ELSE known.retired_reason END,
    -- An app registers cards that are shown, so an ended one has missed its end.
    acknowledged_version = CASE WHEN {_SECOND} THEN known.handed_over_version
        WHEN known.token <> excluded.token
        OR (known.retired_reason = 'ended' AND excluded.registered_at > known.retired_at)
        THEN 0 ELSE known.acknowledged_version END,
    sent_version = CASE WHEN known.token IS NULL OR known.token = excluded.token
        THEN known.sent_version ELSE 0 END,
    replaced_token = CASE WHEN {_SECOND} THEN known.token
        ELSE known.replaced_token END,
    replaced_card = CASE WHEN {_SECOND} THEN known.card
        ELSE known.replaced_card END,
    replaced_at = CASE WHEN {_SECOND} THEN CAST(:now AS BIGINT) ELSE known.replaced_at END,
    replaced_ending_at = CASE WHEN {_SECOND} AND known.retired_at IS NULL
        THEN CAST(:now AS BIGINT) ELSE known.replaced_ending_at END,
    started_at = CASE WHEN {_SECOND} THEN known.handed_over_at ELSE known.started_at END,
    handed_over_at = CASE WHEN {_SECOND} THEN NULL ELSE known.handed_over_at END
WHERE (known.registered_at IS NULL OR excluded.registered_at > known.registered_at OR ({_SECOND})
    OR (excluded.registered_at = known.registered_at AND excluded.token <> known.token))
    -- The app may register the first card again while it is being ended.
    AND (known.replaced_token IS NULL OR known.replaced_token <> excluded.token)
    AND COALESCE(known.replaced_card <> excluded.card, true)
"""  # noqa: S608

# The card to be ended has a new token; its end was sent to the old one.
_STILL_THERE = f"""
UPDATE activity_devices SET replaced_token = given.token, replaced_ending_at = :now
FROM {_GIVEN}
WHERE activity_devices.activity_id = given.activity
    AND activity_devices.device_id = given.device
    AND activity_devices.replaced_card = given.card
    AND activity_devices.replaced_token <> given.token
    AND given.registered > activity_devices.replaced_at - 60000
"""  # noqa: S608

_STANDING = f"""
SELECT known.activity_id, known.device_id, known.token, known.environment,
    known.acknowledged_version, devices.language, devices.frequent_updates, known.retired_at,
    known.replaced_ending_at, known.by_channel,
    EXISTS (SELECT 1 FROM start_tokens WHERE start_tokens.device_id = known.device_id
        AND start_tokens.unanswered > 0) AS was_silent
FROM {_GIVEN}
JOIN activity_devices AS known
    ON known.activity_id = given.activity AND known.device_id = given.device
JOIN devices ON devices.id = known.device_id
WHERE known.token IS NOT NULL
"""  # noqa: S608

_MOVED = f"""
UPDATE activity_devices SET retired_at = given.registered, retired_reason = 'moved'
FROM {_GIVEN}
WHERE activity_devices.app_id = given.app AND activity_devices.token = given.token
    AND activity_devices.retired_at IS NULL
    AND activity_devices.registered_at <= given.registered
    AND NOT (activity_devices.activity_id = given.activity
        AND activity_devices.device_id = given.device)
RETURNING activity_devices.activity_id, activity_devices.token
"""  # noqa: S608


_TOGETHER = 1_000
"""Registrations that share statements."""


class _Turn(msgspec.Struct, frozen=True):
    """Changes by registrations of one app. A place is the rows of an activity and a device."""

    app: App
    versions: dict[int, int]
    after: dict[tuple[int, int], Row[Any]]
    left: list[tuple[int, str]]
    evicted: Sequence[Evicted]


class Joining(Part):
    """Registers activity tokens."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._devices = Devices(core)
        self._registrations: Batch[Registration, list[_Turn]] = Batch(self._together, self._tell)

    async def register_activity_tokens(
        self,
        app: App,
        records: Iterable[TokenRecord],
        *,
        attributes_type: str = "",
        guard: Guard | None = None,
    ) -> int:
        """Store activity tokens and send their devices the newest state; return how many.

        The ``scope`` of a record is the activity's id. An unknown id is added as an activity that the
        app started itself, of ``attributes_type``. A token that arrives after the end gets the
        end. Raises `InvalidInput`, and stores nothing, if one record is wrong.
        """
        checked = checked_tokens(records, self.now, of_activities=True)
        if attributes_type:
            checks.attributes_type(attributes_type, "attributes_type")
        for part in chunks(checked, _TOGETHER):
            item = Registration(app, part, guard, attributes_type)
            await self.core.commits.run_with(self._registrations, item)
        return len(checked)

    async def _together(
        self, connection: AsyncConnection, items: Sequence[Registration]
    ) -> Sequence[list[_Turn] | Exception]:
        """Store the registrations of many calls with a few statements for each app. See `GroupCommit`."""
        refusals, by_app = await admitted(connection, items)
        turns: list[tuple[App, list[TokenRecord], dict[str, str]]] = []
        scopes: dict[int, dict[str, str]] = {}
        for some in by_app:
            app, records = some[0].app, [record for item in some for record in item.records]
            types = scopes[app.row] = {
                record.scope: item.attributes_type
                for item in reversed(some)
                for record in item.records
            }
            latest = newest(records, lambda one: (one.scope, one.device, one.card))
            # The later registration of a token wins, and a device may have two cards of one activity.
            turns += [
                (app, turn, types)
                for once_each in in_turns(latest, lambda one: one.token, _TOGETHER)
                for turn in in_turns(once_each, lambda one: (one.scope, one.device), _TOGETHER)
            ]
        if len(turns) > 1:
            await hold_activities(connection, scopes)
        now = self.now
        stored: list[_Turn] = []
        came: dict[int, bool] = {}
        for app, records, types in turns:
            done = await self._register(connection, app, records, types, now)
            stored.append(done)
            for (activity, _), known in done.after.items():
                behind = known.acknowledged_version < done.versions[activity]
                came[activity] = came.get(activity, False) or behind
        await self.core.hooks.note_tokens(connection, came)
        return [stored if refusal is None else refusal for refusal in refusals]

    async def _register(
        self,
        connection: AsyncConnection,
        app: App,
        records: Sequence[TokenRecord],
        types: Mapping[str, str],
        now: int,
    ) -> _Turn:
        devices = await self._devices.rows(connection, app, [record.device for record in records])
        activities = await self._activities(connection, app, records, types, now)
        rows = []
        for record in records:
            of = activities[record.scope]
            place = (app.row, of.id, devices[record.device], record.token)
            environment = record.environment or of.environment
            rows.append([*place, environment, record.registered_at, record.card])
        rows.sort(key=lambda row: (row[1], row[2]))  # all writers lock in this order
        before = await _standing(connection, rows)
        await with_rows(connection, _REGISTER, rows, now=now)
        if any(record.card is not None for record in records):
            await with_rows(connection, _STILL_THERE, rows, now=now)
        moved = (await with_rows(connection, _MOVED, rows)).all()
        after = await _standing(connection, rows)
        silent = [place for place, known in after.items() if known.was_silent]
        await note_answers(connection, silent, now)
        new = [place for place in after if place not in before]
        evicted = await self.core.hooks.evict(connection, app, new, now)
        versions = {row.id: row.version for row in activities.values()}
        left = [(gone.activity_id, gone.token) for gone in moved]
        left += [
            (place[0], known.token)
            for place, known in before.items()
            if known.token != after[place].token
        ]
        return _Turn(app, versions, after, left, evicted)

    def _tell(self, answers: Sequence[list[_Turn]]) -> None:
        """Notify the sender of what was stored; ``answers`` may hold the same turn many times."""
        for turn in {id(turn): turn for stored in answers for turn in stored}.values():
            self.core.hooks.evicted(turn.evicted)
            if any(
                known.retired_at is not None or known.replaced_ending_at is not None
                for known in turn.after.values()
            ):
                self.core.hooks.owes_end()
            for activity, token in turn.left:
                self.core.hooks.left(activity, token)
            joined: dict[int, list[Member]] = {}
            for (activity, device), known in turn.after.items():
                if known.retired_at is None and not known.by_channel:
                    told = (known.token, known.environment, known.acknowledged_version)
                    frequent = known.frequent_updates
                    frequent = None if frequent is None else bool(frequent)
                    member = Member(device, *told, known.language, frequent)
                    joined.setdefault(activity, []).append(member)
            for activity, members in joined.items():
                self.core.hooks.joined(turn.app, activity, turn.versions[activity], members)

    async def _activities(
        self,
        connection: AsyncConnection,
        app: App,
        records: Sequence[TokenRecord],
        types: Mapping[str, str],
        now: int,
    ) -> dict[str, Row[Any]]:
        """Return the activities by id, locked against concurrent changes."""
        environments: dict[str, str | None] = {}
        for record in records:
            environments.setdefault(record.scope, record.environment)
        found = await _find(connection, app, list(environments))
        missing = sorted(public_id for public_id in environments if public_id not in found)
        if missing:
            common = {"app_id": app.row, "version": 0, "status": "active"}
            common |= dict.fromkeys(("attributes", "content_state"), "{}")
            common |= dict.fromkeys(("started_at", "created_at", "updated_at"), now)
            new = [
                {
                    **common,
                    "public_id": public_id,
                    "partition": partition_of(app.row, public_id),
                    "attributes_type": types[public_id],
                    "environment": environments[public_id] or app.environment,
                }
                for public_id in missing
            ]
            statement = insert_into(connection, schema.activities).on_conflict_do_nothing()
            await connection.execute(statement, new)
            found |= await _find(connection, app, missing)
        return found

    async def leave(
        self, app: App, activity: str, device: str, *, guard: Guard | None = None
    ) -> bool:
        """Stop updating an activity on a device; return whether the device was following it.

        Raises `NotFound` when there is no such activity.
        """
        members = schema.activity_devices
        async with self.database.write() as connection:
            if guard is not None:
                await guard(connection)
            row = await find_id(connection, app, schema.activities, activity)
            owner = id_named(app, schema.devices, device)
            place = (members.c.activity_id == row, members.c.device_id == owner)
            leaving = update(members).where(*place, members.c.retired_at.is_(None))
            gone = leaving.values(retired_at=self.now, retired_reason="left")
            tokens = (await connection.scalars(gone.returning(members.c.token))).all()
        for token in tokens:
            if token is not None:
                self.core.hooks.left(row, token)
        return bool(tokens)


async def _find(connection: AsyncConnection, app: App, ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Return activities by id, locked in the order of their rows, as all writers lock them."""
    table = schema.activities
    query = select(table.c.id, table.c.public_id, table.c.version, table.c.environment)
    query = query.where(table.c.app_id == app.row, table.c.public_id.in_(ids))
    rows = await rows_of(connection, query.order_by(table.c.id).with_for_update(read=True))
    return {row.public_id: row for row in rows}


async def _standing(
    connection: AsyncConnection, rows: Sequence[Sequence[object]]
) -> dict[tuple[int, int], Row[Any]]:
    found = await with_rows(connection, _STANDING, rows)
    return {(row.activity_id, row.device_id): row for row in found}
