"""Reads and validates ActivitySmith's bodies: JSON in, frozen records out.

An unknown field is an error, unless the app's settings say otherwise (``lenient``). ``null`` counts as absent,
except for a button, which it removes from the card, and for a field of the content state that a card keeps.
Errors have the field's path and a remedy. Every reader raises `InvalidInput`.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from ...activities import checks
from ...activities.cards import content_states
from ...activities.cards.buttons import Button, check_button
from ...activities.checks import convert
from ...errors import InvalidInput
from ..reading import as_object, moment, text

IGNORED = object()
"""The shape of a field that the vendor's own clients send although it has no meaning."""
_UNKNOWN = object()
MAX_URL = 2_048
MAX_CHANNELS = 100
MAX_NUMBER = 2**31 - 1
_WHOLE = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_WEB = frozenset({"http", "https", "shortcuts"})
_BLOCKED = re.compile(
    r"about|app-prefs|blob|chrome|data|file|filesystem|javascript|prefs|vbscript|view-source"
    r"|x-apple.*|itms-services.*"
)
"""Schemes that execute something or reach into the phone instead of opening an app."""
DISMISSAL = {"auto_dismiss_minutes": 60, "auto_dismiss_seconds": 1}
"""Fields of a final state, with their units in seconds."""
SLOTS = ("action", "secondary_action")
SECONDARY_TYPES = frozenset({"alert", "progress", "segmented_progress", "value"})
MAX_ACTIONS = 4
_ACTIONS = Annotated[list[Any], Meta(max_length=MAX_ACTIONS)]
_LEVEL = Literal["passive", "active", "time-sensitive"]
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
    """A push notification: fields of `Notify`, and buttons, which become keys besides ``aps``."""

    content: dict[str, Any]
    actions: tuple[Button, ...] = ()
    channels: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    metadata: Metadata | None = None


_BUTTON = dict.fromkeys(("title", "type", "url", "method", "body"))
_TARGET = {"channels": None}
_CALL: dict[str, Any] = {
    "content_state": dict.fromkeys(content_states.FIELDS),
    **dict.fromkeys(SLOTS, _BUTTON),
    "tags": None,
    "metadata": None,
    # ActivitySmith's GitHub Action puts it into every body.
    "activity_id": IGNORED,
}
_FINAL = {"content_state": dict.fromkeys((*content_states.FIELDS, *DISMISSAL))}
_ALERT = {"alert": {"title": None, "body": None}}
_START = {**_CALL, **_ALERT, "target": _TARGET}
_UPDATE = {**_CALL, "activity_id": None}
_STREAM = {**_START, **_FINAL, "channels": None}
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
    """Read a push notification or a replacement."""
    given = _known(body, _REPLACEMENT if replacement else _PUSH, lenient)
    custom: dict[str, Any] = {}
    for name in ("media", "redirection", "icon"):
        if (url := address(given, name, opens_apps=name == "redirection")) is not None:
            custom[name] = url
    if given.get("payload") is not None:
        custom["payload"] = as_object(given["payload"], "payload")
    several: Any = given.get("actions")
    few = f"Give a list of at most {MAX_ACTIONS}."
    convert([] if several is None else several, _ACTIONS, "actions", remedy=few)
    actions = tuple(
        action(one, f"actions[{index}]", any_scheme=True) for index, one in enumerate(several or ())
    )
    if actions and "media" in custom:
        raise InvalidInput("cannot be combined with actions", "media", "Give one of the two.")
    if (level := given.get("interruption_level")) is not None:
        remedy = "Give passive, active or time-sensitive."
        convert(level, _LEVEL, "interruption_level", remedy=remedy)
    content = {
        "title": text(given, "title", required=True),
        "body": text(given, "message"),
        "subtitle": text(given, "subtitle"),
        "badge": None if given.get("badge") is None else _badge(given),
        "sound": text(given, "sound"),
        "interruption_level": level,
        "custom": custom,
        # Only a service extension can show media, an icon or buttons.
        "mutable_content": bool(actions) or "media" in custom or "icon" in custom,
    }
    channels = None if replacement else _channels(given)
    return PushCall(content=content, actions=actions, channels=channels, **_labels(given))


def badge(body: object, *, lenient: bool = False) -> tuple[int, tuple[str, ...] | None]:
    """Read a number for the app's icon, which 0 removes, and its channels."""
    given = _known(body, _BADGE, lenient)
    return _badge(given), _channels(given)


def metric(body: object, *, lenient: bool = False) -> tuple[str | int | float, int | None]:
    """Read a metric's value, and when it was measured (milliseconds since 1970; None for now)."""
    given = _known(body, _METRIC, lenient)
    value: Any = given.get("value")
    fits = isinstance(value, str) and 1 <= len(value) <= 64 and value.isprintable()
    if isinstance(value, bool) or not (fits or isinstance(value, (int, float))):
        problem = "must be a finite number or a string of 1 to 64 characters"
        raise InvalidInput(problem, "value", "Give a number, or the text to show.")
    if (when := given.get("timestamp")) is not None:
        when = int(moment(when, "timestamp", "2026-05-01T12:00:00.000Z") * 1000)
    return value, when


def metric_key(key: str) -> str:
    """Return a metric's key."""
    if not _METRIC_KEY.match(key):
        remedy = "Use 1 to 64 small letters, digits, dots, underscores and hyphens."
        raise InvalidInput("is not a valid metric key", "key", remedy)
    return key


