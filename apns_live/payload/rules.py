"""All rules about payloads: what Apple refuses, ignores, limits or does not document.

`lint` applies all rules to a complete payload. `encode` applies those that the message's fields have
not checked: `on_activity`, `on_ordinary`, `on_custom`. `SAYINGS` has the sentence for each code.
Sources: Apple, "Starting and updating Live Activities with ActivityKit push notifications" and
"Generating a remote notification".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .messages import INTERRUPTION_LEVELS, is_number
from .values import DURATIONS_UP_TO, MILLISECONDS_FROM

EVENTS = ("start", "update", "end")
TIMESTAMP_SLACK = 60
LONGEST_STORAGE = 30 * 86_400
LONGEST_DISMISSAL = 4 * 3600

_OF_ACTIVITIES = (
    "alert attributes attributes-type content-state dismissal-date event input-push-channel "
    "input-push-token relevance-score stale-date timestamp"
)
_OF_NOTIFICATIONS = (
    "badge category content-available filter-criteria interruption-level mutable-content sound "
    "target-content-id thread-id"
)
_ACTIVITY_KEYS = frozenset(_OF_ACTIVITIES.split())
APS_KEYS = _ACTIVITY_KEYS | frozenset(_OF_NOTIFICATIONS.split())
"""Apple's keys inside ``aps``; beside it they mean nothing."""
_SIGNS_OF_AN_ACTIVITY = _ACTIVITY_KEYS - {"alert", "relevance-score"}
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One remark about a payload."""

    code: str
    """A stable name in lower case, for programs."""
    field: str
    """The place, as a path."""
    message: str
    """What happens and what to do, for a person."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class PayloadWarning(Finding, frozen=True, gc=False):
    """Something that Apple silently ignores or changes. The push is still sent."""


class PayloadProblem(Finding, frozen=True, gc=False):
    """Something in a complete payload that `encode` would refuse."""


@dataclass(slots=True)
class Findings:
    """Collects findings. ``of_message`` names the fields of a message instead of the payload's keys."""

    of_message: bool = False
    problems: list[PayloadProblem] = field(default_factory=list)
    warnings: list[PayloadWarning] = field(default_factory=list)

    def problem(self, saying: str, where: str, **words: object) -> None:
        """Add a problem that must be fixed."""
        self.problems.append(PayloadProblem(*self._said(saying, where, words)))

    def warning(self, saying: str, where: str, **words: object) -> None:
        """Add a warning about something that Apple ignores, caps or does not document."""
        self.warnings.append(PayloadWarning(*self._said(saying, where, words)))

    def _said(self, saying: str, where: str, words: dict[str, object]) -> tuple[str, str, str]:
        if self.of_message and where.startswith("aps."):
            where = where[4:].replace("-", "_")
        return saying.partition("/")[0], where, SAYINGS[saying].format(**words)


# A message, from encode


def on_activity(
    aps: Mapping[str, Any], *, now: float, expiration: int | None, found: Findings
) -> None:
    """Warn about an activity's dates, alert and inputs, and about a given ``expiration``."""
    if (
        abs(aps["timestamp"] - now) > TIMESTAMP_SLACK
        or "stale-date" in aps
        or "dismissal-date" in aps
    ):
        _dates(aps, aps["event"], now, found)
    alert = aps.get("alert")
    if alert is not None and not (alert.get("title") and alert.get("body")):
        _alert(aps, found)
    if aps["event"] == "start":
        _inputs(aps, found)
    if expiration is not None:
        on_expiration(expiration, now, found)
        if aps["event"] == "start" and expiration == 0:
            found.warning("start_not_stored", "expiration")


def on_expiration(expiration: int, now: float, found: Findings) -> None:
    """Warn about a given expiration that APNs will not honour."""
    if expiration and expiration <= now:
        found.warning("expiration_past", "expiration")
    elif expiration > now + LONGEST_STORAGE:
        found.warning("expiration_capped", "expiration")


def on_ordinary(aps: Mapping[str, Any], found: Findings) -> None:
    """Warn about an ordinary push whose parts contradict each other."""
    if "sound" in aps and not aps.get("alert"):
        found.warning("sound_without_title", "aps.sound")
    level = aps.get("interruption-level")
    if "filter-criteria" in aps and level in ("time-sensitive", "critical"):
        found.warning("filter_ignored", "aps.filter-criteria", level=level)


