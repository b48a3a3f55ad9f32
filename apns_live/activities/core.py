"""What the parts of a service share, and the hooks by which they wake what sends."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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


def _nothing(*arguments: object, **named: object) -> None:
    """Do nothing."""


async def _pass(*arguments: object) -> Any:
    """Do nothing."""
    return ()


@dataclass(slots=True, kw_only=True)
class Hooks:
    """How the parts of a service wake what sends. Activities and operations are given by their row.

    By default they do nothing. Unless they say otherwise, they are called after a commit.
    """

    check_key: Callable[[App, str], Awaitable[None]] = _pass
    """Raises `StoreError` if the app has a key for this environment that cannot be decrypted."""
    written: Callable[[App, int], object] = _nothing
    """Called with an activity of which a call wrote a new version."""
    due: Callable[[App, int], object] = _nothing
    """Called with an activity of which the scheduler wrote a new version."""
    accepted: Callable[[App, int], object] = _nothing
    """Called with the operation of a new notification."""
    joined: Callable[[App, int, int, Sequence[Member]], object] = _nothing
    """Called with an activity, its version, and devices that registered a token for it."""
    note_tokens: Callable[[AsyncConnection, Mapping[int, bool]], Awaitable[None]] = _pass
    """Stores, within a transaction and for other processes, which activities got new tokens, and
    whether any of these tokens lacks the newest state.
    """
    left: Callable[[int, str], object] = _nothing
    """Called with an activity and a token of it that must not be sent to any more."""
    changed: Callable[..., object] = _nothing
    """Called with ``activities`` and ``operations`` that watchers may follow."""
    evict: Evict = _pass
    """Chooses, within a transaction, the activities to end because devices have just started new
    ones. The last argument is the time in milliseconds.
    """
    evicted: Callable[[Sequence[Evicted]], object] = _nothing
    """Called with the activities that were chosen."""
    owes_end: Callable[[], object] = _nothing
    """Called when a token was registered for which an end may be pending."""


@dataclass(eq=False, repr=False)
class Core:
    """What the parts of a service share."""

    database: Database
    clock: Clock
    new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    settings: ServiceSettings = field(default_factory=ServiceSettings)
    ownership: Ownership = field(default_factory=Ownership)
    hooks: Hooks = field(default_factory=Hooks)

    def __post_init__(self) -> None:
        self.commits = GroupCommit(self.database)
        """Callers' writes share transactions."""


class Part:
    """A part of a service."""

    def __init__(self, core: Core) -> None:
        self.core, self.database, self.clock = core, core.database, core.clock

    @property
    def now(self) -> int:
        """The time in milliseconds since 1970."""
        return milliseconds(self.clock)
