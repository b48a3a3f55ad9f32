"""What the live activities of one delivery share: the way out, the budget, whose token is whose."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ..errors import InvalidInput
from ..guard import Guarded
from ..payload import check_token
from ..refusals import refused
from .budget import Account, Budget
from .dispatch import Dispatch, Home
from .encoding import one_spelling
from .lane import Lane
from .lanes import Lanes


class Shared:
    """The base of `Activities`, as a live activity sees it. The counts are of all that there were."""

    def __init__(
        self,
        dispatch: Dispatch,
        lanes: Lanes,
        *,
        budget: Budget,
        minimum_interval: float,
        on_problem: Guarded | None,
    ) -> None:
        self.dispatch = dispatch
        self.budget = budget
        self.minimum_interval = minimum_interval
        self.on_problem = on_problem
        self.submitted = self.held_back = self.demoted = self.over_budget = 0
        self._lanes = lanes
        self._homes: dict[str, Home] = {}
        self._owners: dict[str, str] = {}
        """The name of the activity that a token belongs to."""
        self._let_go: OrderedDict[str, tuple[Account, Account]] = OrderedDict()

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
        lane = self._lanes.get(token)
        if lane is not None and not self._lanes.forget(token):
            raise refused(InvalidInput, "token_under_way", "token", shown=token[:8])
        self._owners[key] = name
        return lane

    def release(self, token: str) -> None:
        """Release a token."""
        self._owners.pop(one_spelling(token), None)

    def forget(self, name: str, home: Home, keys: Iterable[str]) -> None:
        """Forget an activity that is over, and its tokens (in one spelling)."""
        del self._homes[name]
        for key in keys:
            if self._owners.get(key) == name:
                del self._owners[key]
        self.dispatch.leave(home)
        self.dispatch.commit(home)
