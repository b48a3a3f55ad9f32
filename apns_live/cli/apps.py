"""``apns-live apps``: the apps of one installation and their provider keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, InvalidSetting, NotFound, StoreError
from .options import Shared, group
from .store_access import apps_of, stored

if TYPE_CHECKING:
    from ..activities.apps import App
    from ..activities.store.database import Database

app = group("Add apps and their provider keys to the service's database.")

_APP = "APP: Id of the app."
_KEY = """
--key-file FILE: The .p8 file of the provider key.
--key-id ID: The key's ten characters; read from AuthKey_XXXXXXXXXX.p8.
--team-id ID: The team's ten characters.
--for production|sandbox|any: Environments that the key is for.
"""


@app.command("add")
@stored(
    """
    --bundle-id ID: The app's bundle id, without a suffix.
    --name TEXT: Name of the app. [the bundle id]
    --id ID: Id of the app in the service. [a random one]
    --environment production|sandbox: Environment of tokens that do not name one.
    """,
    _KEY,
)
async def add(
    shared: Shared,
    database: Database,
    bundle_id: str,
    name: str | None = None,
    id_: str | None = None,
    environment: str = "production",
    key_file: Path | None = None,
    key_id: str | None = None,
    team_id: str | None = None,
    for_: str = "any",
) -> None:
    """Add an app and, with --key-file, its provider key."""
    key = _key(key_file, key_id, team_id) if key_file is not None else None
    apps = apps_of(database, sealed=key is not None)
    if key is not None:
        await _check_sealer(database)
    made = await apps.create(
        name=name or bundle_id, bundle_id=bundle_id, environment=environment, id=id_
    )
    if key is not None:
        await apps.add_key(made, **key, environment=for_)
    shared.screen.answer(await _facts(database, made), made.id)


@app.command("list")
@stored()
async def list_apps(shared: Shared, database: Database) -> None:
    """Print the apps."""
    found = [await _facts(database, one) for one in await apps_of(database).list()]
    shared.screen.rows(
        {"apps": found},
        ("id", "name", "bundle id", "environment", "keys"),
        [
            (one["id"], one["name"], one["bundle_id"], one["environment"], _keys(one))
            for one in found
        ],
    )


@app.command("show")
@stored(_APP)
async def show(shared: Shared, database: Database, one: App) -> None:
    """Print an app and its keys, and whether the sealing key decrypts them."""
    facts = await _facts(database, one, tried=True)
    lines = [
        f"{name.replace('_', ' ')}: {facts[name]}"
        for name in ("id", "name", "bundle_id", "environment", "settings")
    ]
    lines += [
        f"key {key['key_id']} of team {key['team_id']} for {key['environment']}: "
        f"{'in use' if key['active'] else 'replaced'}, {key['opens']}"
        for key in facts["keys"]
    ] or ["no provider key: add one with `apns-live apps add-key`"]
    shared.screen.answer(facts, "\n".join(lines))


@app.command("add-key")
@stored(_APP, _KEY)
async def add_key(
    shared: Shared,
    database: Database,
    one: App,
    key_file: Path | None = None,
    key_id: str | None = None,
    team_id: str | None = None,
    for_: str = "any",
) -> None:
    """Encrypt and store a provider key. It replaces the key of the same environment."""
    if key_file is None:
        raise InvalidInput("is missing", field="--key-file", remedy="Name the .p8 file.")
    key = _key(key_file, key_id, team_id)
    await _check_sealer(database)
    await apps_of(database, sealed=True).add_key(one, **key, environment=for_)
    shared.screen.answer(
        {"app": one.id, "key_id": key["key_id"], "environment": for_},
        f"{one.id} pushes with key {key['key_id']} ({for_})",
    )


@app.command("remove-key")
@stored(
    _APP,
    "KEY: The key's ten characters.",
    "--for production|sandbox|any: Only for this environment.",
)
async def remove_key(
    shared: Shared, database: Database, one: App, key_id: str, for_: str | None = None
) -> None:
    """Delete a provider key. Running services use it until they find another key or restart."""
    removed = await apps_of(database).remove_key(one, key_id, environment=for_)
    if not removed:
        raise NotFound(f"the app {one.id!r} has no such key {key_id!r}: see `apns-live apps show`")
    shared.screen.answer({"app": one.id, "key_id": key_id, "removed": removed}, "removed")


@app.command("contract")
@stored(
    """
    APP: Id of the app.
    FILE.swift...: Swift files of one version of the app.
    --app-version TEXT: Version of the app that the files belong to.
    --mode off|warn|refuse: What to do with a state that does not decode.
    --remove: Delete the contract of this version.
    """
)
async def contract(
    shared: Shared,
    database: Database,
    one: App,
    files: list[Path] | None = None,
    app_version: str = "1",
    mode: str = "refuse",
    remove: bool = False,
) -> None:
    """Check content states against the app's Swift source; see `apns-live contract`."""
    if remove == bool(files):
        raise InvalidInput("give Swift files, or --remove", field="FILE.swift")
    versions: dict[str, Any] = dict((one.settings.get("contract") or {}).get("versions", {}))
    versions.pop(app_version, None)
    if not remove:
        versions[app_version] = {file.name: file.read_text("utf-8") for file in files or ()}
    new = {"mode": mode, "versions": versions} if versions else None
    await apps_of(database).configure(one, {"contract": new})
    said = ", ".join(sorted(versions)) or "none"
    shared.screen.answer(
        {"app": one.id, "mode": mode, "versions": sorted(versions)},
        f"states of {one.id} are held to versions: {said} ({mode})",
    )


def _key(file: Path, key_id: str | None, team_id: str | None) -> dict[str, str]:
    from ..credentials import ProviderKey
    from ..keyfile import read_key_file

    if team_id is None:
        raise InvalidInput(
            "is missing", field="--team-id", remedy="Give the team's ten characters."
        )
    key = ProviderKey.from_file(file, team_id=team_id, key_id=key_id)
    pem = read_key_file(file).decode("utf-8", "replace")
    return {"pem": pem, "key_id": key.key_id, "team_id": key.team_id}


async def _facts(database: Database, one: App, *, tried: bool = False) -> dict[str, Any]:
    from ..activities.times import to_text

    keys = []
    for key in await apps_of(database).keys(one):
        opens = {"opens": await _opens(database, one, key)} if tried else {}
        keys.append({**key, "created_at": to_text(key["created_at"]), **opens})
    return {
        "id": one.id,
        "name": one.name,
        "bundle_id": one.bundle_id,
        "environment": one.environment,
        "settings": one.settings,
        "created_at": to_text(one.created_at),
        "keys": keys,
    }


async def _opens(database: Database, one: App, key: Mapping[str, Any]) -> str:
    """Say whether the sealing key opens a provider key."""
    try:
        await apps_of(database, sealed=True).open_key(one, key["key_id"], key["environment"])
    except InvalidSetting:
        return "no sealing key is set"
    except StoreError:
        return "does not open with the sealing key that is set"
    return "opens with the sealing key"


async def _check_sealer(database: Database) -> None:
    """Raise `StoreError` when stored keys were sealed with another key: one store, one key."""
    apps = apps_of(database, sealed=True)
    for one in await apps.list():
        for key in await apps.keys(one):
            await apps.open_key(one, key["key_id"], key["environment"])
            return


def _keys(facts: dict[str, Any]) -> str:
    active = [f"{key['key_id']} ({key['environment']})" for key in facts["keys"] if key["active"]]
    return ", ".join(active) or "none"
