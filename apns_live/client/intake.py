"""Validates what work sources give to the engine.

Sources take turns. Their tokens are validated here, so that the engine and the pool can trust them, and
their outcomes are returned in batches. If a source raises, the error is reported to the event loop, and
the other sources continue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from ..errors import InvalidToken
from ..guard import RAISED
from ..outcome import Outcome
from ..payload import are_tokens, check_token
from ..pool import Carrier, Push, PushState, RequestIds, Sendable, pushes_that_leave
from .attachment import Attachment, End, TokenSource
from .outcomes import refused_token


class Intake:
    """The attached sources. ``refuse`` gets each push whose token cannot be one."""

    def __init__(self, ids: RequestIds, refuse: Callable[[Push, Outcome], object]) -> None:
        self._ids = ids
        self._refuse = refuse
        self.attachments: list[Attachment] = []
        """Those that are asked for work."""
        self._turn = 0
        self._dirty: list[Attachment] = []
        self._flushing = False

    def add(self, attachment: Attachment) -> None:
        """Ask this source for work from now on."""
        self.attachments.append(attachment)

    def remove(self, attachment: Attachment, end: End) -> None:
        """Ask this source for work no more."""
        if attachment.end is End.OPEN:
            attachment.end = end
        if attachment in self.attachments:
            self.attachments.remove(attachment)
        if not attachment.in_hand:
            attachment.set_timer(None)

    def hungry(self) -> bool:
        """Whether some source may have work."""
        return any(not attachment.idle for attachment in self.attachments)

    def take(
        self, limit: int, now: float, carrier: Carrier | None = None, stream_id: int = 0
    ) -> Sequence[Push]:
        """Return up to ``limit`` new pushes; when several sources have work, a share from each.

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
            taken = attachment.source.take(limit)
            items: list[Any] = taken if type(taken) is list else list(taken)
        except RAISED as error:
            attachment.idle = True
            complain("a source of work raised in take()", error)
            return ()
        if not items:
            attachment.idle = True
            return ()
        message = attachment.message
        if message is not None:
            attachment.in_hand += len(items)
            checked = attachment.checked or are_tokens(items)
            if carrier is not None and len(items) <= limit and checked:
                tokens = cast("list[str]", items)
                ids = self._ids.many(len(tokens))
                return pushes_that_leave(tokens, message, ids, attachment, now, carrier, stream_id)
            attachment.in_hand -= len(items)
            items = [Push(token, message) for token in cast("list[str]", items)]
        strange = [item for item in items if not isinstance(item, Push)]
        if strange:
            wrong = TypeError(f"{type(strange[0]).__name__} is not a WorkItem")
            complain("a source of work gave something else than a WorkItem", wrong)
            items = [item for item in items if isinstance(item, Push)]
        attachment.in_hand += len(items)
        ready = PushState.READY
        for push, request_id in zip(items, self._ids.many(len(items)), strict=True):
            push.owner = attachment
            push.state = ready
            if not push.created:
                push.created = now
            if not push.request_id:
                push.request_id = request_id
        return items if attachment.checked else self._with_good_tokens(items)

    def _with_good_tokens(self, items: list[Push]) -> list[Push]:
        """Return the pushes that can be sent; refuse the others."""
        good: list[Push] = []
        message: Sendable | None = None
        for push in items:
            if push.message is not message:
                message = push.message
                encoded, to_channel = message.encoded, bool(message.fixed_path)
            try:
                if not to_channel:
                    check_token(push.token, message=encoded)
                good.append(push)
            except InvalidToken as error:
                self._refuse(push, refused_token(push.token, error, message.priority))
        return good

    # Outcomes

    def settle(self, push: Push, outcome: Outcome) -> None:
        """Put an outcome into its source's batch."""
        owner = push.owner
        if not owner.batch and not owner.accepted:
            self._dirty.append(owner)
        owner.batch.append((push, outcome))

    def mark(self, owner: Attachment) -> None:
        """Say that ``owner.batch`` is about to get its first outcome."""
        self._dirty.append(owner)

    def flush(self) -> bool:
        """Hand every source its batch; say whether there was any.

        A source may call back in; what it settles by that is handed out here too.
        """
        if self._flushing or not self._dirty:
            return False
        self._flushing = True
        try:
            while self._dirty:
                owner = self._dirty.pop()
                batch, owner.batch = owner.batch, []
                accepted, owner.accepted = owner.accepted, []
                owner.in_hand -= len(batch) + sum([len(each.tokens) for each in accepted])
                try:
                    if accepted:
                        cast("TokenSource", owner.source).accepted(accepted)
                    if batch:
                        owner.source.settled(batch)
                except RAISED as error:
                    complain("a source of work raised in settled()", error)
                if owner.detached and not owner.in_hand:
                    owner.set_timer(None)
        finally:
            self._flushing = False
        return True


def complain(message: str, error: BaseException) -> None:
    """Report an error that has nobody to be raised to."""
    asyncio.get_running_loop().call_exception_handler(
        {"message": f"apns_live: {message}", "exception": error}
    )
