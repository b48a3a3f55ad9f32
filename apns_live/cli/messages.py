"""Builds a message from options and a JSON file in our format or with an aps key."""

from __future__ import annotations

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

KINDS: dict[str, type[Message]] = {
    "start": Start,
    "update": Update,
    "end": End,
    "notification": Notification,
    "background": Background,
}
_ALIASES = {"alert": "notification"}
_DATES = ("stale_date", "dismissal_date", "timestamp", "expiration")
_LOCALISED = {"title": "title-loc", "subtitle": "subtitle-loc", "body": "loc"}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RELATIVE = re.compile(r"\s*([+-])\s*((?:\d+(?:\.\d+)?\s*[smhd]\s*)+)$")


def message_from(options: Mapping[str, Any]) -> Message:
    """Return the message that options (and the file named by ``file``) describe.

    Raises `InvalidPayload` naming the option or key that cannot be used.
    """
    given = dict(options)
    fields = _from_file(given.pop("file")) if "file" in given else {}
    for name in ("content_state", "attributes", "custom"):
        if name in given:
            given[name] = json_option(given[name], name)
    fields.update(given)
    event = str(fields.pop("event", "update"))
    kind = KINDS.get(_ALIASES.get(event, event))
    if kind is None:
        raise InvalidPayload(
            f"{event!r:.40} is not a valid event",
            field="event",
            remedy=suggestion(event, KINDS) or f"Use one of {', '.join(KINDS)}.",
        )
    for name in _DATES:
        if isinstance(fields.get(name), str):
            fields[name] = when(fields[name], name)
    if kind in (Start, Update, End):
        fields = _with_alert(fields)
    allowed = [field.name for field in dataclasses.fields(kind)]
    for name in fields:
        if name not in allowed:
            raise InvalidPayload(
                f"does not belong to the event {event}", field=name, remedy=_remedy(name, allowed)
            )
    return kind(**fields)


def _remedy(name: str, allowed: list[str]) -> str:
    owners = [
        event
        for event, kind in KINDS.items()
        if name in {field.name for field in dataclasses.fields(kind)}
    ]
    if owners:
        return f"It belongs to {' and '.join(owners)}."
    known = [*allowed, "title", "body", "sound"] if "alert" in allowed else allowed
    return suggestion(name, known) or f"The event takes {', '.join(allowed)}."


def when(text: str, field: str) -> datetime.datetime | datetime.timedelta | int | float:
    """Return the date that a person wrote: +10m, seconds since 1970, or ISO 8601 with a zone."""
    relative = _RELATIVE.match(text)
    if relative:
        seconds = sum(
            float(number) * _UNITS[unit]
            for number, unit in re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", relative[2])
        )
        try:
            return datetime.timedelta(seconds=-seconds if relative[1] == "-" else seconds)
        except OverflowError:
            seconds = 0.0
    try:
        return int(text) if re.fullmatch(r"\s*\d+\s*", text, re.ASCII) else float(text)
    except ValueError:
        pass
    try:
        return datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidPayload(
            f"{text!r:.40} is not a valid date",
            field=field,
            remedy="Write +10m or +1h30m, seconds since 1970, or 2030-01-31T20:00:00Z.",
        ) from None


def json_option(text: str, field: str) -> Any:
    """Return the JSON of an option's value, or of the file that ``@FILE`` names."""
    if text.startswith("@"):
        text = read_text(text[1:], field)
    return _parsed(text, field)


