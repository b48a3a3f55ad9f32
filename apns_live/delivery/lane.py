"""The queue of one activity token: one push at a time, then the newest state.

A pure state machine: the caller passes the time. It has no client, timer or journal.

    offer    a state arrives; it replaces the waiting one
    ready_at when the waiting state may be sent
    depart   the state is sent, with its timestamp and priority
    settle   the answer: done, or it (or a newer state) is sent again

``now`` is steady time, ``wall`` is clock time (`apns_live.clock.SteadyTime`): waits are
counted in the first, timestamps come from the second.
"""

from dataclasses import dataclass

import msgspec

from ..errors import ActivityEnded, DeliveryError
from ..outcome import Outcome, Verdict
from .budget import (
    FULL,
    UNCHARGED,
    Account,
    Budget,
    Charge,
    SharedAccount,
    StartAccounts,
    Urgency,
    charge_of,
    for_device,
    refund,
)
from .encoding import restamp
from .journal import LaneRecord
from .pacing import NEVER, Trouble, follows, with_tries
from .state import State, expired, inherit, superseded

HEADROOM_SILENT = 1
HEADROOM_URGENT = 2
"""Seconds that a timestamp may be ahead of the clock. Alerts and ends may use all of it, so that a
run of silent updates never makes an alert wait."""

Decided = tuple[State, Outcome]


@dataclass(slots=True, eq=False, repr=False)
class Lane:
    """The order of one activity token.

    ``last_timestamp`` is the newest timestamp sent, ``account`` the budget, ``left_at`` when the
    last push was sent. All three must survive a restart.
    """

    token: str
    last_timestamp: int = 0
    revision: int | None = None
    account: Account = FULL
    left_at: float = 0.0
    ended: bool = False
    frequent: bool | None = None
    shared: SharedAccount | None = None
    """The account used instead of its own, see `Delivery.pool`."""
    flying: State | None = None
    waiting: State | None = None
    trouble: Trouble | None = None
    place: int = 0
    """Where the lane is queued; this and ``wake_at`` belong to `Lanes`."""
    wake_at: float = NEVER

    journalled = True

    def __repr__(self) -> str:
        marks = (("in flight", self.flying), ("waiting", self.waiting), ("ended", self.ended))
        parts = [name for name, on in marks if on]
        return f"<{type(self).__name__} {self.token[:8]}... {', '.join(parts) or 'idle'}>"

    @property
    def idle(self) -> bool:
        """Whether no state waits and none is in flight."""
        return self.flying is None and self.waiting is None

    def offer(self, state: State) -> Decided | None:
        """Queue a state. Return the state that it replaced, or itself if too old, with its outcome.

        Raises ActivityEnded after an end was offered.
        """
        if self.ended:
            raise ActivityEnded(
                f"the activity of token {self.token[:8]}... was ended; nothing may follow its end. "
                "Start a new activity, which has a new token."
            )
        new, old = state.revision, self.revision
        if state.is_end:
            self.ended = True
        elif new is not None and old is not None and new <= old:
            return state, superseded(self.token, state, f"revision {new} is not newer")
        elif state.given_timestamp is not None and state.given_timestamp <= self.last_timestamp:
            why = f"timestamp {state.given_timestamp} is not newer"
            return state, superseded(self.token, state, why)
        if new is not None:
            self.revision = new
        replaced, self.waiting = self.waiting, state
        if replaced is None:
            return None
        detail = inherit(state, replaced)
        return replaced, superseded(self.token, replaced, detail, self.trouble)

    def withdraw(self, state: State) -> bool:
        """Withdraw a state whose sender was cancelled. Return False if it was already sent.

        After a withdrawn end, other states may follow.
        """
        if self.waiting is not state:
            return False
        self.waiting = None
        self.ended = self.ended and not state.is_end
        return True

    def ready_at(self, now: float, wall: float, minimum_interval: float = 0.0) -> float:
        """Return when the waiting state may be sent; NEVER if there is none or a push is in flight."""
        state = self.waiting
        if state is None or self.flying is not None:
            return NEVER
        ahead = HEADROOM_URGENT if state.is_pressing else HEADROOM_SILENT
        at = now
        # A lane with a timestamp too far ahead got it before the clock was set back. Waiting for
        # the clock would delay an end for as long as that.
        if not (state.is_pressing and self.last_timestamp > wall + HEADROOM_URGENT):
            at = max(now, self._next_timestamp(state, wall) - ahead + (now - wall))
        if self.trouble is not None:
            at = max(at, self.trouble.not_before)
        if minimum_interval and state.urgency is not Urgency.URGENT and not state.is_end:
            at = max(at, self.left_at + minimum_interval)
        return at

    def _next_timestamp(self, state: State, wall: float) -> int:
        given = state.given_timestamp
        return max(int(wall) if given is None else given, self.last_timestamp + 1)

    def depart(self, now: float, wall: float, budget: Budget) -> State:
        """Set the waiting state's timestamp and priority. It is in flight from now on."""
        state = self.waiting
        if state is None or self.flying is not None:
            raise DeliveryError(
                f"{self!r} has nothing that may leave; this is a defect, report it."
            )
        self._charge(state, now, wall, budget)
        self.left_at = now
        self.flying, self.waiting = state, None
        return state

    def _charge(self, state: State, now: float, wall: float, budget: Budget) -> None:
        stamp = self._next_timestamp(state, wall)
        urgency = Urgency.URGENT if state.is_end else state.urgency
        purse = self.shared or self
        budget = for_device(budget, self.frequent)
        state.charge = charge = charge_of(budget, purse.account, urgency, now)
        state.encoded = restamp(state.encoded, stamp, charge.priority)
        purse.account = charge.account
        self.last_timestamp = stamp

    def recall(self) -> Decided | None:
        """Undo `depart` for a push that was not sent, because there is a newer state.

        Return the state that thereby has its outcome.
        """
        state, self.flying = self.flying, None
        if state is None:
            return None
        purse = self.shared or self
        purse.account = refund(purse.account, state.charge)
        if self.waiting is None:
            self.waiting = state
            return None
        return state, superseded(self.token, state, inherit(self.waiting, state), self.trouble)

    def expire(self, now: float, detail: str = "") -> Decided | None:
        """Give up the waiting state if its last moment has passed; ``detail`` says why it waited."""
        state = self.waiting
        if state is None or now < state.last_moment:
            return None
        self.waiting = None
        trouble, self.trouble = self.trouble, None
        return state, expired(self.token, state.encoded.priority, trouble, detail)

    def settle(self, outcome: Outcome, now: float) -> list[Decided]:
        """Process the answer to the push in flight. Return the states that have their outcomes."""
        state, self.flying = self.flying, None
        if state is None:
            return []
        trouble = self.trouble
        outcome = with_tries(outcome, trouble)
        charge = state.charge
        if charge.demoted or charge.over_budget:
            outcome = msgspec.structs.replace(
                outcome, demoted=charge.demoted, over_budget=charge.over_budget
            )
        verdict = outcome.verdict
        if verdict is Verdict.ACCEPTED:
            self.trouble = None
            return [(state, outcome)]
        waiting = self.waiting
        if verdict is Verdict.DROP_TOKEN:
            self.waiting = self.trouble = None
            if waiting is None:
                return [(state, outcome)]
            unsent = msgspec.structs.replace(
                outcome, attempts=0, detail="the token was dropped before this state left"
            )
            return [(state, outcome), (waiting, unsent)]
        next_ = follows(
            outcome,
            trouble,
            now,
            replay_safe=state.encoded.replay_safe,
            last_moment=state.last_moment if waiting is None else NEVER,
        )
        if isinstance(next_, Outcome):
            # Only this state is invalid; the waiting one may be valid.
            self.trouble = None
            if waiting is not None:
                inherit(waiting, state)
            return [(state, next_)]
        self.trouble = next_
        if waiting is None:
            self.waiting = state
            return []
        detail = inherit(waiting, state)
        if not outcome.may_have_been_sent:
            outcome = superseded(self.token, state, detail, next_)
        next_.attempts = 0
        next_.may_have_been_sent = False
        return [(state, outcome)]

    def record(self) -> LaneRecord:
        """Return the journal record: the order, the account, and the state without an outcome.

        If one state is in flight and one waits, the waiting one is stored. It is the newest, and it
        carries the other's alert if APNs does not accept that one.
        """
        state = self.waiting or self.flying
        account = (self.shared or self).account
        return LaneRecord(
            token=self.token,
            last_timestamp=self.last_timestamp,
            revision=self.revision,
            window_start=account.start,
            used=account.used,
            device=self.shared.device if self.shared else "",
            left_at=self.left_at,
            ended=self.ended,
            frequent=self.frequent,
            urgency=int(state.urgency) if state else 1,
            deadline=state.deadline if state else None,
            message=state.encoded if state else None,
            intended=self.flying is not None and self.waiting is None,
        )


