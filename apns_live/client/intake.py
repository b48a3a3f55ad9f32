"""Taking work from the sources, each in its turn, and giving them their outcomes in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..outcome import Outcome
from ..pool import Push, PushState
from .attachment import Attachment


class Intake:
    """The attached sources. What a source raises is reported to the event loop; others go on."""

    def __init__(self, ids: Callable[[], str]) -> None:
        self._ids = ids
        self._attachments: list[Attachment] = []
        self._turn = 0
        self._dirty: list[Attachment] = []
        self._flushing = False

    def add(self, attachment: Attachment) -> None:
        """Ask this source for work from now on."""
        self._attachments.append(attachment)

    def remove(self, attachment: Attachment) -> None:
        """Ask this source for work no more."""
        attachment.detached = True
        if attachment in self._attachments:
            self._attachments.remove(attachment)
        if not attachment.in_hand:
            attachment.set_timer(None)

    def all(self) -> list[Attachment]:
        """Return those that are asked for work."""
        return list(self._attachments)

    def hungry(self) -> bool:
        """Whether some source may have work."""
        return any(not attachment.idle for attachment in self._attachments)

    def take(self, limit: int, now: float) -> Sequence[Push]:
        """Return up to ``limit`` new pushes; when several sources have work, a share from each."""
        hungry = [attachment for attachment in self._attachments if not attachment.idle]
        if not hungry:
            return ()
        if len(hungry) == 1:
            return self._take_from(hungry[0], limit, now)
        self._turn += 1
        at = self._turn % len(hungry)
        taken: list[Push] = []
        share = max(1, limit // len(hungry))
        for attachment in hungry[at:] + hungry[:at]:
            if len(taken) >= limit:
                break
            taken += self._take_from(attachment, min(share, limit - len(taken)), now)
        return taken

    def _take_from(self, attachment: Attachment, limit: int, now: float) -> Sequence[Push]:
        try:
            items = attachment.source.take(limit)
        except Exception as error:  # noqa: BLE001 - a source is not ours; the engine goes on
            attachment.idle = True
            complain("a source of work raised in take()", error)
            return ()
        if not items:
            attachment.idle = True
            return ()
        attachment.in_hand += len(items)
        ids = self._ids
        ready = PushState.READY
        for push in items:
            push.owner = attachment
            push.state = ready
            if not push.created:
                push.created = now
            if not push.request_id:
                push.request_id = ids()
        return items

    # Outcomes

    def settle(self, push: Push, outcome: Outcome) -> None:
        """Put an outcome into its source's batch."""
        push.state = PushState.SETTLED
        owner = push.owner
        if not owner.batch:
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
                owner.in_hand -= len(batch)
                try:
                    owner.source.settled(batch)
                except Exception as error:  # noqa: BLE001 - as in take()
                    complain("a source of work raised in settled()", error)
                if owner.detached and not owner.in_hand:
                    owner.set_timer(None)
        finally:
            self._flushing = False
        return True


def complain(message: str, error: Exception) -> None:
    """Report an error that has nobody to be raised to."""
    asyncio.get_running_loop().call_exception_handler(
        {"message": f"apns_live: {message}", "exception": error}
    )