def _live(
    body: object, *, shape: Mapping[str, Any], required: bool = True, lenient: bool = False
) -> LiveCall:
    """Read a body about a Live Activity. One that is not ``required`` may be absent, or lack a state."""
    given = _known({} if body is None and not required else body, shape, lenient)
    named = shape["activity_id"] is None
    state, alert = given.get("content_state"), None
    if state is not None or required:
        state = as_object(state, "content_state")
        for name, unit in DISMISSAL.items():
            if (count := _whole(state.get(name))) is not None:
                most = Annotated[int, Meta(ge=0, le=10**9 // unit)]
                remedy = "Give 0 to remove the card at once."
                convert(count, most, f"content_state.{name}", remedy=remedy)
    identifier = checks.identifier(given.get("activity_id"), "activity_id") if named else ""
    buttons = {
        slot: None if given[slot] is None else action(given[slot], slot)
        for slot in SLOTS
        if slot in given
    }
    if given.get("alert") is not None:
        words = as_object(given["alert"], "alert")
        alert = AlertWords(text(words, "title", "alert"), text(words, "body", "alert"))
    return LiveCall(
        state=state,
        activity=identifier,
        buttons=buttons,
        alert=None if alert == AlertWords() else alert,
        channels=_channels(given),
        **_labels(given),
    )


start = partial(_live, shape=_START)
update = partial(_live, shape=_UPDATE)
end = partial(_live, shape={**_UPDATE, **_FINAL})
stream = partial(_live, shape=_STREAM)
stream_end = partial(_live, shape={**_CALL, **_ALERT, **_FINAL}, required=False)


def _labels(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked tags and metadata; None for those that are absent."""
    tags, metadata = body.get("tags"), body.get("metadata")
    return {
        "tags": None if tags is None else tuple(checks.tags(tags)),
        "metadata": None if metadata is None else checks.metadata(metadata),
    }


def _known(body: object, shape: Mapping[str, Any], lenient: bool) -> dict[str, Any]:
    """Return a body with only the fields of its shape.

    A shape is a mapping of names to shapes, a list with the shape of all entries, or None for a value that is
    checked elsewhere. Unknown fields are an error unless ``lenient``; `IGNORED` fields are dropped.
    """

    def known(value: Any, shape: Any, field: str) -> Any:
        if isinstance(shape, list) and isinstance(value, list):
            return [known(one, shape[0], f"{field}[{index}]") for index, one in enumerate(value)]
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
                kept[name] = known(entry, inner, where)
        return kept

    found: dict[str, Any] = known(as_object(body, "body"), shape, "")
    return found


def _whole(value: Any) -> Any:
    """Return 3 for 3.0, as some clients write whole numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _badge(body: Mapping[str, Any]) -> int:
    remedy = f"Give a whole number from 0 to {MAX_NUMBER}."
    found: int = convert(_whole(body.get("badge")), _WHOLE, "badge", remedy=remedy)
    return found


def _channels(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the sorted channels of ``target`` and ``channels``; None lets the key's scope decide."""
    given: dict[str, Any] = {}
    if body.get("target") is not None:
        given["target.channels"] = as_object(body["target"], "target").get("channels")
    if body.get("channels") is not None:
        given["channels"] = body["channels"]
    found: set[tuple[str, ...]] = set()
    for field, slugs in given.items():
        if not isinstance(slugs, list) or not all(isinstance(slug, str) for slug in slugs):
            remedy = 'Give a list such as ["ops"].'
            raise InvalidInput("must be an array of channel slugs", field, remedy)
        if not slugs:
            remedy = "Leave it out to reach everyone whom the key reaches."
            raise InvalidInput("must contain at least one channel", field, remedy)
        checks.at_most(len(slugs), MAX_CHANNELS, "slugs", field)
        found.add(tuple(sorted(set(slugs))))
    if len(found) > 1:
        problem = "names other channels than target.channels"
        raise InvalidInput(problem, "channels", "Give one of them.")
    return found.pop() if found else None


def action(value: object, field: str, *, any_scheme: bool = False) -> Button:
    """Return a checked button; ``any_scheme`` lets it open an installed app."""
    body = as_object(value, field)
    # Clients send a method with every button, and null for unset fields.
    given = {name: entry for name, entry in body.items() if entry is not None}
    if given.get("type") != "webhook":
        given.pop("method", None)
        given.pop("body", None)
    extra: frozenset[str] = frozenset()
    if any_scheme and isinstance(url := given.get("url"), str) and _opens_app(_scheme(url)):
        extra = frozenset({_scheme(url)})
    return check_button(given, field=field, schemes=extra)


def address(body: Mapping[str, Any], name: str, *, opens_apps: bool = False) -> str | None:
    """Return an ``https`` address without credentials, or None if it is absent.

    With ``opens_apps`` a tap opens it: an http, https or shortcuts address, or that of an app.
    """
    if (url := text(body, name, limit=MAX_URL)) is None:
        return None
    if not url.isprintable() or " " in url or "\\" in url:
        problem = "holds a space, a backslash or a control character"
        raise InvalidInput(problem, name, "Percent-encode it.")
    scheme = _scheme(url)
    if opens_apps and scheme not in {"http", "https"}:
        if scheme not in _WEB and not _opens_app(scheme):
            remedy = "Give an http, https or shortcuts address, or one of an installed app."
            raise InvalidInput("opens nothing that may be opened", name, remedy)
        return url
    try:
        parts = urlsplit(url)
        _ = parts.port  # The property parses the port, and raises ValueError for an invalid one.
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise InvalidInput("is not a valid address", name, "Give a full address.")
    named = parts.username is not None or parts.password is not None
    if not opens_apps and (parts.scheme != "https" or named):
        problem = "is not an https address, or holds a user name"
        raise InvalidInput(problem, name, "Give https:// and a host.")
    return url


def _scheme(url: str) -> str:
    found = _SCHEME.match(url)
    return found[1].lower() if found else ""


def _opens_app(scheme: str) -> bool:
    return bool(scheme) and scheme not in _WEB and not _BLOCKED.fullmatch(scheme)
