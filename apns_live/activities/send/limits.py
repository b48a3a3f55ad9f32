"""Limits the active cards of an app on one device: beyond the limit an older card is ended.

The activity ends on that device only. The transaction that stores the new start chooses the card to end and
stores the end, so that it is sent also after a crash. The end is sent in parallel with the new start. The
results are in the ended activity's history, as one operation of the kind ``limit`` for all of its devices. A
card on a broadcast channel cannot be ended on one device; it counts toward the limit and stays.

The end of a card after a hand-over is handled in the same way, as an operation of the kind ``hand-over``.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Row, Select, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ... import payload
from ...clock import Clock
from ...errors import InvalidInput, TransportError
from ...outcome import Outcome, Verdict
from ..apps import App, apps_of
from ..requests import Presentation
from ..settings import ServiceSettings
from ..store import schema
from ..store.database import Database
from ..store.failures import STORE_FAILURES
from ..store.ownership import NOT_HELD, NotOwner, Ownership
from ..store.statements import among, hold, insert_into, with_rows
from ..times import milliseconds
from .apns_clients import Carriers, NoKey
from .results import Batch, write

logger = logging.getLogger("apns_live.activities")

PAGE = 2_000
AGAIN = 60.0
"""Seconds until an end that did not arrive is tried again."""
_GIVE_UP = 12 * 3_600_000
"""Milliseconds after which no card can be left."""
_AHEAD = 3
"""Seconds that the end's timestamp is ahead, because updates in flight may be up to two ahead."""
_TRY_AGAIN = 1.0
_OVER = frozenset({Verdict.ACCEPTED, Verdict.DROP_TOKEN, Verdict.FIX_REQUEST})

Evicted = tuple[int, str | None]
"""An activity's row, and a token on which it must end."""

_CROWDED = """
SELECT known.id, known.activity_id, known.device_id, known.token, known.by_channel,
    activities.message,
    COALESCE(known.handed_over_at, known.started_at, known.joined_at, known.registered_at) AS begun
FROM {*device}
JOIN activity_devices AS known ON known.device_id = given.device
JOIN activities ON activities.id = known.activity_id
WHERE known.retired_at IS NULL AND activities.status = 'active' AND :most < (
    SELECT count(*) FROM activity_devices AS other
    JOIN activities AS theirs ON theirs.id = other.activity_id
    WHERE other.device_id = given.device AND other.retired_at IS NULL
        AND theirs.status = 'active')
"""

_END = """
UPDATE activity_devices SET retired_at = :now, retired_reason = 'limit', ending_at = :now
FROM {*id} WHERE activity_devices.id = given.id AND activity_devices.retired_at IS NULL
"""

_OWED = """
UPDATE activity_devices SET DUE = given.next FROM {row_id, token TEXT, next}
WHERE activity_devices.id = given.row_id AND activity_devices.TOKEN = given.token
"""
_KINDS = {
    "limit": ("ending_at", "token", "retired_at"),
    "hand-over": ("replaced_ending_at", "replaced_token", "replaced_at"),
}
"""For each kind of end on a single device: the columns for its due state, its token and its time.
"""