def on_custom(custom: Mapping[str, Any], found: Findings, *, activity: bool) -> None:
    """Warn about keys beside ``aps`` that mean something only inside it."""
    for key in custom:
        if key in APS_KEYS:
            found.warning("misplaced_key", f"custom.{key}", key=key)
    if activity and custom:
        found.warning("custom_undocumented", "custom")


# A complete payload, from lint


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
    """Check a payload by every rule."""
    aps = payload.get("aps")
    if not isinstance(aps, Mapping):
        found.problem("no_aps/kind" if "aps" in payload else "no_aps", "aps")
    for key in payload:
        if key in APS_KEYS:
            found.problem("misplaced_key", key, key=key)
        elif key != "aps" and kind in EVENTS:
            found.warning("custom_undocumented", key)
    if not isinstance(aps, Mapping):
        return
    if target == "broadcast" and kind in {"start", "alert", "background"}:
        found.problem("not_for_broadcast", "aps.event" if kind == "start" else "aps")
    of_an_activity = not _SIGNS_OF_AN_ACTIVITY.isdisjoint(aps)
    if kind == "unknown":
        if "event" in aps:
            found.problem("bad_event", "aps.event", event=f"{aps['event']!r:.40}")
        elif of_an_activity:
            found.problem("no_event", "aps.event")
        else:
            found.problem("nothing", "aps")
    if kind in EVENTS or of_an_activity:
        _activity(aps, kind, now, found)
    elif kind in {"alert", "background"}:
        _ordinary(aps, found)


def _ordinary(aps: Mapping[str, Any], found: Findings) -> None:
    alert = aps.get("alert")
    if alert is not None and not isinstance(alert, (str, Mapping)):
        found.problem("bad_alert/ordinary", "aps.alert")
    badge = aps.get("badge")
    if badge is not None and (type(badge) is not int or badge < 0):
        found.problem("bad_badge", "aps.badge")
    level = aps.get("interruption-level")
    if level is not None and level not in INTERRUPTION_LEVELS:
        levels = ", ".join(INTERRUPTION_LEVELS)
        found.problem("bad_interruption_level", "aps.interruption-level", levels=levels)
    score = aps.get("relevance-score")
    if score is not None and (not is_number(score) or not 0 <= score <= 1):
        found.problem("bad_relevance_score/ordinary", "aps.relevance-score")
    for key in ("content-available", "mutable-content"):
        _flag(aps, key, found)
    on_ordinary(aps, found)
    _unknown_keys(aps, APS_KEYS | {"url-args"}, found)


def _activity(aps: Mapping[str, Any], kind: str, now: float | None, found: Findings) -> None:
    _dates(aps, kind, now, found)
    state = aps.get("content-state")
    if state is None and kind == "end":
        found.warning("no_final_state", "aps.content-state")
    elif state is None:
        found.problem("no_content_state", "aps.content-state")
    elif not isinstance(state, Mapping):
        found.problem("bad_content_state", "aps.content-state")
    if kind == "start":
        _start(aps, found)
    else:
        for key in ("attributes-type", "attributes", "input-push-token", "input-push-channel"):
            if key in aps:
                found.warning("only_for_start", f"aps.{key}")
    if kind != "start" or aps.get("alert"):  # a start without an alert is reported already
        _alert(aps, found)
    score = aps.get("relevance-score")
    if score is not None and not is_number(score):
        found.problem("bad_relevance_score", "aps.relevance-score")
    if "sound" in aps:
        found.warning("sound_outside_alert", "aps.sound")
    for key in aps:
        if key in APS_KEYS and key not in _ACTIVITY_KEYS and key != "sound":
            found.warning("undocumented_for_activities", f"aps.{key}")
    _unknown_keys(aps, APS_KEYS, found)
    for key in ("content-state", "attributes"):
        for path, leaf in _leaves(aps.get(key), f"aps.{key}"):
            if isinstance(leaf, str) and _ISO_DATE.fullmatch(leaf):
                found.warning("iso_date", path)
            # From 2001 to 2096 in milliseconds: other large numbers are more likely ids.
            elif is_number(leaf) and 1e12 <= leaf < 4e12:
                found.warning("milliseconds/state", path)


def _start(aps: Mapping[str, Any], found: Findings) -> None:
    name = aps.get("attributes-type")
    if not isinstance(name, str) or not name:
        found.problem("no_attributes_type", "aps.attributes-type")
    elif "." in name:
        found.problem("attributes_type_with_module", "aps.attributes-type")
    elif not name.isidentifier():
        found.problem("bad_attributes_type", "aps.attributes-type")
    if not isinstance(aps.get("attributes"), Mapping):
        found.problem("no_attributes", "aps.attributes")
    if not aps.get("alert"):
        found.problem("no_alert", "aps.alert")
    _inputs(aps, found)


