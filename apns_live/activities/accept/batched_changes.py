"""Stores many updates and ends of activities in one transaction, with few statements.

This is the most frequent write of the service. A change costs its share of three statements and the
encoding of its state. Several changes of one activity in a group are several versions, but the row
is written once, with the newest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Integer, Row, and_, bindparam, case, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import ActivityEnded, InvalidPayload, NotFound
from .. import checks, observed
from ..apps import App
from ..core import Core
from ..decodes import check_decodes
from ..finding import hold_activities
from ..people.devices import AppVersions
from ..requests import Accepted, End, Update
from ..requests.messages import broadcast_warning, planned_end
from ..requests.validate import checked_change
from ..store import schema
from ..store.commit import Batch
from ..store.statements import json_text, with_rows
from .idempotency import Key, Once, Writer, Writing

_COUNT_KEPT_ABOVE = 2_000
_COUNT_KEPT_SECONDS = 2.0
_COUNTS_KEPT = 1_000

_activities = schema.activities
_members = schema.activity_devices
# Most activities have few devices, which are counted in this query. Large ones are counted by `_COUNT`.
_FEW = f"""(SELECT count(token) FROM (SELECT token FROM activity_devices
    WHERE activity_id = activities.id AND retired_at IS NULL LIMIT {_COUNT_KEPT_ABOVE + 1}) AS few)"""  # noqa: S608
_FOLLOWING = (
    "CASE WHEN channel_id IS NULL THEN 0 ELSE "
    + _FEW.replace(
        "SELECT token", "SELECT CASE WHEN by_channel AND token IS NULL THEN '' END AS token"
    )
    + " END"
)
_STANDING = (
    "id", "public_id", "version", "revision", "status", "end_reason", "update_count", "channel_id",
    "partition", "attributes_type",
)  # fmt: skip
_READ = select(
    literal_column(_FEW).label("reached"),
    literal_column(_FEW.replace("(token)", "(*)")).label("living"),
    literal_column(_FOLLOWING).label("following"),
    *(_activities.c[name] for name in _STANDING),
).where(
    _activities.c.app_id == bindparam("app"),
    _activities.c.public_id.in_(bindparam("ids", expanding=True)),
)
# In the order of their rows: two processes that lock the same rows cannot wait in a circle.
_READ_LOCKED = _READ.order_by(_activities.c.id).with_for_update()
_COUNT = (
    select(
        _members.c.activity_id,
        func.count(_members.c.token),
        func.count(_members.c.id),
        func.count(case((and_(_members.c.by_channel, _members.c.token.is_(None)), 1))),
    )
    .where(
        _members.c.activity_id.in_(bindparam("rows", expanding=True)),
        _members.c.retired_at.is_(None),
    )
    .group_by(_members.c.activity_id)
)
_TEXTS = ("public_id", "kind", "caller", "dialect", "status", "request")
# The values are given in this order.
_OPERATION = (
    "app_id", "public_id", "kind", "activity_id", "version", "caller", "dialect", "status",
    "request", "created_at", "targeted", "queued", "partition",
)  # fmt: skip
_ADD_OPERATIONS = f"""
INSERT INTO operations ({", ".join(_OPERATION)})
SELECT {", ".join(f"given.{name}" for name in _OPERATION)}
FROM {{{", ".join(name + " TEXT" * (name in _TEXTS) for name in _OPERATION)}}} WHERE true
ORDER BY given.version
"""  # noqa: S608 - names of columns


_Reached = tuple[int, int, int]
"""Devices with a token, on the channel, and without a token yet."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """A checked update or end. ``now`` is milliseconds since 1970."""

    app: App
    request: Update | End
    now: int
    caller: str = ""


class Changed(msgspec.Struct, frozen=True, gc=False):
    """The result of a change. ``row`` is the activity's; ``written`` is True if there is something to send."""

    app: App
    row: int
    answer: Accepted
    written: bool


@dataclass(slots=True, eq=False)
class _Standing:
    """An activity within the group: the row that was read, and the values to write."""

    read: Any
    changes: dict[str, Any] = field(default_factory=dict)

    def now(self, name: str) -> Any:
        """Return the value of a column after the changes so far."""
        return self.changes[name] if name in self.changes else getattr(self.read, name)

    def is_called_off(self) -> bool:
        """Return True if the activity was scheduled and ends before its start."""
        return bool(self.read.status == "scheduled" and self.now("status") == "ended")


