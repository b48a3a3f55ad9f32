"""``apns-live token``: inspects provider tokens and device tokens, and mints provider tokens."""

from __future__ import annotations

import base64
import binascii
import json
import sys
import time
from typing import Any

from .options import CONNECTION, Shared, command, group
from .output import ExitCode

app = group("Inspect a provider token (JWT) or a device token; mint a provider token.")
_TYPICAL = {
    64: "the usual length of a device token",
    160: "seen for push-to-start and activity tokens",
}


@app.command("mint")
@command(CONNECTION, "--header: Print the whole authorization header.")
def mint(shared: Shared, header: bool = False) -> int:
    """Print the provider token that every client with this key uses now. It is a secret."""
    from ..clock import SystemClock
    from ..credentials import ProviderTokens

    key = shared.settings().provider_key()
    token = ProviderTokens(key, SystemClock()).current()
    bearer = token.value.decode("ascii")
    jwt = bearer.removeprefix("bearer ")
    shared.screen.answer(
        {"token": jwt, "issued_at": token.issued_at, "key_id": key.key_id, "team_id": key.team_id},
        f"authorization: {bearer}" if header else jwt,
    )
    return 0


@app.command("inspect")
@command(CONNECTION, "VALUE: JWT or token; - reads stdin, which keeps it from the process list.")
def inspect(shared: Shared, value: str = "-") -> int:
    """Describe a provider token or a device token, and report problems.

    The signature is checked when a key is set.
    """
    text = (sys.stdin.read(65_536) if value == "-" else value).strip()
    text = text.removeprefix("authorization:").strip()
    if text[:7].lower() == "bearer ":
        text = text[7:].strip()
    facts = _provider_token(text, shared) if text.count(".") == 2 else _device_token(text)
    lines = [
        f"{name.replace('_', ' ')}: {value}" for name, value in facts.items() if name != "problems"
    ]
    lines += [f"problem: {problem}" for problem in facts["problems"]] or ["no problem found"]
    shared.screen.answer(facts, "\n".join(lines))
    return ExitCode.NOT_ACCEPTED if facts["problems"] else ExitCode.OK


def _device_token(text: str) -> dict[str, Any]:
    from ..errors import InvalidInput
    from ..payload import check_token

    problems: list[str] = []
    try:
        check_token(text)
    except InvalidInput as error:
        problems.append(str(error))
    facts: dict[str, Any] = {"kind": "device token", "digits": len(text), "problems": problems}
    if not problems:
        facts["length"] = _TYPICAL.get(len(text), "unusual, which proves nothing")
    return facts


def _provider_token(text: str, shared: Shared) -> dict[str, Any]:
    problems: list[str] = []
    head, claims, signature = text.split(".")
    header = _part(head, "header", problems)
    payload = _part(claims, "claims", problems)
    raw = _bytes(signature)
    facts: dict[str, Any] = {"kind": "provider token", "header": header, "claims": payload}
    if header.get("alg") != "ES256":
        problems.append(f"alg is {header.get('alg')!r}: APNs takes ES256 only")
    for name, place in (("kid", header), ("iss", payload)):
        found = place.get(name)
        if not isinstance(found, str) or len(found) != 10:
            problems.append(f"{name} is {found!r}: it has ten characters")
    issued = payload.get("iat")
    if isinstance(issued, bool) or not isinstance(issued, int | float):
        problems.append(f"iat is {issued!r}: it is seconds since 1970, as a number")
    else:
        age = time.time() - issued
        facts["age_seconds"] = round(age)
        if age > 3600:
            problems.append(f"it is {age / 60:.0f} minutes old: APNs refuses it after 60")
        elif age < -60:
            problems.append(f"it is issued {-age:.0f} s in the future: check the clock")
    if raw is None:
        problems.append("the signature is not base64url")
    elif len(raw) != 64:
        looks = "it looks like DER" if raw[:1] == b"\x30" else "it is cut or altered"
        problems.append(f"the signature has {len(raw)} bytes, not 64: {looks} (RFC 7518, 3.4)")
    if "=" in text:
        problems.append("it is padded with =: base64url without padding is the rule (RFC 7515)")
    facts["signature"] = _verified(text, shared, problems)
    facts["problems"] = problems
    return facts


def _verified(text: str, shared: Shared, problems: list[str]) -> str:
    settings = shared.settings()
    public = settings.public_key()
    if public is None:
        return "not checked: no key is set"
    import jwt

    try:
        jwt.decode(
            text,
            key=public,
            algorithms=["ES256"],
            options={"verify_iat": False, "verify_aud": False, "verify_exp": False},
        )
    except jwt.InvalidTokenError:
        problems.append("the signature is not that of the key that is set")
        return "not that of the key that is set"
    return "that of the key that is set"


def _part(text: str, name: str, problems: list[str]) -> dict[str, Any]:
    raw = _bytes(text)
    try:
        content = json.loads(raw or b"")
    except ValueError:
        content = None
    if not isinstance(content, dict):
        problems.append(f"the {name} is not a JSON object in base64url")
        return {}
    return content


def _bytes(text: str) -> bytes | None:
    bare = text.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
