"""The pushes that are not in flight: taken from sources, ready to be sent, or waiting for a retry.

Sources take turns. Their tokens are validated here, so that the engine and the pool can trust them, and
their outcomes are returned in batches. If a source raises, the error is reported to the event loop, and
the other sources continue.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any, cast

from ..errors import InvalidToken
from ..guard import RAISED
from ..outcome import Outcome, Verdict, alike
from ..payload import are_tokens, check_token
from ..pool import Carrier, Push, PushState, RequestIds, Sendable, pushes_that_leave
from .attachment import Acceptances, Alike, AlikeSource, Attachment, End
from .outcomes import refused_token
from .statistics import Counters

_together = attrgetter("message", "owner", "sent_at", "attempts")
_created = attrgetter("created")
_READY, _HELD = PushState.READY, PushState.HELD


class Intake:
    """The attached sources. ``refuse`` is called with each push whose token is invalid."""

    def __init__(self, ids: RequestIds, refuse: Callable[[Push, Outcome], object]) -> None:
        self._ids = ids
        self._refuse = refuse
        self.attachments: list[Attachment] = []
        """The sources that are asked for work."""
        self._turn = 0
        self.dirty: list[Attachment] = []
        """The sources whose batch has outcomes."""
        self._flushing = False

    def remove(self, attachment: Attachment, end: End) -> None:
        """Stop asking this source for work."""
        if attachment.end is End.OPEN:
            attachment.end = end
        if attachment in self.attachments:
            self.attachments.remove(attachment)
        if not attachment.in_hand:
            attachment.set_timer(None)

    def hungry(self) -> bool:
        """Whether a source may have work."""
        return any(not attachment.idle for attachment in self.attachments)

    def take(
        self, limit: int, now: float, carrier: Carrier | None = None, stream_id: int = 0
    ) -> Sequence[Push]:
        """Return up to ``limit`` new pushes; if several sources have work, a share from each.

        For ``carrier`` and ``stream_id`` see `Feed.take`.
        """
        hungry = [attachment for attachment in self.attachments if not attachment.idle]
        if not hungry:
            return ()
        if len(hungry) == 1:
            return self._take_from(hungry[0], limit, now, carrier, stream_id)
        self._turn += 1
        at = self._turn % len(hungry)
        taken: list[Push] = []
        share = max(1, limit // len(hungry))
        for attachment in hungry[at:] + hungry[:at]:
            if len(taken) >= limit:
                break
            taken += self._take_from(attachment, min(share, limit - len(taken)), now)
        return taken

    def _take_from(
        self,
        attachment: Attachment,
        limit: int,
        now: float,
        carrier: Carrier | None = None,
        stream_id: int = 0,
    ) -> Sequence[Push]:
        try:
            taken: Any = attachment.source.take(limit)
            items: list[Any] = taken if attachment.alike or type(taken) is list else list(taken)
        except RAISED as error:
            attachment.idle = True
            complain("a source of work raised in take()", error)
            return ()
        if not items:
            attachment.idle = True
            return ()
        if attachment.alike:
            message, tokens, ids = cast("Alike", taken)
            checked = attachment.checked or are_tokens(tokens)
            if carrier is not None and len(tokens) <= limit and checked:
                attachment.in_hand += len(tokens)
                ids = ids or self._ids.many(len(tokens))
                return pushes_that_leave(tokens, message, ids, attachment, now, carrier, stream_id)
            pairs = zip(tokens, ids or [""] * len(tokens), strict=True)
            items = [Push(token, message, request_id=request_id) for token, request_id in pairs]
        strange = [item for item in items if not isinstance(item, Push)]
        if strange:
            wrong = TypeError(f"{type(strange[0]).__name__} is not a WorkItem")
            complain("a source of work gave something else than a WorkItem", wrong)
            items = [item for item in items if isinstance(item, Push)]
        attachment.in_hand += len(items)
        for push, request_id in zip(items, self._ids.many(len(items)), strict=True):
            push.owner = attachment
            push.state = _READY
            if not push.created:
                push.created = now
            if not push.request_id:
                push.request_id = request_id
        return items if attachment.checked else self._with_good_tokens(items)

    def _with_good_tokens(self, items: list[Push]) -> list[Push]:
        """Return the pushes with valid tokens; refuse the others."""
        good: list[Push] = []
        message: Sendable | None = None
        for push in items:
            if push.message is not message:
                message = push.message
                encoded, to_channel = message.encoded, message.to_channel
            try:
                if not to_channel:
                    check_token(push.token, message=encoded)
                good.append(push)
            except InvalidToken as error:
                self._refuse(push, refused_token(push.token, error, message.priority))
        return good

    # Outcomes

    def settle(self, push: Push, outcome: Outcome) -> None:
        """Add an outcome to its source's batch."""
        owner = push.owner
        if not owner.batch and not owner.accepted:
            self.dirty.append(owner)
        owner.batch.append((push, outcome))

    def accepted(
        self,
        number: int,
        pushes: Sequence[Push],
        unique_ids: Sequence[object],
        now: float,
        counters: Counters,
    ) -> None:
        """Put each acceptance of connection ``number`` into a batch of its source.

        An `AlikeSource` gets them as `Acceptances`; other sources get an outcome for each.
        """
        at = 0
        for (message, owner, sent_at, attempts), group in groupby(pushes, _together):
            batch = list(group)
            count = len(batch)
            created = [push.created for push in batch]
            tokens = [push.token for push in batch]
            ids = [push.request_id for push in batch]
            unique = unique_ids[at : at + count] if unique_ids else ()
            at += count
            same_times = created.count(created[0]) == count
            if owner.alike and not same_times:  # the first one may have waited for a connection
                done = 0
                for _, some in groupby(batch, _created):
                    part = list(some)
                    self.accepted(number, part, unique[done : done + len(part)], now, counters)
                    done += len(part)
                continue
            like = Outcome(
                token="",
                verdict=Verdict.ACCEPTED,
                status=200,
                attempts=attempts,
                priority=message.priority,
                connection_id=number,
                queue_time=sent_at - created[0],
                round_trip=now - sent_at,
                elapsed=now - created[0],
            )
            if not owner.batch and not owner.accepted:
                self.dirty.append(owner)
            counters.round_trips.add(now - sent_at, count)
            if same_times:
                counters.queue_times.add(sent_at - created[0], count)
            if owner.alike:
                owner.accepted.append(Acceptances(like, tokens, ids, unique))
                continue
            columns: dict[str, Iterable[object]] = {"unique_id": unique or repeat("")}
            if not same_times:  # single sends: each has waited for its own time
                columns["queue_time"] = waits = [sent_at - each for each in created]
                columns["elapsed"] = [now - each for each in created]
                counters.queue_times.add_each(waits)
            outcomes = alike(like, token=tokens, apns_id=ids, **columns)
            owner.batch += zip(batch, outcomes, strict=True)
            for push in batch:
                push.state = PushState.SETTLED

    def flush(self) -> bool:
        """Pass each source its batch; return whether there was any.

        A source may call back; outcomes that this causes are passed on here too.
        """
        if self._flushing or not self.dirty:
            return False
        self._flushing = True
        try:
            while self.dirty:
                owner = self.dirty.pop()
                batch, owner.batch = owner.batch, []
                accepted, owner.accepted = owner.accepted, []
                owner.in_hand -= len(batch) + sum([len(each.tokens) for each in accepted])
                try:
                    if accepted:
                        cast("AlikeSource", owner.source).accepted(accepted)
                    if batch:
                        owner.source.settled(batch)
                except RAISED as error:
                    complain("a source of work raised in settled()", error)
                if owner.detached and not owner.in_hand:
                    owner.set_timer(None)
        finally:
            self._flushing = False
        return True


