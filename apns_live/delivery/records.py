"""Converts lanes and live activities to journal records and back."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

from .audience import Audience
from .budget import Account, Urgency
from .journal import (
    SHARD,
    ActivityRecord,
    LaneRecord,
    MembersRecord,
    ProgressRecord,
    Record,
    WakeupRecord,
)
from .lane import Lane
from .pacing import NEVER, Trouble
from .publication import Publication
from .state import State
from .tickets import Ticket


def lane_record(lane: Lane) -> LaneRecord:
    """Return what is kept of a lane: its order, its account, and the state that is not settled.

    With one in flight and one waiting, the waiting one is kept: it is the newest, and it carries
    what the other had to say if that is not accepted.
    """
    state = lane.waiting or lane.flying
    account = lane.shared.account if lane.shared else lane.account
    return LaneRecord(
        token=lane.token,
        last_timestamp=lane.last_timestamp,
        revision=lane.revision,
        window_start=account.start,
        used=account.used,
        device=lane.shared.device if lane.shared else "",
        left_at=lane.left_at,
        ended=lane.ended,
        frequent=lane.frequent,
        urgency=int(state.urgency) if state else 1,
        deadline=state.deadline if state else None,
        message=state.encoded if state else None,
        intended=lane.flying is not None and lane.waiting is None,
    )


def restore_lane(record: LaneRecord, now: float) -> Lane:
    """Return the lane that was kept. What may have left goes again, with a newer timestamp."""
    lane = Lane(record.token)
    lane.last_timestamp = record.last_timestamp
    lane.revision = record.revision
    lane.account = Account(record.window_start, record.used)
    # A clock that was set back in between must not hold the lane until it has caught up.
    lane.left_at = min(record.left_at, now)
    lane.ended = record.ended
    lane.frequent = record.frequent
    lane.waiting = restore_state(record, now)
    if lane.waiting is not None and record.intended:
        lane.trouble = Trouble(attempts=1, may_have_been_sent=True)
    return lane


def restore_state(record: LaneRecord | WakeupRecord, now: float) -> State | None:
    """Return the state that was kept, if there was one."""
    if record.message is None:
        return None
    return State(
        record.message,
        urgency=Urgency(record.urgency),
        ticket=Ticket(),
        submitted_at=now,
        revision=record.revision,
        deadline=record.deadline,
    )


def publication_record(name: str, lane: LaneRecord, published: Publication) -> ActivityRecord:
    """Return what is kept of what an activity publishes."""
    return ActivityRecord(
        activity=name,
        lane=lane,
        version=published.version,
        current=published.current,
        alert=published.alert,
        alert_version=published.alert_version,
        ten_version=published.ten_version,
        deadline=None if published.last_moment == NEVER else published.last_moment,
    )


def restore_publication(published: Publication, record: ActivityRecord) -> None:
    """Fill a new publication with what was kept."""
    published.version = record.version
    published.current = record.current
    published.alert = record.alert
    published.alert_version = record.alert_version
    published.ten_version = published.slow_ten_version = record.ten_version
    if record.deadline is not None:
        published.last_moment = record.deadline


def audience_records(name: str, audience: Audience) -> list[Record]:
    """Return what changed of an audience since this was last asked."""
    records: list[Record] = []
    shards = {place // SHARD for place in audience.changed}
    for number in sorted(shards):
        tokens = tuple(audience.tokens[number * SHARD : (number + 1) * SHARD])
        records.append(MembersRecord(activity=name, number=number, tokens=tokens))
    shards |= {place // SHARD for place in audience.progressed}
    for number in sorted(shards):
        part = slice(number * SHARD, (number + 1) * SHARD)
        records.append(
            ProgressRecord(
                activity=name,
                number=number,
                confirmed=_little(audience.confirmed[part]),
                intended=_little(audience.cursor[part]),
            )
        )
    audience.changed.clear()
    audience.progressed.clear()
    return records


def restore_audience(
    audience: Audience,
    shards: Sequence[tuple[MembersRecord, ProgressRecord | None]],
    last_timestamp: int,
) -> int:
    """Fill a new audience whose ``newest`` is set; return how many tokens were in doubt.

    Those get the newest state again, with a timestamp above ``last_timestamp``.
    """
    in_doubt = 0
    for members, progress in shards:
        confirmed = _from_little(progress.confirmed) if progress else array("I")
        intended = _from_little(progress.intended) if progress else array("I")
        audience.extend(members.number * SHARD)
        for index, token in enumerate(members.tokens):
            if not token:
                audience.extend(len(audience.tokens) + 1)
                continue
            # A token behind may have been told anything up to the newest; it is behind all the same.
            has = min(confirmed[index], audience.newest) if index < len(confirmed) else 0
            place = audience.join(token, confirmed=has)
            if place is not None and index < len(intended) and intended[index] > has:
                in_doubt += 1
                audience.troubles[place] = Trouble(
                    may_have_been_sent=True, timestamp=last_timestamp
                )
    audience.restored()
    return in_doubt


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
