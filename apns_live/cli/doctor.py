"""``apns-live doctor``: diagnoses why pushes cannot be sent, or why a phone shows nothing."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

from ..clock import SystemClock
from ..contracts import Contract
from ..errors import (
    ApnsLiveError,
    ConnectFailed,
    CredentialError,
    InvalidInput,
    InvalidKey,
    InvalidSetting,
    NotFound,
    PoolFull,
    StoreError,
)
from ..explain import Finding, find, finding
from ..payload import Update
from ..reasons import TABLE, normalise
from .options import CONNECTION, Shared, bundle, command
from .output import ExitCode
from .store_access import STORE, apps_of, named_address, opened

if TYPE_CHECKING:
    from ..pool.endpoint import Endpoint
    from ..settings import Settings

PATIENCE = 10.0
"""Seconds for each connection, and for the answer to the test push."""
DEAD_TOKEN = "00" * 32
"""A well-formed token of no device. APNs checks the credentials first (seen on the sandbox)."""
LONG_AGO = 1_000_000_000
"""The timestamp of a test push to a real token: a phone ignores updates older than the one it shows."""

_CLOCK = "Set this machine's clock (NTP): a provider token may be an hour off at most."
_KEY = (
    "Key file, key id and team id must belong together, and the key must not be revoked: compare "
    "them with Keys in Apple's developer portal. A clock that is over an hour off looks the same: "
    f"{_CLOCK}"
)
_REASONS = {
    "InvalidProviderToken": ("key", _KEY),
    "MissingProviderToken": ("key", "A proxy may strip the authorization header."),
    "ExpiredProviderToken": ("clock", _CLOCK),
    "Forbidden": ("key", _KEY),
    "BadEnvironmentKeyIdInToken": ("environment", ""),
    "BadEnvironmentKeyInToken": ("environment", ""),
    "TopicDisallowed": ("topic", ""),
    "TopicMismatch": ("topic", ""),
    "BadTopic": ("topic", ""),
}
_OF_TOKEN = {"BadDeviceToken", "Unregistered", "ExpiredToken", "DeviceTokenNotForTopic"}


_OPTIONS = bundle(
    """
    --token TOKEN: Check this token at APNs, with a push that every phone ignores.
    --contract FILE: Swift file of the app; repeatable.
    --state TYPE=JSON: Check whether this content state decodes; also TYPE=@FILE.
    --app ID: App of the device.
    --device ID: Find out why this device shows nothing.
    --fake URL: Read the device from the inspector of a fake instead of a database.
    """,
    token=str,
    contract=list[Path],
    state=str,
    app=str,
    device=str,
    fake=str,
)


@command(_OPTIONS, STORE, CONNECTION)
def doctor(shared: Shared) -> int:
    """Check settings, key, clock, DNS, TCP, TLS, proxy, credentials, database, and a device.

    No phone shows anything. Exit code 0: no problem; 1: a check found problems; 3: APNs cannot be
    reached, or refused key, team or topic.
    """
    findings: list[Finding] = []

    async def examine() -> None:
        of_device = shared.others["device"] is not None or shared.others["fake"] is not None
        async for found in (_device if of_device else _examine)(shared):
            findings.append(found)
            mark = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}[found.state]
            shared.line(f"{mark} {found.check}: {found.said}")
            if found.remedy and found.state != "ok":
                shared.line(f"     {found.remedy}")

    asyncio.run(examine())
    failed = [found for found in findings if found.state == "fail"]
    shared.answer({"ok": not failed, "findings": [found._asdict() for found in findings]})
    if not failed:
        return ExitCode.OK
    ways = {"dns", "tcp", "tls", "alpn", "proxy", "key", "clock", "environment", "topic", "push"}
    return ExitCode.NO_WAY if ways & {each.check for each in failed} else ExitCode.NOT_ACCEPTED


async def _device(shared: Shared) -> AsyncIterator[Finding]:
    """Diagnose a device. Raises `NotFound`, `StoreError`, `InvalidInput`, `InvalidSetting`."""
    app, device, fake = (shared.others[name] for name in ("app", "device", "fake"))
    if device is None or (fake is None and app is None):
        remedy = "Give --app ID --device ID for a database, or --fake URL --device ID."
        raise InvalidInput("needs --device, and --app or --fake", "--device", remedy)
    if fake is not None:
        for found in _by_fake(fake, device):
            yield found
        return
    from ..activities.core import Core
    from ..activities.people.devices import Devices
    from ..activities.read.diagnosis import diagnose
    from ..activities.times import milliseconds

    clock = SystemClock()
    async with opened(shared.others["store"]) as database:
        people, one = Devices(Core(database, clock)), await apps_of(database).get(app)
        found_by = await diagnose(database, people, one, device, milliseconds(clock))
    for found in found_by:
        yield found


async def _examine(shared: Shared) -> AsyncIterator[Finding]:
    contract, state, token = (shared.others[name] for name in ("contract", "state", "token"))
    if state is not None or contract:
        yield _decodes(contract, state or "")
        if token is None and not shared.arguments:
            return
    from ..pool.endpoint import ENVIRONMENTS

    try:
        settings = shared.settings()
        key = settings.provider_key()
        yield Finding("key", "ok", f"key {key.key_id} of team {key.team_id} signs")
        named = settings.endpoint()
        endpoint = ENVIRONMENTS[named] if isinstance(named, str) else named
        arguments = settings.client_arguments()
    except ApnsLiveError as error:
        about = str(getattr(error, "field", "")).startswith(("key", "team_id"))
        check = "key" if about or isinstance(error, InvalidKey | CredentialError) else "settings"
        yield Finding(check, "fail", str(error), getattr(error, "remedy", ""))
        return
    # Pushes need the first connection only.
    doors = [(endpoint.host, endpoint.port)]
    if endpoint.host.endswith(".push.apple.com"):
        doors.append((endpoint.host, 2197 if endpoint.port == 443 else 443))
    reached = False
    for number, (host, port) in enumerate([*doors, endpoint.management]):
        place = replace(endpoint, host=host, port=port)
        found = await _connection(settings, place, needed=number == 0)
        reached = reached or (number == 0 and found.state == "ok")
        yield found
    if reached:
        yield await _push(arguments, DEAD_TOKEN)
        if token is not None:
            yield await _push(arguments, token, real=True)
    if (address := named_address(shared.others["store"])) is not None:
        yield await _store(address)


# --- without the network


def _decodes(files: list[Path] | None, text: str) -> Finding:
    name, equals, value = text.partition("=")
    if not files or not equals:
        remedy = "Give --contract MatchAttributes.swift --state 'MatchAttributes={...}'."
        raise InvalidInput("must be given together", "--contract and --state", remedy)
    document = Path(value[1:]).read_text("utf-8") if value.startswith("@") else value
    verdict = Contract.read(*files).check(name, document)
    if verdict.ok:
        return Finding("state", "ok", f"the app decodes this {name}")
    state: Literal["warn", "fail"] = "fail" if verdict.ok is False else "warn"
    remedy = "APNs would answer 200, and the phone show nothing. Change state or Swift type."
    return Finding("state", state, f"{name}: {verdict.message}", remedy)


# --- connecting to APNs


async def _connection(settings: Settings, endpoint: Endpoint, *, needed: bool) -> Finding:
    from ..pool.connect import Connector, Proxy, make_ssl_context

    where = f"{endpoint.host}:{endpoint.port}"
    try:
        context = make_ssl_context(endpoint.ca_file)
        proxy = None if settings.proxy is None else Proxy.from_url(settings.proxy)
        connector = Connector(endpoint, ssl_context=context, proxy=proxy)
        probe = _Probe()
        async with asyncio.timeout(PATIENCE):
            peer = await connector.open(lambda: probe)
    except TimeoutError:
        check, remedy = "tcp", _closed(endpoint.port)
        said = f"{where} did not answer within {PATIENCE:g} s"
    except ssl.SSLError as error:
        check, said = "tls", f"{where}: {error}"
        remedy = "Let ca_file name a PEM file with the certificates to trust."
    except ConnectFailed as error:
        (check, remedy), said = _blame(error, endpoint), str(error)
    else:
        probe.transport.abort()
        way = "" if proxy is None else f" through the proxy {proxy.host}:{proxy.port}"
        return Finding("tls", "ok", f"{where} ({peer}){way} speaks TLS and HTTP/2")
    if needed:
        return Finding(check, "fail", said, remedy)
    purpose = "channel management" if endpoint.port not in {443, 2197} else "nothing yet"
    return Finding(check, "warn", f"{said} (needed for {purpose} only)", remedy)


class _Probe(asyncio.Protocol):
    """A connection that sends nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)


