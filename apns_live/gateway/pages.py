"""The reference of the native API with a form for each call: static files.

The page reads /openapi.json of the same gateway. It asks for an API key and does not store it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

FOLDER = Path(__file__).with_name("reference")
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


def routes() -> list[Route]:
    """Return the routes of the page, and of ``/``, which leads to it."""
    # Relative: the gateway may be mounted below a path.
    found = [Route("/", lambda _: RedirectResponse("reference"))]
    for file in sorted(FOLDER.iterdir()):
        path = "/reference" if file.name == "index.html" else f"/{file.name}"
        found.append(Route(path, _page(file.read_bytes(), _TYPES[file.suffix])))
    return found


def _page(content: bytes, kind: str) -> Callable[[Request], Response]:
    return lambda _: Response(content, media_type=kind, headers=_HEADERS)
