"""Segments, counting an audience, and ordinary notifications."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from ...activities.people.audience.resolve import DryRun
from ...activities.people.audience.segments import Segment
from ...activities.requests import Accepted
from ..calls import Call
from ..reach import check_audience
from .face import Routes
from .shapes import AudienceBody, NotifyBody, Strict

routes = Routes("audiences", scope="audiences:write")


class SegmentBody(Strict, frozen=True, kw_only=True):
    """A filter tree of conditions."""

    filter: dict[str, Any]
    id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class DryRunBody(Strict, frozen=True, kw_only=True):
    """An audience, and the attributes type of a start."""

    audience: AudienceBody
    attributes_type: str | None = None


@routes("POST /v1/audience", "Count an audience", scope="audiences:read", grouped=True)
async def dry_run(call: Call, body: DryRunBody) -> DryRun:
    """Counts the devices of an audience. Sends nothing."""
    check_audience(call.key, body.audience)
    return await call.service.audiences.dry_run(
        call.app, body.audience, attributes_type=body.attributes_type
    )


@routes("PUT /v1/segments/{segment}", "Save a segment", refusals={409})
async def save_segment(call: Call, segment: str, body: SegmentBody) -> Segment:
    """Its devices are determined whenever the segment is used."""
    return await call.service.segments.save(call.app, segment, body.filter, id=body.id)


@routes("DELETE /v1/segments/{segment}", "Delete a segment")
async def delete_segment(call: Call, segment: str) -> None:
    """By name or id."""
    await call.service.segments.delete(call.app, segment)


@routes(
    "POST /v1/notifications",
    "Send an ordinary notification",
    scope="notifications:send",
    status=202,
    idempotent=True,
    grouped=True,
    refusals={404, 409},
)
async def send_notification(call: Call, body: NotifyBody) -> Accepted:
    """Sends to every device of the audience that has a device token and has pushes enabled."""
    if not body.audience.is_empty or body.replaces is None:
        check_audience(call.key, body.audience)
    elif call.key.groups is not None:
        check_audience(call.key, AudienceBody(everyone=True))
    done = await call.service.notifications.send(call.app, body, key=call.once())
    return call.told(done)