class Changes(Writer):
    """Accepts updates and ends of activities."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.versions = AppVersions(core)
        """Tells which of an app's contracts its devices use."""
        self._batch: Batch[Change, Changed] = Batch(self._together, self._tell)
        self._counts: dict[int, tuple[float, _Reached]] = {}

    async def update(self, app: App, request: Update, *, key: Key | None = None) -> Once[Accepted]:
        """Accept a new state.

        Raises `InvalidInput`, `InvalidPayload`, `NotFound`, or `ActivityEnded`.
        """
        return await self._write(app, checked_change(request, self.clock.time()), key)

    async def end(self, app: App, request: End, *, key: Key | None = None) -> Once[Accepted]:
        """Accept an end; it is ``ignored`` if the activity has already ended.

        Raises `InvalidInput`, `InvalidPayload` or `NotFound`.
        """
        return await self._write(app, checked_change(request, self.clock.time()), key)

    async def change_within(
        self, writing: Writing, row: Row[Any], request: Update | End
    ) -> Accepted:
        """Store the next version of a living activity inside the caller's transaction.

        The row is locked. Raises `InvalidPayload` for a state that the app cannot decode.
        """
        change = Change(writing.app, request, writing.now, writing.caller)
        return _answer(
            await self._store(writing.connection, [change], [_Standing(row)], wanted=True)
        ).answer

    async def _write(self, app: App, request: Update | End, key: Key | None) -> Once[Accepted]:
        now = self.now
        checks.identifier(request.id, "id")
        app = await self.versions.in_use(app)
        if key is None:
            changed = await self.core.commits.run_with(self._batch, Change(app, request, now))
            observed.accepted(changed.answer.operation)
            return Once(changed.answer, replayed=False)

        async def work(writing: Writing) -> Accepted:
            change = Change(app, request, now, writing.caller)
            done = _answer(await self._together(writing.connection, [change]))
            writing.rows += [done.row] if done.written else []
            return done.answer

        return await self.once(app, key, request, Accepted, work)

    def _tell(self, changes: Sequence[Changed]) -> None:
        for change in changes:
            if change.written:
                self.written(change.app, change.row)

    async def _together(
        self, connection: AsyncConnection, items: Sequence[Change]
    ) -> Sequence[Changed | Exception]:
        """Store every valid change; return a result or an error for each. See `GroupCommit`."""
        standing = await _read(connection, items)
        found = [standing.get((item.app.row, item.request.id)) for item in items]
        return await self._store(connection, items, found)

    async def _store(
        self,
        connection: AsyncConnection,
        items: Sequence[Change],
        standing: Sequence[_Standing | None],
        *,
        wanted: bool = False,
    ) -> list[Changed | Exception]:
        """Store changes of known activities; with ``wanted`` also one of an old revision."""
        answers: dict[int, Changed | Exception] = {}
        operations: list[tuple[int, _Standing, dict[str, Any]]] = []
        for index, (item, found) in enumerate(zip(items, standing, strict=True)):
            if found is None:
                answers[index] = NotFound(
                    f"the app {item.app.id!r} has no activity {item.request.id!r}: start it first"
                )
                continue
            answer = None if wanted else _refused(found, item)
            state, settings = item.request.content_state, item.app.settings
            try:
                if answer is None:
                    check_decodes(settings, found.read.attributes_type, state)
            except InvalidPayload as error:
                answer = error
            if answer is not None:
                answers[index] = answer
            else:
                operations.append((index, found, self._change(found, item)))
        changed = list(dict.fromkeys(found for _, found, _ in operations))
        await _write(connection, changed)
        counts = await self._reached(connection, changed)
        for index, found, operation in operations:
            item, channel = items[index], found.read.channel_id
            tokens, following, queued = counts[found.read.id]
            devices = tokens + following
            # One push serves all devices on the channel; each other device gets its own push.
            operation["targeted"] = tokens + queued + (channel is not None)
            operation["queued"] = queued
            accepted = Accepted(
                operation=operation["public_id"],
                activity=found.read.public_id,
                status="accepted",
                version=operation["version"],
                devices=devices,
                queued=queued,
                warning=broadcast_warning(item.app, channel, item.request.presentation.alert),
            )
            answers[index] = Changed(item.app, found.read.id, accepted, written=True)
        if operations:
            rows = [[values[name] for name in _OPERATION] for _, _, values in operations]
            await with_rows(connection, _ADD_OPERATIONS, rows)
        if called_off := [found for found in changed if found.is_called_off()]:
            # These operations belong to scheduled starts that will not be sent.
            table = schema.operations
            theirs = table.c.activity_id.in_([found.read.id for found in called_off])
            closed = {"status": "superseded", "finished_at": called_off[0].changes["ended_at"]}
            scheduled = update(table).where(theirs, table.c.status == "scheduled")
            await connection.execute(scheduled.values(closed))
        return [answers[index] for index in range(len(items))]

    def _change(self, found: _Standing, item: Change) -> dict[str, Any]:
        """Add a change to what will be written; return its operation."""
        request, now = item.request, item.now
        ends = isinstance(request, End)
        presentation = json_text(request.presentation)
        changes, version = found.changes, found.now("version") + 1
        changes["update_count"] = found.now("update_count") + (not ends)
        changes |= {"version": version, "message": presentation, "updated_at": now}
        if request.revision is not None:
            changes["revision"] = request.revision
        for name in ("content_state", "tags", "metadata"):
            if (value := getattr(request, name)) is not None:
                changes[name] = json_text(value)
        if isinstance(request, Update):
            changes |= planned_end(request)
        else:
            changes |= {"status": "ended", "ended_at": now, "end_reason": request.reason}
            if found.is_called_off():
                changes["retired_at"] = now
        return {
            "app_id": item.app.row,
            "public_id": request.operation or self.core.new_id(),
            "kind": "end" if ends else "update",
            "activity_id": found.read.id,
            "version": version,
            "caller": item.caller,
            "dialect": request.dialect,
            # Updates before a scheduled start are sent with it.
            "status": "scheduled" if found.now("status") == "scheduled" else "accepted",
            # Kept for its alert, which must ring even if a newer state replaces this one.
            "request": presentation,
            "created_at": now,
            "partition": found.read.partition,
        }

    async def _reached(
        self, connection: AsyncConnection, changed: Sequence[_Standing]
    ) -> dict[int, _Reached]:
        """Count the devices with a token, on the channel, and without a token yet, by activity.

        For an activity with thousands of devices the figures may be two seconds old: counting them
        for every update would cost more than the update.
        """
        now = self.clock.monotonic()
        counts: dict[int, _Reached] = {}
        ask: list[int] = []
        for found in changed:
            row, living = found.read.id, getattr(found.read, "living", None)
            kept = self._counts.get(row)
            if living is not None and living <= _COUNT_KEPT_ABOVE:
                reached, following = found.read.reached, found.read.following
                counts[row] = reached, following, living - reached - following
            elif kept is not None and kept[0] > now:
                counts[row] = kept[1]
            else:
                self._counts.pop(row, None)
                counts[row] = 0, 0, 0
                ask.append(row)
        if ask:
            for row, reached, living, following in await connection.execute(_COUNT, {"rows": ask}):
                counts[row] = reached, following, living - reached - following
                if living > _COUNT_KEPT_ABOVE and len(self._counts) < _COUNTS_KEPT:
                    self._counts[row] = (now + _COUNT_KEPT_SECONDS, counts[row])
        return counts