def read_text(path: str, field: str) -> str:
    """Return the text of a file, or of stdin for ``-``."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidPayload(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start})",
            field=field,
            remedy="Save the file as UTF-8.",
        ) from None


def _parsed(text: str, field: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_repeats)
    except RecursionError:
        raise InvalidPayload("is nested too deeply", field=field, remedy="Flatten it.") from None
    except InvalidPayload as error:
        raise InvalidPayload(error.problem, field=field, remedy=error.remedy) from None
    except ValueError as error:
        raise InvalidPayload(
            f"is not JSON ({error})", field=field, remedy="Quote the whole value for the shell."
        ) from None


def _no_constant(name: str) -> Any:
    raise InvalidPayload(f"holds {name}, which is not JSON", remedy="Use null or a number.")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidPayload(f"holds the key {twice!r:.40} twice", remedy="Keep one of them.")
    return found


def _from_file(path: str) -> dict[str, Any]:
    content = _parsed(read_text(path, "message"), "message")
    if not isinstance(content, dict):
        raise InvalidPayload(
            "is not a JSON object", field="message", remedy='Write {"event": "update", ...}.'
        )
    return fields_of_payload(content) if "aps" in content else content


def fields_of_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a message whose ready payload this is."""
    aps = payload["aps"]
    if not isinstance(aps, Mapping):
        raise InvalidPayload("is not an object", field="aps", remedy="See Apple's payload keys.")
    custom = {name: value for name, value in payload.items() if name != "aps"}
    fields: dict[str, Any] = {"custom": custom} if custom else {}
    rest = dict(aps)
    event = rest.pop("event", None)
    alert = rest.pop("alert", None)
    if event is None:
        if alert is None and rest.keys() <= {"content-available"} and rest:
            return {**fields, "event": "background"}
        fields["event"] = "notification"
        fields.update(_notification_alert(alert))
        known = _keys(Notification) | {"content-available"}
    else:
        fields["event"] = event
        if alert is not None:
            fields["alert"] = alert
        known = _keys(Start, Update, End) - {"alert"}
    for name, value in rest.items():
        if name not in known:
            raise InvalidPayload(
                "is not a key of this kind of push",
                field=f"aps.{name}",
                remedy=suggestion(name, known) or "Put keys of your own beside aps.",
            )
        if name in ("input-push-token", "mutable-content", "content-available"):
            fields[name.replace("-", "_")] = _flag(value, name)
        else:
            fields[name.replace("-", "_")] = value
    return fields


def _keys(*kinds: type[Message]) -> set[str]:
    """Return Apple's keys that a message of these kinds has a field for."""
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    return {key for key in APS_KEYS if key.replace("-", "_") in names}


def _flag(value: Any, name: str) -> bool:
    if value in (0, 1):
        return bool(value)
    raise InvalidPayload(f"{value!r:.40} is not 1", field=f"aps.{name}", remedy="Use 1.")


def _notification_alert(alert: Any) -> dict[str, Any]:
    if alert is None:
        return {}
    if isinstance(alert, str):
        return {"body": alert}
    if not isinstance(alert, Mapping):
        raise InvalidPayload("is not an object", field="aps.alert", remedy="Use title and body.")
    fields: dict[str, Any] = {}
    rest = dict(alert)
    for name, localised in _LOCALISED.items():
        if f"{localised}-key" in rest:
            key, args = rest.pop(f"{localised}-key"), rest.pop(f"{localised}-args", ())
            fields[name] = Localized(key, args)
            rest.pop(name, None)
        elif name in rest:
            fields[name] = rest.pop(name)
    if "launch-image" in rest:
        fields["launch_image"] = rest.pop("launch-image")
    for name in rest:
        raise InvalidPayload(
            "is not a key of an alert",
            field=f"aps.alert.{name}",
            remedy=suggestion(name, ("title", "subtitle", "body")) or "Use title and body.",
        )
    return fields


def _with_alert(fields: dict[str, Any]) -> dict[str, Any]:
    """Gather title, body and sound into the alert of a live activity."""
    alert = fields.pop("alert", None)
    words: dict[str, Any] = {}
    if isinstance(alert, Mapping):
        words = dict(alert)
    elif isinstance(alert, str):
        words = {"body": alert}
    elif alert is not None:
        raise InvalidPayload(
            "is not an object", field="alert", remedy='Write {"title": ..., "body": ...}.'
        )
    for name in ("title", "body"):
        flat = f"{_LOCALISED[name]}-key"
        if flat in words:
            args = words.pop(f"{_LOCALISED[name]}-args", ())
            words[name] = Localized(words.pop(flat), args)
        elif isinstance(words.get(name), Mapping):
            words[name] = _localized(words[name], f"alert.{name}")
    words.update({name: fields.pop(name) for name in ("title", "body", "sound") if name in fields})
    for name in words:
        if name not in ("title", "body", "sound"):
            raise InvalidPayload(
                "is not a key of a live activity's alert",
                field=f"alert.{name}",
                remedy=suggestion(name, ("title", "body", "sound")) or "Use title, body, sound.",
            )
    return {**fields, "alert": Alert(**words)} if words else fields


def _localized(words: Mapping[str, Any], field: str) -> Localized:
    names = {name.replace("_", "-"): value for name, value in words.items()}
    if not names.keys() <= {"loc-key", "loc-args", "args"} or "loc-key" not in names:
        raise InvalidPayload(
            "is not a localised text", field=field, remedy='Write {"loc-key": ..., "loc-args": []}.'
        )
    try:
        return Localized(names["loc-key"], names.get("loc-args", names.get("args", ())))
    except InvalidInput as error:
        raise InvalidPayload(error.problem, field=field, remedy=error.remedy) from None
