"""The two calls: an access token for a signed assertion, and one message to one device."""

from __future__ import annotations

import itertools
from urllib.parse import parse_qs

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...activities.decodes import check_decodes
from ...activities.send.apns_clients import NoKey
from ...errors import BadBody, NotAllowed
from .. import service_accounts as accounts
from ..admission import leave_now
from ..bodies import read_bytes, read_json
from ..callers import guarded, is_named, refuse, secret_of
from ..context import Gateway
from ..keys import ApiKey
from ..problems import json_answer
from . import answers
from .answers import GoogleError, failure_of, fcm, info
from .messages import read_send

PURPOSE = "fcm access tokens"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEADLINE = 12.0
"""Seconds for all tries of a push: Node's SDK waits for 15."""
MAX_BYTES = 65_536
_TOKEN_BYTES = 16_384
_TOKENS_PER_MINUTE = 600
_SEND = "/v1/projects/{project}/messages:send"


def routes(gateway: Gateway) -> APIRouter:
    """Return the routes of the dialect."""
    router = APIRouter()
    numbers = itertools.count()

    async def send(request: Request) -> Response:
        return await _send(gateway, request, next(numbers))

    async def token(request: Request) -> Response:
        return await _token(gateway, request)

    router.add_route(_SEND, guarded(gateway, send, answers.refuse), methods=["POST"])
    router.add_route("/token", guarded(gateway, token, answers.refuse), methods=["POST"])
    return router


async def _token(gateway: Gateway, request: Request) -> Response:
    """Answer with an access token, or with an error of OAuth (RFC 6749, 5.2)."""
    try:
        text = await read_bytes(request, limit_bytes=_TOKEN_BYTES)
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
        now = gateway.clock.time()
        accounts.check_assertion(assertion, public, now=now)
    except accounts.InvalidGrant as error:
        refuse(gateway, request)
        body = {"error": "invalid_grant", "error_description": str(error)}
        return json_answer(body, 400)
    with gateway.limits.enter_as(f"fcm tokens {key.caller}", _TOKENS_PER_MINUTE):
        secret = gateway.service.apps.sealer.derive(PURPOSE)
        made = accounts.access_token(secret, lookup, now=now)
    return json_answer(
        {"access_token": made, "expires_in": accounts.SECONDS - 1, "token_type": "Bearer"}
    )


async def _send(gateway: Gateway, request: Request, number: int) -> Response:
    key = await _caller(gateway, request)
    project = request.path_params["project"]
    app = key.app
    if not is_named(app, project, accounts.PROJECT_SETTING):
        raise GoogleError(
            403,
            "Permission 'cloudmessaging.messages.create' denied on resource "
            f"'//cloudresourcemanager.googleapis.com/projects/{project[:100]}' (or it may not exist).",
            [fcm("SENDER_ID_MISMATCH")],
        )
    with gateway.limits.enter(key):
        body = await read_json(
            request, limit_bytes=MAX_BYTES, max_depth=gateway.settings.depth, media_type=False
        )
        now = gateway.clock.time()
        asked = read_send(body, bundle_id=app.bundle_id, now=now)
        if not key.may(asked.scope):
            raise NotAllowed(f"The service account lacks the scope {asked.scope}.")
        if asked.message.event == "start":
            state, attributes = asked.aps.get("content-state"), asked.aps.get("attributes")
            kind = asked.aps.get("attributes-type")
            check_decodes(app.settings, str(kind), state, attributes)
        if asked.validate_only:
            return json_answer({"name": f"projects/{project}/messages/fake_message_id"})
        leave_now()  # it waits for APNs, and the client bounds how many do
        try:
            async with gateway.service.courier.client(app, app.environment) as client:
                sendable = client.prepare(asked.message)
                outcome = await client.send(sendable, asked.token, deadline=DEADLINE)
        except NoKey as error:
            raise GoogleError(401, str(error), [fcm("THIRD_PARTY_AUTH_ERROR")]) from None
    if not outcome.accepted:
        unregistered = app.settings.get("fcm_unregistered", False) is True
        raise failure_of(outcome, unregistered=unregistered)
    return json_answer({"name": f"projects/{project}/messages/{int(now * 1e6) + number}"})


async def _caller(gateway: Gateway, request: Request) -> ApiKey:
    """Return the key of an access token. Raises `GoogleError` (401)."""
    given = secret_of(request)
    if not given:
        raise _unauthenticated("CREDENTIALS_MISSING")
    found = accounts.account_of(gateway.service.apps.sealer.derive(PURPOSE), given)
    if found is not None and found[1] <= gateway.clock.time():
        raise _unauthenticated("ACCESS_TOKEN_EXPIRED")
    known = None if found is None else await gateway.keys.with_proof(found[0])
    if known is None:
        refuse(gateway, request)
        raise _unauthenticated("ACCESS_TOKEN_TYPE_UNSUPPORTED")
    return known[0]


def _unauthenticated(reason: str) -> GoogleError:
    return GoogleError(
        401,
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie "
        "or other valid authentication credential.",
        [info(reason)],
    )
