"""The live activities of one delivery, by name and by token."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import cast

from .activity import LiveActivity
from .encoding import one_spelling
from .guard import SpikeGuard
from .journal import ActivityRecord, MembersRecord, ProgressRecord
from .shared import Shared

ACCOUNTS_KEPT = 100_000
"""Activities that were let go of whose accounts are remembered."""


class Activities(Shared):
    """The live activities; iterating gives those that there are now."""

    def __len__(self) -> int:
        return len(self._homes)

    def __iter__(self) -> Generator[LiveActivity]:
        yield from cast("list[LiveActivity]", list(self._homes.values()))

    def get(self, name: str) -> LiveActivity | None:
        """Return the activity with this name."""
        return cast("LiveActivity | None", self._homes.get(name))

    def owner(self, token: str) -> LiveActivity | None:
        """Return the activity that a token belongs to."""
        name = self._owners.get(one_spelling(token))
        return None if name is None else self.get(name)

    def make(
        self,
        name: str,
        *,
        minimum_interval: float | None = None,
        guard: SpikeGuard | None = None,
    ) -> LiveActivity:
        """Add an activity."""
        activity = LiveActivity(self, name, minimum_interval=minimum_interval, guard=guard)
        accounts = self._let_go.pop(name, None)
        if accounts is not None:
            activity.lane.account, activity.published.slow_account = accounts
        self._homes[name] = activity
        return activity

    def let_go(self, activity: LiveActivity) -> None:
        """Forget an activity that did not end; its budget's accounts are remembered."""
        self._let_go[activity.activity] = (
            activity.lane.account,
            activity.published.slow_account,
        )
        if len(self._let_go) > ACCOUNTS_KEPT:
            self._let_go.popitem(last=False)
        activity.finish()

    def restore(
        self,
        record: ActivityRecord,
        shards: Sequence[tuple[MembersRecord, ProgressRecord | None]],
        now: float,
    ) -> int:
        """Add an activity that a journal kept; return how many of its tokens were in doubt."""
        activity = self.make(record.activity)
        in_doubt = activity.restore(record, shards, now)
        self._owners.update(dict.fromkeys(activity.audience.index, record.activity))
        return in_doubt
