"""Explanations of reasons, outcomes and symptoms: whose fault it is, and what to do.

Three kinds: symptoms, results on the phone of an accepted push (from the fake's delivery log), and
verdicts. Apple's reasons are in `apns_live.reasons`; ``apns-live explain`` has both.

The rows follow published reports. ``log`` is a line in the phone's log (Console.app, processes
liveactivitiesd, apsd and chronod), or ``""`` if none was published.
"""

import difflib
import re
from typing import Literal, NamedTuple


class Explanation(NamedTuple):
    """One row. ``words`` are other names that find it; ``fault`` says whose it is."""

    name: str
    kind: str
    meaning: str
    fault: str
    remedy: str
    log: str = ""
    words: tuple[str, ...] = ()


class Finding(NamedTuple):
    """The result of one check. ``remedy`` is ``""`` if there is nothing to do."""

    check: str
    state: Literal["ok", "warn", "fail"]
    said: str
    remedy: str = ""


_SYMPTOM, _PHONE, _OUTCOME = "symptom", "phone", "outcome"
_APP, _SERVER, _OWNER, _IOS, _SETUP, _NETWORK = (
    "the app's",
    "the sender's",
    "the user's choice",
    "iOS, by design",
    "the set-up's",
    "the network's",
)
_DECODE = "Unable to decode content state"
_BUDGET = "Push-to-start budget exceeded for ...; not starting activity"

