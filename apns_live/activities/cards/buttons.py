"""Buttons on a card: what a tap may do, and the webhook calls behind them.

A button opens a URL, or makes this service call a webhook. The phone never gets the webhook's URL.
It gets a signed URL of the gateway that expires, and the service calls the webhook.

An attacker can turn a server that fetches given addresses against its own network (server-side
request forgery). So each call resolves the host, refuses it if *any* of its addresses is not
public, and connects to a checked address, which prevents DNS rebinding. Only https is allowed.
Redirects are not followed. The response body is read up to a limit and discarded.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Meta

from ...clock import Clock, SystemClock
from ...errors import ActivitiesError, AddressRefused, InvalidPayload
from ..checks import convert

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


class _OpenUrl(msgspec.Struct, tag="open_url"):
    title: Annotated[str, Meta(min_length=1, max_length=MAX_TITLE)]
    url: Annotated[str, Meta(min_length=1, max_length=MAX_URL)]


class _Webhook(_OpenUrl, tag="webhook"):
    method: Literal["GET", "POST"] = "POST"
    body: dict[str, Any] | None = None


def check_button(value: object, *, field: str, schemes: frozenset[str] = frozenset()) -> Button:
    """Return a checked button; ``schemes`` are additional URL schemes that the app handles.

    Raises `InvalidPayload` with the field's path and a remedy.
    """
    remedy = "Give title, type (open_url or webhook) and url."
    given = convert(value, _OpenUrl | _Webhook, field, error=InvalidPayload, remedy=remedy)
    for name, text in (("title", given.title), ("url", given.url)):
        if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
            raise InvalidPayload("holds a control character", f"{field}.{name}", "Remove it.")
    where, url = f"{field}.url", given.url
    if not isinstance(given, _Webhook):
        parts = _split(url, where)
        is_web = parts.scheme in {"http", "https"} and parts.hostname
        if not (is_web or parts.scheme in schemes or (url.startswith(SHORTCUT) and "name=" in url)):
            problem, remedy = "opens neither http, https nor a shortcut", "Use https://… or "
            raise InvalidPayload(problem, where, f"{remedy}{SHORTCUT}name=….")
        return Button(given.title, "open_url", url)
    check_webhook_url(url, field=where)
    body = ""
    if given.body is not None and given.method == "POST":
        where = f"{field}.body"
        try:
            body = msgspec.json.encode(given.body).decode()
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"cannot be written as JSON ({error})"
            raise InvalidPayload(problem, where, "Give a JSON object.") from None
        if len(body) > MAX_BODY:
            raise InvalidPayload(f"has {len(body)} characters", where, f"Use at most {MAX_BODY}.")
    return Button(given.title, "webhook", url, given.method, body)


def check_webhook_url(url: str, *, field: str) -> None:
    """Raise `InvalidPayload` for a URL that the relay would never call.

    The host's addresses are checked at each call.
    """
    parts = _split(url, field)
    if parts.scheme != "https":
        raise InvalidPayload("does not begin with https://", field, "Use https.")
    if parts.username is not None or parts.password is not None:
        raise InvalidPayload("holds a user name or password", field, "Put a secret into the body.")
    if not parts.hostname:
        raise InvalidPayload("names no host", field, "Give a full address.")


class TapSigner:
    """Signs and verifies the tap URLs of webhook buttons (HMAC-SHA256)."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _SECRET_BYTES:
            few = f"the tap secret has {len(secret)} bytes"
            raise ActivitiesError(f"{few}: give at least {_SECRET_BYTES} random ones")
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


