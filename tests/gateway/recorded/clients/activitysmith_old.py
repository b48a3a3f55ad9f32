"""ActivitySmith's Python client before content states had helpers: versions 0.1 and 1.0."""

import contextlib
import json
import os

from activitysmith import ActivitySmith
from activitysmith_openapi.exceptions import ApiException

ready = json.loads(os.environ["APNS_LIVE_READY"])
client = ActivitySmith(api_key=ready["keys"]["activitysmith"])
cards = client.live_activities
api_client = cards.api_client if hasattr(cards, "api_client") else cards._api.api_client
api_client.configuration.host = f"{ready['url']}/api"
state = {"title": "Mirror", "number_of_steps": 4, "type": "segmented_progress"}

begun = cards.start_live_activity(
    {"content_state": {**state, "subtitle": "host 1", "current_step": 1, "color": "cyan"}}
)
activity = {"activity_id": begun.activity_id}
cards.update_live_activity({**activity, "content_state": {"title": "Mirror", "current_step": 3}})
cards.end_live_activity(
    {
        **activity,
        "content_state": {"title": "Mirror", "current_step": 4, "auto_dismiss_minutes": 60},
    }
)
with contextlib.suppress(ApiException):
    cards.update_live_activity(
        {"activity_id": "nobody", "content_state": {"title": "Mirror", "current_step": 3}}
    )
client.notifications.send_push_notification({"title": "Mirrored", "message": "host 1"})
