"""Runs gateway, fake APNs and inspector, with one app, five phones and a key for each API.

The gateway uses the fake over the network, like Apple's APNs. This module also simulates the app on
the phones: it registers the phones' tokens with the gateway, with a device credential that the
caller's server (simulated here with the native key) requested. It adds the panel Calls to the inspector.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..activities import Service
from ..activities.apps import App
from ..client import Endpoint
from ..contracts import Contract
from ..contracts.generate import example
from ..gateway import create_app
from ..gateway.keys import Keys, with_token_uri
from ..gateway.scopes import ALL, SENDING
from ..testing import FakeApns
from ..testing.control import serve_control
from ..testing.phones import Activity, Token
from ..testing.phones.decoding import as_json
from ..testing.serve import facts_of
from .files import write_private
from .store_access import KEY_FILE, Place, embedded_database, sealer

BUNDLE_ID = "com.example.demo"
GROUP = "demo"
PHONES = 5
PROJECT = "demo-project"
_FILE = "try.db"
_EVERYONE = {
    "or": [{"field": "push_enabled", "relation": "=", "value": is_on} for is_on in (True, False)]
}


@contextlib.asynccontextmanager
async def trying(place: Place) -> AsyncIterator[dict[str, Any]]:
    """Run everything in a directory; yields the ready line's facts."""
    directory = place.directory or Path()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        contract = Contract.read(*place.contract) if place.contract else None
        demo = demo_values(contract)
        kept = directory / "fake"
        fake = await enter(
            FakeApns(directory=kept, bundle_id=BUNDLE_ID, devices="strict", contract=contract)
        )
        endpoint = Endpoint(**fake.endpoint._asdict())
        if place.database is None:
            # A new fake does not know the tokens in an old database.
            for name in (_FILE, f"{_FILE}-wal", f"{_FILE}-shm"):
                (directory / name).unlink(missing_ok=True)
        address = await embedded_database(place.database, directory, file=_FILE)
        sealing = sealer(directory / KEY_FILE, create=True)
        places = {"production": endpoint, "sandbox": endpoint}
        service = await enter(
            Service.open(address, sealing=sealing, endpoints=places, settings=place.service)
        )
        app = create_app(service, settings=place.settings)
        one, segment, keys, account = await _seed(service, fake, place.contract, demo["type"])
        calls = Calls(app)
        stack.push_async_callback(calls.aclose)
        inspector = await enter(serve_control(fake, beside=calls.routes))
        home = RedirectResponse(inspector + "/")
        app.router.routes[:0] = [Route(path, lambda _: home) for path in ("/", "/try")]
        url = await enter(place.serving(calls, app.state.gateway))
        account_file = directory / "service-account.json"
        write_private(account_file, with_token_uri(account, url))
        phones = await enter(_Phones(url, fake, keys["native"], demo["type"]))
        await phones.make(PHONES)
        calls.open(url, keys, demo | {"app": one.id, "segment": segment})
        yield {
            "url": url,
            "inspector": inspector,
            "app_id": one.id,
            "onesignal_app_id": one.id,
            "bundle_id": BUNDLE_ID,
            "segment_id": segment,
            "keys": keys,
            "fcm": {"project_id": PROJECT, "service_account": str(account_file)},
            "fake": facts_of(fake, inspector),
        }


async def _seed(
    service: Service, fake: FakeApns, files: tuple[Path, ...], attributes_type: str
) -> tuple[App, str, dict[str, str], str]:
    """Create the app, its provider key, users, a segment, a group, API keys and an FCM account."""
    app = await service.apps.create(
        id=str(uuid.uuid4()),
        name="Demo",
        bundle_id=BUNDLE_ID,
        environment="sandbox",
        # The phones' OneSignal calls have no key, and only this machine can make them.
        settings={
            "onesignal_device_calls": "demo",
            "fcm_project_id": PROJECT,
            "activitysmith": {"attributes_type": attributes_type, "metrics_on_demand": True},
        },
    )
    if files:
        sources = {file.name: file.read_text("utf-8") for file in files}
        app = await service.apps.configure(app, {"contract": {"versions": {"1": sources}}})
    await service.apps.add_key(
        app, fake.key_file.read_text(), key_id=fake.key_id, team_id=fake.team_id, environment="any"
    )
    await service.people.add_group(app, GROUP, name="Demo")
    for number in range(1, PHONES + 1):
        user = f"user-{number}"
        await service.people.add_user(app, user)
        await service.people.join_group(app, GROUP, "user", user)
    segment = await service.segments.save(app, "everyone", _EVERYONE)
    keys = Keys(service.database, service.clock, service.new_id)
    secrets: dict[str, str] = {}
    for dialect in ("native", "activitysmith", "braze", "onesignal"):
        name = f"demo {dialect}"
        _, secrets[dialect] = await keys.create(app, dialect=dialect, scopes=ALL, name=name)
    _, account = await keys.create(app, dialect="fcm", scopes=SENDING, name="demo fcm")
    return app, segment.id, secrets, account