def _closed(port: int) -> str:
    other = {443: " Apple serves 2197 as well.", 2197: " Apple serves 443 as well."}.get(port, "")
    return f"Open port {port} for outgoing connections in the firewall, or check that a server is there.{other}"


def _blame(error: ConnectFailed, endpoint: Endpoint) -> tuple[str, str]:
    """Return the failed step and the remedy."""
    host, port = endpoint.host, endpoint.port
    step = str(error).partition(":")[0].partition(" ")[0].lower()
    remedies = {
        "dns": f"Check the name {host} and this machine's resolver.",
        "tcp": _closed(port),
        "alpn": "Go around the proxy or load balancer that opens TLS: APNs needs HTTP/2 end to end.",
        "proxy": f"Let the proxy open CONNECT to {host}:{port}, give it user:password@ if it asks, or "
        "leave proxy out.",
    }
    if step in remedies:
        return step, remedies[step]
    cause = error.__cause__
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return "tls", "Something that speaks no TLS answers there: check host, port and proxies."
    why = cause.verify_message.lower()
    if "expired" in why or "not yet valid" in why:
        return "tls", f"The certificate's time is not now: renew it, or check the clock. {_CLOCK}"
    if "mismatch" in why:
        return "tls", f"The certificate is for another name than {host}: connect by its name."
    return "tls", (
        "The server's authority is not trusted here. For Apple the system's roots must have USERTrust "
        "RSA; for a fake, or behind a proxy that opens TLS, name its CA with ca_file."
    )


