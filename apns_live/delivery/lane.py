"""One activity's way to its phone: one push at a time, the newest state next.

A pure state machine: it is told the time and answers what may happen. It knows no client, no timer
and no journal.

    offer    a state arrives; it replaces the one that waits
    ready_at when the waiting one may leave
    depart   it leaves, with its timestamp and priority
    settle   the answer: done, or it (or what replaced it) goes again
"""

from __future__ import annotations

import msgspec

from ..errors import ActivityEnded, DeliveryError
from ..outcome import Outcome, Verdict
from ..payload import EncodedMessage
from .budget import Budget, Decision, Urgency, decide, for_device
from .encoding import carry_alert, restamp
from .pacing import NEVER, Trouble, again_at, last_moment
from .tickets import Ticket

HEADROOM_SILENT = 1
HEADROOM_URGENT = 2
"""Seconds that a timestamp may be ahead of now. Alerts and ends may use all of it, so that a run of
silent updates never makes an alert wait."""


class State:
    """One submitted state: what it says and what the caller wants of it.

    ``lifetime`` is the seconds until its expiration where that is only our default, else 0.
    """

    __slots__ = (
        "account_before",
        "deadline",
        "decision",
        "encoded",
        "given_timestamp",
        "last_moment",
        "lifetime",
        "revision",
        "submitted_at",
        "ticket",
        "urgency",
    )

    def __init__(
        self,
        encoded: EncodedMessage,
        *,
        urgency: Urgency,
        ticket: Ticket | None,
        submitted_at: float,
        revision: int | None = None,
        deadline: float | None = None,
        given_timestamp: int | None = None,
        lifetime: float = 0.0,
    ) -> None:
        self.encoded = encoded
        self.urgency = urgency
        self.ticket = ticket
        self.submitted_at = submitted_at
        self.revision = revision
        self.given_timestamp = given_timestamp
        self.deadline = deadline
        self.lifetime = lifetime
        self.decision: Decision | None = None
        self.account_before = 0.0
        self.last_moment = last_moment(
            deadline=deadline, expiration=encoded.expiration, stale_date=encoded.stale_date
        )

    @property
    def is_end(self) -> bool:
        """Whether this is the activity's last state."""
        return self.encoded.event == "end"


class Lane:
    """The order of one activity token.

    ``last_timestamp`` is the newest that left, ``full_at`` the budget account, ``left_at`` when the
    last push left; all that must survive a restart.
    """

    __slots__ = (
        "ended",
        "flying",
        "frequent",
        "full_at",
        "last_timestamp",
        "left_at",
        "place",
        "revision",
        "token",
        "trouble",
        "waiting",
        "wake_at",
    )

    def __init__(self, token: str) -> None:
        self.token = token
        self.last_timestamp = 0
        self.revision: int | None = None
        self.full_at = 0.0
        self.left_at = 0.0
        self.ended = False
        self.frequent: bool | None = None
        self.flying: State | None = None
        self.waiting: State | None = None
        self.trouble: Trouble | None = None
        # For whoever queues lanes:
        self.place = 0
        self.wake_at = NEVER

    def __repr__(self) -> str:
        parts = [
            name
            for name, on in (
                ("in flight", self.flying),
                ("waiting", self.waiting),
                ("ended", self.ended),
            )
            if on
        ]
        return f"<Lane {self.token[:8]}... {', '.join(parts) or 'idle'}>"

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return self.flying is None and self.waiting is None

    def offer(self, state: State) -> tuple[State, Outcome] | None:
        """Take a state; return the one that it replaced (or itself, when it is too old), with its outcome.

        Raises ActivityEnded after an end was offered.
        """
        if self.ended:
            raise ActivityEnded(
                f"the activity of token {self.token[:8]}... was ended; nothing may follow its end. "
                "Start a new activity, which has a new token."
            )
        if state.is_end:
            self.ended = True
        elif self._is_older(state):
            return state, superseded(self.token, state, f"revision {state.revision} is not newer")
        elif state.given_timestamp is not None and state.given_timestamp <= self.last_timestamp:
            return state, superseded(
                self.token, state, f"timestamp {state.given_timestamp} is not newer"
            )
        if state.revision is not None:
            self.revision = state.revision
        replaced, self.waiting = self.waiting, state
        if replaced is None:
            return None
        detail = inherit(state, replaced)
        return replaced, superseded(self.token, replaced, detail, self.trouble)

    def _is_older(self, state: State) -> bool:
        if state.revision is None or self.revision is None:
            return False
        return state.revision <= self.revision

    def next_timestamp(self, now: float) -> int:
        """Return the timestamp that the waiting state would leave with."""
        state = self.waiting
        stamp = max(int(now), self.last_timestamp + 1)
        if state is not None and state.given_timestamp is not None:
            stamp = max(state.given_timestamp, self.last_timestamp + 1)
        return stamp

    def ready_at(self, now: float, minimum_interval: float = 0.0) -> float:
        """Return when the waiting state may leave (seconds since 1970), NEVER when nothing can."""
        state = self.waiting
        if state is None or self.flying is not None:
            return NEVER
        pressing = state.is_end or state.encoded.has_alert
        ahead = HEADROOM_URGENT if pressing else HEADROOM_SILENT
        at = max(float(self.next_timestamp(now) - ahead), now)
        if self.trouble is not None:
            at = max(at, self.trouble.not_before)
        if minimum_interval and state.urgency is not Urgency.URGENT and not state.is_end:
            at = max(at, self.left_at + minimum_interval)
        return at

    def depart(self, now: float, budget: Budget) -> EncodedMessage:
        """Let the waiting state leave: it gets its timestamp, its priority, and is in flight."""
        state = self.waiting
        if state is None or self.flying is not None:
            raise DeliveryError(
                f"{self!r} has nothing that may leave; this is a defect, report it."
            )
        stamp = self.next_timestamp(now)
        urgency = Urgency.URGENT if state.is_end else state.urgency
        state.decision = decision = decide(
            for_device(budget, self.frequent), self.full_at, urgency, now
        )
        state.encoded = restamp(state.encoded, stamp, decision.priority)
        state.account_before, self.full_at = self.full_at, decision.full_at
        self.last_timestamp = stamp
        self.left_at = now
        self.flying, self.waiting = state, None
        return state.encoded

    def recall(self) -> tuple[State, Outcome] | None:
        """Take back a departure that certainly did not happen yet, because something newer came.

        Returns what is decided by that.
        """
        state, self.flying = self.flying, None
        if state is None:
            return None
        self.full_at = state.account_before
        if self.waiting is None:
            self.waiting = state
            return None
        return state, superseded(self.token, state, inherit(self.waiting, state), self.trouble)

    def expire(self, now: float) -> tuple[State, Outcome] | None:
        """Give up the waiting state if its last moment has passed."""
        state = self.waiting
        if state is None or now < state.last_moment:
            return None
        self.waiting = None
        trouble, self.trouble = self.trouble, None
        return state, expired(self.token, state, trouble)

    def settle(self, outcome: Outcome, now: float) -> list[tuple[State, Outcome]]:
        """Take the answer to what is in flight; return the states that are now decided."""
        state, self.flying = self.flying, None
        if state is None:
            return []
        trouble = self.trouble
        outcome = _dressed(outcome, state, trouble)
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
        failures = trouble.failures if trouble is not None else 0
        when = again_at(outcome, failures, now)
        if when == NEVER:
            # Wrong for this state; what waits behind it may be right.
            self.trouble = None
            if waiting is not None:
                inherit(waiting, state)
            return [(state, outcome)]
        self.trouble = trouble = Trouble(
            failures + 1,
            when,
            outcome.attempts,
            outcome.may_have_been_sent,
            outcome,
        )
        if waiting is not None:
            detail = inherit(waiting, state)
            if not outcome.may_have_been_sent:
                outcome = superseded(self.token, state, detail, trouble)
            trouble.attempts = 0
            trouble.may_have_been_sent = False
            return [(state, outcome)]
        if when >= state.last_moment:
            self.trouble = None
            return [(state, expired(self.token, state, trouble))]
        self.waiting = state
        return []


