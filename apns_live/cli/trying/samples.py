"""One activity from start to end in each API's own words, as a team's server would say it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...contracts import Contract

STEPS = ("start", "update", "end")
NAMES = {
    "native": "Native",
    "activitysmith": "ActivitySmith",
    "braze": "Braze",
    "onesignal": "OneSignal",
}
_STATES = {
    "start": {"title": "Order 1042", "status": "Being packed", "progress": 0.2},
    "update": {"title": "Order 1042", "status": "On its way", "progress": 0.7},
    "end": {"title": "Order 1042", "status": "At your door", "progress": 1.0},
}
_BUILDS = {"start": 1, "update": 3, "end": 4}


@dataclass(frozen=True, slots=True)
class Sample:
    """A request as it goes over the wire; ``authorization`` is the scheme before the key."""

    method: str
    path: str
    body: dict[str, Any]
    authorization: str = "Bearer"


class Demo:
    """What is shown: our order, or with a contract states that the app itself decodes."""

    def __init__(self, contract: Contract | None = None) -> None:
        self.attributes_type = "DemoAttributes"
        self.states: dict[str, Any] = _STATES
        self.attributes: Any = {}
        if contract is not None and contract.names:
            from ...contracts.examples import example

            chance = random.Random(1)  # noqa: S311 - the same states each time
            self.attributes_type = contract.names[0]
            found = contract.types[self.attributes_type]
            self.states = {step: example(found.state.shape, chance) for step in STEPS}
            self.attributes = example(found.attributes.shape, chance)

    def fill(self, one: Sample) -> Sample:
        """Return the request with this type and its attributes in place of ours."""
        body = dict(one.body)
        for key in ("attributes_type", "activity_attributes_type"):
            if key in body:
                body[key] = self.attributes_type
                body[key.removesuffix("_type")] = self.attributes
        if "event_attributes" in body:
            body["event_attributes"] = self.attributes
        path = one.path.replace("DemoAttributes", self.attributes_type)
        return replace(one, path=path, body=body)


def sample(vendor: str, step: str, *, app: str, segment: str, activity: str, demo: Demo) -> Sample:
    """Return a step's request. Raises KeyError for what is not there."""
    return demo.fill(_VENDORS[vendor](step, app, segment, activity, demo.states[step]))


def _native(step: str, app: str, segment: str, activity: str, state: dict[str, Any]) -> Sample:
    if step == "start":
        return Sample(
            "POST",
            "/v1/activities",
            {
                "id": activity,
                "attributes_type": "DemoAttributes",
                "content_state": state,
                "alert": {"title": "Order 1042", "body": "We are packing it"},
                "audience": {"groups": ["demo"]},
            },
        )
    body: dict[str, Any] = {"content_state": state}
    if step == "end":
        body["dismiss_after"] = 900
    return Sample("POST", f"/v1/activities/{activity}/{step}", body)


def _activitysmith(
    step: str, app: str, segment: str, activity: str, state: dict[str, Any]
) -> Sample:
    content = {
        "title": "Nightly build",
        "subtitle": {"start": "compiling", "update": "testing", "end": "released"}[step],
        "type": "segmented_progress",
        "number_of_steps": 4,
        "current_step": _BUILDS[step],
        "color": "green" if step == "end" else "yellow",
    }
    body: dict[str, Any] = {"content_state": content}
    if step == "start":
        body["target"] = {"channels": ["demo"]}
    else:
        body["activity_id"] = activity
    return Sample("POST", f"/live-activity/{step}", body)


def _braze(step: str, app: str, segment: str, activity: str, state: dict[str, Any]) -> Sample:
    body: dict[str, Any] = {"app_id": app, "activity_id": activity, "content_state": state}
    if step == "start":
        body |= {
            "activity_attributes_type": "DemoAttributes",
            "activity_attributes": {},
            "notification": {"alert": {"title": "Order 1042", "body": "We are packing it"}},
            "segment_id": segment,
        }
        return Sample("POST", "/messages/live_activity/start", body)
    return Sample("POST", "/messages/live_activity/update", {**body, "end_activity": step == "end"})


def _onesignal(step: str, app: str, segment: str, activity: str, state: dict[str, Any]) -> Sample:
    if step == "start":
        return Sample(
            "POST",
            f"/apps/{app}/activities/activity/DemoAttributes",
            {
                "event": "start",
                "activity_id": activity,
                "name": "order 1042",
                "event_attributes": {},
                "event_updates": state,
                "headings": {"en": "Order 1042"},
                "contents": {"en": "We are packing it"},
                "included_segments": ["everyone"],
            },
            "Key",
        )
    return Sample(
        "POST",
        f"/apps/{app}/live_activities/{activity}/notifications",
        {"event": step, "name": "order 1042", "event_updates": state},
        "Key",
    )


_VENDORS = {
    "native": _native,
    "activitysmith": _activitysmith,
    "braze": _braze,
    "onesignal": _onesignal,
}