def _split(url: str, field: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port  # Reading the field checks it.
    except ValueError as error:
        raise InvalidPayload(
            f"is not a valid address ({error})", field, "Give a full address."
        ) from None
    if any(character in url for character in " \\"):
        raise InvalidPayload("holds a space or a backslash", field, "Percent-encode it.")
    return parts


Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_ANSWER = 65_536
RETRY_DELAYS = (1.0, 5.0)
RETRIED = frozenset({429, 500, 502, 503, 504})
# 6to4, Teredo and NAT64 addresses embed an IPv4 address, which decides.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("fec0::/10", "192.88.99.0/24")))
"""Site-local addresses (RFC 3879) and 6to4 relays (RFC 7526): both are deprecated and still routed.
"""
_COMPATIBLE = ipaddress.ip_network("::/96")


@dataclass(frozen=True, slots=True)
class Call:
    """The result of a relayed tap, for the log. ``status`` is 0 if no answer arrived."""

    host: str
    method: str
    status: int
    error: str
    attempts: int

    @property
    def ok(self) -> bool:
        """Whether the webhook answered with a 2xx."""
        return 200 <= self.status < 300


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """Resolve with the machine's resolver, without a cache."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(text: str) -> bool:
    """Return whether an address belongs to the public internet, in any notation."""
    try:
        address = ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64 or address in _COMPATIBLE:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        elif address.teredo is not None:
            inner = address.teredo[1]
        if inner is not None:
            return is_public(str(inner))
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not any(address in network for network in _NOT_PUBLIC)
    )


class WebhookRelay:
    """Makes the calls. Create one per service; close it with ``async with`` or `aclose`.

    ``allow`` names hosts that may resolve to private or loopback addresses, for webhooks inside
    your own network. ``timeout`` is seconds for a whole attempt.
    """

    def __init__(
        self,
        *,
        allow: frozenset[str] = frozenset(),
        timeout: float = 10.0,
        resolver: Resolver = system_resolver,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
        max_concurrent: int = 32,
    ) -> None:
        self._allow = frozenset(host.lower() for host in allow)
        self._timeout = timeout
        self._resolver = resolver
        self._clock = clock or SystemClock()
        self._slots = asyncio.Semaphore(max_concurrent)
        self._http = httpx.AsyncClient(
            verify=tls or ssl.create_default_context(),
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,  # a proxy of the environment would resolve the name anew
            limits=httpx.Limits(max_keepalive_connections=0, max_connections=max_concurrent),
        )

    async def __aenter__(self) -> WebhookRelay:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, button: Button, *, event_id: str) -> Call:
        """Call the webhook of ``button``, with two retries; never raises for a failing webhook.

        ``event_id`` is sent as ``idempotency-key`` with every attempt, so the receiver can tell a
        retry from a second tap.
        """
        try:
            check_webhook_url(button.url, field="url")
        except InvalidPayload as refused:
            return Call("", button.method, 0, str(refused), 0)
        host = urlsplit(button.url).hostname or ""
        status, error, attempts = 0, "", 0
        async with self._slots:
            for delay in (0.0, *RETRY_DELAYS):
                if delay:
                    await self._clock.sleep(delay)
                attempts += 1
                try:
                    async with asyncio.timeout(self._timeout):
                        status, error = await self._attempt(button, event_id), ""
                except AddressRefused as refused:
                    return Call(host, button.method, 0, str(refused), attempts)
                except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as failure:
                    status, error = 0, f"{type(failure).__name__}: {failure}".rstrip(": ")
                if status and status not in RETRIED:
                    break
        if not 200 <= status < 300 and not error:
            error = "a redirect is not followed" if 300 <= status < 400 else f"status {status}"
        return Call(host, button.method, status, error, attempts)

    async def _attempt(self, button: Button, event_id: str) -> int:
        url = httpx.URL(button.url)
        address = await self._checked_address(url.host, url.port or 443)
        port = "" if url.port is None else f":{url.port}"
        bracketed = f"[{url.host}]" if ":" in url.host else url.host
        request = self._http.build_request(
            button.method,
            url.copy_with(host=address),
            content=button.body.encode() if button.method == "POST" else None,
            headers={
                "host": bracketed + port,
                "content-type": "application/json",
                "idempotency-key": event_id,
                "user-agent": "apns-live",
            },
            extensions={"sni_hostname": url.host},
        )
        answer = await self._http.send(request, stream=True)
        try:
            seen = 0
            async for chunk in answer.aiter_raw():
                seen += len(chunk)
                if seen > MAX_ANSWER:
                    break
            return answer.status_code
        finally:
            await answer.aclose()

    async def _checked_address(self, host: str, port: int) -> str:
        if not (addresses := await self._resolver(host, port)):
            raise AddressRefused(f"{host} has no address")
        if host.lower() not in self._allow:
            for address in addresses:
                if not is_public(address):
                    raise AddressRefused(
                        f"{host} resolves to {address}, which is not public: name the host in the "
                        "setting that allows private webhooks if that is meant"
                    )
        return addresses[0]
