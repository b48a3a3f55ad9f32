"""A submitted state with its options, its ticket and its outcome."""

import asyncio
from collections.abc import Callable, Generator
from dataclasses import InitVar, dataclass, field
from datetime import timedelta
from typing import TypedDict, Unpack

import msgspec

from ..client.edge import check_deadline
from ..guard import Guarded
from ..outcome import Outcome, Verdict
from ..payload import EncodedMessage, Message, encode
from .budget import UNCHARGED, Charge, Urgency, UrgencyName, check_urgency
from .dispatch import Dispatch
from .encoding import carry_alert
from .pacing import Trouble, last_moment


class Ticket:
    """Represents a submitted state; awaiting it returns its Outcome.

    It needs no task or future before it is awaited. Several tasks may await it, also repeatedly.
    Cancelling a waiter cancels neither the push nor the other waiters.
    """

    __slots__ = ("_callback", "_waiters", "outcome")

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        """The outcome, or None if there is none yet."""
        self._waiters: list[asyncio.Future[Outcome]] | None = None
        self._callback: Guarded | None = None

    def __repr__(self) -> str:
        return f"<Ticket {self.outcome.verdict.value if self.outcome else 'waiting'}>"

    def done(self) -> bool:
        """Return whether the outcome is known."""
        return self.outcome is not None

    def when_done(self, callback: Callable[[Outcome], object]) -> None:
        """Call ``callback`` with the outcome, at once if it is known. One callback per ticket.

        Its errors are logged and have no other effect.
        """
        guarded = Guarded(callback, "the callback given to when_done()")
        if self.outcome is not None:
            guarded(self.outcome)
        else:
            self._callback = guarded

    def resolve(self, outcome: Outcome) -> None:
        """Set the outcome. A second one is ignored, since a push has exactly one."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(outcome)
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(outcome)

    def __await__(self) -> Generator[object, None, Outcome]:
        if self.outcome is None:
            waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = [waiter]
            else:
                self._waiters.append(waiter)
            return (yield from waiter.__await__())
        return self.outcome


@dataclass(slots=True, eq=False)
class State:
    """A submitted state and its options.

    ``lifetime`` is the seconds until its expiration if no expiration time was given, else 0. Times
    are steady seconds since 1970 (`apns_live.clock.SteadyTime`).
    """

    encoded: EncodedMessage
    urgency: Urgency
    ticket: Ticket = field(default_factory=Ticket)
    token: str = ""
    """The token as the caller gave it."""
    revision: int | None = None
    deadline: float | None = None
    given_timestamp: int | None = None
    lifetime: float = 0.0
    step: InitVar[float] = 0.0
    charge: Charge = UNCHARGED
    last_moment: float = 0.0

    def __post_init__(self, step: float) -> None:
        self.last_moment = last_moment(
            deadline=self.deadline, expiration=self.encoded.expiration, step=step
        )

    @property
    def is_end(self) -> bool:
        """Whether this is the activity's last state."""
        return self.encoded.event == "end"

    @property
    def is_pressing(self) -> bool:
        """Whether it ends the activity or has an alert; then it does not wait for the clock."""
        return self.is_end or self.encoded.has_alert


class Options(TypedDict, total=False):
    """The options of a state: see `Delivery.submit`."""

    urgency: Urgency | UrgencyName | None
    revision: int | None
    deadline: float | None


def make_state(
    message: Message,
    dispatch: Dispatch,
    *,
    ticket: Ticket | None = None,
    token: str = "",
    **options: Unpack[Options],
) -> State:
    """Check and encode a message. Raises InvalidPayload and InvalidInput if it cannot be sent."""
    deadline = options.get("deadline")
    check_deadline(deadline)
    urgency = options.get("urgency")
    time = dispatch.time
    now, wall = time.now(), time.wall()
    given = getattr(message, "timestamp", None)
    encoded = dispatch.client.check_decodes(encode(message, now=wall))
    if urgency is None and getattr(message, "priority", None) is not None:
        urgency = Urgency.URGENT if encoded.priority == 10 else Urgency.QUIET
    # A duration says how long a state is useful from now on, whatever the time.
    expiration = getattr(message, "expiration", None)
    renewable = deadline is None and (expiration is None or isinstance(expiration, timedelta))
    return State(
        encoded,
        urgency=check_urgency(urgency, has_alert=encoded.has_alert),
        ticket=ticket or Ticket(),
        token=token,
        revision=options.get("revision"),
        deadline=None if deadline is None else now + deadline,
        given_timestamp=encoded.timestamp if given is not None else None,
        lifetime=max(0.0, encoded.expiration - wall) if renewable else 0.0,
        step=time.step,
    )


def inherit(newer: State, older: State) -> str:
    """Give ``newer`` the urgency and the alert of ``older``. Return a sentence about the alert."""
    newer.urgency = max(newer.urgency, older.urgency)
    if not older.encoded.has_alert or newer.encoded.has_alert:
        return ""
    combined = carry_alert(newer.encoded, older.encoded)
    if combined is None:
        return "its alert did not fit into the state that replaced it and was lost; shorten one of them"
    newer.encoded = combined
    return "its alert travels with the state that replaced it"


# Outcomes of states that APNs did not accept.


def superseded(token: str, state: State, detail: str, trouble: Trouble | None = None) -> Outcome:
    """Return the outcome of a state that was replaced."""
    return unsent(token, state.encoded.priority, detail, trouble, Verdict.SUPERSEDED)


def expired(token: str, priority: int, trouble: Trouble | None, detail: str = "") -> Outcome:
    """Return the outcome of a push whose deadline or expiration passed."""
    detail = detail or "its deadline or expiration passed before APNs accepted it"
    outcome = unsent(token, priority, detail, trouble, Verdict.EXPIRED)
    last = trouble.last if trouble else None
    if last is None:
        return outcome
    return msgspec.structs.replace(
        outcome, status=last.status, reason=last.reason, apns_id=last.apns_id
    )


def unsent(
    token: str,
    priority: int,
    why: str,
    trouble: Trouble | None = None,
    verdict: Verdict = Verdict.NOT_SENT,
) -> Outcome:
    """Return the outcome of a push that is not sent (again). After a try, NOT_SENT becomes UNKNOWN."""
    before = trouble or Trouble()
    doubt = before.may_have_been_sent
    return Outcome(
        token=token,
        verdict=Verdict.UNKNOWN if doubt and verdict is Verdict.NOT_SENT else verdict,
        priority=priority,
        attempts=before.attempts,
        may_have_been_sent=doubt,
        detail=why,
    )