# One line a row.
# fmt: off
ROWS: tuple[Explanation, ...] = (
    Explanation("no token", _SYMPTOM, "a card was started by push, and no activity token came to your server", _OWNER, "iOS issues the token only after the user has answered Allow or Always Allow, and does not wake an app that was force-quit. On iOS 18 and later start with input-push-channel, or with input-push-token: 1. Let the app read its tokens whenever it is opened.", "", ("started while the app was closed", "no update token", "missing token", "app closed", "consent")),
    Explanation("nothing shown", _SYMPTOM, "APNs answered 200, and the phone shows nothing", _APP, "200 means accepted, not shown. In order of likelihood: the state does not decode (apns-live contract check), a start without alert, wrong attributes type, the start budget, a dead start token, Live Activities off.", _DECODE, ("200 and nothing shown", "200", "blank card", "empty", "not displayed", "nothing happens")),
    Explanation("dead start token", _SYMPTOM, "starts are accepted for weeks, and no card comes: the stored push-to-start token was replaced", _APP, "pushToStartTokenUpdates may not report the new token. Read Activity.pushToStartToken at launch and on foreground, and register it again. After two starts in a row without token or receipt the service treats a start token as suspect; suspect_tokens says whether starts still use it.", "", ("stale start token", "start token", "silent stream", "suspect token", "suspect")),
    Explanation("start budget", _PHONE, "the phone has used up its push-to-starts: about 10 per window for each app; refused starts count too", _SERVER, "Start less often, update a running card, or let the app start the card, which does not count. Opening the app refills the budget.", _BUDGET, ("push to start budget", "too many starts")),
    Explanation("budget", _PHONE, "the hourly budget of pushes with priority 10 is spent: pushes are delayed, not lost", _SERVER, "Send priority 5 for updates that may wait, and 10 for those that users must see; set NSSupportsLiveActivitiesFrequentUpdates. Delivery and the service choose priorities by the budget.", "", ("spent budget", "demoted", "delayed", "throttled", "update budget")),
    Explanation("undecodable", _PHONE, "the state or the payload does not decode in Swift: iOS drops the whole push without an error", _SERVER, "Check the state against the app's Swift file: apns-live contract check. Every key is required unless it is optional; an Int does not accept 1.5, an enum only its cases.", _DECODE, ("decode", "decode mismatch", "does not decode", "schema mismatch", "contract")),
    Explanation("date mismatch", _SYMPTOM, "a countdown is about 31 years off, or a state with a date shows nothing", _SERVER, "Swift's Date is seconds since 2001-01-01 by default: send apns_live.apple_date(...), not Unix seconds and not ISO 8601 text.", _DECODE, ("date", "31 years", "1995", "2055", "wrong year", "countdown")),
    Explanation("eight hours", _SYMPTOM, "a card stops changing about 8 hours after its start", _IOS, "iOS ends every activity after 8 hours (4 more on the Lock Screen). The service hands cards over before that (hand_over_after) while somebody updates the activity.", "", ("8-hour end", "8 hours", "8h", "stops updating", "frozen after hours")),
    Explanation("unconfirmed", _SYMPTOM, "APNs accepted the newest state of a card, and the app did not confirm it with a receipt", _NETWORK, "The phone has no network (APNs stores only the newest push of each app), the activity token was replaced without notice, or the app is not running. Let the app register its tokens at launch and on foreground; an ended card then gets its end.", "", ("not confirmed", "away", "offline phone")),
    Explanation("testflight", _SYMPTOM, "BadDeviceToken for builds from TestFlight or the App Store, while Xcode builds work", _SETUP, "TestFlight and the App Store use production, Xcode builds use sandbox. Take the environment from the provisioning profile, not from #if DEBUG, and store it with each token.", "", ("BadDeviceToken in TestFlight", "wrong environment", "baddevicetoken", "sandbox token")),
    Explanation("two cards", _SYMPTOM, "one subject has two cards", _SERVER, "Two servers sent a start, or one was retried. Give each start your own activity id (it becomes the collapse id), do not retry starts of unknown outcome, and let the app end the older card.", "", ("duplicate cards", "double card", "duplicated activity")),
    Explanation("sound on a silent update", _SYMPTOM, "an update that should be silent rings or lights up the phone", _SERVER, "An update with an alert rings. Leave the alert out; an alert without title and sound is silent.", "", ("sound", "rings", "vibrates", "loud update", "noise")),
    Explanation("delays at events", _SYMPTOM, "updates are late when many happen at once", _SERVER, "Possible causes: the budget of priority 10 is spent, priority 5 comes in bursts, screens refresh only every 5 to 15 s, or a queue sends every state. Send only the newest state, use frequent updates, and use a channel for hundreds of viewers or more.", "", ("late updates", "delay", "slow updates", "lag", "late")),
    Explanation("older timestamp", _PHONE, "the update's timestamp is older than that of the shown state", _SERVER, "Use increasing timestamps for each activity, in whole seconds. Causes are two servers with different clocks, or one timestamp in milliseconds. Ends are exempt."),
    Explanation("future timestamp", _PHONE, "the update's timestamp is more than 8 hours ahead", _SERVER, "Timestamps are seconds, not milliseconds; check the sender's clock.", "", ("milliseconds",)),
    Explanation("no alert", _PHONE, "a start without an alert shows nothing", _SERVER, "Give every start an alert with title and body.", "Received start without an alert configuration"),
    Explanation("ended", _PHONE, "the activity has ended, or was swiped away; APNs may answer 200 for hours", _OWNER, "Delete the token when the app reports the end; start a new card if there is more to show."),
    Explanation("limit", _PHONE, "the app or the phone already has the maximum of activities", _IOS, "End cards that are done; about five per app were seen."),
    Explanation("too large", _PHONE, "attributes and content state together are over 4 KB on the phone", _SERVER, "Send less; apns-live lint shows the bytes of each key."),
    Explanation("disabled", _PHONE, "Live Activities are switched off, the app was deleted, or the phone is older than iOS 17.2", _OWNER, "Let the app report areActivitiesEnabled and stop sending; offer ordinary notifications."),
    Explanation("denied", _PHONE, "the user answered Don't Allow for this app's Live Activities", _OWNER, "The user can allow them in Settings. Until then send ordinary notifications.", "", ("consent denied", "don't allow")),
    Explanation("low power", _PHONE, "in Low Power Mode no activity is started by push", _IOS, "Try again later, or let the app start it."),
    Explanation("wrong token", _PHONE, "a start went to an activity token, an update to a push-to-start token, or the attributes type is not the token's", _SERVER, "Store the kind and attributes type with each token. The type is the bare Swift name, without module."),
    Explanation("channel", _PHONE, "the start names a channel that does not exist, or the phone is older than iOS 18", _SERVER, "Create the channel in the same environment, and send input-push-channel to iOS 18 and later only.", "", ("input-push-channel", "ios version", "ios 17")),
    Explanation("collapsed", _PHONE, "a start with the collapse id of a running activity makes no second card", _SERVER, "Update the running card."),
    Explanation("silent token", _PHONE, "the token was replaced: APNs still answers 200, and nothing happens", _APP, "Register tokens whenever the app is opened, and keep the newest only.", "", ("replaced token", "rotated token")),
    Explanation("offline", _PHONE, "the phone had no network, and the push may not be stored (expiration 0)", _NETWORK, "Set an expiration, so that APNs stores the newest push."),
    Explanation("expired", _OUTCOME, "its deadline or expiration passed before APNs accepted it", _SERVER, "Set a later one, or send the newest state again."),
    Explanation("replaced", _PHONE, "it waited for the phone, and a newer push replaced it", _IOS, "Nothing: only the newest state matters."),
    Explanation("device offline", _PHONE, "it waits until the phone has a network again", _NETWORK, "Nothing: APNs delivers it from storage."),
    Explanation("power", _PHONE, "priority 5 waits until the phone next wakes", _IOS, "Use priority 10 for states that users must see at once."),
    Explanation("stale", _SYMPTOM, "the card is shown as outdated: its stale date has passed", _SERVER, "Set a new stale date with each update, and send an update before it passes.", "", ("stale date", "outdated")),
    Explanation("accepted", _OUTCOME, "APNs accepted the push; this does not prove that a phone shows it", "nobody's", "See 'nothing shown' if it does not appear."),
    Explanation("drop_token", _OUTCOME, "the token is invalid", _SERVER, "Delete it; after a 410 only if it was registered before drop_if_registered_before."),
    Explanation("drop_channel", _OUTCOME, "the channel was deleted, or belongs to the other environment", _SERVER, "Create it again and store the new id."),
    Explanation("fix_request", _OUTCOME, "the request is wrong and would be refused again", _SERVER, "Change it; do not retry. The reason says what is wrong."),
    Explanation("operator", _OUTCOME, "key, team, topic or capability is wrong", _SETUP, "Stop, and run apns-live doctor. Keep the token."),
    Explanation("refresh_credentials", _OUTCOME, "APNs refused the provider token, also after one retry if it made sense", _SETUP, "Check the clock and the key: apns-live doctor."),
    Explanation("slow_down", _OUTCOME, "too many pushes to this one token or channel", _SERVER, "Wait, and send only the newest state then."),
    Explanation("retry_later", _OUTCOME, "APNs could not process it now", "Apple's", "Send the newest state at retry_at."),
    Explanation("unknown", _OUTCOME, "no answer came; APNs may have processed it", _NETWORK, "Send an update or end again. Repeat a start only if two cards are better than none."),
    Explanation("not_sent", _OUTCOME, "it certainly did not reach APNs", _NETWORK, "Send it again."),
    Explanation("superseded", _OUTCOME, "a newer state replaced it before it was sent", "nobody's", "Nothing: the newest state is sent."),
)
# fmt: on


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())


_BY_WORD = {_key(word): row for row in ROWS for word in (row.name, *row.words)}


def find(word: str) -> Explanation | None:
    """Return the row of a word, or None. Case, spaces and hyphens do not matter."""
    return _BY_WORD.get(_key(word))


def finding(check: str, word: str, said: str) -> Finding:
    """Return a failed check with the remedy of a word's row."""
    row = find(word)
    return Finding(check, "fail", said, "" if row is None else row.remedy)


def near(text: str, most: int = 3) -> list[str]:
    """Return names of similar rows: by spelling, then by shared words."""
    spelt = difflib.get_close_matches(_key(text), _BY_WORD, n=most, cutoff=0.7)
    found = [_BY_WORD[each].name for each in spelt]
    asked = set(re.findall(r"[a-z0-9]{4,}", text.casefold()))
    shared = [
        (len(asked & set(re.findall(r"[a-z0-9]{4,}", " ".join(row[:3] + row.words)))), row.name)
        for row in ROWS
    ]
    found += [name for count, name in sorted(shared, key=lambda each: -each[0]) if count]
    return list(dict.fromkeys(found))[:most]
