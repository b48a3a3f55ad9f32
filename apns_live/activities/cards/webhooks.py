"""Calls the webhooks behind buttons. Refuses addresses in private networks.

A server that fetches addresses given to it can be turned against its own network (server-side
request forgery). So each call resolves the host, refuses it if *any* of its addresses is not public,
and connects to an address that was checked, which prevents DNS rebinding. Only https is allowed.
Redirects are not followed. The response body is read up to a limit and discarded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from ...clock import Clock, SystemClock
from ...errors import AddressRefused, InvalidPayload
from .buttons import Button, check_webhook_url

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_ANSWER = 65_536
RETRY_DELAYS = (1.0, 5.0)
RETRIED = frozenset({429, 500, 502, 503, 504})
# 6to4 and Teredo carry an IPv4 address inside, NAT64 too: all are judged by what they carry.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("fec0::/10", "192.88.99.0/24")))
"""Site-local addresses (RFC 3879) and the relays of 6to4 (RFC 7526): both deprecated, still routed."""
_COMPATIBLE = ipaddress.ip_network("::/96")


@dataclass(frozen=True, slots=True)
class Call:
    """What became of one relayed tap, for the log. ``status`` is 0 when no answer came."""

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
    """Return whether an address belongs to the public internet, whatever form it is written in."""
    try:
        address: Address = ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return False
    inner = _carried(address)
    if inner is not None:
        return is_public(str(inner))
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not any(address in network for network in _NOT_PUBLIC)
    )


def _carried(address: Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64 or address in _COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour


class WebhookRelay:
    """Makes the calls. One for a service; close it with ``async with`` or `aclose`.

    ``allow`` names hosts that may resolve to private or loopback addresses: for a webhook of one's
    own inside the network. ``timeout`` is seconds for a whole attempt.
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
        """Call the webhook of ``button``, with two retries; never raises for what the other did.

        ``event_id`` is sent as ``idempotency-key``, the same in every attempt, so that the receiver
        can tell a retry from a second tap.
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
        addresses = await self._resolver(host, port)
        if not addresses:
            raise AddressRefused(f"{host} has no address")
        if host.lower() not in self._allow:
            for address in addresses:
                if not is_public(address):
                    raise AddressRefused(
                        f"{host} resolves to {address}, which is not public: name the host in the "
                        "setting that allows private webhooks if that is meant"
                    )
        return addresses[0]
