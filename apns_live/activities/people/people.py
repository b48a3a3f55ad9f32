"""Users with aliases, tags and custom attributes of users and devices, and groups."""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import InvalidInput, NotFound
from .. import checks
from ..apps import App
from ..core import Part
from ..finding import find_id, named, row_ids
from ..store import schema
from ..store.statements import chunks, insert_into, with_rows
from .records import StoredValue, store_attributes, store_tags

Subject = Literal["user", "device"]
_SUBJECTS = {"user": schema.users, "device": schema.devices}
ALIASES_PER_USER = 20


async def rows_of_users(
    connection: AsyncConnection, app: App, external_ids: Iterable[str], now: int
) -> dict[str, int]:
    """Return the row ids of users by external id, adding those that are new."""
    return await row_ids(
        connection,
        app,
        schema.users,
        external_ids,
        lambda name: {"public_id": public_id_of(app, name), "created_at": now},
    )


def public_id_of(app: App, external_id: str) -> str:
    """Return a user's own id: a UUID derived from app and external id, equal on every machine."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"apns-live:{app.id}:{external_id}"))


Values = dict[tuple[int, str, str], Sequence[StoredValue]]
"""Values by the owner's row, namespace (tag, custom) and name; an empty sequence removes the entry."""

_SET = """
INSERT INTO attributes AS known
    (app_id, OWNER, namespace, name, position, kind, text, number, updated_at)
SELECT :app, given.owner, given.namespace, given.name, given.position, given.kind, given.text,
    given.number, :now
FROM {owner, namespace TEXT, name TEXT, position, kind TEXT, text TEXT, number DOUBLE PRECISION}
WHERE true
ON CONFLICT (OWNER, namespace, name, position) DO UPDATE SET kind = excluded.kind,
    text = excluded.text, number = excluded.number, updated_at = excluded.updated_at
WHERE (known.kind, COALESCE(known.text, ''), COALESCE(known.number, 0), known.text IS NULL)
    <> (excluded.kind, COALESCE(excluded.text, ''), COALESCE(excluded.number, 0), excluded.text IS NULL)
"""
_SHORTEN = """
DELETE FROM attributes WHERE id IN (
    SELECT known.id FROM {owner, namespace TEXT, name TEXT, length} JOIN attributes AS known
        ON known.OWNER = given.owner AND known.namespace = given.namespace
            AND known.name = given.name AND known.position >= given.length)
"""


async def set_values(
    connection: AsyncConnection, app: App, subject: Subject, given: Values, now: int
) -> None:
    """Set tags and attributes of users or devices. Unchanged values are not written again."""
    owner = f"{subject}_id"
    for some in chunks(given.items()):
        rows = [
            (row, namespace, name, position, entry.kind, entry.text, entry.number)
            for (row, namespace, name), entries in some
            for position, entry in enumerate(entries)
        ]
        for part in chunks(rows):
            await with_rows(connection, _SET.replace("OWNER", owner), part, app=app.row, now=now)
        # The rest of a longer list, or of a removed value. A tag is never a list.
        shorter = [
            (row, namespace, name, len(entries))
            for (row, namespace, name), entries in some
            if namespace == "custom" or not entries
        ]
        if shorter:
            await with_rows(connection, _SHORTEN.replace("OWNER", owner), shorter)


async def set_aliases(
    connection: AsyncConnection, app: App, aliases: Mapping[tuple[str, str], int]
) -> None:
    """Assign aliases (label and value) to users by row. An alias of another user moves."""
    table = schema.user_aliases
    statement = insert_into(connection, table)
    statement = statement.on_conflict_do_update(
        index_elements=["app_id", "label", "value"],
        set_={"user_id": statement.excluded.user_id},
        where=table.c.user_id != statement.excluded.user_id,
    )
    for part in chunks(aliases.items()):
        rows = [
            {"app_id": app.row, "user_id": row, "label": label, "value": value}
            for (label, value), row in part
        ]
        await connection.execute(statement, rows)


def checked_aliases(
    aliases: Mapping[str, object], name: Callable[[str], str] = "aliases.{}".format
) -> dict[str, str]:
    """Return a user's checked aliases; ``name`` returns a label's field name. Raises `InvalidInput`."""
    if len(aliases) > ALIASES_PER_USER or {"external_id", "onesignal_id"} & aliases.keys():
        raise InvalidInput(
            "holds a reserved label or more than 20 aliases",
            "aliases",
            "external_id and onesignal_id are kept for the user's own ids.",
        )
    return {
        checks.identifier(label, name(label), limit=128): checks.identifier(value, name(label))
        for label, value in aliases.items()
    }


