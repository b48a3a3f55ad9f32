"""Service accounts for Google's SDKs: the file to sign in with, and access tokens.

The private key is in the file alone; a key's row holds the public one. Source: RFC 7523, and Google,
"Using OAuth 2.0 for Server to Server Applications".
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)

from ..activities.apps import App
from ..errors import GatewayError

PROJECT_SETTING = "fcm_project_id"
SECONDS = 3_600
"""An access token is valid for an hour, as Google's are."""
_LONGEST_CLAIM = 3_600 + 300
_SKEW = 300
_HEAD = "fcm1"


class InvalidGrant(GatewayError):
    """An assertion that is refused."""


def project_of(app: App) -> str:
    """Return the project id that an app's service accounts name."""
    named = app.settings.get(PROJECT_SETTING)
    first = named[0] if isinstance(named, list) and named else named
    return first if isinstance(first, str) and first else app.id


def new_account(project: str, lookup: str) -> tuple[str, bytes]:
    """Return a service account's file, without its ``token_uri``, and the public key (DER)."""
    private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    facts = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": hashlib.sha1(public, usedforsecurity=False).hexdigest(),
        "private_key": pem.decode(),
        "client_email": f"{lookup}@{project}.iam.gserviceaccount.com",
        "client_id": str(int(lookup, 16)),
        "token_uri": "",
        "universe_domain": "googleapis.com",
    }
    return json.dumps(facts, indent=2), public


def with_token_uri(account: str, url: str) -> str:
    """Return a service account's file whose tokens come from ``url`` (the gateway's address)."""
    facts = {**json.loads(account), "token_uri": f"{url.rstrip('/')}/token"}
    return json.dumps(facts, indent=2)


def issuer_of(assertion: str) -> str:
    """Return the lookup of an assertion's account. Its signature is not checked yet."""
    try:
        claims = jwt.decode(assertion, options={"verify_signature": False})
    except jwt.PyJWTError:
        raise InvalidGrant("Invalid JWT: it cannot be read.") from None
    issuer = claims.get("iss")
    return issuer.partition("@")[0] if isinstance(issuer, str) else ""


def check_assertion(assertion: str, public: bytes, *, now: float) -> None:
    """Raise `InvalidGrant` unless the account's key signed the assertion, and it is valid now.

    Audience and scope are not checked, because the SDKs always send Google's.
    """
    key = load_der_public_key(public)
    unchecked: Any = dict.fromkeys(("verify_aud", "verify_exp", "verify_iat", "verify_nbf"), False)
    try:
        claims = jwt.decode(assertion, key, algorithms=["RS256"], options=unchecked)  # type: ignore[arg-type]
    except jwt.PyJWTError:
        raise InvalidGrant("Invalid JWT Signature.") from None
    begun, ends = _moment(claims, "iat"), _moment(claims, "exp")
    if not (begun - _SKEW <= now < ends + _SKEW and ends - begun <= _LONGEST_CLAIM):
        raise InvalidGrant(
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "
            "timeframe. Check your iat and exp values in the JWT claim."
        )


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    return float(value) if isinstance(value, (int, float)) and abs(value) < 1e11 else math.inf


def access_token(secret: bytes, lookup: str, *, now: float) -> str:
    """Return an access token of an account. It is signed and is not stored."""
    said = f"{lookup}.{int(now) + SECONDS}"
    return f"{_HEAD}.{said}.{_mac(secret, said)}"


def account_of(secret: bytes, token: str) -> tuple[str, int] | None:
    """Return the lookup of an access token's account, and its expiry; None for a forged token."""
    head, _, rest = token.partition(".")
    said, _, mac = rest.rpartition(".")
    right = hmac.compare_digest(_mac(secret, said).encode(), mac.encode("utf-8", "replace"))
    lookup, _, ends = said.partition(".")
    return (lookup, int(ends)) if right and head == _HEAD else None


def _mac(secret: bytes, said: str) -> str:
    return hmac.digest(secret, said.encode("utf-8", "replace"), hashlib.sha256).hex()