class _Phones:
    """The app on every simulated phone: registers tokens, and reports cards that were swiped away."""

    def __init__(self, url: str, fake: FakeApns, key: str, attributes_type: str) -> None:
        self._attributes_type = attributes_type
        self._gateway = httpx.AsyncClient(base_url=url, timeout=30.0, verify=False)  # noqa: S501 - ours
        self._phones = fake.devices
        self._key = key
        self._credentials: dict[str, str] = {}
        self._started: dict[str, asyncio.Event] = {}
        self._issued = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> _Phones:
        self._phones.registry.on_issue.append(self._note)
        self._tasks = [asyncio.create_task(work()) for work in (self._follow, self._report)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._phones.registry.on_issue.remove(self._note)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._gateway.aclose()

    def _note(self, _token: Token) -> None:
        self._issued.set()

    async def make(self, count: int) -> None:
        """Create phones, one for each user; returns when their push-to-start tokens are registered."""
        for number in range(1, count + 1):
            name = f"phone-{number}"
            self._started[name] = asyncio.Event()
            await self._credential(name, user=f"user-{number}")
            kinds = [self._attributes_type]
            self._phones.add_device(name, bundle_id=BUNDLE_ID, attributes_types=kinds)
        async with asyncio.timeout(30.0):
            for event in self._started.values():
                await event.wait()

    async def _follow(self) -> None:
        """Register every token that a phone issues, in order."""
        issued, after = self._phones.registry.issued, 0
        while True:
            self._issued.clear()
            try:
                # A fake that was reset counts from 1 again.
                for token in list(issued.after(min(after, issued.total))):
                    await self._hand_in(token)
                    after = token.sequence
            except httpx.HTTPError:
                await asyncio.sleep(0.5)
            else:
                await self._issued.wait()

    async def _report(self) -> None:
        """Report every card that its owner swiped away to the gateway."""
        reported: set[str] = set()
        while True:
            await asyncio.sleep(0.5)
            with contextlib.suppress(httpx.HTTPError):
                found = self._phones.activities.values()
                cards = {card.id: card for card in found if card.state == "dismissed"}
                for card in (cards[name] for name in cards.keys() - reported):
                    activity, device = activity_of(card), card.device.id
                    if card.ended_by == "user" and activity is not None and device in self._started:
                        receipt = {"event": "dismissed", "activity": activity}
                        await self._post(device, "/v1/device/receipts", {"receipts": [receipt]})
                reported = set(cards)

    async def _hand_in(self, token: Token) -> None:
        device = token.device.id
        if device not in self._started:
            return
        said: dict[str, Any] = {"kind": token.kind, "token": token.text}
        if token.attributes_type:
            said["attributes_type"] = token.attributes_type
        if token.activity is not None:
            said["activity"] = activity_of(token.activity)
            if said["activity"] is None:
                return
        for _ in range(2):
            answer = await self._post(device, "/v1/device/tokens", {"tokens": [said]})
            if answer.status_code != 401:
                break
            self._credentials.pop(device, None)  # it has expired: the server mints another
        if answer.status_code == 429 or answer.status_code >= 500:
            answer.raise_for_status()  # retried later; other refusals are final
        if token.kind == "start":
            self._started[device].set()

    async def _post(self, device: str, path: str, body: dict[str, Any]) -> httpx.Response:
        """Make a call with the phone's credential."""
        headers = {"authorization": f"Bearer {await self._credential(device)}"}
        return await self._gateway.post(path, json=body, headers=headers)

    async def _credential(self, device: str, *, user: str | None = None) -> str:
        """Return the phone's credential; the team's server requests it with its API key."""
        if device not in self._credentials:
            path, body = f"/v1/devices/{device}/credentials", {"user": user} if user else {}
            headers = {"authorization": f"Bearer {self._key}"}
            answer = await self._gateway.post(path, json=body, headers=headers)
            answer.raise_for_status()
            self._credentials[device] = answer.json()["credential"]
        return self._credentials[device]


def activity_of(card: Activity) -> str | None:
    """Return the activity's id from the attributes, as our app or a vendor's SDK finds it."""
    attributes = as_json(card.attributes)
    if not isinstance(attributes, dict):
        return None
    onesignal = attributes.get("onesignal")
    found = [attributes.get(name) for name in ("activityId", "activity_id", "brazeActivityId")]
    found.append(onesignal.get("activityId") if isinstance(onesignal, dict) else None)
    first = next(filter(None, found), None)
    return first if isinstance(first, str) else None


# --- the panel Calls of the inspector: stores the gateway's last calls, and makes calls for the page.
# The page has no API key. This part adds the key to the calls that it makes, and hides keys in what it
# shows. The inspector's security check allows only this machine and the page's own origin.

KEPT = 100
SAMPLES: dict[str, Any] = json.loads(Path(__file__).with_name("samples.json").read_text("utf-8"))
_SHOWN_BYTES = 8_192
# Calls of the simulated phones, and the one that returns FCM's access tokens.
_NOT_SHOWN = ("/v1/device", "/token", "/v1/tokens")
_SECRETS = frozenset({"secret", "credential", "pem", "p8", "private_key", "access_token"})
_SECRET = re.compile(
    r"-----BEGIN[^-]*PRIVATE KEY-----.*|\b(?:apnslive|apnsdev1|ask|braze|os_v2_app)[_.][\w.-]{16,}",
    re.DOTALL,
)
_APIS = {
    "activitysmith": re.compile(r"(/api)?/(live-activity|push-notification|badge|metrics/)"),
    "braze": re.compile(r"/messages/"),
    "onesignal": re.compile(r"(/api/v1)?/(apps/|notifications)"),
    "fcm": re.compile(r"/v1/projects/"),
}


def api_of(path: str) -> str:
    """Return the name of the API that a path belongs to."""
    return next((name for name, paths in _APIS.items() if paths.match(path)), "native")


def demo_values(contract: Contract | None = None) -> dict[str, Any]:
    """Return the values of the samples: the demo's order, or values that the contract accepts."""
    values = dict(SAMPLES["demo"])
    if contract is not None and contract.names:
        chance = random.Random(1)  # noqa: S311 - the same values each time
        found = contract.types[contract.names[0]]
        states = {step: example(found.state.shape, chance) for step in values["states"]}
        attributes = example(found.attributes.shape, chance)
        values |= {"type": contract.names[0], "states": states, "attributes": attributes}
    return values


class Calls:
    """An ASGI application in front of the gateway's; ``routes`` are the page's part of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._numbers = itertools.count(1)
        self._calls: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._setup: dict[str, Any] | None = None
        self._keys: Mapping[str, str] = {}
        self._gateway = httpx.AsyncClient(timeout=20, verify=False)  # noqa: S501 - ours
        self.aclose = self._gateway.aclose
        self.routes = [
            Route("/gateway", lambda _: JSONResponse(self._setup)),
            Route("/gateway/calls", self._shown),
            Route("/gateway/send", self._send, methods=["POST"]),
        ]

    def open(self, url: str, keys: Mapping[str, str], values: Mapping[str, Any]) -> None:
        """Set the gateway's URL, its keys by API, and the values for the samples."""
        self._keys, self._gateway.base_url = keys, httpx.URL(url)
        self._setup = {"url": url, "apis": SAMPLES["apis"], "values": values}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of the gateway, and store it with its answer unless it only reads."""
        if (
            scope["type"] != "http"
            or scope["method"] in ("GET", "HEAD", "OPTIONS")
            or scope["path"].startswith(_NOT_SHOWN)
        ):
            await self._app(scope, receive, send)
            return
        # Times are seconds since 1970. No header is kept, so no key is.
        call: dict[str, Any] = {
            "number": next(self._numbers),
            "at": time.time(),
            "ended": None,
            "api": api_of(scope["path"]),
            "method": scope["method"],
            "path": scope["path"],
            "request": b"",
            "status": 0,
            "response": b"",
        }
        self._calls.append(call)

        def keep(name: str, message: Message) -> Message:
            call["status"] = message.get("status", call["status"])
            if len(call[name]) < _SHOWN_BYTES:
                call[name] += bytes(message.get("body", b""))[:_SHOWN_BYTES]
            return message

        async def take() -> Message:
            return keep("request", await receive())

        async def answer(message: Message) -> None:
            await send(keep("response", message))

        try:
            await self._app(scope, take, answer)
        finally:
            call["ended"] = time.time()

    async def _shown(self, request: Request) -> Response:
        after = request.query_params.get("after", "")
        newer = int(after) if after.isdecimal() else 0
        calls = [call for call in self._calls if call["number"] > newer]
        bodies = ("request", "response")
        shown = [call | {name: readable(call[name]) for name in bodies} for call in calls]
        return JSONResponse(shown)

    async def _send(self, request: Request) -> Response:
        try:
            asked = await request.json()
            api, method, path, body = (asked[name] for name in ("api", "method", "path", "body"))
            # A path cannot name another host, so the key is sent only to this gateway.
            raw_path = b"/" + path.encode("ascii").lstrip(b"/")
            url = self._gateway.base_url.copy_with(raw_path=raw_path)
            scheme = SAMPLES["apis"][api].get("scheme", "Bearer")
            headers = {"authorization": f"{scheme} {self._keys[api]}"}
            headers["content-type"] = "application/json"
            sent = self._gateway.build_request(method, url, content=body, headers=headers)
        except (ValueError, KeyError, TypeError, AttributeError, httpx.InvalidURL):
            return JSONResponse({"error": "name an api, a method, a path and a body"}, 400)
        answer = await self._gateway.send(sent)
        return JSONResponse({"status": answer.status_code, "body": readable(answer.content)})


def readable(data: bytes) -> Any:
    """Return a readable body, without the keys that it may contain."""
    try:
        return _without_keys(json.loads(data))
    except ValueError:
        return _without_keys(data.decode("utf-8", "replace"))


def _without_keys(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _without_keys(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_keys(one, name) for one in value]
    if isinstance(value, str):
        return "<hidden>" if name in _SECRETS else _SECRET.sub("<hidden>", value)
    return value
