"""ActivitySmith's Python client of today."""

import contextlib
import json
import os

from activitysmith import ActivitySmith, action, alert_badge, alert_icon, metric
from activitysmith_openapi.exceptions import ApiException

ready = json.loads(os.environ["APNS_LIVE_READY"])
client = ActivitySmith(api_key=ready["keys"]["activitysmith"])
cards = client.live_activities
cards._api.api_client.configuration.host = f"{ready['url']}/api"

begun = cards.start(
    title="Mirror",
    type="segmented_progress",
    number_of_steps=4,
    current_step=1,
    icon=alert_icon("externaldrive", color="cyan"),
    badge=alert_badge("weekly"),
    action=action("Hold", "webhook", "https://ops.example.com/hold", body={"job": 9}),
    channels="demo",
    tags=["nightly"],
    metadata={"job": 9, "dry": True},
)
cards.update(activity_id=begun.activity_id, title="Mirror", current_step=3)
cards.end(activity_id=begun.activity_id, title="Mirror", current_step=4, auto_dismiss_minutes=60)


def put(cpu):
    return cards.stream(
        "host-1", title="Host", type="metrics", metrics=[metric("CPU", cpu, unit="%")]
    )


put(9)
put(9)
put(76)
cards.stream("build", title="Build", type="progress", percentage=10)
cards.stream("build", title="Build", type="timer", duration_seconds=600)
cards.end_stream("build")
with contextlib.suppress(ApiException):
    cards.end_stream("nobody")
