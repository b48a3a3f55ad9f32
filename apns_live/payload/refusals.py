"""The refusals: what is wrong with a caller's input, and what to do; each said in one place."""

from __future__ import annotations

from typing import TypeVar

from ..errors import InvalidInput

ErrorT = TypeVar("ErrorT", bound=InvalidInput)


def refused(error: type[ErrorT], saying: str, field: str, **words: object) -> ErrorT:
    """Return the error for a field, in the words of `REFUSALS`."""
    problem, remedy = REFUSALS[saying]
    return error(problem.format(**words), field=field, remedy=remedy.format(**words))


# What is wrong, and what to do.
# fmt: off
REFUSALS = {
    "alert_empty": ("has neither title nor body nor sound", "Give it a title and a body, or leave the alert out."),
    "alert_kind": ("is a {kind}, not an Alert", "Pass Alert(title=..., body=..., sound=...)."),
    "apple_date_kind": ("apple_date takes a datetime, not {kind}", "Pass an aware datetime, such as datetime.now(timezone.utc)."),
    "apple_date_naive": ("the datetime has no time zone", "Use an aware datetime, such as datetime.now(timezone.utc)."),
    "attributes_missing": ("is missing", "Pass the activity's fixed attributes, {{}} if the Swift type has none."),
    "attributes_type_kind": ("is a {kind}, not text", "Pass the name of the Swift ActivityAttributes type as text."),
    "attributes_type_missing": ("is missing", "Pass the name of the Swift ActivityAttributes type, such as 'ScoreAttributes'."),
    "attributes_type_module": ("{name!r:.80} has a module or an outer type in front", "Pass the type's name alone: {bare!r:.80}."),
    "attributes_type_name": ("{name!r:.80} is not the name of a Swift type", "Pass the name exactly as the Swift source declares it, such as 'ScoreAttributes'."),
    "badge": ("is {value!r:.40}, not a whole number from 0 up", "Pass the number to show on the icon, or 0 to remove it."),
    "boolean": ("is a {kind}, not a boolean", "Pass True or False."),
    "both_inputs": ("was asked for together with input_push_channel", "Choose one: an update token of its own, or a channel to listen to."),
    "bundle_id": ("{text!r:.80} is not a valid bundle id", "A bundle id is letters, digits, hyphens and dots, such as 'com.example.scores'."),
    "bundle_id_empty": ("is empty", "Pass the app's bundle id, such as 'com.example.scores'."),
    "bundle_id_kind": ("is a {kind}, not text", "Pass the app's bundle id, such as 'com.example.scores'."),
    "bundle_id_length": ("has {size} characters", "Pass the app's bundle id, such as 'com.example.scores'."),
    "bundle_id_suffix": ("already has a topic suffix", "Pass the bare bundle id ({bare!r:.80}); the suffix is added for each kind of push."),
    "bundle_id_team": ("starts with a team id", "Pass the bundle id without the team in front: {bare!r:.80}."),
    "bundle_id_wildcard": ("is a wildcard", "Push needs the explicit bundle id of one app."),
    "channel_id_empty": ("is empty", "Pass the id that channels.create() returned, unchanged."),
    "channel_id_kind": ("is a {kind}, not text", "Pass the id that channels.create() returned, unchanged."),
    "channel_id_length": ("has {size} characters", "Pass the id that channels.create() returned, unchanged."),
    "channel_kind": ("is a {kind}, not a channel id", "Use send() for tokens; broadcast() takes the id that channels.create() returned."),
    "channel_not_base64": ("is not base64 text", "Pass the id that channels.create() returned, unchanged."),
    "collapse_id_empty": ("is empty", "Leave it out, or pass a short text."),
    "collapse_id_kind": ("is a {kind}, not text", "Pass a short text."),
    "collapse_id_length": ("has {size} bytes; apns-collapse-id takes {limit} at most", "Use a shorter id, for example a hash of it in hex."),
    "collapse_id_not_ascii": ("holds characters that a header cannot carry", "Use printable ASCII, for example a hash of it in hex."),
    "collapse_id_space": ("starts or ends with a space", "Strip it: headers lose such spaces."),
    "custom_aps": ("is Apple's own key", "Use the message's fields for what belongs in aps; custom keys stand beside it."),
    "date_early": ("{value} as seconds since 1970 lies before 2001, so it must be a duration or an Apple date", "Pass timedelta(seconds=...) for a time from now, or seconds since 1970."),
    "date_kind": ("is {kind}, not a date", "Pass an aware datetime, a timedelta from now, or seconds since 1970."),
    "date_milliseconds": ("{value} is in milliseconds", "Apple wants seconds since 1970: divide by 1000, or pass an aware datetime."),
    "date_naive": ("is a datetime without a time zone", "Use an aware datetime, such as datetime.now(timezone.utc)."),
    "date_not_finite": ("is {value}, not a date", "Pass a finite number of seconds."),
    "date_range": ("lies outside the years that APNs can be told", "Pass a date between 1970 and 5138."),
    "expiration_unstored": ("is set, and a channel with storage policy 0 stores nothing", "Leave it out or pass 0, or make a channel with storage policy 1."),
    "flag": ("is {value!r:.40}, not a boolean", "Pass True or False; it is sent as 1 or left out."),
    "fraction": ("is {value!r:.40}, not a number from 0 to 1", "Pass a number between 0 and 1."),
    "integer_range": ("is an integer of more than 64 bits", "Swift's Int holds 64 bits: send a smaller number, or text."),
    "interruption_level": ("{level!r:.40} is not a valid interruption level", "Pass one of {choices}."),
    "key_kind": ("has the key {key!r:.40}, which is {kind} and no text", "JSON keys are text: write it as a str, exactly as the Swift property is named."),
    "key_surrogates": ("has a key that holds half of a surrogate pair, which UTF-8 cannot carry", "Decode the text properly, or drop it with .encode('utf-8', 'ignore')."),
    "line_control": ("holds a control character", "Strip it: a name is one line of visible characters."),
    "line_empty": ("is empty", "Leave it out, or give it a value."),
    "line_kind": ("is a {kind}, not text", "Pass a str."),
    "loc_arg_kind": ("is a {kind}, not text", "loc-args are texts: use str(), formatted as the reader should see it."),
    "loc_args_kind": ("is a {kind}, not a list of texts", "Pass the values for the placeholders as a list of str."),
    "message_kind": ("is a {kind}, not a message", "Pass Start, Update, End, Notification or Background."),
    "model_dump": ("model_dump() of {model} failed: {kind}", "Pass a mapping of plain values."),
    "never_set": ("was never set", "Give the field a value or a default."),
    "not_an_object": ("is {kind}, not an object with keys", "Pass a mapping, a dataclass, a msgspec Struct or a pydantic model."),
    "not_for_channel": ("is a {kind}, which a channel cannot carry", "Broadcast an Update or an End; send this one to device tokens."),
    "notification_empty": ("has nothing to show", "Give it a title, body, badge or sound; use Background for a silent push."),
    "number_not_finite": ("is {value}, which JSON cannot carry", "Send a finite number, or null for an optional Swift property."),
    "priority": ("{value!r:.40} is not a valid priority for this push", "Pass {choices}, or leave it out for {default}."),
    "relevance_score": ("is {relevance_score!r:.40}, not a finite number", "Pass any finite number; the activity with the highest wins the Dynamic Island."),
    "sound_key": ("has the unknown key {value!r:.40}", "A critical sound has critical, name and volume."),
    "start_alert_missing": ("is missing", "The phone drops a start without one: pass Alert(title=..., body=...)."),
    "start_alert_words": ("is missing", "The alert of a start needs a title and a body."),
    "start_state_missing": ("is missing", "A start shows a first state: pass the fields of the Swift ContentState."),
    "start_to_channel": ("is a Start, and a channel cannot start an activity", "Send the start to push-to-start tokens with input_push_channel=, then broadcast updates."),
    "storage_policy": ("{storage_policy!r:.40} is not a valid storage policy", "Pass 0 (nothing stored) or 1 (the newest message stored), as the channel was made."),
    "surrogates": ("holds half of a surrogate pair, which UTF-8 cannot carry", "Decode the text properly, or drop it with .encode('utf-8', 'ignore')."),
    "target": ("{target!r:.40} is not a valid target", "Pass 'device' or 'broadcast'."),
    "token_bytes": ("is bytes, not text", "Use token.hex() for raw bytes."),
    "token_description": ("looks like the printed description of a Data value", "Drop the spaces and angle brackets, so that only hex digits remain."),
    "token_empty": ("is empty", "Pass the token's bytes in hex, as the app prints them with String(format: \"%02x\")."),
    "token_is_channel": ("is a channel id, not a token", "Use broadcast() for channels; send() and fan_out() take tokens."),
    "token_kind": ("is a {kind}, not text", "Pass the token's bytes in hex, as the app prints them with String(format: \"%02x\")."),
    "token_length": ("has {size} characters, more than any token", "Pass the token's bytes in hex, as the app prints them with String(format: \"%02x\")."),
    "token_not_hex": ("is not hexadecimal (character {at} of {size})", "Pass the token's bytes in hex, as the app prints them with String(format: \"%02x\")."),
    "token_odd": ("has {size} hex digits, an odd number, so one is missing", "Pass two digits for each byte; check that leading zeros are kept."),
    "token_of_another_kind": ("is a {kind} ({shown}...), and {message} needs a {wanted}", "{remedy}"),
    "update_state_missing": ("is missing", "An update is its new state: pass all fields of the Swift ContentState."),
    "words_kind": ("is a {kind}, not text", "Pass a str, or Localized(loc_key, args)."),
}
# fmt: on