def inherit(newer: State, older: State) -> str:
    """Let ``newer`` carry what ``older`` still had to do; return a sentence if that was not possible."""
    newer.urgency = max(newer.urgency, older.urgency)
    if not older.encoded.has_alert or newer.encoded.has_alert:
        return ""
    combined = carry_alert(newer.encoded, older.encoded)
    if combined is None:
        return "its alert did not fit into the state that replaced it and was lost; shorten one of them"
    newer.encoded = combined
    return "its alert travels with the state that replaced it"


def superseded(token: str, state: State, detail: str, trouble: Trouble | None = None) -> Outcome:
    """Return the outcome of a state whose place was taken."""
    return Outcome(
        token=token,
        verdict=Verdict.SUPERSEDED,
        priority=state.encoded.priority,
        detail=detail,
        attempts=trouble.attempts if trouble else 0,
        may_have_been_sent=trouble.may_have_been_sent if trouble else False,
    )


def expired(token: str, state: State, trouble: Trouble | None) -> Outcome:
    """Return the outcome of a state whose deadline, expiration or stale date passed."""
    last = trouble.last if trouble else None
    return Outcome(
        token=token,
        verdict=Verdict.EXPIRED,
        status=last.status if last else 0,
        reason=last.reason if last else "",
        apns_id=last.apns_id if last else "",
        priority=state.encoded.priority,
        attempts=trouble.attempts if trouble else 0,
        may_have_been_sent=trouble.may_have_been_sent if trouble else False,
        detail="its deadline, expiration or stale date passed before APNs accepted it",
    )


def _dressed(outcome: Outcome, state: State, trouble: Trouble | None) -> Outcome:
    """Add what only the lane knows: the budget's part, and the tries before this one."""
    decision = state.decision
    before = trouble.attempts if trouble else 0
    sent_before = trouble.may_have_been_sent if trouble else False
    if decision is None or not (before or sent_before or decision.demoted or decision.over_budget):
        return outcome
    return msgspec.structs.replace(
        outcome,
        demoted=decision.demoted,
        over_budget=decision.over_budget,
        attempts=outcome.attempts + before,
        may_have_been_sent=outcome.may_have_been_sent
        or (sent_before and outcome.verdict is not Verdict.ACCEPTED),
    )
