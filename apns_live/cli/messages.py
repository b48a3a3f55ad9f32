"""Builds a message from options and a JSON file in our format or with an aps key."""

import contextlib
import dataclasses
import datetime
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidInput, InvalidPayload
from ..payload import Alert, Background, End, Localized, Message, Notification, Start, Update
from ..payload.rules import APS_KEYS
from ..settings import suggestion

_MESSAGES: tuple[type[Message], ...] = (Start, Update, End, Notification, Background)
KINDS = {kind.__name__.lower(): kind for kind in _MESSAGES}
_ALIASES = {"alert": "notification"}
_LOCALISED = {"title": "title-loc", "subtitle": "subtitle-loc", "body": "loc"}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RELATIVE = re.compile(r"\s*([+-])\s*((?:\d+(?:\.\d+)?\s*[smhd]\s*)+)$")


def message_from(options: Mapping[str, Any]) -> Message:
    """Return the message of the options and of the file ``file``.

    Raises `InvalidPayload` naming the option or key that cannot be used.
    """
    given = dict(options)
    fields: dict[str, Any] = {}
    if "file" in given:
        fields = _parsed(_read(given.pop("file"), "message"), "message")
        if not isinstance(fields, dict):
            remedy = 'Write {"event": "update", ...}.'
            raise InvalidPayload("is not a JSON object", "message", remedy)
        fields = fields_of_payload(fields) if "aps" in fields else fields
    for name in ("content_state", "attributes", "custom"):
        if (text := given.get(name)) is not None:
            given[name] = _parsed(_read(text[1:], name) if text.startswith("@") else text, name)
    fields.update(given)
    event = str(fields.pop("event", "update"))
    if (kind := KINDS.get(_ALIASES.get(event, event))) is None:
        remedy = suggestion(event, KINDS) or f"Use one of {', '.join(KINDS)}."
        raise InvalidPayload(f"{event!r:.40} is not a valid event", "event", remedy)
    for name in ("stale_date", "dismissal_date", "timestamp", "expiration"):
        if isinstance(fields.get(name), str):
            fields[name] = when(fields[name], name)
    if kind in (Start, Update, End):
        fields = _with_alert(fields)
    allowed = _names(kind)
    for name in fields:
        if name not in allowed:
            owners = " and ".join(each for each, one in KINDS.items() if name in _names(one))
            known = [*allowed, "title", "body", "sound"] if "alert" in allowed else allowed
            remedy = suggestion(name, known) or f"The event takes {', '.join(allowed)}."
            remedy = f"It belongs to {owners}." if owners else remedy
            raise InvalidPayload(f"does not belong to the event {event}", name, remedy)
    return kind(**fields)


def _names(*kinds: type[Message]) -> list[str]:
    """Return the names of the fields of messages."""
    return [field.name for kind in kinds for field in dataclasses.fields(kind)]


def when(text: str, field: str) -> datetime.datetime | datetime.timedelta | int | float:
    """Parse a date: +10m, seconds since 1970, or ISO 8601 with a zone."""
    if relative := _RELATIVE.match(text):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", relative[2])
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        with contextlib.suppress(OverflowError):
            return datetime.timedelta(seconds=-seconds if relative[1] == "-" else seconds)
    for read in (int, float, datetime.datetime.fromisoformat):
        with contextlib.suppress(ValueError):
            return read(text.strip())
    remedy = "Write +10m or +1h30m, seconds since 1970, or 2030-01-31T20:00:00Z."
    raise InvalidPayload(f"{text!r:.40} is not a valid date", field, remedy)


