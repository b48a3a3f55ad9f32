"""Lanes and live activities as records, and back."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

from .activity import LiveActivity
from .audience import GONE
from .budget import Urgency
from .encoding import from_journal, to_journal
from .journal import (
    SHARD,
    ActivityRecord,
    LaneRecord,
    MembersRecord,
    ProgressRecord,
    Record,
)
from .lane import Lane, State
from .pacing import Trouble
from .tickets import Ticket


def lane_record(lane: Lane) -> LaneRecord:
    """Return what is kept of a lane: its order, its account, and the state that is not settled.

    With one in flight and one waiting, the waiting one is kept: it is the newest, and it carries
    what the other had to say if that is not accepted.
    """
    state = lane.waiting or lane.flying
    return LaneRecord(
        token=lane.token,
        last_timestamp=lane.last_timestamp,
        revision=lane.revision,
        full_at=lane.full_at,
        left_at=lane.left_at,
        ended=lane.ended,
        frequent=lane.frequent,
        urgency=int(state.urgency) if state else 1,
        deadline=state.deadline if state else None,
        message=to_journal(state.encoded) if state else None,
        intended=lane.flying is not None and lane.waiting is None,
    )


def restore_lane(record: LaneRecord, now: float) -> Lane:
    """Return the lane that was kept. What may have left goes again, with a newer timestamp."""
    lane = Lane(record.token)
    lane.last_timestamp = record.last_timestamp
    lane.revision = record.revision
    lane.full_at = record.full_at
    lane.left_at = record.left_at
    lane.ended = record.ended
    lane.frequent = record.frequent
    if record.message is not None:
        lane.waiting = State(
            from_journal(record.message),
            urgency=Urgency(record.urgency),
            ticket=Ticket(),
            submitted_at=now,
            revision=record.revision,
            deadline=record.deadline,
        )
        if record.intended:
            lane.trouble = Trouble(attempts=1, may_have_been_sent=True)
    return lane


def activity_records(activity: LiveActivity) -> list[Record]:
    """Return what changed of a live activity since this was last asked."""
    records: list[Record] = []
    audience = activity.audience
    if activity.over:
        return [
            ActivityRecord(
                activity=activity.activity, lane=lane_record(activity.lane), finished=True
            )
        ]
    if activity.changed:
        activity.changed = False
        deadline = None if activity.last_moment == float("inf") else activity.last_moment
        records.append(
            ActivityRecord(
                activity=activity.activity,
                lane=lane_record(activity.lane),
                version=audience.newest,
                current=to_journal(activity.current) if activity.current else None,
                alert=to_journal(activity.alert) if activity.alert else None,
                alert_version=activity.alert_version,
                ten_version=activity.ten_version,
                deadline=deadline,
            )
        )
    shards = {place // SHARD for place in audience.changed}
    records.extend(
        MembersRecord(
            activity=activity.activity,
            number=number,
            tokens=tuple(audience.tokens[number * SHARD : (number + 1) * SHARD]),
        )
        for number in sorted(shards)
    )
    shards |= {place // SHARD for place in activity.touched}
    for number in sorted(shards):
        part = slice(number * SHARD, (number + 1) * SHARD)
        records.append(
            ProgressRecord(
                activity=activity.activity,
                number=number,
                confirmed=_little(audience.confirmed[part]),
                intended=_little(audience.cursor[part]),
            )
        )
    audience.changed.clear()
    activity.touched.clear()
    return records


def restore_activity(
    activity: LiveActivity,
    record: ActivityRecord,
    shards: Sequence[tuple[MembersRecord, ProgressRecord | None]],
    now: float,
) -> int:
    """Fill a new live activity with what was kept; return how many tokens were in doubt.

    Those get the newest state again, with a newer timestamp.
    """
    activity.lane = restore_lane(record.lane, now)
    audience = activity.audience
    activity.current = from_journal(record.current) if record.current else None
    activity.alert = from_journal(record.alert) if record.alert else None
    activity.alert_version = record.alert_version
    activity.ten_version = activity.slow_ten_version = record.ten_version
    if record.deadline is not None:
        activity.last_moment = record.deadline
    audience.newest = record.version
    in_doubt = 0
    for members, progress in shards:
        while len(audience.tokens) < members.number * SHARD:
            _empty_place(activity)
        confirmed = _from_little(progress.confirmed) if progress else array("I")
        intended = _from_little(progress.intended) if progress else array("I")
        for index, token in enumerate(members.tokens):
            if not token:
                _empty_place(activity)
                continue
            # A token behind may have been told anything up to the newest; it is behind all the same.
            has = min(confirmed[index], record.version) if index < len(confirmed) else 0
            place = audience.join(token, confirmed=has)
            if place is None:
                continue
            if index < len(intended) and intended[index] > has:
                in_doubt += 1
                audience.troubles[place] = Trouble(
                    may_have_been_sent=True, timestamp=activity.lane.last_timestamp
                )
    for place, status in enumerate(audience.status):
        if status == GONE:
            audience.free_place(place)
    audience.changed.clear()
    return in_doubt


def _empty_place(activity: LiveActivity) -> None:
    audience = activity.audience
    audience.tokens.append("")
    audience.cursor.append(0)
    audience.confirmed.append(0)
    audience.status.append(GONE)


def _little(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers = array("I", numbers)
        numbers.byteswap()
    return numbers.tobytes()


def _from_little(data: bytes) -> array[int]:
    numbers = array("I")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
