"""Users, groups, segments and audiences; ordinary notifications."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from ...activities.people import records
from ...activities.people.audience import DryRun, Segment
from ...activities.requests import Accepted
from ...errors import NotFound
from ..calls import Call
from ..reach import check_audience
from . import shapes
from .face import Routes

writes = Routes("people", scope="devices:write")
lists = Routes("directory", scope="devices:read")
segments = Routes("directory", scope="audiences:read")
audiences = Routes("audiences", scope="audiences:write")

_Name = Annotated[str, Meta(min_length=1, max_length=128)]
Tags = Annotated[dict[_Name, str | float | bool | None], Meta(max_length=200)]
DateValue = Annotated[dict[Literal["date"], str], Meta(min_length=1, max_length=1)]
Attributes = Annotated[
    dict[_Name, str | float | bool | list[str | float] | DateValue | None], Meta(max_length=200)
]


class UserBody(shapes.Strict, frozen=True, kw_only=True):
    """A user. Given tags and attributes replace those of the same name; null removes one."""

    aliases: Annotated[dict[_Name, _Name], Meta(max_length=20)] = {}
    tags: Tags = {}
    attributes: Attributes = {}


class TagsBody(shapes.Strict, frozen=True, kw_only=True):
    """Tags; null removes one."""

    tags: Tags


class AttributesBody(shapes.Strict, frozen=True, kw_only=True):
    """Attributes: text, number, boolean, ``{"date": "2027-01-31"}``, list; null removes one."""

    attributes: Attributes


class UserAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A user's ids: the caller's and the gateway's."""

    external_id: str
    id: str


class GroupBody(shapes.Strict, frozen=True, kw_only=True):
    """The display name of a group."""

    name: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


@writes("PUT /v1/users/{user:path}", "Add a user, or add to one")
async def put_user(call: Call, user: str, body: UserBody = UserBody()) -> UserAnswer:
    """Adds or changes a user. A device that names an unknown user adds it too."""
    people = call.service.people
    public_id = await people.add_user(call.app, user, aliases=body.aliases)
    await people.set_tags(call.app, "user", user, body.tags)
    await people.set_attributes(call.app, "user", user, body.attributes)
    return UserAnswer(external_id=user, id=public_id)


@writes("DELETE /v1/users/{user:path}", "Forget a user")
async def forget_user(call: Call, user: str) -> None:
    """Deletes aliases, tags and attributes. The devices stay, without a user."""
    await call.service.people.forget_user(call.app, user)
    await call.note("user.forget", user)


@writes("PATCH /v1/devices/{device}/tags", "Set tags of a device")
async def set_device_tags(call: Call, device: str, body: TagsBody) -> None:
    """Null removes one; the others stay."""
    await call.service.people.set_tags(call.app, "device", device, body.tags)


@writes("PATCH /v1/devices/{device}/attributes", "Set attributes of a device")
async def set_device_attributes(call: Call, device: str, body: AttributesBody) -> None:
    """Null removes one; the others stay."""
    await call.service.people.set_attributes(call.app, "device", device, body.attributes)


@writes("PUT /v1/groups/{group}", "Add a group, or rename it")
async def put_group(call: Call, group: str, body: GroupBody = GroupBody()) -> None:
    """A group is a fixed list of devices and users; a segment is a rule."""
    await call.service.people.add_group(call.app, group, name=body.name)


@writes("DELETE /v1/groups/{group}", "Delete a group")
async def delete_group(call: Call, group: str) -> None:
    """Its devices and users stay, and running activities continue. Starts can no longer name the group."""
    await call.service.people.remove_group(call.app, group)
    await call.note("group.delete", group)


@writes("PUT /v1/groups/{group}/{kind}/{member:path}", "Put a device or user into a group")
async def join_group(call: Call, group: str, member: str) -> None:
    """``kind`` is ``devices`` or ``users``. A user adds all of its devices, also later ones."""
    await call.service.people.join_group(call.app, group, kind_of(call), member)


@writes("DELETE /v1/groups/{group}/{kind}/{member:path}", "Take a device or user out of a group")
async def leave_group(call: Call, group: str, member: str) -> None:
    """Succeeds also if it was not a member."""
    await call.service.people.leave_group(call.app, group, kind_of(call), member)


