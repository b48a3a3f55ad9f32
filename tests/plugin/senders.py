"""A small APNs client for these tests: httpx, and a provider token from PyJWT."""

from __future__ import annotations

import json
import ssl
import time

import httpx
import jwt


class Backend:
    """Somebody's push code."""

    def __init__(self, fake):
        token = jwt.encode(
            {"iss": fake.team_id, "iat": int(time.time())},
            fake.key_file.read_text(),
            algorithm="ES256",
            headers={"kid": fake.key_id},
        )
        self.bundle_id = fake.bundle_id
        self.headers = {"authorization": f"bearer {token}"}
        self.stamp = int(time.time())
        context = ssl.create_default_context(cafile=str(fake.ca_file))
        self.client = httpx.Client(http2=True, base_url=fake.url, verify=context, timeout=20)

    def send(self, token, aps, *, push_type="liveactivity", priority=10):
        suffix = ".push-type.liveactivity" if push_type == "liveactivity" else ""
        headers = self.headers | {
            "apns-topic": self.bundle_id + suffix,
            "apns-push-type": push_type,
            "apns-priority": str(priority),
        }
        content = json.dumps({"aps": aps}).encode()
        return self.client.post(f"/3/device/{token}", headers=headers, content=content)

    def _next(self):
        self.stamp += 1
        return self.stamp

    def start(self, token, state, **more):
        return self.send(
            token,
            {
                "event": "start",
                "timestamp": self._next(),
                "attributes-type": "GameAttributes",
                "attributes": {},
                "content-state": state,
                "alert": {"title": "Kick-off", "body": "Now"},
                "input-push-token": 1,
            }
            | more,
        )

    def update(self, token, state, **more):
        return self.send(
            token, {"event": "update", "timestamp": self._next(), "content-state": state} | more
        )

    def end(self, token, state):
        return self.send(token, {"event": "end", "timestamp": self._next(), "content-state": state})
