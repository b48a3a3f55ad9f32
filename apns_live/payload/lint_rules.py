"""The rules that `lint` holds against a ready payload.

Sources: Apple, "Starting and updating Live Activities with ActivityKit push notifications" and
"Generating a remote notification".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .dates import DURATIONS_UP_TO, MILLISECONDS_FROM
from .findings import PayloadProblem, PayloadWarning
from .notification import INTERRUPTION_LEVELS
from .remarks import APS_KEYS, LONGEST_DISMISSAL, TIMESTAMP_SLACK, timestamp_off

EVENTS = ("start", "update", "end")
_ACTIVITY_KEYS = frozenset(
    [
        "alert",
        "attributes",
        "attributes-type",
        "content-state",
        "dismissal-date",
        "event",
        "input-push-channel",
        "input-push-token",
        "relevance-score",
        "stale-date",
        "timestamp",
    ]
)
_SIGNS_OF_AN_ACTIVITY = _ACTIVITY_KEYS - {"alert", "relevance-score"}
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")
_FLAT_ALERT_KEYS = ("title-loc-key", "title-loc-args", "loc-key", "loc-args")


class Findings:
    """Collects what the rules find."""

    def __init__(self) -> None:
        self.problems: list[PayloadProblem] = []
        self.warnings: list[PayloadWarning] = []

    def problem(self, code: str, field: str, message: str) -> None:
        """Note something that must change."""
        self.problems.append(PayloadProblem(code, field, message))

    def warning(self, code: str, field: str, message: str) -> None:
        """Note something that Apple ignores, caps or does not document."""
        self.warnings.append(PayloadWarning(code, field, message))


def kind_of(payload: Mapping[str, Any]) -> str:
    """Return start, update, end, alert, background or unknown."""
    aps = payload.get("aps")
    if not isinstance(aps, Mapping):
        return "unknown"
    event = aps.get("event")
    if isinstance(event, str) and event in EVENTS:
        return event
    if not _SIGNS_OF_AN_ACTIVITY.isdisjoint(aps):
        return "unknown"
    if "alert" in aps or "badge" in aps or "sound" in aps:
        return "alert"
    return "background" if "content-available" in aps else "unknown"


def check_payload(
    payload: Mapping[str, Any], kind: str, target: str, now: float | None, found: Findings
) -> None:
    """Hold the rules of live activities, and those common to all pushes, against a payload."""
    aps = payload.get("aps")
    if "aps" not in payload:
        found.problem("no_aps", "aps", "is missing. Everything of Apple's belongs inside it.")
    elif not isinstance(aps, Mapping):
        found.problem("no_aps", "aps", "is no object. Everything of Apple's belongs inside it.")
    _check_beside_aps(payload, kind, found)
    if not isinstance(aps, Mapping):
        return
    if target == "broadcast" and kind in {"start", "alert", "background"}:
        found.problem(
            "not_for_broadcast",
            "aps.event" if kind == "start" else "aps",
            "cannot go to a channel: only update and end can. Send it to tokens.",
        )
    if kind == "unknown":
        _check_unknown(aps, found)
    if kind in EVENTS or not _SIGNS_OF_AN_ACTIVITY.isdisjoint(aps):
        _check_activity(aps, kind, now, found)


def check_ordinary(aps: Mapping[str, Any], kind: str, found: Findings) -> None:
    """Hold the rules of ordinary notifications against ``aps``."""
    alert = aps.get("alert")
    if alert is not None and not isinstance(alert, (str, Mapping)):
        found.problem("bad_alert", "aps.alert", "is neither text nor an object.")
    badge = aps.get("badge")
    if badge is not None and (type(badge) is not int or badge < 0):
        found.problem("bad_badge", "aps.badge", "is no whole number from 0 up.")
    level = aps.get("interruption-level")
    if level is not None and level not in INTERRUPTION_LEVELS:
        found.problem(
            "bad_interruption_level",
            "aps.interruption-level",
            f"is none of {', '.join(INTERRUPTION_LEVELS)}.",
        )
    score = aps.get("relevance-score")
    if score is not None and (not _is_number(score) or not 0 <= score <= 1):
        found.problem("bad_relevance_score", "aps.relevance-score", "is no number from 0 to 1.")
    for key in ("content-available", "mutable-content"):
        if key in aps and (type(aps[key]) is not int or aps[key] != 1):
            found.problem("bad_flag", f"aps.{key}", "must be the number 1, or absent.")
    if kind == "alert" and "sound" in aps and not alert:
        found.warning(
            "sound_without_title", "aps.sound", "has no alert beside it: heard, and not seen."
        )
    _check_unknown_keys(aps, APS_KEYS | {"url-args"}, found)


def _check_beside_aps(payload: Mapping[str, Any], kind: str, found: Findings) -> None:
    for key in payload:
        if key in APS_KEYS:
            found.problem(
                "misplaced_key",
                key,
                f"stands beside aps and means nothing there. Move it to aps.{key}.",
            )
        elif key != "aps" and kind in EVENTS:
            found.warning(
                "custom_undocumented",
                key,
                "stands beside aps, and Apple does not say whether an activity gets such keys.",
            )


def _check_unknown(aps: Mapping[str, Any], found: Findings) -> None:
    event = aps.get("event")
    if "event" not in aps:
        if not _SIGNS_OF_AN_ACTIVITY.isdisjoint(aps):
            found.problem("no_event", "aps.event", "is missing. It is start, update or end.")
        else:
            found.problem("nothing", "aps", "has neither an event nor anything to show.")
    else:
        found.problem("bad_event", "aps.event", f"is {event!r:.40}, not start, update or end.")


def _check_activity(aps: Mapping[str, Any], kind: str, now: float | None, found: Findings) -> None:
    _check_dates(aps, kind, now, found)
    state = aps.get("content-state")
    if state is None:
        if kind == "end":
            found.warning(
                "no_final_state",
                "aps.content-state",
                "is missing; the card keeps its last state for up to 4 hours. Send the final one.",
            )
        else:
            found.problem("no_content_state", "aps.content-state", "is missing.")
    elif not isinstance(state, Mapping):
        found.problem("bad_content_state", "aps.content-state", "is no object.")
    if kind == "start":
        _check_start(aps, found)
    else:
        for key in ("attributes-type", "attributes", "input-push-token", "input-push-channel"):
            if key in aps:
                found.warning("only_for_start", f"aps.{key}", "is used by a start only.")
    _check_alert(aps, found)
    score = aps.get("relevance-score")
    if score is not None and not _is_number(score):
        found.problem("bad_relevance_score", "aps.relevance-score", "is no number.")
    if "sound" in aps:
        found.warning(
            "sound_outside_alert",
            "aps.sound",
            "is ignored for activities. Move it into aps.alert.",
        )
    for key in aps:
        if key in APS_KEYS and key not in _ACTIVITY_KEYS and key != "sound":
            found.warning(
                "undocumented_for_activities",
                f"aps.{key}",
                "belongs to ordinary notifications; for activities Apple documents no effect.",
            )
    _check_unknown_keys(aps, APS_KEYS, found)
    for key in ("content-state", "attributes"):
        for path in _iso_dates(aps.get(key), f"aps.{key}"):
            found.warning(
                "iso_date",
                path,
                "looks like an ISO date. If the Swift property is a Date, the phone discards the whole "
                "push: send seconds since 2001-01-01, as apple_date() returns. Text stays text.",
            )
        for path in _milliseconds(aps.get(key), f"aps.{key}"):
            found.warning(
                "milliseconds",
                path,
                "looks like milliseconds since 1970. A Swift Date wants seconds since 2001-01-01, as "
                "apple_date() returns.",
            )


def _check_start(aps: Mapping[str, Any], found: Findings) -> None:
    name = aps.get("attributes-type")
    if not isinstance(name, str) or not name:
        found.problem(
            "no_attributes_type",
            "aps.attributes-type",
            "is missing. It is the name of the Swift ActivityAttributes type.",
        )
    elif "." in name:
        found.problem(
            "attributes_type_with_module",
            "aps.attributes-type",
            "has a module or an outer type in front. Write the type's name alone.",
        )
    elif not name.isidentifier():
        found.problem("bad_attributes_type", "aps.attributes-type", "is no name of a Swift type.")
    if not isinstance(aps.get("attributes"), Mapping):
        found.problem(
            "no_attributes", "aps.attributes", "is missing or no object. Send {} if there are none."
        )
    if not aps.get("alert"):
        found.problem(
            "no_alert", "aps.alert", "is missing, and the phone drops a start without an alert."
        )
    token, channel = aps.get("input-push-token"), aps.get("input-push-channel")
    if token is not None and channel is not None:
        found.problem(
            "both_inputs",
            "aps.input-push-token",
            "stands beside input-push-channel. Choose one of the two.",
        )
    elif token is None and channel is None:
        found.warning(
            "no_update_token",
            "aps.input-push-token",
            "is missing, and so is input-push-channel: from iOS 18 the activity reports no update token.",
        )
    if token is not None and (type(token) is not int or token != 1):
        found.problem("bad_flag", "aps.input-push-token", "must be the number 1, or absent.")
    if channel is not None and (not isinstance(channel, str) or not channel):
        found.problem("bad_channel", "aps.input-push-channel", "is no channel id.")


def _check_alert(aps: Mapping[str, Any], found: Findings) -> None:
    alert = aps.get("alert")
    if alert is None or (not alert and aps.get("event") == "start"):
        return  # a start without an alert has been named already
    if not isinstance(alert, Mapping):
        found.problem(
            "bad_alert", "aps.alert", "is no object. An activity's alert has a title and a body."
        )
        return
    for key in ("title", "body"):
        words = alert.get(key)
        if words in (None, ""):
            loc_key = "title-loc-key" if key == "title" else "loc-key"
            if loc_key in alert:
                continue
            note = found.problem if aps.get("event") == "start" else found.warning
            note("alert_incomplete", f"aps.alert.{key}", "is missing. Give the alert both.")
        elif not isinstance(words, str) and not (
            isinstance(words, Mapping) and isinstance(words.get("loc-key"), str)
        ):
            found.problem(
                "bad_alert", f"aps.alert.{key}", "is neither text nor an object with a loc-key."
            )
    sound = alert.get("sound")
    if sound is not None and (not isinstance(sound, str) or not sound):
        found.problem(
            "bad_sound", "aps.alert.sound", "is no text: a file in the app's bundle, or default."
        )
    for key in _FLAT_ALERT_KEYS:
        if key in alert:
            found.warning(
                "flat_localisation",
                f"aps.alert.{key}",
                "is the form of ordinary notifications; activities nest loc-key inside title and body.",
            )


def _check_dates(aps: Mapping[str, Any], kind: str, now: float | None, found: Findings) -> None:
    if "timestamp" not in aps:
        found.problem(
            "no_timestamp",
            "aps.timestamp",
            "is missing; the phone needs it to keep the newest state.",
        )
    if "dismissal-date" in aps and kind != "end":
        found.problem(
            "dismissal_date_without_end", "aps.dismissal-date", "belongs to an end only. Remove it."
        )
    for key in ("timestamp", "stale-date", "dismissal-date"):
        if key in aps:
            _check_date(key, aps[key], now, found)


def _check_date(key: str, value: object, now: float | None, found: Findings) -> None:
    field = f"aps.{key}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        found.problem("bad_date", field, "is no number. Send seconds since 1970.")
    elif abs(value) >= MILLISECONDS_FROM:
        found.problem("milliseconds", field, "is in milliseconds. Divide by 1000.")
    elif value < DURATIONS_UP_TO and not (key == "dismissal-date" and value == 0):
        found.problem(
            "bad_date",
            field,
            "lies before 2001: a duration or an Apple date. Send seconds since 1970.",
        )
    elif now is not None:
        if key == "timestamp" and abs(value - now) > TIMESTAMP_SLACK:
            found.warnings.append(timestamp_off(value, now, field))
        elif key == "stale-date" and value <= now:
            found.warning("stale_date_past", field, "has passed: the state is stale at once.")
        elif key == "dismissal-date" and value > now + LONGEST_DISMISSAL + 1:
            found.warning(
                "dismissal_date_capped", field, "is more than 4 hours away; the system caps it."
            )


def _check_unknown_keys(aps: Mapping[str, Any], known: frozenset[str], found: Findings) -> None:
    for key in aps:
        if key not in known:
            found.warning(
                "unknown_key",
                f"aps.{key}",
                "is no key of Apple's. Own keys stand beside aps, or in the content state.",
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _iso_dates(value: Any, path: str) -> list[str]:
    return [
        at
        for at, leaf in _leaves(value, path)
        if isinstance(leaf, str) and _ISO_DATE.fullmatch(leaf)
    ]


def _milliseconds(value: Any, path: str) -> list[str]:
    # From 2001 to 2096 in milliseconds: other large numbers are more likely ids.
    return [at for at, leaf in _leaves(value, path) if _is_number(leaf) and 1e12 <= leaf < 4e12]
