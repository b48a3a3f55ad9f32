"""A tap on a webhook button: the phone calls here, and the webhook is called from here.

The address is the permission: it is signed, names one button, and expires. Nothing of the webhook,
not even its answer, reaches the phone.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from ...activities.cards.buttons import TapSigner
from ...activities.cards.webhooks import WebhookRelay
from ...activities.times import milliseconds
from ...errors import ActivitiesError
from ..callers import Endpoint, guarded
from ..context import Gateway
from ..problems import json_answer
from . import webhook_store
from .refusals import Refused, answer_refusal
from .sending import TAPS

_PER_MINUTE = 30
_MAX_LENGTH = 2_048

Relay = Callable[[], WebhookRelay]


def tap_route(gateway: Gateway, relay: Relay) -> Endpoint:
    """Return the endpoint that phones call."""

    async def respond(request: Request) -> Response:
        await _tap(gateway, relay(), request.path_params["tap"])
        return json_answer({"success": True})

    return guarded(gateway, respond, answer_refusal)


async def _tap(gateway: Gateway, relay: WebhookRelay, tap: str) -> None:
    service = gateway.service
    signer = TapSigner(service.apps.sealer.derive(TAPS))
    if len(tap) > _MAX_LENGTH or not tap.isascii():
        raise _unknown()
    try:
        app_id, place, digest = signer.open(tap, now=gateway.clock.time())
    except ActivitiesError as error:
        if "expired" in str(error):
            raise Refused(410, "Action expired", "The card is no longer current.") from None
        raise _unknown() from None
    with gateway.limits.enter_as(f"tap {digest}", _PER_MINUTE):
        found = await webhook_store.button_of(service.database, app_id, digest)
        if found is None:
            raise _unknown()
        app, button = found
        called = await relay.call(button, event_id=gateway.new_id())
        await webhook_store.log_call(
            service.database,
            app,
            place,
            host=called.host,
            method=called.method,
            status=called.status,
            error=called.error,
            attempts=called.attempts,
            now=milliseconds(gateway.clock),
        )
    if not called.ok:
        raise Refused(502, "Action failed", "The webhook did not take the call.")


def _unknown() -> Refused:
    return Refused(404, "Action not found", "This address names no action.")