class People(Part):
    """Users, tags, custom attributes and groups of each app."""

    async def add_user(
        self, app: App, external_id: str, *, aliases: Mapping[str, str] | None = None
    ) -> str:
        """Add a user, or add aliases to an existing one; return the user's public id.

        An alias of another user moves to this one. Raises `InvalidInput`.
        """
        checks.identifier(external_id, "external_id")
        pairs = checked_aliases(aliases or {})
        now = self.now
        async with self.database.write() as connection:
            row = (await rows_of_users(connection, app, [external_id], now))[external_id]
            await set_aliases(connection, app, dict.fromkeys(pairs.items(), row))
        return public_id_of(app, external_id)

    async def set_tags(
        self, app: App, subject: Subject, public_id: str, tags: Mapping[str, object]
    ) -> None:
        """Set tags; an empty text or None removes one. Raises `InvalidInput` or `NotFound`."""
        await self._set(app, subject, public_id, "tag", store_tags(tags))

    async def set_attributes(
        self, app: App, subject: Subject, public_id: str, attributes: Mapping[str, object]
    ) -> None:
        """Set custom attributes; None removes one. Raises `InvalidInput` or `NotFound`."""
        await self._set(app, subject, public_id, "custom", store_attributes(attributes))

    async def _set(
        self,
        app: App,
        subject: Subject,
        public_id: str,
        namespace: str,
        rows: Mapping[str, Sequence[StoredValue]],
    ) -> None:
        if not rows:
            return
        async with self.database.write() as connection:
            owner = await find_id(connection, app, _SUBJECTS[subject], public_id)
            values: Values = {(owner, namespace, name): row for name, row in rows.items()}
            await set_values(connection, app, subject, values, self.now)

    async def forget_user(self, app: App, external_id: str) -> None:
        """Delete a user with aliases, tags and attributes; devices stay, without a user.

        Raises `NotFound`.
        """
        table = schema.users
        if not await self.database.change(delete(table).where(named(app, table, external_id))):
            raise NotFound(f"the app {app.id!r} has no user {external_id!r}")

    async def add_group(self, app: App, slug: str, *, name: str | None = None) -> None:
        """Add a group, or rename it. Raises `InvalidInput`."""
        checks.slug(slug, "slug")
        title = slug if name is None else checks.identifier(name, "name", limit=200)
        table = schema.groups
        async with self.database.write() as connection:
            added = insert_into(connection, table).values(
                app_id=app.row, slug=slug, name=title, created_at=self.now
            )
            place, named = ["app_id", "slug"], {"name": title}
            renamed = added.on_conflict_do_update(index_elements=place, set_=named)
            await connection.execute(renamed if name else added.on_conflict_do_nothing())

    async def remove_group(self, app: App, slug: str) -> None:
        """Delete a group; its devices and users stay. Raises `NotFound`."""
        table = schema.groups
        if not await self.database.change(delete(table).where(named(app, table, slug))):
            raise NotFound(f"the app {app.id!r} has no group {slug!r}")

    async def join_group(self, app: App, slug: str, subject: Subject, public_id: str) -> None:
        """Add a device, or a user with all devices, to a group. Raises `NotFound`."""
        async with self.database.write() as connection:
            place = await _membership(connection, app, slug, subject, public_id)
            added = insert_into(connection, schema.group_members).values(place)
            await connection.execute(added.on_conflict_do_nothing())

    async def leave_group(self, app: App, slug: str, subject: Subject, public_id: str) -> None:
        """Remove a device or user from a group; succeeds also if it was not a member. Raises `NotFound`."""
        async with self.database.write() as connection:
            place = await _membership(connection, app, slug, subject, public_id)
            await connection.execute(delete(schema.group_members).filter_by(**place))

    async def move_devices(self, app: App, devices: Sequence[str], user: str | None) -> int:
        """Assign devices to a user, or to no user; return how many exist. Raises `InvalidInput`."""
        if user is not None:
            checks.identifier(user, "user")
        table, now, moved, owner = schema.devices, self.now, 0, None
        async with self.database.write() as connection:
            if user is not None:
                owner = (await rows_of_users(connection, app, [user], now))[user]
            for part in chunks(devices):
                theirs = (table.c.app_id == app.row, table.c.public_id.in_(part))
                moving = update(table).where(*theirs).values(user_id=owner, updated_at=now)
                moved += (await connection.execute(moving)).rowcount
        return moved


async def _membership(
    connection: AsyncConnection, app: App, slug: str, subject: Subject, public_id: str
) -> dict[str, int]:
    group = await find_id(connection, app, schema.groups, slug)
    owner = await find_id(connection, app, _SUBJECTS[subject], public_id)
    return {"group_id": group, f"{subject}_id": owner}
