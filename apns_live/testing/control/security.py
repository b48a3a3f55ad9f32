"""Authentication of the control API, and its security headers.

Web pages that a developer visits must not reach the fake. So the Host header must name this machine
(against DNS rebinding). A change needs a JSON content type (other pages cannot send it without a
preflight, and preflights are not answered) and an Origin of this server.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apns_live.testing.listener import is_loopback

COOKIE = "apns-live-token"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_SAFE = {"GET", "HEAD"}


class Guard:
    """An ASGI application in front of another one. ``token`` None trusts whoever is on loopback."""

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self._app = app
        self._token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if self._token is not None and scope["method"] == "GET" and scope["path"] == "/":
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token")
            if given and self._fits(given[0]):
                await _entered(given[0])(scope, receive, send_safely)
                return
        status, problem = refusal(scope["method"], headers, is_known=self._is_known(headers))
        if problem:
            body = {"error": problem, "field": "", "remedy": ""}
            asked = {"www-authenticate": "Bearer"} if status == 401 else None
            await JSONResponse(body, status, asked)(scope, receive, send_safely)
            return
        await self._app(scope, receive, send_safely)

    def _is_known(self, headers: Mapping[str, str]) -> bool | None:
        """Whether the caller has the token; None where there is none."""
        if self._token is None:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._fits(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._fits(cookie.value)

    def _fits(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(
            given.encode("utf-8", "surrogateescape"), self._token
        )


def refusal(
    method: str, headers: Mapping[str, str], *, is_known: bool | None = None
) -> tuple[int, str]:
    """Return status and problem of a request that is not served; the problem is ``""`` else.

    ``is_known``: whether its token is the right one; None where being on this machine is enough.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    try:
        name = urlsplit(f"//{host}").hostname
        origin_host = None if origin is None else urlsplit(origin).netloc.lower()
    except ValueError:
        return 400, "the Host or Origin header is not an address"
    if is_known is None and not (name and is_loopback(name)):
        return 403, "the Host header does not name this machine"
    if is_known is False:
        return 401, "give the fake's --token as: Authorization: Bearer TOKEN"
    if method in _SAFE:
        return 0, ""
    if origin_host is not None and origin_host != host.lower():
        return 403, "changes are taken from this server's own page only"
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method != "DELETE" and content_type != "application/json":
        return 415, "send Content-Type: application/json"
    return 0, ""


def _entered(token: str) -> Response:
    """Return the way to the page, with the token as a cookie that scripts cannot read."""
    cookie: SimpleCookie = SimpleCookie()
    cookie[COOKIE] = token
    cookie[COOKIE]["httponly"] = True
    cookie[COOKIE]["samesite"] = "Strict"
    cookie[COOKIE]["path"] = "/"
    value = cookie[COOKIE].OutputString().encode("latin-1", "replace").decode("latin-1")
    return RedirectResponse("/", 303, {"set-cookie": value})