def restore_lane(record: LaneRecord, now: float) -> Lane:
    """Return a lane from its record. A state that may have been sent is sent again with a newer timestamp."""
    lane = Lane(
        record.token,
        last_timestamp=record.last_timestamp,
        revision=record.revision,
        account=Account(record.window_start, record.used),
        # A clock that was set back meanwhile must not block the lane until it catches up.
        left_at=min(record.left_at, now),
        ended=record.ended,
        frequent=record.frequent,
    )
    if record.message is not None:
        lane.waiting = State(
            record.message,
            urgency=Urgency(record.urgency),
            revision=record.revision,
            deadline=record.deadline,
        )
        lane.ended |= lane.waiting.is_end
        if record.intended:
            lane.trouble = Trouble(attempts=1, may_have_been_sent=True)
    return lane


class Errand(Lane):
    """The lane of a single push without an activity: a start or an ordinary notification.

    It has no order and replaces nothing. It is retried until its last moment, except that a start
    which may have been processed is never sent again: two cards are worse than an unknown outcome.
    A start is charged to its device's account once.
    """

    __slots__ = ("_starts",)

    journalled = False

    def __init__(self, token: str, state: State, starts: StartAccounts) -> None:
        super().__init__(token)
        self.waiting = state
        self._starts = starts

    def ready_at(self, now: float, wall: float, minimum_interval: float = 0.0) -> float:
        """Return when it may be sent: at once, or when its token may be retried."""
        del wall, minimum_interval
        if self.waiting is None or self.flying is not None:
            return NEVER
        return now if self.trouble is None else max(now, self.trouble.not_before)

    def _charge(self, state: State, now: float, wall: float, budget: Budget) -> None:
        del wall, budget
        if state.charge is UNCHARGED:  # charged once, for all its tries
            over = state.encoded.event == "start" and self._starts.charge(self.token, now)
            state.charge = Charge(state.encoded.priority, self.account, over_budget=over)