# The rules for both messages and payloads


def _inputs(aps: Mapping[str, Any], found: Findings) -> None:
    token, channel = aps.get("input-push-token"), aps.get("input-push-channel")
    if token is not None and channel is not None:
        found.problem("both_inputs", "aps.input-push-token")
    elif token is None and channel is None:
        found.warning("no_update_token", "aps.input-push-token")
    _flag(aps, "input-push-token", found)
    if channel is not None and (not isinstance(channel, str) or not channel):
        found.problem("bad_channel", "aps.input-push-channel")


def _alert(aps: Mapping[str, Any], found: Findings) -> None:
    alert = aps.get("alert")
    if alert is None:
        return
    if not isinstance(alert, Mapping):
        found.problem("bad_alert/activity", "aps.alert")
        return
    sound = alert.get("sound")
    if sound is not None and (not isinstance(sound, str) or not sound):
        found.problem("bad_sound", "aps.alert.sound")
    start = aps.get("event") == "start"
    missing = []
    for key, loc_key in (("title", "title-loc-key"), ("body", "loc-key")):
        words = alert.get(key)
        if words in (None, ""):
            if loc_key not in alert:
                missing.append(key)
        elif not isinstance(words, str) and not (
            isinstance(words, Mapping) and isinstance(words.get("loc-key"), str)
        ):
            found.problem("bad_alert/words", f"aps.alert.{key}")
    if len(missing) == 2 and sound and not start:
        found.warning("sound_without_title", "aps.alert.sound")
    else:
        for key in missing:
            note = found.problem if start else found.warning
            note("alert_incomplete", f"aps.alert.{key}")
    for key in ("title-loc-key", "title-loc-args", "loc-key", "loc-args"):
        if key in alert:
            found.warning("flat_localisation", f"aps.alert.{key}")


def _dates(aps: Mapping[str, Any], kind: str, now: float | None, found: Findings) -> None:
    if "timestamp" not in aps:
        found.problem("no_timestamp", "aps.timestamp")
    if "dismissal-date" in aps and kind != "end":
        found.problem("dismissal_date_without_end", "aps.dismissal-date")
    for key in ("timestamp", "stale-date", "dismissal-date"):
        if key in aps:
            _date(key, aps[key], now, found)


def _date(key: str, value: Any, now: float | None, found: Findings) -> None:
    field = f"aps.{key}"
    if not is_number(value):
        found.problem("bad_date/kind", field)
    elif abs(value) >= MILLISECONDS_FROM:
        found.problem("milliseconds", field)
    elif value < DURATIONS_UP_TO and not (key == "dismissal-date" and value == 0):
        # A message's dates were checked when they were read.
        found.problem("bad_date/early", field)
    elif now is not None:
        if key == "timestamp" and abs(value - now) > TIMESTAMP_SLACK:
            saying = "timestamp_old" if value < now else "timestamp_ahead"
            found.warning(saying, field, seconds=round(abs(value - now)))
        elif key == "stale-date" and value <= now:
            found.warning("stale_date_past", field)
        elif key == "dismissal-date" and value > now + LONGEST_DISMISSAL + 1:
            found.warning("dismissal_date_capped", field)


def _flag(aps: Mapping[str, Any], key: str, found: Findings) -> None:
    if key in aps and (type(aps[key]) is not int or aps[key] != 1):
        found.problem("bad_flag", f"aps.{key}")


def _unknown_keys(aps: Mapping[str, Any], known: frozenset[str], found: Findings) -> None:
    for key in aps:
        if key not in known:
            found.warning("unknown_key", f"aps.{key}")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


