"""Buttons on a card: what a tap may do, and the signed address that a webhook button carries.

A button opens a URL, or makes this service call a webhook. The phone never gets the webhook's URL. It
gets a signed URL of the gateway that expires, and the call to the webhook is
made by `apns_live.activities.webhooks`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from ...errors import ActivitiesError, InvalidPayload

MAX_TITLE = 200
MAX_URL = 2048
MAX_BODY = 16_384
SHORTCUT = "shortcuts://run-shortcut?"
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Button:
    """A checked button. ``body`` is JSON text, sent only by a webhook with POST."""

    title: str
    kind: Literal["open_url", "webhook"]
    url: str
    method: Literal["GET", "POST"] = "POST"
    body: str = ""


def check_button(value: object, *, field: str, schemes: frozenset[str] = frozenset()) -> Button:
    """Return a checked button; ``schemes`` are further address schemes that an app handles.

    Raises `InvalidPayload` with the field's path and a remedy.
    """
    if not isinstance(value, Mapping):
        raise InvalidPayload("is not an object", field, "Give title, type and url.")
    title = _text(value, "title", field, MAX_TITLE)
    kind = value.get("type")
    if kind not in ("open_url", "webhook"):  # a tuple: a caller may give a list here
        raise InvalidPayload(
            "is not a valid button type", f"{field}.type", "Give open_url or webhook."
        )
    url = _text(value, "url", field, MAX_URL)
    if kind == "open_url":
        _check_open_url(url, f"{field}.url", schemes)
        return Button(title, "open_url", url)
    check_webhook_url(url, field=f"{field}.url")
    method = value.get("method", "POST")
    if method not in ("GET", "POST"):
        raise InvalidPayload(
            "is not a valid method of a webhook", f"{field}.method", "Give GET or POST."
        )
    return Button(title, "webhook", url, method, _body(value.get("body"), method, f"{field}.body"))


def check_webhook_url(url: str, *, field: str) -> None:
    """Refuse an address that the relay would never call, whatever it resolves to.

    Raises `InvalidPayload`. What the host resolves to is checked at each call.
    """
    parts = _split(url, field)
    if parts.scheme != "https":
        raise InvalidPayload("does not begin with https://", field, "Use https.")
    if parts.username is not None or parts.password is not None:
        raise InvalidPayload("holds a user name or password", field, "Put a secret into the body.")
    if not parts.hostname:
        raise InvalidPayload("names no host", field, "Give a full address.")


class TapSigner:
    """Signs and opens the tap addresses of webhook buttons (HMAC-SHA256 over what they name)."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _SECRET_BYTES:
            raise ActivitiesError(
                f"the tap secret has {len(secret)} bytes: give at least {_SECRET_BYTES} random ones"
            )
        self._secret = secret

    def __repr__(self) -> str:
        return "TapSigner()"

    def sign(self, app: str, activity: str, slot: str, *, expires: float) -> str:
        """Return a text for a URL path that names one button until ``expires`` (epoch seconds)."""
        message = msgspec.json.encode([app, activity, slot, int(expires)])
        return _base64(message) + "." + _base64(self._digest(message))

    def open(self, text: str, *, now: float) -> tuple[str, str, str]:
        """Return (app, activity, slot) of a tap; raise `ActivitiesError` if forged or expired."""
        message_text, _, digest_text = text.partition(".")
        try:
            message, digest = _unbase64(message_text), _unbase64(digest_text)
        except (ValueError, binascii.Error):
            raise ActivitiesError("the tap address is malformed") from None
        if not hmac.compare_digest(digest, self._digest(message)):
            raise ActivitiesError("the tap address was not signed here")
        app, activity, slot, expires = msgspec.json.decode(message, type=tuple[str, str, str, int])
        if now >= expires:
            raise ActivitiesError("the tap address has expired: the card is no longer current")
        return app, activity, slot

    def _digest(self, message: bytes) -> bytes:
        return hmac.new(self._secret, message, hashlib.sha256).digest()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _text(value: Mapping[str, Any], name: str, field: str, limit: int) -> str:
    text = value.get(name)
    where = f"{field}.{name}"
    if not isinstance(text, str) or not text:
        raise InvalidPayload(
            "is missing" if text is None else "is not a string", where, "Give a text."
        )
    if len(text) > limit:
        raise InvalidPayload(f"has {len(text)} characters", where, f"Use at most {limit}.")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise InvalidPayload("holds a control character", where, "Remove it.")
    return text


def _split(url: str, field: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
    except ValueError as error:
        raise InvalidPayload(
            f"is not a valid address ({error})", field, "Give a full address."
        ) from None
    if any(character in url for character in " \\"):
        raise InvalidPayload("holds a space or a backslash", field, "Percent-encode it.")
    return parts


def _check_open_url(url: str, field: str, schemes: frozenset[str]) -> None:
    parts = _split(url, field)
    if url.startswith(SHORTCUT) and "name=" in url:
        return
    if (parts.scheme in {"http", "https"} and parts.hostname) or parts.scheme in schemes:
        return
    raise InvalidPayload(
        "opens neither http, https nor a shortcut", field, f"Use https://… or {SHORTCUT}name=…."
    )


def _body(body: object, method: str, field: str) -> str:
    if body is None:
        return ""
    if not isinstance(body, Mapping):
        raise InvalidPayload("is not an object", field, "Give a JSON object.")
    if method == "GET":
        return ""
    try:
        text = msgspec.json.encode(body).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPayload(
            f"cannot be written as JSON ({error})", field, "Give a JSON object."
        ) from None
    if len(text) > MAX_BODY:
        raise InvalidPayload(f"has {len(text)} characters", field, f"Use at most {MAX_BODY}.")
    return text
