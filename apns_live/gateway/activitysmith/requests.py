"""Reads and validates ActivitySmith's bodies: JSON in, frozen records out.

An unknown field is an error, unless the app's settings say otherwise (``lenient``). ``null`` counts as absent,
except for a button, which it removes from the card, and for a field of the content state that a card keeps.
Errors have the field's path and a remedy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from ...activities import checks
from ...activities.cards.buttons import Button, check_button
from ...errors import InvalidInput
from ..reading import as_object, moment, read, text

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
STATE = (
    "title",
    "subtitle",
    "type",
    "number_of_steps",
    "current_step",
    "step_color",
    "step_colors",
    "percentage",
    "value",
    "upper_limit",
    "metrics",
    "message",
    "duration_seconds",
    "counts_down",
    "is_running",
    "icon",
    "badge",
    "color",
)
DISMISSAL = ("auto_dismiss_minutes", "auto_dismiss_seconds")
SLOTS = ("action", "secondary_action")
SECONDARY_TYPES = frozenset({"alert", "progress", "segmented_progress", "value"})
MAX_ACTIONS = 4
_ACTIONS: Any = Annotated[list[Any], Meta(max_length=MAX_ACTIONS)]
_LEVEL: Any = Literal["passive", "active", "time-sensitive"]

_METRIC_KEY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}\Z")

Metadata = dict[str, str | int | float | bool]


class AlertWords(msgspec.Struct, frozen=True):
    """The words of an alert; either may be missing."""

    title: str | None = None
    body: str | None = None


class LiveCall(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a call about a Live Activity.

    ``buttons`` maps a slot to its button, or to None to remove it; other slots stay unchanged, and so do
    ``tags`` and ``metadata`` if they are None.
    """

    state: dict[str, Any] | None
    activity: str = ""
    buttons: dict[str, Button | None] = {}
    alert: AlertWords | None = None
    channels: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    metadata: Metadata | None = None


class PushCall(msgspec.Struct, frozen=True, kw_only=True):
    """A push notification. ``custom`` are the keys besides ``aps``.

    ``rich`` is True if it has media, an icon or buttons, which only a service extension can show.
    """

    title: str
    message: str | None = None
    subtitle: str | None = None
    badge: int | None = None
    sound: str | None = None
    interruption_level: str | None = None
    custom: dict[str, Any] = {}
    actions: tuple[Button, ...] = ()
    rich: bool = False
    channels: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    metadata: Metadata | None = None


class MetricCall(msgspec.Struct, frozen=True):
    """A value of a widget; ``measured_at`` is milliseconds since 1970, None for now."""

    value: str | int | float
    measured_at: int | None


_BUTTON = dict.fromkeys(("title", "type", "url", "method", "body"))
_TARGET = {"channels": None}
_STATE = dict.fromkeys(STATE)
_FINAL = dict.fromkeys((*STATE, *DISMISSAL))
_CALL: dict[str, Any] = {
    "content_state": _STATE,
    **dict.fromkeys(SLOTS, _BUTTON),
    "tags": None,
    "metadata": None,
    # ActivitySmith's GitHub Action puts it into every body.
    "activity_id": IGNORED,
}
_ALERT = {"alert": {"title": None, "body": None}}
_START = {**_CALL, **_ALERT, "target": _TARGET}
_UPDATE = {**_CALL, "activity_id": None}
_END = {**_UPDATE, "content_state": _FINAL}
_STREAM = {**_START, "content_state": _FINAL, "channels": None}
_STREAM_END = {**_CALL, **_ALERT, "content_state": _FINAL}
_REPLACEMENT: dict[str, Any] = {
    **dict.fromkeys(
        ("title", "message", "subtitle", "media", "redirection", "payload", "badge", "icon")
    ),
    "actions": [_BUTTON],
    "tags": None,
    "metadata": None,
    "activity_id": IGNORED,
}
_PUSH = {**_REPLACEMENT, "sound": None, "interruption_level": None, "target": _TARGET}
_BADGE = {"badge": None, "target": _TARGET}
_METRIC = dict.fromkeys(("value", "timestamp"))
FIELDS = frozenset().union(_STREAM, _UPDATE, _PUSH, _BADGE, _METRIC)
"""The fields of all bodies."""


