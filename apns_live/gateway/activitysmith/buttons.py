"""Buttons: a phone gets a URL to open, or a signed URL of this gateway that calls the button's webhook.

The phone never learns the webhook's URL, body or answer. Its URL has a digest of the stored button, is signed,
valid for one button, and expires: the URL itself is the permission. The same button on the same card keeps
its URL, so that an unchanged state stays unchanged. Each tap is logged.
"""

import base64
import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select

from ...activities.cards.buttons import Button, TapSigner, WebhookRelay
from ...activities.cards.content_states import State
from ...activities.store import schema
from ...activities.store.statements import insert_into
from ...errors import ActivitiesError, InvalidInput
from .dialect import Call, Refused
from .requests import SECONDARY_TYPES, SLOTS, LiveCall

TAPS = "taps of buttons"
"""The purpose for which the signing key of tap addresses is derived from the store key."""
CARD_SECONDS = 24 * 3600.0
"""A card is gone 12 hours after its start at the latest; a link that is kept has half its time left."""
PUSH_SECONDS = 7 * 24 * 3600.0
PATH = "/live-activity/taps/"
BUTTON_DAYS = 30
_PER_MINUTE = 30
_MAX_LENGTH = 2_048
_PRUNED_AT_ONCE = 100


@dataclass(slots=True)
class TapLinks:
    """Shows buttons as the phone gets them, with signed tap addresses below ``base`` for webhooks.

    ``used`` collects the buttons that must be stored. ``place`` says what carries the buttons, for the log:
    ``activity:ID``, ``stream:KEY`` or ``notification``. ``now`` is the time and ``seconds`` how long an
    address is valid, both in seconds.
    """

    signer: TapSigner
    base: str
    app: str
    place: str
    now: float
    seconds: float
    used: dict[str, Button] = field(default_factory=dict)

    def shown(self, button: Button, former: object = None) -> dict[str, Any]:
        """Return a button for the phone. ``former`` is the same button on the previous card."""
        url = self._address(button, former) if button.kind == "webhook" else button.url
        return {"title": button.title, "type": button.kind, "url": url}

    def _address(self, button: Button, former: object) -> str:
        """Return the ``former`` button's address if it is valid for long enough, else a new one."""
        base, digest = self.base.rstrip("/") + PATH, digest_of(button)
        self.used[digest] = button
        known = former.get("url") if isinstance(former, Mapping) else None
        if isinstance(known, str) and known.startswith(base):
            with contextlib.suppress(ActivitiesError):
                place = self.signer.open(known[len(base) :], now=self.now + self.seconds / 2)
                if place == (self.app, self.place, digest):
                    return known
        if base == PATH:
            problem = "a webhook button needs to know where phones reach this gateway"
            raise InvalidInput(problem, "action", "Set public_url of the gateway (--public-url).")
        expires = self.now + self.seconds
        return base + self.signer.sign(self.app, self.place, digest, expires=expires)

    def drawn(
        self, state: State, buttons: Mapping[str, Button | None], current: Mapping[str, Any] | None
    ) -> State:
        """Return the state with its buttons. A button that is not mentioned stays on the card.

        Raises `InvalidInput` for a second button if this type of card has only one.
        """
        result, card = dict(state), current or {}
        for slot in SLOTS:
            fits = slot == "action" or state.get("type") in SECONDARY_TYPES
            if (button := buttons.get(slot)) is None:
                if slot not in buttons and slot in card and fits:
                    result[slot] = card[slot]
            elif fits:
                result[slot] = self.shown(button, card.get(slot))
            else:
                problem = f"is not shown by a card of type {state.get('type')}"
                remedy = f"Only {', '.join(sorted(SECONDARY_TYPES))} have one."
                raise InvalidInput(problem, slot, remedy)
        return result