def _read(path: str, field: str) -> str:
    """Return the text of a file, or of stdin for ``-``."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"{path} is not UTF-8 ({error.reason} at byte {error.start})"
        raise InvalidPayload(problem, field, "Save the file as UTF-8.") from None


def _parsed(text: str, field: str) -> Any:
    def refuse(name: str) -> Any:
        raise InvalidPayload(f"holds {name}, which is not JSON", field, "Use null or a number.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidPayload(f"holds the key {twice!r:.40} twice", field, "Keep one of them.")
        return found

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except InvalidPayload:
        raise
    except RecursionError:
        raise InvalidPayload("is nested too deeply", field, "Flatten it.") from None
    except ValueError as error:
        remedy = "Quote the whole value for the shell."
        raise InvalidPayload(f"is not JSON ({error})", field, remedy) from None


def fields_of_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the message that has this payload."""
    aps = payload["aps"]
    if not isinstance(aps, Mapping):
        raise InvalidPayload("is not an object", "aps", "See Apple's payload keys.")
    custom = {name: value for name, value in payload.items() if name != "aps"}
    fields: dict[str, Any] = {"custom": custom} if custom else {}
    rest = dict(aps)
    event = rest.pop("event", None)
    alert = rest.pop("alert", None)
    if event is None:
        if alert is None and rest.keys() <= {"content-available"} and rest:
            return {**fields, "event": "background"}
        fields |= {"event": "notification", **_notification_alert(alert)}
        names = [*_names(Notification), "content_available"]
    else:
        fields |= {"event": event} | ({} if alert is None else {"alert": alert})
        names = [name for name in _names(Start, Update, End) if name != "alert"]
    known = [key for key in (*APS_KEYS, "content-available") if key.replace("-", "_") in names]
    for name, value in rest.items():
        if name not in known:
            remedy = suggestion(name, known) or "Put keys of your own beside aps."
            raise InvalidPayload("is not a key of this kind of push", f"aps.{name}", remedy)
        is_flag = name in ("input-push-token", "mutable-content", "content-available")
        if is_flag and value not in (0, 1):
            raise InvalidPayload(f"{value!r:.40} is not 1", f"aps.{name}", "Use 1.")
        fields[name.replace("-", "_")] = bool(value) if is_flag else value
    return fields


def _notification_alert(alert: Any) -> dict[str, Any]:
    words = _words_of(alert, "aps.alert", "Use title and body.")
    fields = {name: words.pop(name) for name in _LOCALISED if name in words}
    if "launch-image" in words:
        fields["launch_image"] = words.pop("launch-image")
    for name in words:
        remedy = suggestion(name, _LOCALISED) or "Use title and body."
        raise InvalidPayload("is not a key of an alert", f"aps.alert.{name}", remedy)
    return fields


def _words_of(alert: Any, field: str, remedy: str) -> dict[str, Any]:
    """Return the keys of an alert, with a `Localized` text for title-loc-key, title-loc-args and so on."""
    if not isinstance(alert, Mapping | str | None):
        raise InvalidPayload("is not an object", field, remedy)
    words = {"body": alert} if isinstance(alert, str) else dict(alert or {})
    for name, key in _LOCALISED.items():
        if f"{key}-key" in words:
            words[name] = Localized(words.pop(f"{key}-key"), words.pop(f"{key}-args", ()))
    return words


def _with_alert(fields: dict[str, Any]) -> dict[str, Any]:
    """Combine title, body and sound into the alert of a live activity."""
    words = _words_of(fields.pop("alert", None), "alert", 'Write {"title": ..., "body": ...}.')
    for name in ("title", "body"):
        if isinstance(words.get(name), Mapping):
            words[name] = _localized(words[name], f"alert.{name}")
    words.update({name: fields.pop(name) for name in ("title", "body", "sound") if name in fields})
    for name in words:
        if name not in ("title", "body", "sound"):
            remedy = suggestion(name, ("title", "body", "sound")) or "Use title, body, sound."
            raise InvalidPayload("is not a key of a live activity's alert", f"alert.{name}", remedy)
    return {**fields, "alert": Alert(**words)} if words else fields


def _localized(words: Mapping[str, Any], field: str) -> Localized:
    names = {name.replace("_", "-"): value for name, value in words.items()}
    if not names.keys() <= {"loc-key", "loc-args", "args"} or "loc-key" not in names:
        remedy = 'Write {"loc-key": ..., "loc-args": []}.'
        raise InvalidPayload("is not a localised text", field, remedy)
    try:
        return Localized(names["loc-key"], names.get("loc-args", names.get("args", ())))
    except InvalidInput as error:
        raise InvalidPayload(error.problem, field, error.remedy) from None