# --- the credentials


async def _push(arguments: dict[str, Any], token: str, *, real: bool = False) -> Finding:
    """Send a test push. APNs' answer shows whether the credentials work, then whether a ``real`` token does."""
    from ..client import Client

    about = "token" if real else "push"
    message = Update(content_state={}, timestamp=LONG_AGO, priority=5, expiration=0)
    try:
        async with Client(**arguments) as client:
            outcome = await client.send(message, token, deadline=PATIENCE)
    except (InvalidInput, PoolFull) as error:
        return Finding(about, "fail", str(error), getattr(error, "remedy", ""))
    reason = normalise(outcome.reason)
    row, more = TABLE.get(reason), find(reason)
    if outcome.accepted and real:
        said = "APNs takes pushes to this token; that does not prove that a phone shows them"
        return Finding(about, "ok", said)
    if outcome.accepted or (not real and reason in _OF_TOKEN):
        said = f"APNs knows key, team and {arguments['bundle_id']} (it answered {reason or 200})"
        return Finding(about, "ok", said)
    check, remedy = _REASONS.get(reason, (about, ""))
    if real and more is not None and row is not None:
        remedy = f"{row.remedy} {more.remedy}"
    if row is None:
        said = outcome.reason or outcome.detail or outcome.verdict.value
        return Finding(check, "fail", f"no usable answer: {said}", "See apns-live explain.")
    said = f"{outcome.status} {outcome.reason}: {row.meaning}"
    return Finding(check, "fail", said, remedy or row.remedy)


