"""``apns-live apps`` and ``apns-live keys``: apps, their provider keys, and the gateway's API keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clock import SystemClock
from ..errors import InvalidInput, InvalidSetting, NotFound, StoreError
from .files import write_private
from .options import bundle, group
from .output import spoken
from .store_access import APP_ARGUMENT, Stored, apps_of, dated, new_id, stored

if TYPE_CHECKING:
    from ..activities.apps import App
    from ..activities.store.database import Database
    from ..gateway.keys import Keys

app = group("Add apps and their provider keys to the service's database.")
keys = group("Make, list, rotate and revoke API keys of the gateway.")

_KEY = bundle(
    """
    --key-file FILE: The .p8 file of the provider key.
    --key-id ID: The key's ten characters; read from AuthKey_XXXXXXXXXX.p8.
    --team-id ID: The team's ten characters.
    --for production|sandbox|any: Environments that the key is for.
    """,
    **{"key_file": Path, "key_id": str, "team_id": str, "for": "any"},
)


@app.command("add")
@stored(
    """
    --bundle-id ID: The app's bundle id, without a suffix.
    --name TEXT: Name of the app. [the bundle id]
    --id ID: Id of the app in the service. [a random one]
    --environment production|sandbox: Environment of tokens that do not name one.
    """,
    _KEY,
    app=(),
)
async def add(
    shared: Stored,
    bundle_id: str,
    name: str | None = None,
    id_: str | None = None,
    environment: str = "production",
) -> None:
    """Add an app and, with --key-file, its provider key."""
    key = await _key(shared) if shared.others["key_file"] is not None else None
    apps = apps_of(shared.database, sealed=key is not None)
    made = await apps.create(
        name=name or bundle_id, bundle_id=bundle_id, environment=environment, id=id_
    )
    if key is not None:
        await apps.add_key(made, **key)
    shared.answer(await _facts(shared.database, made), made.id)


@app.command("list")
@stored(app=())
async def list_apps(shared: Stored) -> None:
    """Print the apps."""
    found = [await _facts(shared.database, one) for one in await apps_of(shared.database).list()]
    rows = []
    for one in found:
        active = [f"{key['key_id']} ({key['environment']})" for key in one["keys"] if key["active"]]
        plain = one["id"], one["name"], one["bundle_id"], one["environment"]
        rows.append((*plain, ", ".join(active) or "none"))
    shared.rows({"apps": found}, ("id", "name", "bundle id", "environment", "keys"), rows)


@app.command("show")
@stored(app=APP_ARGUMENT)
async def show(shared: Stored) -> None:
    """Print an app and its keys, and whether the sealing key decrypts them."""
    facts = await _facts(shared.database, shared.app)
    lines = []
    for key in facts["keys"]:
        try:
            apps = apps_of(shared.database, sealed=True)
            await apps.open_key(shared.app, key["key_id"], key["environment"])
            key["opens"] = "opens with the sealing key"
        except InvalidSetting:
            key["opens"] = "no sealing key is set"
        except StoreError:
            key["opens"] = "does not open with the sealing key that is set"
        used = "in use" if key["active"] else "replaced"
        whose = f"key {key['key_id']} of team {key['team_id']} for {key['environment']}"
        lines.append(f"{whose}: {used}, {key['opens']}")
    none = ["no provider key: add one with `apns-live apps add-key`"]
    shared.answer(facts, *spoken(facts, "created_at", "keys"), *(lines or none))


@app.command("add-key")
@stored(_KEY, app=APP_ARGUMENT)
async def add_key(shared: Stored) -> None:
    """Encrypt and store a provider key. It replaces the key of the same environment."""
    if shared.others["key_file"] is None:
        raise InvalidInput("is missing", "--key-file", "Name the .p8 file.")
    key = await _key(shared)
    await apps_of(shared.database, sealed=True).add_key(shared.app, **key)
    facts = {"app": shared.app.id, "key_id": key["key_id"], "environment": key["environment"]}
    shared.answer(facts, f"{shared.app.id} pushes with key {key['key_id']} ({key['environment']})")


@app.command("remove-key")
@stored(
    "KEY: The key's ten characters.",
    "--for production|sandbox|any: Only for this environment.",
    app=APP_ARGUMENT,
)
async def remove_key(shared: Stored, key_id: str, for_: str | None = None) -> None:
    """Delete a provider key. Running services use it until they find another key or restart."""
    one = shared.app
    if not (removed := await apps_of(shared.database).remove_key(one, key_id, environment=for_)):
        raise NotFound(f"the app {one.id!r} has no such key {key_id!r}: see `apns-live apps show`")
    shared.answer({"app": one.id, "key_id": key_id, "removed": removed}, "removed")


@app.command("contract")
@stored(
    """
    FILE.swift...: Swift files of one version of the app.
    --app-version TEXT: Version of the app that the files belong to.
    --mode off|warn|refuse: What to do with a state that does not decode.
    --remove: Delete the contract of this version.
    """,
    app=APP_ARGUMENT,
)
async def contract(
    shared: Stored,
    files: list[Path] | None = None,
    app_version: str = "1",
    mode: str = "refuse",
    remove: bool = False,
) -> None:
    """Check content states against the app's Swift source; see `apns-live contract`."""
    if remove == bool(files):
        raise InvalidInput("give Swift files, or --remove", "FILE.swift")
    one = shared.app
    versions: dict[str, Any] = dict((one.settings.get("contract") or {}).get("versions", {}))
    versions.pop(app_version, None)
    if not remove:
        versions[app_version] = {file.name: file.read_text("utf-8") for file in files or ()}
    new = {"mode": mode, "versions": versions} if versions else None
    await apps_of(shared.database).configure(one, {"contract": new})
    said = ", ".join(sorted(versions)) or "none"
    facts = {"app": one.id, "mode": mode, "versions": sorted(versions)}
    shared.answer(facts, f"states of {one.id} are held to versions: {said} ({mode})")


