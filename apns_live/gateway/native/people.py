"""Users with aliases, tags and attributes; groups and their members."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ...errors import NotFound
from ..calls import Call
from .face import Routes
from .shapes import Strict

routes = Routes("people", scope="devices:write")

_Name = Annotated[str, Meta(min_length=1, max_length=128)]
Tags = Annotated[dict[_Name, str | float | bool | None], Meta(max_length=200)]
Scalar = str | float | bool
DateValue = Annotated[dict[Literal["date"], str], Meta(min_length=1, max_length=1)]
Attributes = Annotated[
    dict[_Name, str | float | bool | list[str | float] | DateValue | None], Meta(max_length=200)
]


class UserBody(Strict, frozen=True, kw_only=True):
    """A user. Given tags and attributes replace those of the same name; null removes one."""

    aliases: Annotated[dict[_Name, _Name], Meta(max_length=20)] = {}
    tags: Tags = {}
    attributes: Attributes = {}


class TagsBody(Strict, frozen=True, kw_only=True):
    """Tags; null removes one."""

    tags: Tags


class AttributesBody(Strict, frozen=True, kw_only=True):
    """Attributes: text, number, boolean, ``{"date": "2027-01-31"}``, list; null removes one."""

    attributes: Attributes


class UserAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A user's ids: the caller's and the gateway's."""

    external_id: str
    id: str


class GroupBody(Strict, frozen=True, kw_only=True):
    """The display name of a group."""

    name: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


@routes("PUT /v1/users/{user:path}", "Add a user, or add to one")
async def put_user(call: Call, user: str, body: UserBody | None) -> UserAnswer:
    """Adds or changes a user. A device that names an unknown user adds it too."""
    body = body or UserBody()
    people = call.service.people
    public_id = await people.add_user(call.app, user, aliases=body.aliases)
    await people.set_tags(call.app, "user", user, body.tags)
    await people.set_attributes(call.app, "user", user, body.attributes)
    return UserAnswer(external_id=user, id=public_id)


@routes("DELETE /v1/users/{user:path}", "Forget a user")
async def forget_user(call: Call, user: str) -> None:
    """Deletes aliases, tags and attributes. The devices stay, without a user."""
    await call.service.people.forget_user(call.app, user)
    await call.note("user.forget", user)


@routes("PATCH /v1/devices/{device}/tags", "Set tags of a device")
async def set_device_tags(call: Call, device: str, body: TagsBody) -> None:
    """Null removes one; the others stay."""
    await call.service.people.set_tags(call.app, "device", device, body.tags)


@routes("PATCH /v1/devices/{device}/attributes", "Set attributes of a device")
async def set_device_attributes(call: Call, device: str, body: AttributesBody) -> None:
    """Null removes one; the others stay."""
    await call.service.people.set_attributes(call.app, "device", device, body.attributes)


@routes("PUT /v1/groups/{group}", "Add a group, or rename it")
async def put_group(call: Call, group: str, body: GroupBody | None) -> None:
    """A group is a fixed list of devices and users; a segment is a rule."""
    name = None if body is None else body.name
    await call.service.people.add_group(call.app, group, name=name)


@routes("DELETE /v1/groups/{group}", "Delete a group")
async def delete_group(call: Call, group: str) -> None:
    """Its devices and users stay, and running activities continue. Starts can no longer name the group."""
    await call.service.people.remove_group(call.app, group)
    await call.note("group.delete", group)


@routes("PUT /v1/groups/{group}/{kind}/{member:path}", "Put a device or user into a group")
async def join_group(call: Call, group: str, member: str) -> None:
    """``kind`` is ``devices`` or ``users``. A user adds all of its devices, also later ones."""
    await call.service.people.join_group(call.app, group, kind_of(call), member)


@routes("DELETE /v1/groups/{group}/{kind}/{member:path}", "Take a device or user out of a group")
async def leave_group(call: Call, group: str, member: str) -> None:
    """Succeeds also if it was not a member."""
    await call.service.people.leave_group(call.app, group, kind_of(call), member)


def kind_of(call: Call) -> Literal["device", "user"]:
    """Return which of a group's two lists the path names. Raises `NotFound`."""
    kind = call.part("kind")
    if kind == "devices":
        return "device"
    if kind == "users":
        return "user"
    raise NotFound("there are devices and users in a group")
