"""Requests and provider tokens for the tests of the rules, right by default, wrong on demand."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from apns_live.testing.rules import respond
from apns_live.testing.state import ApnsState, ConnectionIdentity, Request, Response

NOW = 1_800_000_000.0
BUNDLE_ID = "com.example.scores"
LIVE_TOPIC = f"{BUNDLE_ID}.push-type.liveactivity"
TEAM_ID, OTHER_TEAM_ID = "DEF123GHIJ", "XYZ987WVUT"
KEY_ID, OTHER_KEY_ID = "ABC123DEFG", "SECONDKEY1"
TOKEN = "8f" * 80
BODY = b'{"aps":{"timestamp":1800000000,"event":"update","content-state":{}}}'
APNS_ID = "8a6f1d3e-5b7c-4f2a-9d1e-0c4b3a2f1e5d"

MISSING = object()


def base64url(data: bytes, *, padded: bool = False) -> str:
    text = base64.urlsafe_b64encode(data).decode()
    return text if padded else text.rstrip("=")


class Signer:
    """Signs provider tokens, also ones that nobody should."""

    def __init__(self, keys: dict[str, ec.EllipticCurvePrivateKey]) -> None:
        self.keys = keys

    def __call__(
        self,
        *,
        issued_at: Any = int(NOW) - 60,
        key_id: Any = KEY_ID,
        signed_by: str | None = None,
        team_id: Any = TEAM_ID,
        algorithm: Any = "ES256",
        header: dict[str, Any] | None = None,
        claims: dict[str, Any] | None = None,
        padded: bool = False,
        der: bool = False,
        payload: bytes | None = None,
    ) -> bytes:
        first = json.dumps({"alg": algorithm, "kid": key_id, **(header or {})}).encode()
        second = payload
        if second is None:
            content = {"iss": team_id, "iat": issued_at, **(claims or {})}
            second = json.dumps({k: v for k, v in content.items() if v is not MISSING}).encode()
        signed = f"{base64url(first, padded=padded)}.{base64url(second, padded=padded)}"
        signature = self.keys[signed_by or str(key_id)].sign(
            signed.encode(), ec.ECDSA(hashes.SHA256())
        )
        if not der:
            r, s = decode_dss_signature(signature)
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return f"{signed}.{base64url(signature, padded=padded)}".encode()


def fields_of(
    method: str, path: str | bytes, headers: dict[str, Any], authority: bool = True
) -> list[tuple[bytes, bytes]]:
    fields = [
        (b":method", method.encode()),
        (b":scheme", b"https"),
        (b":path", path if isinstance(path, bytes) else path.encode()),
    ]
    if authority:
        fields.append((b":authority", b"api.sandbox.push.apple.com"))
    for name, value in headers.items():
        if value is not MISSING:
            fields.append((name.encode(), value if isinstance(value, bytes) else value.encode()))
    return fields


def device_request(
    jwt: bytes,
    *,
    token: str = TOKEN,
    path: str | bytes | None = None,
    method: str = "POST",
    body: bytes = BODY,
    extra: list[tuple[bytes, bytes]] | None = None,
    authority: bool = True,
    **headers: Any,
) -> Request:
    wanted = {
        "authorization": b"bearer " + jwt,
        "apns-topic": LIVE_TOPIC,
        "apns-push-type": "liveactivity",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    fields = fields_of(method, path or f"/3/device/{token}", wanted, authority)
    return Request([*fields, *(extra or [])], body)


def broadcast_request(
    jwt: bytes,
    channel: Any,
    *,
    bundle_id: str = BUNDLE_ID,
    path: str | None = None,
    method: str = "POST",
    body: bytes = BODY,
    **headers: Any,
) -> Request:
    wanted = {
        "authorization": b"bearer " + jwt,
        "apns-channel-id": channel,
        "apns-push-type": "liveactivity",
        "apns-priority": "10",
        "apns-expiration": "0",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return Request(fields_of(method, path or f"/4/broadcasts/apps/{bundle_id}", wanted), body)


def manage_request(
    jwt: bytes,
    method: str,
    *,
    resource: str = "channels",
    bundle_id: str = BUNDLE_ID,
    path: str | None = None,
    body: bytes = b"",
    **headers: Any,
) -> Request:
    wanted = {
        "authorization": b"bearer " + jwt,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    fields = fields_of(method, path or f"/1/apps/{bundle_id}/{resource}", wanted)
    return Request(fields, body, "manage")


def answer(
    request: Request,
    state: ApnsState,
    connection: ConnectionIdentity | None = None,
    now: float = NOW,
) -> Response:
    return respond(request, connection or ConnectionIdentity(1, request.face), state, now)


def verdict(response: Response) -> tuple[int, str]:
    """Return status and reason, checked against the body."""
    content = json.loads(response.body) if response.body else {}
    assert content.get("reason", "") == response.reason
    return response.status, response.reason


def header(response: Response, name: str) -> str | None:
    found = [value.decode() for key, value in response.headers if key == name.encode()]
    assert len(found) <= 1
    return found[0] if found else None