def notification(body: object, *, replacement: bool = False, lenient: bool = False) -> PushCall:
    """Read a push notification or a replacement. Raises `InvalidInput`."""
    given = _read(body, _REPLACEMENT if replacement else _PUSH, lenient)
    custom: dict[str, Any] = {}
    for name in ("media", "redirection", "icon"):
        check = tap_target if name == "redirection" else https_address
        if (address := check(given, name)) is not None:
            custom[name] = address
    if given.get("payload") is not None:
        custom["payload"] = as_object(given["payload"], "payload")
    several = given.get("actions")
    actions: tuple[Button, ...] = ()
    if several is not None:
        read(several, _ACTIONS, "actions", f"Give a list of at most {MAX_ACTIONS}.")
        named = {f"actions[{index}]": one for index, one in enumerate(several)}
        actions = tuple(action(one, at, any_scheme=True) for at, one in named.items())
    if actions and "media" in custom:
        raise InvalidInput("cannot be combined with actions", "media", "Give one of the two.")
    level = given.get("interruption_level")
    if level is not None:
        read(level, _LEVEL, "interruption_level", "Give passive, active or time-sensitive.")
    return PushCall(
        title=text(given, "title", required=True) or "",
        message=text(given, "message"),
        subtitle=text(given, "subtitle"),
        badge=_integer(given, "badge"),
        sound=text(given, "sound"),
        interruption_level=level,
        custom=custom,
        actions=actions,
        rich=bool(actions) or "media" in custom or "icon" in custom,
        channels=None if replacement else _channels(given),
        **_labels(given),
    )


def badge(body: object, *, lenient: bool = False) -> tuple[int, tuple[str, ...] | None]:
    """Read a number for the app's icon, which 0 removes, and its channels. Raises `InvalidInput`."""
    given = _read(body, _BADGE, lenient)
    return _integer(given, "badge", required=True) or 0, _channels(given)


def metric(body: object, *, lenient: bool = False) -> MetricCall:
    """Read a metric's value. Raises `InvalidInput`."""
    given = _read(body, _METRIC, lenient)
    value = given.get("value")
    fits = isinstance(value, str) and 1 <= len(value) <= 64 and value.isprintable()
    if isinstance(value, bool) or not (fits or isinstance(value, (int, float))):
        raise InvalidInput(
            "must be a finite number or a string of 1 to 64 characters",
            "value",
            "Give a number, or the text to show.",
        )
    when = given.get("timestamp")
    if when is not None:
        when = int(moment(when, "timestamp", "2026-05-01T12:00:00.000Z") * 1000)
    return MetricCall(value, when)  # type: ignore[arg-type]


def metric_key(key: str) -> str:
    """Return a metric's key. Raises `InvalidInput`."""
    if not _METRIC_KEY.match(key):
        raise InvalidInput(
            "is not a valid metric key",
            "key",
            "Use 1 to 64 small letters, digits, dots, underscores and hyphens.",
        )
    return key


def _read(body: object, shape: Mapping[str, Any], lenient: bool) -> dict[str, Any]:
    return dict(_known(as_object(body, "body"), shape, lenient=lenient))


def _live(
    body: object, *, shape: Mapping[str, Any], required: bool = True, lenient: bool = False
) -> LiveCall:
    """Read the body of a call about a Live Activity. Raises `InvalidInput`.

    A body that is not ``required`` may be absent, or have no state.
    """
    given = _read({} if body is None and not required else body, shape, lenient)
    named = shape["activity_id"] is None
    state = given.get("content_state")
    if state is not None or required:
        state = _state(state)
    return LiveCall(
        state=state,
        activity=checks.identifier(given.get("activity_id"), "activity_id") if named else "",
        buttons={
            slot: None if given[slot] is None else action(given[slot], slot)
            for slot in SLOTS
            if slot in given
        },
        alert=_alert(given.get("alert")),
        channels=_channels(given),
        **_labels(given),
    )


start = partial(_live, shape=_START)
update = partial(_live, shape=_UPDATE)
end = partial(_live, shape=_END)
stream = partial(_live, shape=_STREAM)
stream_end = partial(_live, shape=_STREAM_END, required=False)


