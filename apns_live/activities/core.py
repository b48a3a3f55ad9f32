"""What the parts of a service share, and the hooks by which they wake what sends."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from ..clock import Clock
from .apps import App
from .requests import Member
from .settings import ServiceSettings
from .store.commit import GroupCommit
from .store.database import Database
from .store.ownership import Ownership
from .times import milliseconds

Evicted = tuple[int, str | None]
"""An activity, and a token on which it must end."""
Evict = Callable[
    [AsyncConnection, App, Sequence[tuple[int, int]], int], Awaitable[Sequence[Evicted]]
]


class Core:
    """Shared by the parts of a service. Activities and operations are given by their row.

    The hooks do nothing until `Service` sets them. Unless they say otherwise, they are called after a commit.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        settings: ServiceSettings | None = None,
        ownership: Ownership | None = None,
    ) -> None:
        self.database = database
        self.clock = clock
        self.new_id = new_id
        self.settings = settings or ServiceSettings()
        self.ownership = ownership or Ownership()
        self.commits = GroupCommit(database)
        """Callers' writes share transactions."""
        self.evict: Evict = _evict_nothing
        """Chooses, within a transaction, the activities to end because devices have just started new ones;
        the last argument is the time in milliseconds."""
        self.evicted: Callable[[Sequence[Evicted]], object] = _nothing
        """Called with the activities that were chosen."""
        self.owes_end: Callable[[], object] = _nothing
        """Called when a token was registered for which an end may be pending."""
        self.check_key: Callable[[App, str], Awaitable[None]] = _pass
        """Raises `StoreError` if the app has a key for this environment that cannot be decrypted."""
        self.written: Callable[[App, int], object] = _nothing
        """Called with an activity of which a call wrote a new version."""
        self.due: Callable[[App, int], object] = _nothing
        """Called with an activity of which the scheduler wrote a new version."""
        self.accepted: Callable[[App, int], object] = _nothing
        """Called with the operation of a new notification."""
        self.joined: Callable[[App, int, int, Sequence[Member]], object] = _nothing
        """Called with an activity, its version, and devices that registered a token for it."""
        self.note_tokens: Callable[[AsyncConnection, Mapping[int, bool]], Awaitable[None]] = _pass
        """Stores, within a transaction and for other processes, which activities got new tokens, and
        whether any of these tokens lacks the newest state.
        """
        self.left: Callable[[int, str], object] = _nothing
        """Called with an activity and a token of it that must not be sent to any more."""
        self.changed: Callable[..., object] = _nothing
        """Called with ``activities`` and ``operations`` that watchers may follow."""


def _nothing(*arguments: object, **named: object) -> None:
    """Do nothing."""


async def _evict_nothing(*arguments: object) -> Sequence[Evicted]:
    return ()


async def _pass(*arguments: object) -> None:
    """Do nothing."""


class Part:
    """A part of a service."""

    def __init__(self, core: Core) -> None:
        self.core, self.database, self.clock = core, core.database, core.clock

    @property
    def now(self) -> int:
        """The time in milliseconds since 1970."""
        return milliseconds(self.clock)
