"""A tap on a webhook button: the phone calls here, and the webhook is called from here.

The address is the permission: it is signed, names one button, and expires. Nothing of the webhook,
not even its answer, reaches the phone.
"""

from __future__ import annotations

from ...activities.cards.buttons import TapSigner
from ...activities.cards.webhooks import WebhookRelay
from ...errors import ActivitiesError
from ..calls import Call
from . import webhook_store
from .refusals import Refused
from .sending import TAPS

_PER_MINUTE = 30
_MAX_LENGTH = 2_048


async def tap(call: Call) -> dict[str, bool]:
    """Call the webhook of the button that a phone's owner has tapped."""
    gateway, signed = call.gateway, call.part("tap")
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
        found = await webhook_store.button_of(service.database, app_id, digest)
        if found is None:
            raise _unknown()
        app, button = found
        if gateway.relay is None:
            hosts = gateway.settings.webhook_hosts
            gateway.relay = WebhookRelay(allow=hosts, clock=gateway.clock)
        called = await gateway.relay.call(button, event_id=gateway.new_id())
        await webhook_store.log_call(service.database, app, place, called, now=call.now)
    if not called.ok:
        raise Refused(502, "Action failed", "The webhook did not take the call.")
    return {"success": True}


def _unknown() -> Refused:
    return Refused(404, "Action not found", "This address names no action.")