@dataclass(eq=False, repr=False)
class Limits:
    """Keeps each device within its limit.

    ``left`` is called with tokens that get no more updates, ``changed`` with activities whose
    history has grown.

    The limit is the service's, or the app's own (settings ``device_limit`` and
    ``device_limit_ends``).
    """

    database: Database
    clock: Clock
    carriers: Carriers
    settings: ServiceSettings
    ownership: Ownership
    _: KW_ONLY
    left: Callable[[int, str], object]
    changed: Callable[[Iterable[int]], object] = lambda activities: None

    def __post_init__(self) -> None:
        self._woken = asyncio.Event()
        self._woken.set()
        self._sleeping = False
        self.ended = 0
        """Activities that were ended on one device since the start."""

    @property
    def busy(self) -> bool:
        """Whether an end is due now."""
        return self._woken.is_set() or not self._sleeping

    def of(self, app: App) -> int | None:
        """Return the limit of an app; None for none."""
        most: int | None = app.settings.get("device_limit", self.settings.device_limit)
        return most

    async def within(
        self, connection: AsyncConnection, app: App, new: Sequence[tuple[int, int]], now: int
    ) -> list[Evicted]:
        """Choose the activities to end because of new ones; return the argument of `tell`.

        ``new`` are activities with a device each, already stored; ``now`` is milliseconds. Runs in
        the caller's transaction.
        """
        if (most := self.of(app)) is None or not new:
            return []
        rows = await with_rows(connection, _CROWDED, {device for _, device in new}, most=most)
        crowded: dict[int, list[Row[Any]]] = {}
        for row in rows:
            crowded.setdefault(row.device_id, []).append(row)
        kept = set(new)
        chosen: list[Row[Any]] = []
        order = self._order(app)
        for device, living in crowded.items():
            candidates = [
                row
                for row in living
                if not row.by_channel and (row.activity_id, device) not in kept
            ]
            chosen += sorted(candidates, key=order)[: len(living) - most]
        if chosen:
            given = sorted(row.id for row in chosen)  # all writers lock in one order
            await with_rows(connection, _END, given, now=now)
        return [(row.activity_id, row.token) for row in chosen]

    def _order(self, app: App) -> Callable[[Row[Any]], tuple[float, int]]:
        """Return the sort key; the first activity is ended first."""
        if app.settings.get("device_limit_ends", self.settings.device_limit_ends) == "oldest":
            return lambda row: (row.begun or 0, row.id)
        scores: dict[str, float] = {}

        def relevance(row: Row[Any]) -> tuple[float, int]:
            if row.message not in scores:
                try:
                    shown = msgspec.json.decode(row.message, type=Presentation)
                except msgspec.MsgspecError:
                    shown = Presentation()  # a value that cannot be read counts as not relevant
                scores[row.message] = shown.relevance_score or 0.0
            return scores[row.message], row.begun or 0

        return relevance

    def tell(self, evicted: Sequence[Evicted]) -> None:
        """Send the ends that `within` chose; call it after the commit."""
        for activity, token in evicted:
            if token is not None:
                self.left(activity, token)
        if evicted:
            self._woken.set()

    def wake(self) -> None:
        """Look again: a token arrived for which an end may be pending."""
        self._woken.set()

    async def run(self) -> None:
        """Send pending ends until cancelled."""
        while True:
            self._woken.clear()
            try:
                due = await self._send()
            except STORE_FAILURES as error:
                self.database.outage.failed("pending ends could not be read", error)
                due = self.clock.time() + _TRY_AGAIN
            timer = None
            if due is not None:
                timer = self.clock.call_later(max(due - self.clock.time(), 0.0), self._woken.set)
            self._sleeping = True
            try:
                await self._woken.wait()
            finally:
                self._sleeping = False
                if timer is not None:
                    timer.cancel()

    async def _send(self) -> float | None:
        """Send due ends; return when to look again, in seconds since 1970."""
        whole = self.ownership.whole
        given = {} if whole else {"partitions": sorted(self.ownership.partitions)}
        while True:
            now = milliseconds(self.clock)
            firsts = await self.database.row(_firsts(whole=whole), given)
            times = dict(zip(_KINDS, firsts or (), strict=True))
            known = [first for first in times.values() if first is not None]
            if not known or min(known) > now:
                return min(known) / 1000 if known else None
            for kind, first in times.items():
                if first is not None and first <= now:
                    await self._send_kind(_owed(kind, whole=whole), {**given, "now": now}, kind)

    async def _send_kind(self, owed: Select[Any], given: Mapping[str, object], kind: str) -> None:
        """Send a page of due ends of one kind."""
        activities = schema.activities
        owed = owed.where(owed.selected_columns.due_at <= bindparam("now")).limit(PAGE)
        async with self.database.read() as connection:
            due = (await connection.execute(owed, given)).all()
            found = select(activities).where(activities.c.id.in_({row.activity_id for row in due}))
            states = {row.id: row for row in await connection.execute(found)}
            apps = await apps_of(connection, (row.app_id for row in states.values()))
        groups: dict[tuple[int, str], list[Row[Any]]] = {}
        for row in due:
            groups.setdefault((row.activity_id, row.environment), []).append(row)
        for (activity, environment), group in groups.items():
            state = states[activity]
            await self._end(kind, apps[state.app_id], state, environment, group)

    async def _end(
        self, kind: str, app: App, activity: Row[Any], environment: str, rows: Sequence[Row[Any]]
    ) -> None:
        """End one activity on some devices, and note the devices that need no repetition."""
        over: dict[str, Outcome] = {}
        terms = {activity.partition: self.ownership.terms.get(activity.partition, NOT_HELD)}
        if not self.ownership.holds(activity.partition):
            raise NotOwner(frozenset(terms))
        message = payload.End(
            content_state=_state_of(activity),
            dismissal_date=0,
            timestamp=max(int(self.clock.time()), activity.last_timestamp or 0) + _AHEAD,
        )
        try:
            async with (
                self.carriers.use(app, environment) as carrier,
                carrier.client.fan_out(message, [row.token for row in rows]) as run,
            ):
                async for outcome in run:
                    if outcome.verdict in _OVER:
                        over[outcome.token] = outcome
        except (NoKey, InvalidInput, TransportError) as error:
            logger.warning(
                "the activity %r could not be ended on %d devices alone (%s): %s",
                activity.public_id,
                len(rows),
                kind,
                error,
            )
        moment = milliseconds(self.clock)
        again = moment + int(AGAIN * 1000)
        owed = [
            (
                row.id,
                row.token,
                None if row.token in over or moment - row.since > _GIVE_UP else again,
            )
            for row in rows
        ]
        batch = Batch()
        async with self.database.write() as connection:
            await self.ownership.guard(connection, terms)
            await hold(connection, schema.activities, [activity.id])
            if over:
                operation = await _operation(connection, kind, activity, len(over), moment)
                for row in rows:
                    if row.token in over:
                        batch.add(app.row, operation, row.device_id, over[row.token])
                await write(connection, batch, now=moment)
            due_at, token, _ = _KINDS[kind]
            noted = _OWED.replace("DUE", due_at).replace("TOKEN =", f"{token} =")
            await with_rows(connection, noted, owed)
        self.ended += len(over)
        self.changed([activity.id])