def _answer(results: Sequence[Changed | Exception]) -> Changed:
    """Return the result of a single change, or raise its error."""
    [done] = results
    if isinstance(done, Exception):
        raise done
    return done


async def _read(
    connection: AsyncConnection, items: Sequence[Change]
) -> dict[tuple[int, str], _Standing]:
    by_app: dict[int, dict[str, None]] = {}
    for item in items:
        by_app.setdefault(item.app.row, {})[item.request.id] = None
    if len(by_app) > 1:
        await hold_activities(connection, by_app)
    query = _READ if connection.dialect.name == "sqlite" else _READ_LOCKED
    return {
        (app, row.public_id): _Standing(row)
        for app, ids in sorted(by_app.items())
        for row in await connection.execute(query, {"app": app, "ids": list(ids)})
    }


def _refused(found: _Standing, item: Change) -> Changed | Exception | None:
    """Return the answer of a change that writes nothing; None for other changes."""
    request, known, name = item.request, found.now("revision"), found.read.public_id
    if found.now("status") == "ended":
        if not isinstance(request, End):
            reason = found.now("end_reason")
            return ActivityEnded(f"the activity {name!r} has ended ({reason}): start a new one")
        status = "ignored"
    elif request.revision is not None and known is not None and request.revision <= known:
        status = "superseded"
    else:
        return None
    answer = Accepted(operation="", activity=name, status=status, version=found.now("version"))
    return Changed(item.app, found.read.id, answer, written=False)


async def _write(connection: AsyncConnection, changed: Sequence[_Standing]) -> None:
    """Write the rows; those that change the same columns share a statement."""
    by_columns: dict[tuple[str, ...], list[list[Any]]] = {}
    for found in changed:
        columns = tuple(sorted(found.changes))
        row = [found.read.id, *(found.changes[name] for name in columns)]
        by_columns.setdefault(columns, []).append(row)
    for columns, rows in by_columns.items():
        await with_rows(connection, _update(columns), rows)


@lru_cache(maxsize=256)
def _update(columns: tuple[str, ...]) -> str:
    """Return the statement for these columns; there are a few dozen at most."""
    changes = ", ".join(f"{name} = given.new_{name}" for name in columns)
    numbers = (isinstance(_activities.c[name].type, Integer) for name in columns)
    kinds = zip(columns, numbers, strict=True)
    given = "".join(f", new_{name}{'' if number else ' TEXT'}" for name, number in kinds)
    return (
        f"UPDATE activities SET {changes} FROM {{row_id{given}}} WHERE activities.id = given.row_id"  # noqa: S608
    )