def _state(value: object) -> dict[str, Any]:
    state = as_object(value, "content_state")
    for name, factor in (("auto_dismiss_minutes", 60), ("auto_dismiss_seconds", 1)):
        given = state.get(name)
        if isinstance(given, float) and given.is_integer():
            given = int(given)
        if given is not None:
            most = Annotated[int, Meta(ge=0, le=10**9 // factor)]
            read(given, most, f"content_state.{name}", "Give 0 to remove the card at once.")
    return state


def _alert(value: object) -> AlertWords | None:
    if value is None:
        return None
    given = as_object(value, "alert")
    words = AlertWords(text(given, "title", "alert"), text(given, "body", "alert"))
    return None if words == AlertWords() else words


def _labels(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked tags and metadata; None for those that are absent."""
    tags, metadata = body.get("tags"), body.get("metadata")
    return {
        "tags": None if tags is None else tuple(checks.tags(tags)),
        "metadata": None if metadata is None else checks.metadata(metadata),
    }


def _known(value: Any, shape: Any, *, lenient: bool = False, field: str = "") -> Any:
    """Return a value with only the fields of its shape. Raises `InvalidInput`.

    A shape is a mapping of names to shapes, a list with the shape of all entries, or None for a value that is
    checked elsewhere. Unknown fields are an error unless ``lenient``; `IGNORED` fields are dropped.
    """
    if isinstance(shape, list) and isinstance(value, list):
        return [
            _known(entry, shape[0], lenient=lenient, field=f"{field}[{index}]")
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
            raise InvalidInput("is unknown", where, f"Known here: {', '.join(names)}.")
        if inner is not _UNKNOWN and inner is not IGNORED:
            kept[name] = _known(entry, inner, lenient=lenient, field=where)
    return kept


def _integer(body: Mapping[str, Any], name: str, *, required: bool = False) -> int | None:
    """Return a non-negative integer, or None if it is absent or null. Raises `InvalidInput`."""
    value = body.get(name)
    if value is None and not required:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    found: int = read(value, _WHOLE, name, f"Give a whole number from 0 to {MAX_NUMBER}.")
    return found


def _channels(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the channel slugs of ``target.channels`` or of a stream's ``channels``, sorted.

    Both may be given if they name the same channels. None means that the key's scope decides. Raises
    `InvalidInput`.
    """
    found: list[tuple[str, ...]] = []
    target = body.get("target")
    if target is not None:
        found.append(_slugs(as_object(target, "target").get("channels"), "target.channels"))
    if body.get("channels") is not None:
        found.append(_slugs(body["channels"], "channels"))
    if len(set(found)) > 1:
        problem = "names other channels than target.channels"
        raise InvalidInput(problem, "channels", "Give one of them.")
    return found[0] if found else None


def _slugs(value: object, field: str) -> tuple[str, ...]:
    try:
        slugs = read(value, list[str], field, 'Give a list such as ["ops"].')
    except InvalidInput as error:
        raise InvalidInput("must be an array of channel slugs", field, error.remedy) from None
    if not slugs:
        raise InvalidInput(
            "must contain at least one channel",
            field,
            "Leave it out to reach everyone whom the key reaches.",
        )
    checks.at_most(len(slugs), MAX_CHANNELS, "slugs", field)
    return tuple(sorted(set(slugs)))


def action(value: object, field: str, *, any_scheme: bool = False) -> Button:
    """Return a checked button; ``any_scheme`` lets it open an installed app. Raises `InvalidInput`."""
    body = as_object(value, field)
    # Clients send a method with every button, and null for unset fields.
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
            name,
            "Give an http, https or shortcuts address, or one of an installed app.",
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
        raise InvalidInput(problem, name, "Give https:// and a host.")
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
        _ = parts.port  # The property parses the port, and raises ValueError for an invalid one.
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise InvalidInput("is not a valid address", field, "Give a full address.")
    return parts


def _address(body: Mapping[str, Any], name: str) -> str | None:
    url = text(body, name, limit=MAX_URL)
    if url is not None and (not url.isprintable() or " " in url or "\\" in url):
        problem = "holds a space, a backslash or a control character"
        raise InvalidInput(problem, name, "Percent-encode it.")
    return url
