"""Findings about a payload: warnings and problems, which `lint` prints.

`SAYINGS` has the sentence for each code, for both `encode` and `lint`.
"""

from __future__ import annotations

import msgspec


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
    """Something for which `encode` would refuse, found in a ready payload."""


class Findings:
    """Collects findings. ``of_message`` names the fields of a message instead of the payload's keys."""

    def __init__(self, *, of_message: bool = False) -> None:
        self._of_message = of_message
        self.problems: list[PayloadProblem] = []
        self.warnings: list[PayloadWarning] = []

    def problem(self, saying: str, field: str, **words: object) -> None:
        """Note something that must change."""
        self.problems.append(PayloadProblem(*self._said(saying, field, words)))

    def warning(self, saying: str, field: str, **words: object) -> None:
        """Note something that Apple ignores, caps or does not document."""
        self.warnings.append(PayloadWarning(*self._said(saying, field, words)))

    def _said(self, saying: str, field: str, words: dict[str, object]) -> tuple[str, str, str]:
        if self._of_message and field.startswith("aps."):
            field = field[4:].replace("-", "_")
        return saying.partition("/")[0], field, SAYINGS[saying].format(**words)


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