# --- the database


async def _store(address: str) -> Finding:
    path = re.sub(r"^sqlite(\+\w+)?:///", "", address)
    try:
        # With mode=rw nothing is created where there is no file, or where the address is PostgreSQL's.
        there = f"file:{quote(path)}?mode=rw"
        with contextlib.closing(sqlite3.connect(there, timeout=1.0, uri=True)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            remedy = (
                "Another process holds a transaction open: end it (a backup, a shell), and let one "
                "process alone send from an SQLite file; several need PostgreSQL."
            )
            return Finding("store", "fail", f"{path} is locked", remedy)
    try:
        async with opened(address) as database:
            return Finding("store", "ok", f"{database!r} is of this release")
    except (StoreError, InvalidSetting) as error:
        remedy = getattr(error, "remedy", "") or "Do what the message says."
        return Finding("store", "fail", str(error), remedy)
    except ModuleNotFoundError as error:
        remedy = "pip install 'apns-live[service]'"
        return Finding("store", "fail", f"no module named {error.name!r}", remedy)


# --- a device of a fake


def _by_fake(url: str, device: str) -> Iterator[Finding]:
    """Ask a fake's inspector. Raises `InvalidInput` when it cannot be asked, `NotFound`."""
    import httpx

    try:
        with httpx.Client(base_url=url, timeout=10.0, trust_env=False) as client:
            if (answer := client.get(f"/v1/devices/{device}")).status_code == 404:
                raise NotFound(f"the fake has no phone {device!r}")
            phone = answer.raise_for_status().json()
            query: dict[str, str | int] = {"device": device, "newest": 1, "limit": 100}
            pushes = client.get("/v1/pushes", params=query).raise_for_status().json()["items"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        remedy = "Give the inspector's URL, as apns-live fake prints it."
        raise InvalidInput(f"cannot be asked: {error}", "--fake", remedy) from None
    if not phone["live_activities_enabled"]:
        yield finding("switches", "disabled", "Live Activities are switched off")
    if not phone["online"]:
        yield Finding("network", "warn", "the phone has no network", "What is stored comes later.")
    if phone["consent"] == "deny":
        yield finding("consent", "denied", "its owner answered Don't Allow")
    starts = phone["start_budget"]
    if starts and starts["remaining"] < 1:
        said = f"{starts['remaining']} of {starts['capacity']} push-to-starts are left"
        yield finding("start budget", "start budget", said)
    for activity in phone["activities"]:
        name = f"{activity['attributes_type'] or 'card'} {activity['id']}"
        if activity["asks"]:
            said = f"{name} waits for its owner's consent, so no activity token came"
            yield finding("token", "no token", said)
        budget = activity["budget"]
        if budget and budget["remaining"] < 1 and activity["state"] == "active":
            said = f"{name}: 0 of {budget['capacity']} pushes of priority 10 are left"
            yield finding("budget", "budget", said)
        if activity["stale"]:
            yield finding("stale", "stale", f"{name}: its stale date has passed")
    if any(not token["told"] for token in phone["tokens"]):
        said = "the phone has a new push-to-start token, and the app's stream kept quiet about it"
        yield finding("start token", "dead start token", said)
    explained: set[str] = set()
    for push in pushes:
        word = push["explain"]
        if not word or word in explained or push["why"] == "budget":
            continue
        explained.add(word)
        start = word == "silent token" and push["event"] == "start"
        check, word = ("start token", "dead start token") if start else ("push", word)
        detail = f" ({push['detail']})" if push["detail"] else ""
        said = f"push {push['number']} ({push['event'] or push['push_type']}) was ignored"
        yield finding(check, word, f"{said}: {push['explain']}{detail}")
    shown = sum(each["state"] == "active" for each in phone["activities"])
    said = f"{device} shows {shown} running cards, {len(pushes)} pushes seen"
    yield Finding("phone", "ok", said)
