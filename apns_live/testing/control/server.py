"""The ASGI app of the control API and the inspector page, its guard, and its server.

Web pages that a developer visits must not reach the fake. So the Host header must name this machine
(against DNS rebinding). A change needs a JSON content type (other pages cannot send it without a
preflight, and preflights are not answered) and an Origin of this server.
"""

import contextlib
import functools
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apns_live.errors import FakeError
from apns_live.testing.asgi import Served
from apns_live.testing.fake import FakeApns
from apns_live.testing.listener import check_reach, is_loopback, listening_sockets

from .api import ControlApi, route
from .routes import LARGEST_BODY, BadRequestError, Route, Routes, document
from .rows import ErrorRow, own_version

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

STATIC_FILES = Path(__file__).parent.parent / "inspector" / "static"


def make_app(
    api: ControlApi, *, token: str | None = None, beside: Sequence[BaseRoute] = ()
) -> ASGIApp:
    """Return the ASGI application of an API, with its guard in front.

    ``beside``: further routes behind the same guard. With a route ``/gateway`` the page shows calls.
    """

    @functools.cache
    def openapi(_: ControlApi) -> object:
        return document(route, own_version())

    itself = Routes()
    itself.add("GET", "/v1/openapi.json", openapi)
    by_path: dict[str, dict[str, Route]] = {}
    # A path with a parameter would also match fixed paths, so fixed ones come first.
    for row in sorted([*route, *itself], key=lambda row: ("{" in row.path, row.path)):
        by_path.setdefault(row.path, {})[row.method] = row
    table: list[Any] = [
        StarletteRoute(prefix + path, _endpoint(api, methods), methods=_METHODS)
        for path, methods in by_path.items()
        for prefix in ("", "/namespaces/{namespace}")
        if not (prefix and path.startswith("/v1/namespaces"))
    ]
    table += beside or [StarletteRoute("/gateway", lambda _: _answer(None))]
    if STATIC_FILES.is_dir():
        table.append(Mount("/", StaticFiles(directory=STATIC_FILES, html=True)))
    app = Starlette(routes=table, exception_handlers={HTTPException: cast("Any", _http_problem)})
    return Guard(app, token=token)


_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def _endpoint(
    api: ControlApi, methods: Mapping[str, Route]
) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of one path. An unsupported method gets 405."""

    async def handle(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        if (row := methods.get(method)) is None:
            allowed = ", ".join(sorted(methods))
            return _answer(ErrorRow(f"use {allowed}"), 405, allow=allowed)
        places, own = dict(request.path_params), api
        try:
            if "namespace" in places:
                own = api.within(places.pop("namespace"))
            body = await _read(request) if row.body else b""
            values = row.values(request.query_params, body)
            found = own.found(row.path, places)
            result = row.call(own.fake.devices if row.of_phones else own, *found, **values)
            if isinstance(result, Awaitable):
                result = await result
        except BadRequestError as error:
            return _answer(error.row, error.status)
        except FakeError as error:
            return _answer(ErrorRow(str(error)), 400)
        if isinstance(result, Response):
            return result
        if result is None and row.of_phones and row.gives:
            (result,) = found
        if result is None:
            return Response(status_code=204)
        return _answer(own.shown(result), row.status)

    return handle


async def _read(request: Request) -> bytes:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > LARGEST_BODY:
            raise BadRequestError(f"the body is over {LARGEST_BODY} bytes", status=413)
    return data


def _answer(content: object, status: int = 200, **headers: str) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


async def _http_problem(_request: Request, error: HTTPException) -> Response:
    return _answer(ErrorRow(error.detail), error.status_code)


@contextlib.asynccontextmanager
async def serve_control(
    fake: FakeApns,
    *,
    host: str = "localhost",
    port: int = 0,
    token: str | None = None,
    beside: Sequence[BaseRoute] = (),
) -> AsyncIterator[str]:
    """Serve the control API and the inspector of a running fake; yields its URL.

    An address that other machines can reach requires ``token``; without it raises ``FakeError``.
    ``beside``: further routes behind the same guard.
    """
    check_reach(host, token)
    api = ControlApi(fake)
    listeners = listening_sockets(host, port)
    bound = listeners[0].getsockname()[1]
    app = make_app(api, token=token, beside=beside)
    served = Served(app, listeners, accesslog=None, graceful_timeout=0.2, shutdown_timeout=1.0)
    await served.started()
    name = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{name}:{bound}"
    finally:
        api.close()
        await served.close()


class Guard:
    """Guards another ASGI application. Without ``token`` it trusts every loopback caller."""

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
        """Whether the caller has the token; None if no token is set."""
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
    """Return status and problem of a refused request, or (0, "") for one that is allowed.

    ``is_known``: whether its token is right; None if a call from this machine needs none.
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
    """Return a redirect to the page that sets the token as a cookie hidden from scripts."""
    cookie: SimpleCookie = SimpleCookie()
    cookie[COOKIE] = token
    cookie[COOKIE]["httponly"] = True
    cookie[COOKIE]["samesite"] = "Strict"
    cookie[COOKIE]["path"] = "/"
    value = cookie[COOKIE].OutputString().encode("latin-1", "replace").decode("latin-1")
    return RedirectResponse("/", 303, {"set-cookie": value})