# A code, after / where one code says several things, and its sentence.
# fmt: off
SAYINGS = {
    "activity_data_too_large": "with the attributes has {size} bytes; a phone holds {limit} of an activity, whatever a broadcast may carry.",
    "alert_incomplete": "is missing. Give the alert both a title and a body.",
    "attributes_type_with_module": "has a module or an outer type in front. Write the type's name alone.",
    "bad_alert/activity": "is not an object. An activity's alert has a title and a body.",
    "bad_alert/ordinary": "is neither text nor an object.",
    "bad_alert/words": "is neither text nor an object with a loc-key.",
    "bad_attributes_type": "is not the name of a Swift type.",
    "bad_badge": "is not a whole number from 0 up.",
    "bad_channel": "is not a valid channel id.",
    "bad_content_state": "is not an object.",
    "bad_date/early": "lies before 2001: a duration or an Apple date. Send seconds since 1970.",
    "bad_date/kind": "is not a number. Send seconds since 1970.",
    "bad_event": "is {event}, not start, update or end.",
    "bad_flag": "must be the number 1, or absent.",
    "bad_interruption_level": "is none of {levels}.",
    "bad_relevance_score": "is not a number.",
    "bad_relevance_score/ordinary": "is not a number from 0 to 1.",
    "bad_sound": "is not a string: a file in the app's bundle, or default.",
    "bad_value": "{problem}. {remedy}",
    "both_inputs": "cannot be combined with input-push-channel. Choose one of the two.",
    "byte_order_mark": "starts with a byte order mark. Save it without one.",
    "custom_undocumented": "stands beside aps, and Apple does not say whether an activity gets such keys. Put what the card shows into the content state.",
    "dismissal_date_capped": "is more than 4 hours away; the system removes the card 4 hours after the end.",
    "dismissal_date_without_end": "belongs to an end only. Remove it.",
    "duplicate_key": "stands twice in one object; which one counts is left to chance. Keep one.",
    "expiration_capped": "is more than 30 days away; APNs stores a push for 30 days at most.",
    "expiration_past": "has passed, so APNs tries once and stores nothing. Pass 0 if that is meant.",
    "filter_ignored": "has no effect at interruption level {level}: such a push breaks through a Focus.",
    "flat_localisation": "is the form of ordinary notifications; activities nest loc-key inside title and body.",
    "iso_date": "looks like an ISO date. If the Swift property is a Date, the phone discards the whole push: send seconds since 2001-01-01, as apple_date() returns. Text stays text.",
    "milliseconds": "is in milliseconds. Divide by 1000.",
    "milliseconds/state": "looks like milliseconds since 1970. A Swift Date wants seconds since 2001-01-01, as apple_date() returns.",
    "misplaced_key": "is a name of Apple's that has an effect only inside aps. Move it to aps.{key}, or use the message's field.",
    "no_alert": "is missing, and the phone drops a start without an alert.",
    "no_aps": "is missing. Everything of Apple's belongs inside it.",
    "no_aps/kind": "is not an object. Everything of Apple's belongs inside it.",
    "no_attributes": "is missing or not an object. Send {{}} if there are none.",
    "no_attributes_type": "is missing. It is the name of the Swift ActivityAttributes type.",
    "no_content_state": "is missing.",
    "no_event": "is missing. It is start, update or end.",
    "no_final_state": "is missing; the card keeps its last state for up to 4 hours. Send the final one.",
    "no_json_number": "holds {name}, which JSON cannot express. Use a number or null.",
    "no_timestamp": "is missing; the phone needs it to keep the newest state.",
    "no_update_token": "is missing, and so is input-push-channel: from iOS 18 the activity reports no token, so it cannot be updated by push.",
    "not_for_broadcast": "cannot go to a channel: only update and end can. Send it to tokens.",
    "not_json": "is not valid JSON: {why}",
    "not_object": 'is not a JSON object. It must be {{"aps": {{...}}}}.',
    "not_utf8": "is not UTF-8 (byte {at}). Save the file as UTF-8.",
    "nothing": "has neither an event nor anything to show.",
    "only_for_start": "is used by a start only.",
    "sound_outside_alert": "is ignored for activities. Move it into aps.alert.",
    "sound_without_title": "has no title or body beside it, so a person hears it at most, and sees nothing.",
    "spaces": "has {size} bytes as written and {compact} without its spaces; the limit is {limit}. Send it compact.",
    "stale_date_past": "has passed, so the phone shows the state as stale from the start.",
    "start_not_stored": "is 0, so a phone that is offline for a moment never sees this start. Leave it out for 10 minutes.",
    "timestamp_ahead": "is {seconds} s ahead; until then the phone takes every correct push for an older one. Leave it out to use the current time.",
    "timestamp_old": "is {seconds} s old; a phone ignores a state older than the last one it applied. Leave it out to use the current time.",
    "too_deep": "is nested too deeply. Flatten it.",
    "too_large": "has {size} bytes, {over} over the limit of {limit}: APNs answers 413. Shorten the largest keys.",
    "undocumented_for_activities": "belongs to ordinary notifications; for activities Apple documents no effect.",
    "unknown_key": "is not one of Apple's keys. Own keys stand beside aps, or in the content state.",
}
# fmt: on
