"""OneSignal's Python client of today."""

import contextlib
import json
import os

import onesignal
import onesignal.exceptions
from onesignal.api.default_api import DefaultApi
from onesignal.models import (
    IncludeAliases,
    LanguageStringMap,
    StartLiveActivityRequest,
    UpdateLiveActivityRequest,
)

ready = json.loads(os.environ["APNS_LIVE_READY"])
app = ready["onesignal_app_id"]
configuration = onesignal.Configuration(host=ready["url"], rest_api_key=ready["keys"]["onesignal"])


def start(activity, **target):
    return StartLiveActivityRequest(
        name="Final",
        event="start",
        activity_id=activity,
        event_attributes={"ground": "Hall 3"},
        event_updates={"home": 0, "away": 0},
        contents=LanguageStringMap(en="It begins", zh_hans="比赛开始"),
        headings=LanguageStringMap(en="Kick-off", zh_hans="开球"),
        stale_date=4102444800,
        priority=10,
        ios_relevance_score=0.5,
        **target,
    )


def change(event, home, **more):
    return UpdateLiveActivityRequest(
        name="Final", event=event, event_updates={"home": home, "away": 0}, **more
    )


with onesignal.ApiClient(configuration) as connection:
    api = DefaultApi(connection)
    everyone = start(
        "match-1",
        included_segments=["everyone"],
        idempotency_key="5f0c4b0a-9d6e-4e0f-8a55-0d9f2a3c7b11",
    )
    api.start_live_activity(app, "DemoAttributes", everyone)
    api.start_live_activity(app, "DemoAttributes", everyone)
    two = IncludeAliases(external_id=["user-1", "user-2"])
    api.start_live_activity(app, "DemoAttributes", start("match-2", include_aliases=two))
    alert = {
        "headings": LanguageStringMap(en="Goal"),
        "contents": LanguageStringMap(en="1:0"),
        "ios_sound": "cheer.caf",
    }
    api.update_live_activity(app, "match-1", change("update", 1, **alert))
    api.update_live_activity(app, "match-2", change("update", 1, priority=5))
    api.update_live_activity(app, "match-2", change("end", 2, dismissal_date=4102444800))
    for refused in (
        lambda: api.start_live_activity(app, "DemoAttributes", start("match-3")),
        lambda: api.update_live_activity(app, "match-9", change("update", 1)),
        lambda: api.start_live_activity(
            app, "OtherAttributes", start("match-4", included_segments=["everyone"])
        ),
    ):
        with contextlib.suppress(onesignal.exceptions.ApiException):
            refused()
