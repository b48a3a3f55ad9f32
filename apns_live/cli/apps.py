"""``apns-live apps``: the apps of one installation and their provider keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidInput, NotFound
from .options import Shared, command, group, option
from .output import ExitCode
from .store_access import StoreOption, apps_of, run, run_for_app

if TYPE_CHECKING:
    from ..activities.apps import App
    from ..activities.store.database import Database

app = group("Add apps and their provider keys to the service's database.")

AppArgument = Annotated[str, typer.Argument(metavar="APP", help="Id of the app.")]
KeyFile = Annotated[Path | None, option("The .p8 file of the provider key.", "--key-file", "FILE")]
KeyId = Annotated[
    str | None,
    option("The key's ten characters; read from AuthKey_XXXXXXXXXX.p8.", "--key-id", "ID"),
]
TeamId = Annotated[str | None, option("The team's ten characters.", "--team-id", "ID")]
KeyFor = Annotated[str, option("Which APNs the key serves.", "--for", "production|sandbox|any")]


@app.command("add")
@command()
def add(
    shared: Shared,
    bundle_id: Annotated[
        str, option("The app's bundle id, without a suffix.", "--bundle-id", "ID")
    ],
    name: Annotated[
        str | None, option("A name; the bundle id if absent.", "--name", "TEXT")
    ] = None,
    app_id: Annotated[str | None, option("Its id here; made up if absent.", "--id", "ID")] = None,
    environment: Annotated[
        str,
        option(
            "Where tokens belong that do not say it themselves.",
            "--environment",
            "production|sandbox",
        ),
    ] = "production",
    key_file: KeyFile = None,
    key_id: KeyId = None,
    team_id: TeamId = None,
    key_for: KeyFor = "any",
    store: StoreOption = None,
) -> int:
    """Add an app, and with --key-file its provider key."""
    key = _key(key_file, key_id, team_id) if key_file is not None else None

    async def work(database: Database) -> dict[str, Any]:
        apps = apps_of(database, sealed=key is not None)
        if key is not None:
            await _check_sealer(database)
        made = await apps.create(
            name=name or bundle_id, bundle_id=bundle_id, environment=environment, id=app_id
        )
        if key is not None:
            await apps.add_key(made, **key, environment=key_for)
        return await _facts(database, made)

    facts = run(store, work)
    shared.screen.answer(facts, facts["id"])
    return ExitCode.OK


@app.command("list")
@command()
def list_apps(shared: Shared, store: StoreOption = None) -> int:
    """Print the apps."""

    async def work(database: Database) -> list[dict[str, Any]]:
        return [await _facts(database, one) for one in await apps_of(database).list()]

    found = run(store, work)
    if shared.screen.json_mode:
        shared.screen.answer({"apps": found}, "")
    else:
        shared.screen.table(
            ("id", "name", "bundle id", "environment", "keys"),
            [
                (one["id"], one["name"], one["bundle_id"], one["environment"], _keys(one))
                for one in found
            ],
        )
    return ExitCode.OK


@app.command("show")
@command()
def show(shared: Shared, app_id: AppArgument, store: StoreOption = None) -> int:
    """Print an app and its keys, and whether the sealing key that is set opens them."""

    async def work(database: Database, one: App) -> dict[str, Any]:
        return await _facts(database, one, tried=True)

    facts = run_for_app(store, app_id, work)
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
    return ExitCode.OK


@app.command("add-key")
@command()
def add_key(
    shared: Shared,
    app_id: AppArgument,
    key_file: KeyFile = None,
    key_id: KeyId = None,
    team_id: TeamId = None,
    key_for: KeyFor = "any",
    store: StoreOption = None,
) -> int:
    """Seal a provider key and store it; it replaces the one that served the same APNs."""
    if key_file is None:
        raise InvalidInput("is missing", field="--key-file", remedy="Name the .p8 file.")
    key = _key(key_file, key_id, team_id)

    async def work(database: Database, one: App) -> dict[str, Any]:
        apps = apps_of(database, sealed=True)
        await _check_sealer(database)
        await apps.add_key(one, **key, environment=key_for)
        return {"app": one.id, "key_id": key["key_id"], "environment": key_for}

    facts = run_for_app(store, app_id, work)
    shared.screen.answer(facts, f"{facts['app']} pushes with key {facts['key_id']} ({key_for})")
    return ExitCode.OK


@app.command("remove-key")
@command()
def remove_key(
    shared: Shared,
    app_id: AppArgument,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's ten characters.")],
    key_for: Annotated[str | None, option("Only there.", "--for", "production|sandbox|any")] = None,
    store: StoreOption = None,
) -> int:
    """Delete a provider key. A service that runs goes on with it until it is restarted."""

    async def work(database: Database, one: App) -> int:
        return await apps_of(database).remove_key(one, key_id, environment=key_for)

    removed = run_for_app(store, app_id, work)
    if not removed:
        raise NotFound(f"the app {app_id!r} has no such key {key_id!r}: see `apns-live apps show`")
    shared.screen.answer({"app": app_id, "key_id": key_id, "removed": removed}, "removed")
    return ExitCode.OK


@app.command("contract")
@command()
def contract(
    shared: Shared,
    app_id: AppArgument,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Swift files of one version of the app.", metavar="FILE.swift..."),
    ] = None,
    version: Annotated[
        str, option("Which version the files are of.", "--app-version", "TEXT")
    ] = "1",
    mode: Annotated[str, option("What a bad state meets.", "--mode", "off|warn|refuse")] = "refuse",
    remove: Annotated[
        bool, option("Forget this version: nobody runs it any more.", "--remove")
    ] = False,
    store: StoreOption = None,
) -> int:
    """Hold content states to the app's Swift source; see `apns-live contract`."""
    if remove == bool(files):
        raise InvalidInput("give Swift files, or --remove", field="FILE.swift")

    async def work(database: Database, one: App) -> dict[str, Any]:
        setting = one.settings.get("contract") or {}
        versions: dict[str, Any] = dict(setting.get("versions", {}))
        versions.pop(version, None)
        if not remove:
            versions[version] = {file.name: file.read_text("utf-8") for file in files or ()}
        new = {"mode": mode, "versions": versions} if versions else None
        await apps_of(database).configure(one, {"contract": new})
        return {"app": one.id, "mode": mode, "versions": sorted(versions)}

    facts = run_for_app(store, app_id, work)
    said = ", ".join(facts["versions"]) or "none"
    shared.screen.answer(facts, f"states of {app_id} are held to versions: {said} ({mode})")
    return ExitCode.OK


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

    keys = await apps_of(database).keys(one)
    opens = await _opens(database, one) if tried and keys else {}
    return {
        "id": one.id,
        "name": one.name,
        "bundle_id": one.bundle_id,
        "environment": one.environment,
        "settings": one.settings,
        "created_at": to_text(one.created_at),
        "keys": [
            {
                **key,
                "created_at": to_text(key["created_at"]),
                **({"opens": opens[key["key_id"], key["environment"]]} if tried else {}),
            }
            for key in keys
        ],
    }


async def _opens(database: Database, one: App) -> dict[tuple[str, str], str]:
    """Say of each key whether the sealing key opens it."""
    from ..errors import InvalidSetting, StoreError

    said: dict[tuple[str, str], str] = {}
    plain = apps_of(database)
    for key in await plain.keys(one):
        place = key["key_id"], key["environment"]
        try:
            await apps_of(database, sealed=True).open_key(one, *place)
            said[place] = "opens with the sealing key"
        except InvalidSetting:
            said[place] = "no sealing key is set"
        except StoreError:
            said[place] = "does not open with the sealing key that is set"
    return said


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
