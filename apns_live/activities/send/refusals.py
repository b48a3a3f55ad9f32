"""Pauses an app whose provider key APNs refused, and schedules the next try.

Refused credentials (such as 403 InvalidProviderToken, Forbidden, or 400 TopicDisallowed) say nothing about a
device. So the pushes get no outcome and are sent again after growing pauses, because APNs disconnects
providers that go on. A new key or a restart ends the pause.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime

from ...clock import Clock, Timer
from ...outcome import Outcome, Verdict
from ...reasons import TABLE, normalise
from ...retry import REFUSED_KEY

FIRST, MOST = REFUSED_KEY.delays[0], REFUSED_KEY.delays[-1]
"""Seconds of the first pause, which doubles, and of the longest one."""
_CREDENTIALS = frozenset(
    name
    for name, row in TABLE.items()
    if row.verdict in (Verdict.OPERATOR, Verdict.REFRESH_CREDENTIALS)
)
KEPT = 10_000
"""Pauses kept in memory. Above this the oldest ones start again with the first pause."""


def refuses_credentials(outcome: Outcome) -> bool:
    """Whether an outcome refuses the credentials, by a documented reason.

    A 403 with an undocumented reason may be about this device alone.
    """
    if outcome.verdict is Verdict.REFRESH_CREDENTIALS:
        return True
    return outcome.verdict is Verdict.OPERATOR and normalise(outcome.reason) in _CREDENTIALS


def refusal_of(outcome: Outcome) -> str:
    """Return the refusal of the credentials as a sentence."""
    reason = outcome.reason or outcome.verdict.value
    return f"APNs refuses the credentials: {reason} (status {outcome.status})"


@dataclass(slots=True)
class _Pause:
    app: int
    tries: int
    until: float
    timer: Timer | None


class Pauses:
    """The pauses after refusals. ``again`` is called with a place when its pause is over."""

    def __init__(self, clock: Clock, again: Callable[[Hashable], object]) -> None:
        self._clock = clock
        self._again = again
        self._pauses: dict[Hashable, _Pause] = {}

    def __contains__(self, place: Hashable) -> bool:
        pause = self._pauses.get(place)
        return pause is not None and pause.timer is not None

    def __len__(self) -> int:
        return len(self._pauses)

    def put_off(self, app: int, place: Hashable, refusal: str) -> str:
        """Pause a place, longer each time; return the reason and the end of the pause as a text."""
        if (former := self._pauses.pop(place, None)) is not None and former.timer is not None:
            former.timer.cancel()
        tries = 0 if former is None else former.tries + 1
        seconds = min(FIRST * 2.0 ** min(tries, 16), MOST)
        until = self._clock.time() + seconds
        timer = self._clock.call_later(seconds, lambda: self._over(place))
        self._pauses[place] = _Pause(app, tries, until, timer)
        if len(self._pauses) > KEPT:  # forget the tries of places that are not paused
            idle = [one for one, pause in self._pauses.items() if pause.timer is None]
            for one in idle[: len(self._pauses) - KEPT]:
                del self._pauses[one]
        moment = datetime.fromtimestamp(int(until), UTC).isoformat().replace("+00:00", "Z")
        return f"{refusal}. It is tried again at {moment}, or when a key is added"[:255]

    def _over(self, place: Hashable) -> None:
        self._pauses[place].timer = None
        self._again(place)

    def done(self, place: Hashable) -> None:
        """Forget a place that succeeded or ended."""
        if (pause := self._pauses.pop(place, None)) is not None and pause.timer is not None:
            pause.timer.cancel()

    def end_those_of(self, app: int) -> None:
        """End the pauses of an app, because it has another key."""
        for place in [place for place, pause in self._pauses.items() if pause.app == app]:
            self.done(place)
            self._again(place)

    def close(self) -> None:
        """Cancel all pauses."""
        for place in list(self._pauses):
            self.done(place)