class Waiting:
    """The two places where pushes wait, limited by the sources.

    A push that is settled while it waits stays there, and is skipped because of its state.
    """

    def __init__(self) -> None:
        self.ready: deque[Push] = deque()
        self.held: list[tuple[float, int, Push]] = []
        """A heap of pushes that wait for a time, each after that time and a number."""
        self._count = 0

    def __iter__(self) -> Iterator[Push]:
        """Yield every waiting push."""
        yield from (push for push in self.ready if push.state == _READY)
        yield from (push for _, _, push in self.held if push.state == _HELD)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, push: Push) -> None:
        """Add a push after the ready ones."""
        push.state = _READY
        self.ready.append(push)

    def put_in_front(self, pushes: Sequence[Push]) -> None:
        """Add pushes before the ready ones, in their order."""
        self.ready.extendleft(reversed(pushes))

    def hold(self, push: Push, until: float) -> None:
        """Keep a push until a monotonic time."""
        push.state = _HELD
        push.owner.held += 1
        self._count += 1
        heapq.heappush(self.held, (until, self._count, push))

    def take(self, limit: int) -> list[Push]:
        """Remove and return up to ``limit`` ready pushes."""
        ready = self.ready
        taken: list[Push] = []
        while ready and len(taken) < limit:
            push = ready.popleft()
            if push.state == _READY:
                taken.append(push)
        return taken

    def first(self) -> Push | None:
        """Return the push that is sent next."""
        ready = self.ready
        while ready and ready[0].state != _READY:
            ready.popleft()
        return ready[0] if ready else None

    def release(self, now: float) -> None:
        """Make the pushes ready that were held until now."""
        held = self.held
        while held and (held[0][0] <= now or held[0][2].state != _HELD):
            _, _, push = heapq.heappop(held)
            if push.state == _HELD:
                push.owner.held -= 1
                self.add(push)

    def settled(self, push: Push) -> None:
        """Note that a push has its outcome, wherever it waits."""
        if push.state == _HELD:
            push.owner.held -= 1
        push.state = PushState.SETTLED

    def clear(self) -> None:
        """Forget everything; waiting pushes must be settled before."""
        self.ready.clear()
        self.held.clear()


def complain(message: str, error: BaseException) -> None:
    """Report an error that has no caller to be raised to."""
    asyncio.get_running_loop().call_exception_handler(
        {"message": f"apns_live: {message}", "exception": error}
    )
