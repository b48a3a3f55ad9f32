"""``apns-live keys``: API keys of the gateway."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidInput
from .files import write_private
from .options import Shared, command, group, option
from .output import ExitCode
from .store_access import AppOption, StoreOption, run_for_app

if TYPE_CHECKING:
    from ..activities.apps import App
    from ..activities.store.database import Database
    from ..gateway.audit import Audit
    from ..gateway.keys import Keys

app = group("Make, list, rotate and revoke API keys of the gateway.")

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Id of the key.")]


@app.command("create")
@command()
def create(
    shared: Shared,
    app_id: AppOption,
    name: Annotated[str, option("What it is for.", "--name", "TEXT")],
    dialect: Annotated[
        str,
        option(
            "Which API it is for. Of fcm the secret is a service account's file.",
            "--dialect",
            "native|activitysmith|braze|onesignal|fcm",
        ),
    ] = "native",
    scope: Annotated[
        list[str] | None, option("What it may do; may be repeated.", "--scope", "SCOPE")
    ] = None,
    every_scope: Annotated[
        bool, option("It may do everything in its app.", "--every-scope")
    ] = False,
    group: Annotated[
        list[str] | None, option("Reach these groups only; may be repeated.", "--group", "SLUG")
    ] = None,
    per_minute: Annotated[int | None, option("Requests a minute.", "--per-minute", "N")] = None,
    concurrent: Annotated[
        int | None, option("Requests at the same time.", "--concurrent", "N")
    ] = None,
    url: Annotated[
        str, option("With fcm: the gateway's address, for token_uri.", "--url", "URL")
    ] = "http://localhost:8000",
    file: Annotated[
        Path | None,
        option("Write the secret to this new file, for its owner alone.", "--file", "FILE"),
    ] = None,
    store: StoreOption = None,
) -> int:
    """Make a key and print its secret: it is shown this once, and kept nowhere."""

    async def work(database: Database, one: App) -> dict[str, Any]:
        from ..gateway.scopes import ALL, SENDING
        from ..gateway.service_accounts import with_token_uri

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
        return {"id": key.id, "secret": secret, "scopes": sorted(key.scopes), "dialect": dialect}

    if file is not None and file.exists():
        raise InvalidInput("is there already", field="--file", remedy="Name a new file.")
    facts = run_for_app(store, app_id, work)
    if file is not None:
        write_private(file, facts.pop("secret"))
        facts["file"] = str(file)
    shared.screen.answer(facts, facts.get("file") or facts["secret"])
    if not shared.screen.json_mode:
        shared.screen.note(f"key {facts['id']}: keep the secret, it is not shown again")
    return ExitCode.OK


@app.command("list")
@command()
def list_keys(shared: Shared, app_id: AppOption, store: StoreOption = None) -> int:
    """Print the keys of an app, with when they were used last."""

    async def work(database: Database, one: App) -> list[dict[str, Any]]:
        keys, _ = _parts(database)
        found: list[dict[str, Any]] = []
        after = 0
        while page := await keys.page(one, after=after, limit=1_000):
            found += [_shown(key) for key in page]
            after = page[-1]["row"]
        return found

    found = run_for_app(store, app_id, work)
    if shared.screen.json_mode:
        shared.screen.answer({"keys": found}, "")
    else:
        shared.screen.table(
            ("id", "name", "dialect", "begins", "scopes", "used", "state"),
            [
                (
                    key["id"],
                    key["name"],
                    key["dialect"],
                    key["begins"],
                    len(key["scopes"]),
                    key["last_used_at"] or "never",
                    _state(key),
                )
                for key in found
            ],
        )
    return ExitCode.OK


@app.command("rotate")
@command()
def rotate(
    shared: Shared,
    key_id: KeyArgument,
    app_id: AppOption,
    overlap: Annotated[
        float, option("How long the old secret goes on.", "--overlap", "SECONDS")
    ] = 86_400.0,
    store: StoreOption = None,
) -> int:
    """Make a new secret in place of a key's, and print it."""

    async def work(database: Database, one: App) -> dict[str, Any]:
        keys, audit = _parts(database)
        key, secret = await keys.rotate(one, key_id, overlap=overlap)
        await audit.note(one, actor="cli", action="key.rotate", subject=key_id)
        return {"id": key.id, "secret": secret, "replaces": key_id}

    facts = run_for_app(store, app_id, work)
    shared.screen.answer(facts, facts["secret"])
    return ExitCode.OK


@app.command("revoke")
@command()
def revoke(
    shared: Shared, key_id: KeyArgument, app_id: AppOption, store: StoreOption = None
) -> int:
    """End a key. Gateways that run refuse it within five seconds."""

    async def work(database: Database, one: App) -> dict[str, Any]:
        keys, audit = _parts(database)
        await keys.revoke(one, key_id)
        await audit.note(one, actor="cli", action="key.revoke", subject=key_id)
        return {"id": key_id, "revoked": True}

    facts = run_for_app(store, app_id, work)
    shared.screen.answer(facts, f"{key_id} is revoked")
    return ExitCode.OK


def _parts(database: Database) -> tuple[Keys, Audit]:
    from ..clock import SystemClock
    from ..gateway.audit import Audit
    from ..gateway.keys import Keys

    clock = SystemClock()
    return Keys(database, clock, lambda: secrets.token_hex(8)), Audit(database, clock)


def _shown(key: dict[str, Any]) -> dict[str, Any]:
    from ..activities.times import to_text

    times = ("created_at", "last_used_at", "expires_at", "revoked_at")
    return {name: to_text(value) if name in times else value for name, value in key.items()}


def _state(key: dict[str, Any]) -> str:
    if key["revoked_at"]:
        return "revoked"
    if key["expires_at"]:
        return f"ends {key['expires_at']}"
    return "in use"
