"""A nightly backup whose progress is a card on the phones of whoever is on duty.

A plain sync script. It keeps a stream: each ``put`` says how far it is, the first one starts the card,
and nothing is sent when nothing has changed. Try it without Apple::

    pip install 'apns-live[service,fake]'
    apns-live fake --dir fake                                        # leave it running
    APNS_LIVE_CONFIG=fake/apns-live.toml python nightly_backup.py --on-duty $(printf 'a1%.0s' $(seq 32)) /etc

``--on-duty`` is the push-to-start token of a phone; in real life your app's backend has registered it.
With Apple's APNs set APNS_LIVE_KEY_FILE, APNS_LIVE_TEAM_ID, APNS_LIVE_BUNDLE_ID, APNS_LIVE_ENVIRONMENT.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from apns_live.activities import (
    AlertText,
    Audience,
    DeviceRecord,
    Presentation,
    Sealer,
    Start,
    TokenRecord,
    Update,
)
from apns_live.activities.apps import App
from apns_live.activities.blocking import Service, upgrade
from apns_live.activities.store.sealing import new_key
from apns_live.errors import NotFound
from apns_live.keyfile import read_key_file
from apns_live.settings import Settings

STREAM = "nightly-backup"
STEPS = 10
"""Of progress. A card that moves more often would only spend the phone's budget."""


def state(done: int, total: int, what: str) -> dict[str, object]:
    """Return what the card shows."""
    return {"done": done, "total": total, "what": what}


def put(service: Service, app: App, shown: dict[str, object]) -> str:
    """Show a state; return what became of it: started, updated, noop."""
    request = Start(
        stream_key=STREAM,
        attributes_type="JobAttributes",
        attributes={"job": "Nightly backup"},
        content_state=shown,
        presentation=Presentation(
            alert=AlertText(title="Backup", body="The nightly backup has begun."), stale_after=3600
        ),
        audience=Audience(groups=("on-duty",)),
    )
    # The start rings once; what follows is quiet.
    change = Update(id="", content_state=shown, presentation=Presentation(stale_after=3600))
    answer: str = service.streams.put(app, request, change=change).answer.operation
    return answer


def our_app(service: Service, settings: Settings) -> App:
    """Return our app, added with its provider key if this is the first night."""
    try:
        found: App = service.apps.get("operations")
    except NotFound:
        key = settings.provider_key()
        found = service.apps.create(
            id="operations",
            name="Operations",
            bundle_id=settings.bundle_id or "com.example.scores",
            environment="production",
        )
        pem = read_key_file(settings.key_file or "").decode()
        service.apps.add_key(found, pem, key_id=key.key_id, team_id=key.team_id, environment="any")
    return found


def register(service: Service, app: App, token: str) -> None:
    """Let a phone be on duty."""
    service.devices.tell(app, [DeviceRecord(id="on-duty-phone")])
    service.people.add_group(app, "on-duty")
    service.people.join_group(app, "on-duty", "device", "on-duty-phone")
    record = TokenRecord(
        device="on-duty-phone",
        kind="start",
        scope="JobAttributes",
        token=token,
        registered_at=int(time.time() * 1000),
    )
    service.devices.register(app, [record])


def sealing_key(path: Path) -> Sealer:
    """Read the key that seals the provider key in the database; make it the first time."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(new_key())
    return Sealer(path.read_text())


def back_up(service: Service, app: App, folder: Path, target: Path) -> None:
    """Write an archive of a folder, and say how far it is as it goes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    print(put(service, app, state(0, len(files), "Reading")), flush=True)
    with tarfile.open(target, "w:gz") as archive:
        for number, path in enumerate(files, 1):
            archive.add(path, path.relative_to(folder))
            # Ten times on the way, whatever the number of files.
            if number * STEPS // len(files) > (number - 1) * STEPS // len(files):
                print(put(service, app, state(number, len(files), "Saving")), flush=True)
    print(service.streams.end(app, STREAM).answer.operation, flush=True)


def main() -> int:
    """Back a folder up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--to", type=Path, default=Path(tempfile.gettempdir()) / "backup.tar.gz")
    parser.add_argument("--store", default="backup.db")
    parser.add_argument("--on-duty", metavar="TOKEN", help="push-to-start token of a phone")
    given = parser.parse_args()
    upgrade(given.store)
    settings = Settings.load()
    with Service(
        given.store,
        sealing=sealing_key(Path(f"{given.store}.key")),
        endpoints={"production": settings.endpoint()},
    ) as service:
        app = our_app(service, settings)
        if given.on_duty:
            register(service, app, given.on_duty)
        back_up(service, app, given.folder, given.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
