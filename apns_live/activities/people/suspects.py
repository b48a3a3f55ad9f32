"""Suspect start tokens: APNs accepts their starts, but the phone does not answer.

A phone may replace its push-to-start token without telling the app. APNs then answers 200 for
weeks, and no card appears. A start is unanswered if the device sends neither an activity token nor
a receipt for it in time. After `SUSPECT` unanswered starts in a row the token is suspect. Any
answer, even a late one, or a new token clears the count. Starts on a channel or with pushes
disabled are not counted, because their silence is explained.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from sqlalchemy import ColumnElement, and_, or_
from sqlalchemy.ext.asyncio import AsyncConnection

from ..store import schema
from ..store.statements import in_turns, with_rows

SUSPECT = 2
"""Unanswered starts in a row that make a token suspect."""
Which = Literal["all", "trusted", "suspect"]

_SETTLE = """
UPDATE activity_devices SET start_settled_at = :now FROM {*row_id}
WHERE activity_devices.id = given.row_id AND activity_devices.start_settled_at IS NULL
    AND activity_devices.token IS NULL AND activity_devices.retired_at IS NULL
RETURNING activity_devices.id
"""

_UNANSWERED = """
SELECT tokens.id FROM {*row_id} JOIN activity_devices AS known ON known.id = given.row_id
JOIN activities ON activities.id = known.activity_id
JOIN devices ON devices.id = known.device_id
JOIN start_tokens AS tokens ON tokens.device_id = known.device_id
    AND tokens.attributes_type = activities.attributes_type
    AND tokens.environment = known.environment
WHERE NOT known.by_channel AND devices.push_enabled AND tokens.retired_at IS NULL
    AND tokens.registered_at <= known.started_at
    AND NOT EXISTS (
        SELECT 1 FROM activity_devices AS later
        JOIN activities AS theirs ON theirs.id = later.activity_id
        WHERE later.device_id = known.device_id AND later.started_at >= known.started_at
            AND theirs.attributes_type = activities.attributes_type
            AND (later.token IS NOT NULL OR EXISTS (
                SELECT 1 FROM receipts
                WHERE receipts.device_id = later.device_id
                    AND receipts.activity_id = later.activity_id)))
"""

_COUNT = """
UPDATE start_tokens SET unanswered = start_tokens.unanswered + 1,
    suspect_at = CASE WHEN start_tokens.unanswered + 1 = :suspect THEN CAST(:now AS BIGINT)
        ELSE start_tokens.suspect_at END
FROM {*token_id} WHERE start_tokens.id = given.token_id
RETURNING start_tokens.unanswered
"""

_ANSWERED = """
UPDATE start_tokens SET unanswered = 0, cleared_at = :now
FROM {activity, device} JOIN activity_devices AS known
    ON known.activity_id = given.activity AND known.device_id = given.device
JOIN activities ON activities.id = known.activity_id
WHERE start_tokens.device_id = given.device AND start_tokens.unanswered > 0
    AND start_tokens.attributes_type = activities.attributes_type
    AND start_tokens.environment = known.environment AND known.started_at IS NOT NULL
"""

_SWITCHED_OFF = """
UPDATE start_tokens SET unanswered = 0, cleared_at = :now
WHERE start_tokens.unanswered > 0 AND start_tokens.device_id IN (
    SELECT devices.id FROM {device TEXT} JOIN devices
        ON devices.app_id = :app AND devices.public_id = given.device)
"""


async def count_unanswered(connection: AsyncConnection, rows: Iterable[int], now: int) -> int:
    """Count starts that are overdue, by their rows of ``activity_devices``; ``now`` is milliseconds.

    Returns how many tokens became suspect. The caller holds the activities.
    """
    settled = (await with_rows(connection, _SETTLE, rows, now=now)).scalars()
    if not (overdue := sorted(settled)):
        return 0
    tokens = sorted((await with_rows(connection, _UNANSWERED, overdue)).scalars())
    suspects = 0
    for turn in in_turns(tokens, lambda token: token):
        counted = await with_rows(connection, _COUNT, turn, suspect=SUSPECT, now=now)
        suspects += sum(count == SUSPECT for count in counted.scalars())
    return suspects


async def note_answers(
    connection: AsyncConnection, places: Iterable[tuple[int, int]], now: int
) -> None:
    """Clear the count of devices that answered a start; a place is an activity's and a device's row."""
    if given := sorted(set(places)):
        await with_rows(connection, _ANSWERED, given, now=now)


async def note_switched_off(
    connection: AsyncConnection, app: int, devices: Sequence[str], now: int
) -> None:
    """Clear the count of devices with pushes disabled, because that explains their silence."""
    if given := [(one,) for one in sorted(devices)]:
        await with_rows(connection, _SWITCHED_OFF, given, app=app, now=now)


def tokens_that_are(which: Which, moment: int) -> ColumnElement[bool]:
    """Return the condition on start tokens that were suspect at a moment (milliseconds), or were not.

    A fan-out reads one kind and then the other. Changes in between never move a token from the kind
    that is still to be read to the one that was read.
    """
    columns = schema.start_tokens.c
    cleared_since = and_(columns.cleared_at.is_not(None), columns.cleared_at >= moment)
    if which == "suspect":
        standing = and_(columns.suspect_at < moment, columns.unanswered >= SUSPECT)
        return and_(columns.suspect_at.is_not(None), or_(cleared_since, standing))
    answered = or_(columns.cleared_at.is_(None), columns.cleared_at < moment)
    return or_(
        columns.suspect_at.is_(None),
        columns.suspect_at >= moment,
        and_(columns.unanswered < SUSPECT, answered),
    )
