"""Claims and sends shards of large starts and notifications that other workers own."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import msgspec
from sqlalchemy import select, update

from ...errors import InvalidInput
from ..requests.notify import KIND, Notify
from ..store import schema
from ..times import milliseconds
from .apns_clients import Carrier, Carriers, KnownApps, NoKey
from .fan_out import FanOut
from .jobs import Jobs
from .kind import Kind, SharedParts
from .notifying import NotificationKind
from .refusals import Pauses
from .starting import start_kind

logger = logging.getLogger("apns_live.activities")

AT_ONCE = 8
"""Operations of other workers that are sent in parallel."""


@dataclass(eq=False, repr=False)
class Helping:
    """Claims and sends shards of operations that other workers own."""

    shared: SharedParts
    jobs: Jobs
    apps: KnownApps
    carriers: Carriers
    pauses: Pauses

    def begin(self, operations: Iterable[int]) -> None:
        """Begin to send shards of operations that have claimable ones."""
        if self.shared.ownership.fenced:
            return
        for row in operations:
            place = ("shards", row)
            if place in self.jobs or place in self.pauses:
                continue
            if self.jobs.running("shards") >= AT_ONCE:
                return
            self.jobs.begin(place, partial(self._send, row))

    async def _send(self, row: int) -> None:
        operations, activities = schema.operations, schema.activities
        database, place = self.shared.database, ("shards", row)
        operation = await database.row(select(operations).where(operations.c.id == row))
        app = None if operation is None else await self.apps.get(operation.app_id)
        if operation is None or app is None:
            return
        kind: Callable[[Carrier], Kind]
        if operation.kind == KIND:
            request = msgspec.json.decode(operation.request, type=Notify)
            environment = request.environment or app.environment
            kind = partial(NotificationKind, self.shared, app, operation, request)
        else:
            query = select(activities).where(activities.c.id == operation.activity_id)
            if (activity := await database.row(query)) is None:
                return
            environment = activity.environment
            kind = partial(start_kind, self.shared, app, activity, operation)
        try:
            async with self.carriers.use(app, environment) as carrier:
                fan_out = FanOut(kind(carrier), leads=False)
                await fan_out.run()
        except (NoKey, InvalidInput) as error:  # Its owner stores that in the operation.
            logger.info("no part is taken in operation %s: %s", operation.public_id, error)
            self.pauses.put_off(operation.app_id, place, str(error))
            return
        if fan_out.refused:
            self.pauses.put_off(operation.app_id, place, fan_out.refused)
            return
        self.pauses.done(place)
        if fan_out.stopped:
            logger.warning("operation %s failed: %s", operation.public_id, fan_out.stopped)
            final = operation.kind == KIND
            now = milliseconds(self.shared.clock)
            failed = {
                "status": "failed",
                "reason": fan_out.stopped[:255],
                "finished_at": now if final else None,
            }
            under_way = operations.c.id == row, operations.c.status == schema.SHARDED
            await database.change(update(operations).where(*under_way).values(failed))