def _owed(kind: str, *, whole: bool) -> Select[Any]:
    """Return the query for the pending ends of a kind, the first due first; ``whole`` as in `Ownership`."""
    members, activities = schema.activity_devices.c, schema.activities
    due_at, token, since = (members[name] for name in _KINDS[kind])
    shown = (due_at.label("due_at"), token.label("token"), since.label("since"))
    same = (members.id, members.activity_id, members.device_id, members.environment)
    query = select(*shown, *same).where(due_at.is_not(None), token.is_not(None)).order_by(due_at)
    if whole:
        return query
    mine = among(activities.c.partition, bindparam("partitions"))
    return query.join(activities, activities.c.id == members.activity_id).where(mine)


@lru_cache
def _firsts(*, whole: bool) -> Select[Any]:
    """Return the query for when the first end of each kind is due, or NULL."""
    kinds = [_owed(kind, whole=whole).limit(1) for kind in _KINDS]
    return select(
        *(
            query.with_only_columns(
                query.selected_columns.due_at, maintain_column_froms=True
            ).scalar_subquery()
            for query in kinds
        )
    )


def _state_of(activity: Row[Any]) -> dict[str, Any]:
    """Return the state of the last card; an empty one if the stored state cannot be read."""
    try:
        return msgspec.json.decode(activity.content_state, type=dict[str, Any])
    except msgspec.MsgspecError:
        logger.exception("the state of the activity %r cannot be read", activity.public_id)
        return {}


async def _operation(
    connection: AsyncConnection, kind: str, activity: Row[Any], devices: int, now: int
) -> int:
    """Return the operation for an activity's ends on single devices, with its targets increased."""
    table = schema.operations
    added = insert_into(connection, table).values(
        app_id=activity.app_id,
        public_id=f"{kind}-{activity.id}",
        kind=kind,
        activity_id=activity.id,
        partition=activity.partition,
        status="done",
        targeted=devices,
        created_at=now,
        finished_at=now,
    )
    more = {"targeted": table.c.targeted + devices, "finished_at": now}
    added = added.on_conflict_do_update(index_elements=["app_id", "public_id"], set_=more)
    return int((await connection.execute(added.returning(table.c.id))).scalar_one())