def kind_of(call: Call) -> Literal["device", "user"]:
    """Return which of a group's two lists the path names. Raises `NotFound`."""
    kind = call.parts["kind"]
    if kind == "devices":
        return "device"
    if kind == "users":
        return "user"
    raise NotFound("there are devices and users in a group")


@lists("GET /v1/users", "List users")
async def list_users(
    call: Call, query: shapes.TextPage
) -> shapes.TextPageAnswer[records.ListedUser]:
    """Sorted by the caller's id."""
    return shapes.text_page(await call.service.directory.users(call.app, **asdict(query)))


@lists("GET /v1/users/{user:path}", "Get a user")
async def get_user(call: Call, user: str) -> records.WholeUser:
    """With aliases, tags, attributes, groups, and the ids of the devices."""
    return shapes.shown_times(await call.service.directory.user(call.app, user))


@lists("GET /v1/groups", "List groups")
async def list_groups(
    call: Call, query: shapes.TextPage
) -> shapes.TextPageAnswer[records.GroupView]:
    """Sorted by slug."""
    return shapes.text_page(await call.service.directory.groups(call.app, **asdict(query)))


@lists("GET /v1/groups/{group}", "Get a group")
async def get_group(call: Call, group: str) -> records.GroupView:
    """Without its members, which have their own lists."""
    return shapes.shown_times(await call.service.directory.group(call.app, group))


@lists("GET /v1/groups/{group}/{kind}", "List the devices or the users of a group")
async def list_members(
    call: Call, group: str, query: shapes.TextPage
) -> shapes.TextPageAnswer[records.MemberView]:
    """``kind`` is ``devices`` (those that were added directly) or ``users``."""
    return shapes.text_page(
        await call.service.directory.members(call.app, group, kind_of(call), **asdict(query))
    )


@segments("GET /v1/segments", "List segments")
async def list_segments(
    call: Call, query: shapes.TextPage
) -> shapes.TextPageAnswer[records.SegmentView]:
    """The saved segments by name, without the predefined ones."""
    return shapes.text_page(await call.service.directory.segments(call.app, **asdict(query)))


@segments("GET /v1/segments/{segment}", "Get a segment")
async def get_segment(call: Call, segment: str) -> records.SegmentView:
    """By name or id."""
    return await call.service.directory.segment(call.app, segment)


class SegmentBody(shapes.Strict, frozen=True, kw_only=True):
    """A filter tree of conditions."""

    filter: dict[str, Any]
    id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class DryRunBody(shapes.Strict, frozen=True, kw_only=True):
    """An audience, and the attributes type of a start."""

    audience: shapes.AudienceBody
    attributes_type: str | None = None


@audiences("POST /v1/audience", "Count an audience", scope="audiences:read", grouped=True)
async def dry_run(call: Call, body: DryRunBody) -> DryRun:
    """Counts the devices of an audience. Sends nothing."""
    check_audience(call.key, body.audience)
    kind = body.attributes_type
    return await call.service.audiences.dry_run(call.app, body.audience, attributes_type=kind)


@audiences("PUT /v1/segments/{segment}", "Save a segment", refusals={409})
async def save_segment(call: Call, segment: str, body: SegmentBody) -> Segment:
    """Its devices are determined whenever the segment is used."""
    return await call.service.segments.save(call.app, segment, body.filter, id=body.id)


@audiences("DELETE /v1/segments/{segment}", "Delete a segment")
async def delete_segment(call: Call, segment: str) -> None:
    """By name or id."""
    await call.service.segments.delete(call.app, segment)


@audiences(
    "POST /v1/notifications",
    "Send an ordinary notification",
    scope="notifications:send",
    status=202,
    idempotent=True,
    grouped=True,
    refusals={404, 409},
)
async def send_notification(call: Call, body: shapes.NotifyBody) -> Accepted:
    """Sends to every device of the audience that has a device token and has pushes enabled."""
    if not body.audience.is_empty or body.replaces is None:
        check_audience(call.key, body.audience)
    elif call.key.groups is not None:
        check_audience(call.key, shapes.AudienceBody(everyone=True))
    return call.told(await call.service.notifications.send(call.app, body, key=call.once()))
