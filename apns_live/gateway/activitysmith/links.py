"""Buttons as phones get them: a URL to open, or a signed gateway URL to call.

The phone never gets a webhook's URL or body. It gets a gateway URL with a digest of the stored button,
which is signed and expires. The same button on the same card keeps its URL, so that an unchanged state
stays unchanged.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, select

from ...activities.cards.buttons import Button, TapSigner
from ...activities.cards.content_states import State
from ...activities.store import schema
from ...activities.store.statements import insert_into
from ...errors import ActivitiesError, InvalidInput
from .dialect import Call
from .requests import SECONDARY_TYPES, SLOTS

CARD_SECONDS = 24 * 3600.0
"""A card is gone 12 hours after its start at the latest; a link that is kept has half its time left."""
PUSH_SECONDS = 7 * 24 * 3600.0
PATH = "/live-activity/taps/"
BUTTON_DAYS = 30
_PRUNED_AT_ONCE = 100


class TapLinks:
    """Signs tap addresses below ``base``, and remembers which buttons have to be stored.

    ``place`` says what carries the buttons, for the log: ``activity:ID``, ``stream:KEY`` or
    ``notification``. ``now`` and ``seconds`` are seconds.
    """

    def __init__(
        self, signer: TapSigner, *, base: str, app: str, place: str, now: float, seconds: float
    ) -> None:
        self._signer = signer
        self._base = base.rstrip("/") + PATH
        self._app = app
        self._place = place
        self._now = now
        self._seconds = seconds
        self.used: dict[str, Button] = {}

    def address(self, button: Button, former: Mapping[str, Any] | None) -> str:
        """Return the address, the former one where it is still good for long enough."""
        digest = digest_of(button)
        self.used[digest] = button
        known = former.get("url") if former is not None else None
        if isinstance(known, str) and known.startswith(self._base):
            try:
                signed = known[len(self._base) :]
                place = self._signer.open(signed, now=self._now + self._seconds / 2)
            except ActivitiesError:
                pass
            else:
                if place == (self._app, self._place, digest):
                    return known
        if self._base == PATH:
            raise InvalidInput(
                "a webhook button needs to know where phones reach this gateway",
                field="action",
                remedy="Set public_url of the gateway (--public-url).",
            )
        return self._base + self._signer.sign(
            self._app, self._place, digest, expires=self._now + self._seconds
        )


def digest_of(button: Button) -> str:
    """Return what a stored button is found by: SHA-256 of all of it in base64url."""
    text = msgspec.json.encode([button.title, button.url, button.method, button.body])
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()


def with_buttons(
    state: State,
    buttons: Mapping[str, Button | None],
    *,
    current: Mapping[str, Any] | None,
    links: TapLinks,
) -> State:
    """Return the state with its buttons; one that was not mentioned stays as it is on the card.

    Raises `InvalidInput` for a second button on a kind of card that has one only.
    """
    result = dict(state)
    card = current or {}
    for slot in SLOTS:
        fits = slot == "action" or state.get("type") in SECONDARY_TYPES
        if slot not in buttons:
            if slot in card and fits:
                result[slot] = card[slot]
            continue
        button = buttons[slot]
        if button is None:
            continue
        if not fits:
            raise InvalidInput(
                f"is not shown by a card of type {state.get('type')}",
                field=slot,
                remedy=f"Only {', '.join(sorted(SECONDARY_TYPES))} have one.",
            )
        result[slot] = _shown(button, card.get(slot), links)
    return result


def push_buttons(buttons: Sequence[Button], links: TapLinks) -> list[dict[str, Any]]:
    """Return the buttons of a notification."""
    return [_shown(button, None, links) for button in buttons]


def _shown(button: Button, former: object, links: TapLinks) -> dict[str, Any]:
    url = button.url
    if button.kind == "webhook":
        known = former if isinstance(former, Mapping) else None
        url = links.address(button, known)
    return {"title": button.title, "type": button.kind, "url": url}


async def keep_buttons(call: Call, buttons: Mapping[str, Button]) -> None:
    """Store buttons under their digests, and drop some that nothing can name any more."""
    if not buttons:
        return
    table = schema.buttons
    async with call.service.database.write() as connection:
        for digest, button in buttons.items():
            await connection.execute(
                insert_into(connection, table)
                .values(
                    app_id=call.app.row,
                    digest=digest,
                    title=button.title,
                    url=button.url,
                    method=button.method,
                    body=button.body,
                    created_at=call.now,
                )
                .on_conflict_do_update(
                    index_elements=["app_id", "digest"], set_={"created_at": call.now}
                )
            )
        old = (
            select(table.c.id)
            .where(table.c.created_at < call.now - BUTTON_DAYS * 86_400_000)
            .limit(_PRUNED_AT_ONCE)
        )
        await connection.execute(delete(table).where(table.c.id.in_(old)))
