"""A football match on the Lock Screen: a FastAPI backend with the service inside. See README.md."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Body, FastAPI, Header, HTTPException

from apns_live.activities import (
    AlertText,
    Audience,
    Database,
    DeviceRecord,
    End,
    Key,
    Presentation,
    Sealer,
    Service,
    Start,
    TokenRecord,
    Update,
)
from apns_live.activities.apps import App
from apns_live.activities.store.sealing import new_key
from apns_live.activities.store.upgrade import upgrade
from apns_live.errors import ActivityEnded, Conflict, InvalidInput, NotFound
from apns_live.keyfile import read_key_file
from apns_live.settings import Settings

STORE = os.environ.get("MATCH_STORE", "match.db")
ENVIRONMENT = "sandbox"
Side = Literal["home", "away"]


class Place:
    """What the endpoints need: the service, and our app in it."""

    service: Service
    app: App


place = Place()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Set the store up, open the service beside the backend, close it with the backend."""
    settings = Settings.load()
    async with Database.open(STORE) as database:
        await upgrade(database)
        async with Service.open(
            database, sealing=sealer(), endpoints={ENVIRONMENT: settings.endpoint()}
        ) as service:
            place.service = service
            place.app = await our_app(service, settings)
            yield


def sealer() -> Sealer:
    """Take the sealing key from the environment; for a first try, make one beside the database."""
    if "APNS_LIVE_STORE_KEY" in os.environ or "APNS_LIVE_STORE_KEY_FILE" in os.environ:
        return Sealer.from_environment()
    path = Path(f"{STORE}.key")
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(new_key())
    return Sealer(path.read_text())


async def our_app(service: Service, settings: Settings) -> App:
    """Return our app, added with its provider key if this is the first start."""
    try:
        return await service.apps.get("scores")
    except NotFound:
        pass
    key = settings.provider_key()
    app = await service.apps.create(
        id="scores",
        name="Scores",
        bundle_id=settings.bundle_id or "com.example.scores",
        environment=ENVIRONMENT,
    )
    pem = read_key_file(settings.key_file or "").decode()
    await service.apps.add_key(
        app, pem, key_id=key.key_id, team_id=key.team_id, environment=ENVIRONMENT
    )
    return app


app = FastAPI(title="Scores", lifespan=lifespan)


@app.post("/devices", status_code=204)
async def register_device(
    device: Annotated[str, Body()],
    start_token: Annotated[str, Body()],
    follows: Annotated[str, Body()],
) -> None:
    """Take the push-to-start token that the app on a phone has got, and what its owner follows."""
    await place.service.devices.tell(place.app, [DeviceRecord(id=device)])
    await place.service.people.set_tags(place.app, "device", device, {"follows": follows})
    await place.service.devices.register(
        place.app,
        [
            TokenRecord(
                device=device,
                kind="start",
                scope="MatchAttributes",
                token=start_token,
                registered_at=int(time.time() * 1000),
            )
        ],
    )


@app.post("/matches/{match}/tokens", status_code=204)
async def register_card(
    match: str, device: Annotated[str, Body()], token: Annotated[str, Body()]
) -> None:
    """Take the activity token of a card that has begun on a phone; the newest score goes out to it."""
    record = TokenRecord(
        device=device,
        kind="activity",
        scope=match,
        token=token,
        registered_at=int(time.time() * 1000),
    )
    await place.service.tokens.register_activity_tokens(place.app, [record])


@app.post("/matches/{match}/kick-off", status_code=202)
async def kick_off(
    match: str, home: Annotated[str, Body()], away: Annotated[str, Body()]
) -> dict[str, str]:
    """Start the card on the phone of everyone who follows the match."""
    rule = {"field": "tag", "key": "follows", "relation": "=", "value": match}
    request = Start(
        id=match,
        attributes_type="MatchAttributes",
        attributes={"home": home, "away": away},
        content_state={"home": 0, "away": 0, "minute": 0},
        presentation=Presentation(alert=AlertText(title="Kick-off", body=f"{home} - {away}")),
        audience=Audience(filter=rule),
    )
    with told():
        done = await place.service.activities.start(place.app, request)
    return {"operation": done.answer.operation}


@app.post("/matches/{match}/goal", status_code=202)
async def goal(
    match: str,
    side: Annotated[Side, Body()],
    minute: Annotated[int, Body()],
    idempotency_key: Annotated[str | None, Header()] = None,
) -> dict[str, int]:
    """Count a goal and show it. With an Idempotency-Key a repeated call counts it once."""
    with told():
        known = await place.service.activities.get(place.app, match)
        state = {**known["content_state"], "minute": minute}
        state[side] += 1
        score = f"{state['home']} - {state['away']}"
        # The key says which goal it is, so a repetition is answered with what the first one did.
        key = Key(caller="newsroom", key=idempotency_key or f"{match}-{side}-{minute}")
        request = Update(
            id=match,
            content_state=state,
            presentation=Presentation(alert=AlertText(title="Goal", body=score)),
        )
        try:
            await place.service.activities.update(place.app, request, key=key)
        except Conflict:  # counted before: the state has gone on since
            state = known["content_state"]
    return {"home": state["home"], "away": state["away"]}


@app.post("/matches/{match}/full-time", status_code=202)
async def full_time(match: str) -> None:
    """Leave the final score on the phones for four hours, and end the card."""
    with told():
        await place.service.activities.end(
            place.app, End(id=match, presentation=Presentation(dismiss_after=4 * 3600))
        )


@app.get("/matches/{match}")
async def look(match: str) -> dict[str, object]:
    """Say how the match stands, and on how many phones."""
    with told():
        known = await place.service.activities.get(place.app, match)
    shown = ("status", "content_state", "devices", "queued")
    return {name: known[name] for name in shown}


class told:  # noqa: N801 - reads as a statement
    """Turn what the service refuses into answers of HTTP."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NotFound):
            raise HTTPException(404, str(error))
        if isinstance(error, Conflict | ActivityEnded):
            raise HTTPException(409, str(error))
        if isinstance(error, InvalidInput):
            raise HTTPException(422, str(error))
