"""FCM's HTTP v1 API for Apple devices.

Two calls: an access token for a signed assertion, and one message to one device.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar
from urllib.parse import parse_qs

from starlette.responses import Response

from ...activities.decodes import check_decodes
from ...activities.send.apns_clients import NoKey
from ...errors import BadBody
from .. import service_accounts as accounts
from ..calls import Call, Face, operation
from ..keys import ApiKey
from ..problems import json_answer
from ..reach import is_named
from ..scopes import Dialect
from .answers import REALM, STATUS, GoogleError, failure_of, fcm, info, refusal_of
from .messages import read_send

__all__ = ["Fcm"]

PURPOSE = "fcm access tokens"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEADLINE = 12.0
"""Seconds for all tries of a push: Node's SDK waits for 15."""
MAX_BYTES = 65_536
_TOKEN_BYTES = 16_384
_TOKENS_PER_MINUTE = 600
_PATHS = ("/v1/projects/", "/batch", "/iid/")
_numbers = itertools.count()


class Fcm(Face):
    """FCM's API: Google's error format, and access tokens in place of API keys."""

    dialect: ClassVar[Dialect] = "fcm"
    media_type = False

    def __init__(self) -> None:
        path = "/v1/projects/{project}/messages:send"
        form = {"application/x-www-form-urlencoded": ""}
        self.operations = [
            operation(self, f"POST {path}", send, grouped=True, limit_bytes=MAX_BYTES),
            operation(self, "POST /token", token, who="anyone", takes=form),
        ]

    def owns(self, path: str) -> bool:
        """Its own paths, including those of unsupported methods."""
        return path.startswith(_PATHS)

    def refuse(self, error: Exception) -> Response:
        """Return the answer to an error. The text of a defect is not shown to the caller."""
        refusal = refusal_of(error)
        said: dict[str, Any] = {"code": refusal.code, "message": str(refusal)}
        said["status"] = STATUS[refusal.code]
        if refusal.details:
            said["details"] = refusal.details
        headers = {"www-authenticate": REALM} if refusal.code == 401 else {}
        return json_answer({"error": said}, refusal.code, headers, retry_after=refusal.retry_after)

    async def find(self, call: Call) -> ApiKey:
        """Return the key of an access token, which must be one of the project. Raises `GoogleError`."""
        given, gateway = call.secret(), call.gateway
        if not given:
            raise _unauthenticated("CREDENTIALS_MISSING")
        found = accounts.account_of(gateway.service.apps.sealer.derive(PURPOSE), given)
        if found is not None and found[1] <= gateway.clock.time():
            raise _unauthenticated("ACCESS_TOKEN_EXPIRED")
        known = None if found is None else await gateway.keys.with_proof(found[0])
        if known is None:
            call.refused()
            raise _unauthenticated("ACCESS_TOKEN_TYPE_UNSUPPORTED")
        project = call.parts["project"]
        if not is_named(known[0].app, project, accounts.PROJECT_SETTING):
            raise GoogleError(
                403,
                "Permission 'cloudmessaging.messages.create' denied on resource "
                f"'//cloudresourcemanager.googleapis.com/projects/{project[:100]}' "
                "(or it may not exist).",
                [fcm("SENDER_ID_MISMATCH")],
            )
        return known[0]


async def token(call: Call) -> Response:
    """Answer with an access token, or with an error of OAuth (RFC 6749, 5.2)."""
    gateway = call.gateway
    try:
        text = await call.visit.body_of(_TOKEN_BYTES)
        given = parse_qs(text.decode(), max_num_fields=20)
    except (BadBody, ValueError):
        return json_answer({"error": "invalid_request"}, 400)
    if given.get("grant_type") != [GRANT]:
        return json_answer({"error": "unsupported_grant_type"}, 400)
    try:
        assertion = given.get("assertion", [""])[0]
        lookup = accounts.issuer_of(assertion)
        found = await gateway.keys.with_proof(lookup)
        if found is None:
            raise accounts.InvalidGrant("Invalid grant: account not found")
        key, public = found
        call.visit.app = key.app.row
        now = gateway.clock.time()
        accounts.check_assertion(assertion, public, now=now)
    except accounts.InvalidGrant as error:
        call.refused()
        body = {"error": "invalid_grant", "error_description": str(error)}
        return json_answer(body, 400)
    with gateway.limits.enter_as(f"fcm tokens {key.caller}", _TOKENS_PER_MINUTE):
        secret = gateway.service.apps.sealer.derive(PURPOSE)
        made = accounts.access_token(secret, lookup, now=now)
    return json_answer(
        {"access_token": made, "expires_in": accounts.SECONDS - 1, "token_type": "Bearer"}
    )


async def send(call: Call, body: Any) -> Response:
    """Send one message to one device; the answer waits for APNs."""
    gateway, app = call.gateway, call.app
    now = gateway.clock.time()
    asked = read_send(body, bundle_id=app.bundle_id, now=now)
    call.need(asked.scope)
    if asked.message.event == "start":
        state, attributes = asked.aps.get("content-state"), asked.aps.get("attributes")
        settings = (await gateway.service.activities.versions.in_use(app)).settings
        check_decodes(settings, str(asked.aps.get("attributes-type")), state, attributes)
    named = f"projects/{call.parts['project']}/messages"
    if asked.validate_only:
        return json_answer({"name": f"{named}/fake_message_id"})
    call.visit.leave()  # The call waits for APNs. The client limits the number of such calls.
    try:
        async with gateway.service.courier.client(app, app.environment) as client:
            sendable = client.prepare(asked.message)
            outcome = await client.send(sendable, asked.token, deadline=DEADLINE)
    except NoKey as error:
        raise GoogleError(401, str(error), [fcm("THIRD_PARTY_AUTH_ERROR")]) from None
    if not outcome.accepted:
        unregistered = app.settings.get("fcm_unregistered", False) is True
        raise failure_of(outcome, unregistered=unregistered)
    return json_answer({"name": f"{named}/{int(now * 1e6) + next(_numbers)}"})


def _unauthenticated(reason: str) -> GoogleError:
    return GoogleError(
        401,
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie "
        "or other valid authentication credential.",
        [info(reason)],
    )
