"""Reads the fields of a body. Errors have the field's path and a remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from msgspec import Meta

from ...activities.cards.buttons import Button, check_button
from ...activities.checks import at_most
from ...errors import InvalidInput
from ..reading import as_object, read, text

IGNORED = object()
"""The shape of a field that the vendor's own clients send although it has no meaning."""
_UNKNOWN = object()
MAX_URL = 2_048
MAX_CHANNELS = 100
MAX_NUMBER = 2**31 - 1
_WHOLE: Any = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_WEB = frozenset({"http", "https", "shortcuts"})
BLOCKED_SCHEMES = frozenset(
    {
        "about",
        "app-prefs",
        "blob",
        "chrome",
        "data",
        "file",
        "filesystem",
        "javascript",
        "prefs",
        "vbscript",
        "view-source",
        "x-apple",
    }
)
"""Schemes that execute something or reach into the phone instead of opening an app."""


def known(value: Any, shape: Any, *, lenient: bool = False, field: str = "") -> Any:
    """Return a value with only the fields of its shape. Raises `InvalidInput`.

    A shape is a mapping of names to shapes, a list with the shape of all entries, or None for a value that is
    checked elsewhere. Unknown fields are an error unless ``lenient``; `IGNORED` fields are dropped.
    """
    if isinstance(shape, list) and isinstance(value, list):
        return [
            known(entry, shape[0], lenient=lenient, field=f"{field}[{index}]")
            for index, entry in enumerate(value)
        ]
    if not isinstance(shape, Mapping) or not isinstance(value, dict):
        return value
    kept = {}
    for name, entry in value.items():
        where = f"{field}.{name[:64]}" if field else name[:64]
        inner = shape.get(name, _UNKNOWN)
        if inner is _UNKNOWN and not lenient:
            names = sorted(name for name, inner in shape.items() if inner is not IGNORED)
            raise InvalidInput("is unknown", field=where, remedy=f"Known here: {', '.join(names)}.")
        if inner is not _UNKNOWN and inner is not IGNORED:
            kept[name] = known(entry, inner, lenient=lenient, field=where)
    return kept


def integer(body: Mapping[str, Any], name: str, *, required: bool = False) -> int | None:
    """Return a non-negative integer, or None if it is absent or null. Raises `InvalidInput`."""
    value = body.get(name)
    if value is None and not required:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    found: int = read(value, _WHOLE, name, f"Give a whole number from 0 to {MAX_NUMBER}.")
    return found


def channels(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the channel slugs of ``target.channels`` or of a stream's ``channels``, sorted.

    Both may be given if they name the same. None: the key's scope decides. Raises `InvalidInput`.
    """
    found: list[tuple[str, ...]] = []
    target = body.get("target")
    if target is not None:
        found.append(_slugs(as_object(target, "target").get("channels"), "target.channels"))
    if body.get("channels") is not None:
        found.append(_slugs(body["channels"], "channels"))
    if len(set(found)) > 1:
        problem = "names other channels than target.channels"
        raise InvalidInput(problem, field="channels", remedy="Give one of them.")
    return found[0] if found else None


def _slugs(value: object, field: str) -> tuple[str, ...]:
    try:
        slugs = read(value, list[str], field, 'Give a list such as ["ops"].')
    except InvalidInput as error:
        problem = "must be an array of channel slugs"
        raise InvalidInput(problem, field=field, remedy=error.remedy) from None
    if not slugs:
        raise InvalidInput(
            "must contain at least one channel",
            field=field,
            remedy="Leave it out to reach everyone whom the key reaches.",
        )
    at_most(len(slugs), MAX_CHANNELS, "slugs", field)
    return tuple(sorted(set(slugs)))


def action(value: object, field: str, *, any_scheme: bool = False) -> Button:
    """Return a checked button; ``any_scheme`` lets it open an installed app. Raises `InvalidInput`."""
    body = as_object(value, field)
    # Clients send a method with every button and null for what they do not set.
    given = {name: entry for name, entry in body.items() if entry is not None}
    if given.get("type") != "webhook":
        given.pop("method", None)
        given.pop("body", None)
    extra: frozenset[str] = frozenset()
    if any_scheme and isinstance(url := given.get("url"), str):
        extra = frozenset({scheme}) if (scheme := _app_scheme(url)) else extra
    return check_button(given, field=field, schemes=extra)


def tap_target(body: Mapping[str, Any], name: str) -> str | None:
    """Return the address that a tap on a notification opens. Raises `InvalidInput`."""
    url = _address(body, name)
    if url is None:
        return None
    scheme = _scheme(url)
    if scheme in {"http", "https"}:
        _host(url, name)
    elif not scheme or (scheme not in _WEB and _app_scheme(url) is None):
        raise InvalidInput(
            "opens nothing that may be opened",
            field=name,
            remedy="Give an http, https or shortcuts address, or one of an installed app.",
        )
    return url


def https_address(body: Mapping[str, Any], name: str) -> str | None:
    """Return an ``https`` address without credentials. Raises `InvalidInput`."""
    url = _address(body, name)
    if url is None:
        return None
    parts = _host(url, name)
    if parts.scheme != "https" or parts.username is not None or parts.password is not None:
        problem = "is not an https address, or holds a user name"
        raise InvalidInput(problem, field=name, remedy="Give https:// and a host.")
    return url


def _scheme(url: str) -> str:
    found = _SCHEME.match(url)
    return found[1].lower() if found else ""


def _app_scheme(url: str) -> str | None:
    scheme = _scheme(url)
    blocked = scheme in BLOCKED_SCHEMES or scheme.startswith(("x-apple", "itms-services"))
    return None if not scheme or scheme in _WEB or blocked else scheme


def _host(url: str, field: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise InvalidInput("is not a valid address", field=field, remedy="Give a full address.")
    return parts


def _address(body: Mapping[str, Any], name: str) -> str | None:
    url = text(body, name, limit=MAX_URL)
    if url is not None and (not url.isprintable() or " " in url or "\\" in url):
        problem = "holds a space, a backslash or a control character"
        raise InvalidInput(problem, field=name, remedy="Percent-encode it.")
    return url
