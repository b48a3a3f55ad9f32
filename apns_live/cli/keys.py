"""``apns-live keys``: API keys of the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from .files import write_private
from .options import Shared, group
from .store_access import dated, new_id, stored

if TYPE_CHECKING:
    from ..activities.apps import App
    from ..activities.store.database import Database
    from ..gateway.audit import Audit
    from ..gateway.keys import Keys

app = group("Make, list, rotate and revoke API keys of the gateway.")


@app.command("create")
@stored(
    """
    --name TEXT: Name of the key.
    --dialect native|activitysmith|braze|onesignal|fcm: API that the key is for. For fcm the secret is a
        service account file.
    --scope SCOPE: Permission of the key; repeatable.
    --every-scope: Grant every permission within the app.
    --group SLUG: Restrict the key to this group; repeatable.
    --per-minute N: Maximum of requests a minute.
    --concurrent N: Maximum of concurrent requests.
    --url URL: With fcm: the gateway's address, for token_uri.
    --file FILE: Write the secret to this new file, readable only by you.
    """
)
async def create(
    shared: Shared,
    database: Database,
    one: App,
    name: str,
    dialect: str = "native",
    scope: list[str] | None = None,
    every_scope: bool = False,
    group: list[str] | None = None,
    per_minute: int | None = None,
    concurrent: int | None = None,
    url: str = "http://localhost:8000",
    file: Path | None = None,
) -> None:
    """Create a key and print its secret. The secret is not stored and cannot be shown again."""
    from ..gateway.scopes import ALL, SENDING
    from ..gateway.service_accounts import with_token_uri

    _check_new(file)
    keys, audit = _parts(database)
    key, secret = await keys.create(
        one,
        dialect=dialect,
        scopes=ALL if every_scope else scope or (SENDING if dialect == "fcm" else ()),
        groups=group,
        name=name,
        per_minute=per_minute,
        concurrent=concurrent,
    )
    if key.dialect == "fcm":
        secret = with_token_uri(secret, url)
    await audit.note(one, actor="cli", action="key.create", subject=key.id)
    facts: dict[str, Any] = {"id": key.id}
    if file is None:
        facts["secret"] = secret
    facts |= {"scopes": sorted(key.scopes), "dialect": dialect}
    if file is not None:
        write_private(file, secret)
        facts["file"] = str(file)
    shared.screen.answer(facts, facts.get("file") or secret)
    if not shared.screen.json_mode:
        shared.screen.note(f"key {key.id}: keep the secret, it is not shown again")


@app.command("list")
@stored()
async def list_keys(shared: Shared, database: Database, one: App) -> None:
    """Print the keys of an app, with the time of their last use."""
    keys, _ = _parts(database)
    found: list[dict[str, Any]] = []
    after = 0
    while page := await keys.page(one, after=after, limit=1_000):
        found += [dated(key) for key in page]
        after = page[-1]["row"]
    columns = ("id", "name", "dialect", "begins", "scopes", "used", "state")
    rows = [
        (
            *(key[name] for name in columns[:4]),
            len(key["scopes"]),
            key["last_used_at"] or "never",
            _state(key),
        )
        for key in found
    ]
    shared.screen.rows({"keys": found}, columns, rows)


@app.command("rotate")
@stored("KEY: Id of the key.", "--overlap SECONDS: How long the old secret still works.")
async def rotate(
    shared: Shared, database: Database, one: App, key_id: str, overlap: float = 86_400.0
) -> None:
    """Create a new secret for a key, and print it."""
    keys, audit = _parts(database)
    key, secret = await keys.rotate(one, key_id, overlap=overlap)
    await audit.note(one, actor="cli", action="key.rotate", subject=key_id)
    shared.screen.answer({"id": key.id, "secret": secret, "replaces": key_id}, secret)


@app.command("revoke")
@stored("KEY: Id of the key.")
async def revoke(shared: Shared, database: Database, one: App, key_id: str) -> None:
    """Revoke a key. Running gateways refuse it within five seconds."""
    keys, audit = _parts(database)
    await keys.revoke(one, key_id)
    await audit.note(one, actor="cli", action="key.revoke", subject=key_id)
    shared.screen.answer({"id": key_id, "revoked": True}, f"{key_id} is revoked")


def _check_new(file: Path | None) -> None:
    if file is not None and file.exists():
        raise InvalidInput("is there already", field="--file", remedy="Name a new file.")


def _parts(database: Database) -> tuple[Keys, Audit]:
    from ..clock import SystemClock
    from ..gateway.audit import Audit
    from ..gateway.keys import Keys

    clock = SystemClock()
    return Keys(database, clock, new_id), Audit(database, clock)


def _state(key: dict[str, Any]) -> str:
    if key["revoked_at"]:
        return "revoked"
    if key["expires_at"]:
        return f"ends {key['expires_at']}"
    return "in use"