def links_of(call: Call, place: str, seconds: float) -> TapLinks:
    """Return the maker of tap addresses for buttons on ``place``.

    They begin with the URL at which phones reach this gateway. It never comes from the caller's Host
    header: phones would send their taps there.
    """
    gateway, signer = call.gateway, TapSigner(call.service.apps.sealer.derive(TAPS))
    base = gateway.settings.public_url or gateway.address
    return TapLinks(signer, base, call.app.id, place, call.moment, seconds)


def digest_of(button: Button) -> str:
    """Return the key of a stored button: SHA-256 of all of it in base64url."""
    text = msgspec.json.encode([button.title, button.url, button.method, button.body])
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()


async def draw(
    call: Call, state: State, said: LiveCall, current: dict[str, Any] | None, place: str
) -> State:
    """Return the state with its buttons, and store their webhooks. Raises `InvalidInput`."""
    links = links_of(call, place, CARD_SECONDS)
    drawn = links.drawn(state, said.buttons, current)
    await keep_buttons(call, links.used)
    return drawn


async def keep_buttons(call: Call, buttons: Mapping[str, Button]) -> None:
    """Store buttons under their digests. Delete some whose URLs have all expired."""
    if not buttons:
        return
    table = schema.buttons
    async with call.service.database.write() as connection:
        for digest, button in buttons.items():
            newer = {"created_at": call.now}
            facts = {name: getattr(button, name) for name in ("title", "url", "method", "body")}
            added = insert_into(connection, table).values(
                app_id=call.app.row, digest=digest, **facts, **newer
            )
            await connection.execute(
                added.on_conflict_do_update(index_elements=["app_id", "digest"], set_=newer)
            )
        old = select(table.c.id).where(table.c.created_at < call.now - BUTTON_DAYS * 86_400_000)
        await connection.execute(delete(table).where(table.c.id.in_(old.limit(_PRUNED_AT_ONCE))))


async def tap(call: Call) -> dict[str, bool]:
    """Call the webhook of a tapped button."""
    gateway, signed = call.gateway, call.parts["tap"]
    service = gateway.service
    signer = TapSigner(service.apps.sealer.derive(TAPS))
    if len(signed) > _MAX_LENGTH or not signed.isascii():
        raise _unknown()
    try:
        app_id, place, digest = signer.open(signed, now=gateway.clock.time())
    except ActivitiesError as error:
        if "expired" in str(error):
            raise Refused(410, "Action expired", "The card is no longer current.") from None
        raise _unknown() from None
    with gateway.limits.enter_as(f"tap {digest}", _PER_MINUTE):
        table, apps = schema.buttons, schema.apps
        query = select(table).join(apps, apps.c.id == table.c.app_id)
        query = query.where(apps.c.public_id == app_id, table.c.digest == digest)
        if (row := await service.database.row(query)) is None:
            raise _unknown()
        button = Button(row.title, "webhook", row.url, row.method, row.body)
        if gateway.relay is None:
            gateway.relay = WebhookRelay(allow=gateway.settings.webhook_hosts, clock=gateway.clock)
        called = await gateway.relay.call(button, event_id=service.new_id())
        # The log has the activity that carried the button, if it is still known.
        kind, _, name = place.partition(":")
        activity, activities, streams = None, schema.activities, schema.streams
        if kind == "activity":
            found = select(activities.c.id).where(activities.c.public_id == name)
            activity = found.where(activities.c.app_id == row.app_id).scalar_subquery()
        elif kind == "stream":
            found = select(streams.c.activity_id).where(streams.c.key == name)
            activity = found.where(streams.c.app_id == row.app_id).scalar_subquery()
        await service.database.change(
            insert(schema.webhook_calls).values(
                app_id=row.app_id,
                activity_id=activity,
                url_host=called.host[:255],
                method=called.method,
                status=called.status or None,
                error=called.error[:255] or None,
                attempts=called.attempts,
                created_at=call.now,
            )
        )
    if not called.ok:
        raise Refused(502, "Action failed", "The webhook did not take the call.")
    return {"success": True}


def _unknown() -> Refused:
    return Refused(404, "Action not found", "This address names no action.")
