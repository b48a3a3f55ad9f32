"""Explanations of reasons, outcomes and symptoms: whose fault it is, and what to do.

Three kinds of word: what a team sees (a symptom), what a phone did with a push that APNs accepted
(the delivery log of the fake, and what receipts of an app suggest), and a verdict of an `Outcome`.
Apple's own reasons are in `apns_live.reasons`; ``apns-live explain`` knows both.

The rows follow reports from the field; ``log`` is what to look for in the phone's log (Console.app,
processes liveactivitiesd, apsd and chronod), ``""`` where nobody published a line.
"""

from __future__ import annotations

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
    """What one check found. ``remedy`` is ``""`` where nothing is to be done."""

    check: str
    state: Literal["ok", "warn", "fail"]
    said: str
    remedy: str = ""


_SYMPTOM, _PHONE, _OUTCOME = "symptom", "phone", "outcome"
_APP, _SERVER, _OWNER, _IOS, _SETUP, _NETWORK = (
    "the app's",
    "the sender's",
    "the owner's choice",
    "iOS, by design",
    "the set-up's",
    "the network's",
)
_DECODE = "Unable to decode content state"
_BUDGET = "Push-to-start budget exceeded for ...; not starting activity"

# One line a row.
# fmt: off
ROWS: tuple[Explanation, ...] = (
    Explanation("no token", _SYMPTOM, "a card was started by push, and no activity token came to your server", _OWNER, "iOS gives the token only after the owner has seen the card and answered Allow or Always Allow, and wakes no app that was force-quit. On iOS 18 and later start with input-push-channel, or ask for input-push-token: 1; let the app read its tokens whenever it is opened.", "", ("started while the app was closed", "no update token", "missing token", "app closed", "consent")),
    Explanation("nothing shown", _SYMPTOM, "APNs answered 200, and the phone shows nothing", _APP, "200 means accepted, not shown. In order of likelihood: the state does not decode (apns-live contract check), a start without alert, wrong attributes type, the start budget, a dead start token, Live Activities off.", _DECODE, ("200 and nothing shown", "200", "blank card", "empty", "not displayed", "nothing happens")),
    Explanation("dead start token", _SYMPTOM, "starts are accepted for weeks, and no card comes: the stored push-to-start token was replaced", _APP, "The token stream can stay silent. Read Activity.pushToStartToken at launch and on foreground, and register it again. The service counts starts that bring neither token nor receipt; two in a row make a token suspect, and suspect_tokens says whether it comes last or is left out.", "", ("stale start token", "start token", "silent stream", "suspect token", "suspect")),
    Explanation("start budget", _PHONE, "the phone has used up its push-to-starts: about 10 a window for each app, and refused tries count on", _SERVER, "Start less often, reuse a running card, or let the app start it itself, which is not counted. Opening the app refills the budget.", _BUDGET, ("push to start budget", "too many starts")),
    Explanation("budget", _PHONE, "the hourly budget of pushes with priority 10 is spent: pushes are delayed, not lost", _SERVER, "Send priority 5 for what may wait and keep 10 for what a person must see; set NSSupportsLiveActivitiesFrequentUpdates. delivery's budgets do it for you.", "", ("spent budget", "demoted", "delayed", "throttled", "update budget")),
    Explanation("undecodable", _PHONE, "the state or the payload does not decode in Swift: the whole push is dropped without a word", _SERVER, "Check the state against the app's Swift file: apns-live contract check. Every key must be there unless it is optional, Int takes no 1.5, an enum only its cases.", _DECODE, ("decode", "decode mismatch", "does not decode", "schema mismatch", "contract")),
    Explanation("date mismatch", _SYMPTOM, "a countdown is about 31 years off, or a state with a date shows nothing", _SERVER, "Swift's Date is seconds since 2001-01-01 by default: send apns_live.apple_date(...), not Unix seconds and not ISO 8601 text.", _DECODE, ("date", "31 years", "1995", "2055", "wrong year", "countdown")),
    Explanation("eight hours", _SYMPTOM, "a card stops changing about 8 hours after its start", _IOS, "iOS ends every activity after 8 hours (4 more on the Lock Screen). The service hands cards over before that (hand_over_after) while somebody updates the activity.", "", ("8-hour end", "8 hours", "8h", "stops updating", "frozen after hours")),
    Explanation("unconfirmed", _SYMPTOM, "APNs took the newest state of a card, and the app on the phone did not confirm it", _NETWORK, "The phone is away (APNs keeps one push for each app, the newest), the activity token was replaced unheard, or the app does not run. Let the app register its tokens at launch and on foreground: a card that has ended here gets its end then.", "", ("not confirmed", "away", "offline phone")),
    Explanation("testflight", _SYMPTOM, "BadDeviceToken for builds from TestFlight or the App Store, while Xcode builds work", _SETUP, "TestFlight and the App Store use production, Xcode builds use sandbox. Take the environment from the provisioning profile, not from #if DEBUG, and store it with each token.", "", ("BadDeviceToken in TestFlight", "wrong environment", "baddevicetoken", "sandbox token")),
    Explanation("two cards", _SYMPTOM, "one subject has two cards", _SERVER, "Two starts raced, or one was retried. Give a start your own activity id (it becomes the collapse id), retry no start blindly, and let the app end the older card.", "", ("duplicate cards", "double card", "duplicated activity")),
    Explanation("sound on a silent update", _SYMPTOM, "an update that should be silent rings or lights up the phone", _SERVER, "An update with an alert announces itself. Leave the alert out; one without title and sound is silent.", "", ("sound", "rings", "vibrates", "loud update", "noise")),
    Explanation("delays at events", _SYMPTOM, "updates come late just when much happens", _SERVER, "Several causes add up: the spent budget of priority 10 (demoted), priority 5 in bursts, screens that refresh every 5 to 15 s, a queue that sends every state. Send the newest state only, raise the budget, use a channel from hundreds of viewers up.", "", ("late updates", "delay", "slow updates", "lag", "late")),
    Explanation("older timestamp", _PHONE, "the update's timestamp is older than what the phone holds", _SERVER, "Keep timestamps growing for each activity, in whole seconds; two servers with different clocks, or milliseconds once, cause it. An end is exempt."),
    Explanation("future timestamp", _PHONE, "the update's timestamp is more than 8 hours ahead", _SERVER, "Timestamps are seconds, not milliseconds; check the sender's clock.", "", ("milliseconds",)),
    Explanation("no alert", _PHONE, "a start without an alert shows nothing", _SERVER, "Give every start an alert with title and body.", "Received start without an alert configuration"),
    Explanation("ended", _PHONE, "the activity has ended, or was swiped away; APNs may answer 200 for hours", _OWNER, "Drop the token when the app reports the end; start a new card if there is news."),
    Explanation("limit", _PHONE, "the app, or the phone, has as many activities as iOS allows", _IOS, "End cards that are done; about five for each app were seen."),
    Explanation("too large", _PHONE, "attributes and content state together are over 4 KB on the phone", _SERVER, "Send less; apns-live lint shows the bytes of each key."),
    Explanation("disabled", _PHONE, "Live Activities are switched off, the app is gone, or the phone is older than iOS 17.2", _OWNER, "Let the app report areActivitiesEnabled and stop sending; offer ordinary notifications."),
    Explanation("denied", _PHONE, "the owner answered Don't Allow to this app's Live Activities", _OWNER, "Nothing will be shown until it is allowed in Settings: send ordinary notifications.", "", ("consent denied", "don't allow")),
    Explanation("low power", _PHONE, "in Low Power Mode no activity is started by push", _IOS, "Try again later, or let the app start it."),
    Explanation("wrong token", _PHONE, "a start went to an activity token, an update to a push-to-start token, or the attributes type is not the token's", _SERVER, "Store the kind and attributes type with each token. The type is the bare Swift name, without module."),
    Explanation("channel", _PHONE, "the start names a channel that does not exist, or the phone is older than iOS 18", _SERVER, "Create the channel in the same environment, and send input-push-channel to iOS 18 and later only.", "", ("input-push-channel", "ios version", "ios 17")),
    Explanation("collapsed", _PHONE, "a start with the collapse id of a running activity makes no second card", _SERVER, "Update the running card."),
    Explanation("silent token", _PHONE, "the token was replaced: APNs still answers 200, and nothing happens", _APP, "Register tokens whenever the app is opened, and keep the newest only.", "", ("replaced token", "rotated token")),
    Explanation("offline", _PHONE, "the phone was away, and the push may not be stored (expiration 0)", _NETWORK, "Give an expiration, so that APNs keeps the newest push."),
    Explanation("expired", _OUTCOME, "its deadline or expiration passed before it could be used", _SERVER, "Give it longer, or send the newest state again."),
    Explanation("replaced", _PHONE, "it waited for the phone, and a newer push took its place", _IOS, "Nothing: only the newest state matters."),
    Explanation("device offline", _PHONE, "it waits until the phone has a network again", _NETWORK, "Nothing: it comes from storage."),
    Explanation("power", _PHONE, "priority 5 waits until the phone next wakes", _IOS, "Use priority 10 for what a person must see at once."),
    Explanation("stale", _SYMPTOM, "the card is drawn as outdated: its stale date has passed", _SERVER, "Move the stale date with each update, and send one before it passes.", "", ("stale date", "outdated")),
    Explanation("accepted", _OUTCOME, "APNs took the push: no proof that a phone shows it", "nobody's", "See 'nothing shown' if it does not appear."),
    Explanation("drop_token", _OUTCOME, "the token is dead or wrong", _SERVER, "Forget it; after a 410 only if it was registered before drop_if_registered_before."),
    Explanation("drop_channel", _OUTCOME, "the channel is gone, or belongs to the other environment", _SERVER, "Create it again and store the new id."),
    Explanation("fix_request", _OUTCOME, "the request is wrong and stays wrong", _SERVER, "Change it; do not retry. The reason says what."),
    Explanation("operator", _OUTCOME, "key, team, topic or capability is wrong", _SETUP, "Stop, and run apns-live doctor. Says nothing of the token."),
    Explanation("refresh_credentials", _OUTCOME, "the provider token was refused, also after one replay", _SETUP, "Check the clock and the key: apns-live doctor."),
    Explanation("slow_down", _OUTCOME, "too many pushes to this one token or channel", _SERVER, "Wait, and send only the newest state then."),
    Explanation("retry_later", _OUTCOME, "APNs could not serve it now", "Apple's", "Try at retry_at with the newest state."),
    Explanation("unknown", _OUTCOME, "no answer came; it may have been processed", _NETWORK, "Send an update or end again; a start again only if two cards are better than none."),
    Explanation("not_sent", _OUTCOME, "it certainly did not reach APNs", _NETWORK, "Send it again."),
    Explanation("superseded", _OUTCOME, "a newer state took its place before it left", "nobody's", "Nothing: the newest state went."),
)
# fmt: on


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())


_BY_WORD = {_key(word): row for row in ROWS for word in (row.name, *row.words)}


def find(word: str) -> Explanation | None:
    """Return the row of a word, whatever its case, spaces and hyphens; None when there is none."""
    return _BY_WORD.get(_key(word))


def finding(check: str, word: str, said: str) -> Finding:
    """Return a failed check with the remedy of a word's row."""
    row = find(word)
    return Finding(check, "fail", said, "" if row is None else row.remedy)


def near(text: str, most: int = 3) -> list[str]:
    """Return names of rows that somebody may have meant: by spelling, then by shared words."""
    spelt = difflib.get_close_matches(_key(text), _BY_WORD, n=most, cutoff=0.7)
    found = [_BY_WORD[each].name for each in spelt]
    asked = set(re.findall(r"[a-z0-9]{4,}", text.casefold()))
    shared = [
        (len(asked & set(re.findall(r"[a-z0-9]{4,}", " ".join(row[:3] + row.words)))), row.name)
        for row in ROWS
    ]
    found += [name for count, name in sorted(shared, key=lambda each: -each[0]) if count]
    return list(dict.fromkeys(found))[:most]