async def _key(shared: Stored) -> dict[str, str]:
    """Return the arguments of `Apps.add_key`, from the options of a provider key.

    Raises `InvalidInput`, `InvalidKey`, and `StoreError` if the stored keys are encrypted with another
    sealing key.
    """
    from ..credentials import ProviderKey
    from ..keyfile import read_key_file

    file, team_id = shared.others["key_file"], shared.others["team_id"]
    if team_id is None:
        raise InvalidInput("is missing", "--team-id", "Give the team's ten characters.")
    key = ProviderKey.from_file(file, team_id=team_id, key_id=shared.others["key_id"])
    facts = {"key_id": key.key_id, "team_id": team_id, "environment": shared.others["for_"]}
    apps = apps_of(shared.database, sealed=True)
    for one in await apps.list():
        if kept := await apps.keys(one):
            await apps.open_key(one, kept[0]["key_id"], kept[0]["environment"])
            break
    return {"pem": read_key_file(file).decode("utf-8", "replace"), **facts}


async def _facts(database: Database, one: App) -> dict[str, Any]:
    names = ("id", "name", "bundle_id", "environment", "settings", "created_at")
    facts = dated({name: getattr(one, name) for name in names})
    return facts | {"keys": [dated(key) for key in await apps_of(database).keys(one)]}


# --- API keys


@keys.command("create")
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
    shared: Stored,
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
    from ..gateway.keys import with_token_uri
    from ..gateway.scopes import ALL, SENDING

    _check_new(file)
    key, secret = await _api_keys(shared).create(
        shared.app,
        dialect=dialect,
        scopes=ALL if every_scope else scope or (SENDING if dialect == "fcm" else ()),
        groups=group,
        name=name,
        per_minute=per_minute,
        concurrent=concurrent,
    )
    if key.dialect == "fcm":
        secret = with_token_uri(secret, url)
    await _record(shared, "create", key.id)
    facts: dict[str, Any] = {"id": key.id} | ({"secret": secret} if file is None else {})
    facts |= {"scopes": sorted(key.scopes), "dialect": dialect}
    if file is not None:
        write_private(file, secret)
        facts["file"] = str(file)
    shared.answer(facts, facts.get("file", secret))
    if not shared.json_mode:
        shared.note(f"key {key.id}: keep the secret, it is not shown again")


@keys.command("list")
@stored()
async def list_keys(shared: Stored) -> None:
    """Print the keys of an app, with the time of their last use."""
    found: list[dict[str, Any]] = []
    after = 0
    while page := await _api_keys(shared).page(shared.app, after=after, limit=1_000):
        found += [dated(key) for key in page]
        after = page[-1]["row"]
    columns = ("id", "name", "dialect", "begins", "scopes", "used", "state")
    rows = []
    for key in found:
        ends = f"ends {key['expires_at']}" if key["expires_at"] else "in use"
        used, state = key["last_used_at"] or "never", "revoked" if key["revoked_at"] else ends
        rows.append([*(key[name] for name in columns[:4]), len(key["scopes"]), used, state])
    shared.rows({"keys": found}, columns, rows)


@keys.command("rotate")
@stored("KEY: Id of the key.", "--overlap SECONDS: How long the old secret still works.")
async def rotate(shared: Stored, key_id: str, overlap: float = 86_400.0) -> None:
    """Create a new secret for a key, and print it."""
    key, secret = await _api_keys(shared).rotate(shared.app, key_id, overlap=overlap)
    await _record(shared, "rotate", key_id)
    shared.answer({"id": key.id, "secret": secret, "replaces": key_id}, secret)


@keys.command("revoke")
@stored("KEY: Id of the key.")
async def revoke(shared: Stored, key_id: str) -> None:
    """Revoke a key. Running gateways refuse it within five seconds."""
    await _api_keys(shared).revoke(shared.app, key_id)
    await _record(shared, "revoke", key_id)
    shared.answer({"id": key_id, "revoked": True}, f"{key_id} is revoked")


def _check_new(file: Path | None) -> None:
    if file is not None and file.exists():
        raise InvalidInput("is there already", "--file", "Name a new file.")


def _api_keys(shared: Stored) -> Keys:
    from ..gateway.keys import Keys

    return Keys(shared.database, SystemClock(), new_id)


async def _record(shared: Stored, action: str, key_id: str) -> None:
    """Write an audit log entry for a change to an API key."""
    from ..gateway.audit import Audit

    audit = Audit(shared.database, SystemClock())
    await audit.note(shared.app, actor="cli", action=f"key.{action}", subject=key_id)
