"""The live activities of one delivery: shared parts, and which activity a token belongs to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..errors import InvalidInput
from ..guard import Guarded
from ..payload import check_token
from ..refusals import refused
from .budget import FULL, Account, Budget
from .dispatch import Dispatch, Home
from .encoding import one_spelling
from .lane import Lane
from .lanes import Lanes

HomeT = TypeVar("HomeT", bound=Home)
ACCOUNTS_KEPT = 100_000
"""Activities that were let go of whose accounts are remembered."""


@dataclass(eq=False)
class Activities(Generic[HomeT]):
    """The live activities of one delivery, by name and by token, and what they share.

    The counts are of all that there were.
    """

    dispatch: Dispatch
    lanes: Lanes
    budget: Budget
    minimum_interval: float
    on_problem: Guarded | None
    submitted: int = 0
    held_back: int = 0
    demoted: int = 0
    over_budget: int = 0
    _homes: dict[str, HomeT] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)
    """The name of the activity that a token belongs to."""
    _let_go: OrderedDict[str, tuple[Account, Account]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._homes)

    def __iter__(self) -> Iterator[HomeT]:
        return iter(list(self._homes.values()))

    def get(self, name: str) -> HomeT | None:
        """Return the activity with this name."""
        return self._homes.get(name)

    def owner(self, token: str) -> HomeT | None:
        """Return the activity that a token belongs to."""
        name = self._owners.get(one_spelling(token))
        return None if name is None else self.get(name)

    def add(self, name: str, home: HomeT) -> tuple[Account, Account]:
        """Add an activity; return the accounts of the one of this name that was let go of."""
        self._homes[name] = home
        return self._let_go.pop(name, (FULL, FULL))

    def adopt(self, name: str, keys: Iterable[str]) -> None:
        """Give tokens (in one spelling) to an activity that a journal kept."""
        self._owners.update(dict.fromkeys(keys, name))

    def let_go(self, name: str, accounts: tuple[Account, Account]) -> None:
        """Remember the accounts of an activity that did not end and is forgotten next."""
        self._let_go[name] = accounts
        if len(self._let_go) > ACCOUNTS_KEPT:
            self._let_go.popitem(last=False)

    def claim(self, token: str, name: str) -> Lane | None:
        """Give a token to an activity; return its own lane, which ends by that.

        Raises InvalidToken, and InvalidInput when it is another's or has a push under way.
        """
        check_token(token)
        key = one_spelling(token)
        if self._owners.get(key, name) != name:
            raise refused(
                InvalidInput,
                "token_of_another_activity",
                "token",
                shown=token[:8],
                value=self._owners[key],
            )
        lane = self.lanes.get(token)
        if lane is not None and not self.lanes.forget(token):
            raise refused(InvalidInput, "token_under_way", "token", shown=token[:8])
        self._owners[key] = name
        return lane

    def release(self, token: str) -> None:
        """Release a token."""
        self._owners.pop(one_spelling(token), None)

    def forget(self, name: str, home: HomeT, keys: Iterable[str]) -> None:
        """Forget an activity that is over, and its tokens (in one spelling)."""
        del self._homes[name]
        for key in keys:
            if self._owners.get(key) == name:
                del self._owners[key]
        self.dispatch.leave(home)
        self.dispatch.commit(home)
