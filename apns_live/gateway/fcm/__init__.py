"""FCM's HTTP v1 API for Apple devices.

Two calls: an access token for a signed assertion (RFC 7523, and Google, "Using OAuth 2.0 for Server to
Server Applications"), and one message to one device.
"""

import hashlib
import hmac
import itertools
from typing import Any, ClassVar
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.serialization import load_der_public_key
from starlette.responses import Response

from ...activities.decodes import check_decodes
from ...activities.send.apns_clients import NoKey
from ...errors import BadBody, GatewayError
from ..calls import Call, Face, operation
from ..context import Gateway
from ..keys import PROJECT_SETTING, ApiKey
from ..problems import json_answer
from ..reach import is_named
from ..scopes import Dialect
from .messages import REALM, STATUS, GoogleError, failure_of, fcm, read_send, refusal_of

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SECONDS = 3_600
"""An access token is valid for an hour, as Google's are."""
DEADLINE = 12.0
"""Seconds for all tries of a push: Node's SDK waits for 15."""
MAX_BYTES = 65_536
_HEAD = "fcm1"
_LONGEST_CLAIM = 3_600 + 300
_SKEW = 300
_TOKEN_BYTES = 16_384
_TOKENS_PER_MINUTE = 600
_UNCHECKED: Any = dict.fromkeys(("verify_aud", "verify_exp", "verify_iat", "verify_nbf"), False)
_numbers = itertools.count()


class InvalidGrant(GatewayError):
    """An assertion that is refused."""


class Fcm(Face):
    """FCM's API: Google's error format, and access tokens in place of API keys."""

    dialect: ClassVar[Dialect] = "fcm"
    media_type = False
    paths = ("/v1/projects/", "/batch", "/iid/")  # also those of unsupported calls

    def __init__(self) -> None:
        path = "/v1/projects/{project}/messages:send"
        form = {"application/x-www-form-urlencoded": ""}
        self.operations = [
            operation(self, f"POST {path}", send, grouped=True, limit_bytes=MAX_BYTES),
            operation(self, "POST /token", token, who="anyone", takes=form),
        ]

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
        head, _, rest = given.partition(".")
        said, _, mac = rest.rpartition(".")
        lookup, _, ends = said.partition(".")
        right = hmac.compare_digest(_mac(gateway, said).encode(), mac.encode("utf-8", "replace"))
        known = None
        if right and head == _HEAD:
            if int(ends) <= gateway.clock.time():
                raise _unauthenticated("ACCESS_TOKEN_EXPIRED")
            known = await gateway.keys.with_proof(lookup)
        if known is None:
            call.refused()
            raise _unauthenticated("ACCESS_TOKEN_TYPE_UNSUPPORTED")
        project = call.parts["project"]
        if not is_named(known[0].app, project, PROJECT_SETTING):
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
        given = parse_qs((await call.visit.body_of(_TOKEN_BYTES)).decode(), max_num_fields=20)
    except (BadBody, ValueError):
        return json_answer({"error": "invalid_request"}, 400)
    if given.get("grant_type") != [GRANT]:
        return json_answer({"error": "unsupported_grant_type"}, 400)
    now = gateway.clock.time()
    try:
        key, lookup = await _signer(call, given.get("assertion", [""])[0], now)
    except InvalidGrant as error:
        call.refused()
        return json_answer({"error": "invalid_grant", "error_description": str(error)}, 400)
    with gateway.limits.enter_as(f"fcm tokens {key.caller}", _TOKENS_PER_MINUTE):
        # The token is signed, and is not stored.
        said = f"{lookup}.{int(now) + SECONDS}"
        made = f"{_HEAD}.{said}.{_mac(gateway, said)}"
    return json_answer({"access_token": made, "expires_in": SECONDS - 1, "token_type": "Bearer"})


async def _signer(call: Call, assertion: str, now: float) -> tuple[ApiKey, str]:
    """Return the key of the account that signed an assertion, and its lookup.

    Raises `InvalidGrant` unless the assertion is valid now. Audience and scope are not checked,
    because the SDKs always send Google's.
    """
    try:
        issuer = jwt.decode(assertion, options={"verify_signature": False}).get("iss")
    except jwt.PyJWTError:
        raise InvalidGrant("Invalid JWT: it cannot be read.") from None
    lookup = issuer.partition("@")[0] if isinstance(issuer, str) else ""
    if (found := await call.gateway.keys.with_proof(lookup)) is None:
        raise InvalidGrant("Invalid grant: account not found")
    call.visit.app = found[0].app.row
    try:
        public: Any = load_der_public_key(found[1])
        claims = jwt.decode(assertion, public, algorithms=["RS256"], options=_UNCHECKED)
    except jwt.PyJWTError:
        raise InvalidGrant("Invalid JWT Signature.") from None
    given: list[Any] = [claims.get(name) for name in ("iat", "exp")]
    if all(isinstance(one, (int, float)) and abs(one) < 1e11 for one in given):
        begun, ends = given
        if begun - _SKEW <= now < ends + _SKEW and ends - begun <= _LONGEST_CLAIM:
            return found[0], lookup
    raise InvalidGrant(
        "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "
        "timeframe. Check your iat and exp values in the JWT claim."
    )


def _mac(gateway: Gateway, said: str) -> str:
    secret = gateway.service.apps.sealer.derive("fcm access tokens")
    return hmac.digest(secret, said.encode("utf-8", "replace"), hashlib.sha256).hex()


async def send(call: Call, body: Any = None) -> Response:
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
        raise failure_of(outcome, unregistered=app.settings.get("fcm_unregistered", False) is True)
    return json_answer({"name": f"{named}/{int(now * 1e6) + next(_numbers)}"})


def _unauthenticated(reason: str) -> GoogleError:
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": {"service": "fcm.googleapis.com"},
    }
    return GoogleError(
        401,
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie "
        "or other valid authentication credential.",
        [info],
    )
