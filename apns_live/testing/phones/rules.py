"""Every rule that the simulated phones follow, in the order in which a push meets it, with its source.

Marks: D Apple's documentation, F Apple's staff or a developer in Apple's forums, O observed in the
field by somebody and published, I inferred or chosen here. Nothing was measured by us; what is not
marked D is unverified. The setting is a field of `PhoneSettings`, or of a phone; the words are those
of the delivery log that tell of the rule.
"""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """One row of the table; ``setting`` is ``""`` where nothing changes it."""

    what: str
    mark: str
    source: str
    setting: str
    words: tuple[str, ...]


TABLE = """
| what a phone does | mark | source | setting | words |
|---|---|---|---|---|
| a payload without event, timestamp or content state, or of wrong types, is dropped | D | Apple, Starting and updating Live Activities with ActivityKit push notifications |  | undecodable |
| one field that does not decode loses the whole push, without a word | O | 3D-printer relay, Home Assistant; recorded decoder | schemas | undecodable |
| attributes and content state together have 4 KB | D | Apple, Displaying live data with Live Activities |  | too large |
| an update whose timestamp is older than the last one is dropped; equal is not older; end is exempt | D | Apple, Activity.update(_:alertConfiguration:timestamp:) | equal_timestamp | older timestamp |
| an update more than 8 hours ahead of the phone's clock is dropped; end is exempt | F | forum 776165 | future_limit | future timestamp |
| a card that was started by push has no token until its owner has seen it and answered Allow; after Always Allow at once; a start that names a channel needs none | F | forum 801072, 800669, 807976; mfaani.com, liveactivities | consent |  |
| Allow is answered some time after the card has come | I | no figure was published | consent_delay |  |
| after Don't Allow nothing is shown | F | forum 801072 | consent | denied |
| an activity token comes a while after the start, or not before the app is opened | O | 9 of 14 starts on an idle phone | token_delay |  |
| a started card's token may not come at all until the app is opened | O | 9 of 14 starts on an idle phone | token_never |  |
| a start without input-push-token or input-push-channel gives no token on iOS 18 and later | O | a device log; Apple, same page for iOS 17 |  |  |
| input-push-channel needs iOS 18 and a channel that exists; on iOS 17 the start fails | O | Apple, Starting and updating Live Activities with ActivityKit push notifications; field report | os_version | channel |
| push-to-start tokens rotate; the old one is answered with 200 and nothing happens | O | GoCarrot/TeakCocoaPodsExample pull 2 | rotate_start_token | silent token |
| the push-to-start stream can stay silent about a new token; the property read at launch has it | O | luka-ios PR 146, home-assistant/iOS #5812, #5766 | silent_stream | silent token |
| activity tokens may rotate while the activity runs | D | Apple, Starting and updating Live Activities with ActivityKit push notifications | rotate_activity_token | silent token |
| the window of the budget begins with the first counted push after the last one ended and lasts an hour, on iOS 17.2 and later; pooled over one app's activities; about 15 for a phone that is not in use, 229 with frequent updates | O | luka-ios PR 146, device log of iOS 26.6 | budget |  |
| a push over the budget is demoted: delayed as priority 5, not dropped | O | luka-ios PR 146 | budget | budget |
| frequent updates raise the budget, and the owner may turn them off | D | Apple, Starting and updating Live Activities with ActivityKit push notifications | frequent_pushes |  |
| broadcasts are not counted against the phone's budget | I | what Apple counts for channels is not published |  |  |
| about 10 push-to-starts in a window for each app; below 1 refused, and further tries count on (-5 was seen); opening the app refills | F | forum 799505; bultrain. The window: an hour in one report, a day in another | start_budget | start budget |
| what is shown refreshes every 5 to 15 s at most on iOS 18 and later, in CarPlay about once a minute | O | press 2024; Home Assistant docs PR 1303 | refresh_interval |  |
| a start without an alert shows nothing | D | Apple, Starting and updating Live Activities with ActivityKit push notifications |  | no alert |
| an alert without a title announces nothing and is silent; the state is shown | F | forum 799195; OneSignal's docs |  |  |
| a start goes to a push-to-start token of its attributes type, an update to an activity token | D | Apple, Starting and updating Live Activities with ActivityKit push notifications |  | wrong token |
| in Low Power Mode nothing is started | O | Sitrep, Troubleshooting | low_power | low power |
| with Live Activities off, or before iOS 17.2, nothing is started by push | D | Apple, Starting and updating Live Activities with ActivityKit push notifications | live_activities_enabled | disabled |
| a start with the collapse id of a running activity makes no second card | O | loopandlearn/LoopFollow PR 611 |  | collapsed |
| an app runs five activities at once, a phone ten | O | practitioners; Apple publishes neither | app_limit | limit |
| a phone runs ten activities at once | I | Apple publishes no number | device_limit | limit |
| the system ends an activity after 8 hours | D | Apple, Displaying live data with Live Activities | active_for | ended |
| an ended activity stays on the Lock Screen for 4 hours at most | D | Apple, Displaying live data with Live Activities | shown_after_end | ended |
| an ended activity's token is answered with 200 until 8 hours after the start, then with 410 | O | one report; three saw 200 only, one an early 410 | after_end | ended |
| priority 5 may wait and come in bursts | D | Apple, Starting and updating Live Activities with ActivityKit push notifications | priority_5 |  |
| a burst comes once a minute | I | no figure was published | burst_interval | replaced |
| a phone without a network gets the newest message of each app | D | Apple, Sending notification requests to APNs | storage | replaced, expired, offline |
| networks go and come back | I | a share of each cycle | offline |  |
| pushes of type widgets (iOS 26) and controls (iOS 18) go to tokens of their own and say content-changed | D | Apple, WidgetKit and ControlCenter push notifications |  | undecodable |
"""
RULES: tuple[Rule, ...] = tuple(
    Rule(what, mark, source, setting, tuple(filter(None, words.split(", "))))
    for what, mark, source, setting, words in (
        [cell.strip() for cell in line[1:-1].split("|")] for line in TABLE.split("\n")[3:-1]
    )
)
