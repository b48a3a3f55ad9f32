"""OneSignal's Python client of the years when a server handed in an activity's token itself."""

import contextlib
import json
import os

import onesignal
import onesignal.exceptions
from onesignal.api.default_api import DefaultApi
from onesignal.model.begin_live_activity_request import BeginLiveActivityRequest
from onesignal.model.update_live_activity_request import UpdateLiveActivityRequest

ready = json.loads(os.environ["APNS_LIVE_READY"])
app, card = ready["onesignal_app_id"], ready["card"]
prefix = os.environ.get("ONESIGNAL_PREFIX", "")
configuration = onesignal.Configuration(
    host=ready["url"] + prefix, app_key=ready["keys"]["onesignal"]
)


def change(event, home, **more):
    return UpdateLiveActivityRequest(
        name="headings", event=event, event_updates={"home": home}, **more
    )


with onesignal.ApiClient(configuration) as connection:
    api = DefaultApi(connection)
    token = BeginLiveActivityRequest(push_token=card["token"], subscription_id=card["device"])
    api.begin_live_activity(app, "match-1", token)
    api.update_live_activity(app, "match-1", change("update", 1))
    api.update_live_activity(app, "match-1", change("end", 2, dismiss_at=4102444800.0))
    with contextlib.suppress(onesignal.exceptions.NotFoundException):
        api.update_live_activity(app, "match-2", change("update", 1))
    api.end_live_activity(app, "match-1", card["device"])
