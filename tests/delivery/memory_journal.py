"""A journal in memory: it can be made to fail, and to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from apns_live.delivery.journal import (
    ActivityRecord,
    LaneRecord,
    MembersRecord,
    ProblemRecord,
    ProgressRecord,
    Record,
    RunRecord,
    ShardRecord,
    WakeupRecord,
)
from apns_live.errors import JournalError


class MemoryJournal:
    """Keeps what a journal keeps, over several lives. ``gate``: commits wait until it is set."""

    def __init__(self) -> None:
        self.kept_runs: dict[str, RunRecord] = {}
        self.kept_shards: dict[tuple[str, int], ShardRecord] = {}
        self.kept_problems: list[ProblemRecord] = []
        self.kept_lanes: dict[str, LaneRecord] = {}
        self.kept_activities: dict[str, ActivityRecord] = {}
        self.kept_members: dict[tuple[str, int], MembersRecord] = {}
        self.kept_progress: dict[tuple[str, int], ProgressRecord] = {}
        self.kept_wakeups: dict[str, WakeupRecord] = {}
        self.failure: JournalError | None = None
        self.gate: asyncio.Event | None = None
        self.closed = True

    async def open(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True

    async def write(self, records: Sequence[Record]) -> None:
        # What is written is what the records are now: the writer may change them later.
        records = [
            msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=type(record))
            for record in records
        ]
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if self.closed:
            raise JournalError("the journal is closed")
        if self.failure is not None:
            raise self.failure
        for record in records:
            self._keep(record)

    def _keep(self, record: Record) -> None:
        match record:
            case RunRecord():
                self.kept_runs[record.name] = record
            case ShardRecord(finished=True):
                self.kept_shards.pop((record.run, record.number), None)
            case ShardRecord(tokens=None):
                self.kept_shards[record.run, record.number].verdicts = record.verdicts
            case ShardRecord():
                self.kept_shards[record.run, record.number] = record
            case ProblemRecord():
                self.kept_problems.append(record)
            case LaneRecord(forgotten=True):
                self.kept_lanes.pop(record.token, None)
            case LaneRecord():
                self.kept_lanes[record.token] = record
            case ActivityRecord(finished=True):
                self.kept_activities.pop(record.activity, None)
                for kept in (self.kept_members, self.kept_progress):
                    for key in [key for key in kept if key[0] == record.activity]:
                        del kept[key]
            case ActivityRecord():
                self.kept_activities[record.activity] = record
            case MembersRecord():
                self.kept_members[record.activity, record.number] = record
            case ProgressRecord():
                self.kept_progress[record.activity, record.number] = record
            case WakeupRecord(message=None):
                self.kept_wakeups.pop(record.device, None)
            case WakeupRecord():
                self.kept_wakeups[record.device] = record

    async def run(self, name: str) -> RunRecord | None:
        kept = self.kept_runs.get(name)
        return None if kept is None else msgspec.structs.replace(kept, counts=dict(kept.counts))

    async def shards(self, run: str, first: int, limit: int) -> list[ShardRecord]:
        numbers = sorted(number for name, number in self.kept_shards if name == run)
        wanted = [number for number in numbers if number >= first][:limit]
        return [self.kept_shards[run, number] for number in wanted]

    async def problems(self, run: str, after: int, limit: int) -> list[ProblemRecord]:
        kept = sorted(
            (record for record in self.kept_problems if record.run == run),
            key=lambda record: record.position,
        )
        return [record for record in kept if record.position > after][:limit]

    async def lanes(self, after: str, limit: int) -> list[LaneRecord]:
        return [self.kept_lanes[token] for token in sorted(self.kept_lanes) if token > after][
            :limit
        ]

    async def activities(self) -> list[ActivityRecord]:
        return [self.kept_activities[name] for name in sorted(self.kept_activities)]

    async def members(self, activity: str) -> list[tuple[MembersRecord, ProgressRecord | None]]:
        return [
            (self.kept_members[key], self.kept_progress.get(key))
            for key in sorted(self.kept_members)
            if key[0] == activity
        ]

    async def wakeups(self) -> list[WakeupRecord]:
        return [self.kept_wakeups[device] for device in sorted(self.kept_wakeups)]

    async def forget_run(self, name: str) -> None:
        self.kept_runs.pop(name, None)
        for key in [key for key in self.kept_shards if key[0] == name]:
            del self.kept_shards[key]
        self.kept_problems = [record for record in self.kept_problems if record.run != name]
