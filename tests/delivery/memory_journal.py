"""A journal in memory: it can be made to fail, and to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from apns_live.delivery.journal import ALL, Entry, Journal, RunRecord
from apns_live.errors import JournalError


class MemoryJournal(Journal):
    """Keeps its entries over several lives. ``gate``: commits wait until it is set."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str, int], bytes] = {}
        self.failure: JournalError | None = None
        self.gate: asyncio.Event | None = None
        self.closed = True

    def names(self, kind: str) -> list[str]:
        """Return the names that entries of a kind have."""
        return sorted({name for known, name, _ in self.entries if known == kind})

    def not_exhausted(self, run: str) -> None:
        """Let a fan-out look as if its source had more."""
        record = msgspec.msgpack.decode(self.entries["run", run, 0], type=RunRecord)
        record.exhausted = False
        self.entries["run", run, 0] = msgspec.msgpack.encode(record)

    async def open(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True

    async def commit(self, entries: Sequence[Entry]) -> None:
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if self.closed:
            raise JournalError("the journal is closed")
        if self.failure is not None:
            raise self.failure
        for kind, name, number, value in entries:
            if value is not None:
                self.entries[kind, name, number] = value
                continue
            for place in list(self.entries):
                if place[:2] == (kind, name) and number in (ALL, place[2]):
                    del self.entries[place]

    async def read(
        self, kind: str, name: str | None, after: tuple[str, int], limit: int
    ) -> list[Entry]:
        places = sorted(
            place
            for place in self.entries
            if place[0] == kind and place[1:] > after and name in (None, place[1])
        )
        return [Entry(*place, self.entries[place]) for place in places[:limit]]
