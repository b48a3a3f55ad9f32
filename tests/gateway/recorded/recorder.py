"""Writes down what a vendor's client says to the gateway, and what came of it.

``python -m tests.gateway.recorded.recorder OUT.json NAME VERSION COMMAND...`` runs the command in front
of ``apns-live gateway --with-fake``, between them a proxy that keeps requests and answers. The command
finds addresses, keys and ids as JSON in the variable ``APNS_LIVE_READY``. The file says nothing of one
run: ids, keys, tokens and times stand in it as ``{names}``.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from anyio.from_thread import start_blocking_portal

from apns_live.cli.with_fake import Place, trying

LEARNT = ("activity_id", "notification_id", "id")
"""Fields of an answer whose values later requests and phones may show again."""
_LEFT_OUT = frozenset({"host", "content-length", "connection", "accept-encoding"})
CARD = {"attributes_type": "DemoAttributes", "attributes": {}, "content_state": {"home": 0}}
"""What an app starts by itself, for clients that hand in its token."""


class Names:
    """Values of one run by the names that stand for them."""

    def __init__(self, ready: Mapping[str, Any]) -> None:
        self.values = {
            ready["app_id"]: "{app}",
            ready["segment_id"]: "{segment}",
            ready["url"]: "{url}",
            **{value: f"{{key.{name}}}" for name, value in ready["keys"].items()},
            **{ready["card"][name]: f"{{card.{name}}}" for name in ("token", "device")},
        }

    def learn(self, number: int, answer: Any) -> None:
        """Remember the ids in the answer to request ``number``."""
        for name in LEARNT if isinstance(answer, dict) else ():
            value = answer.get(name)
            if isinstance(value, str) and value and not self.known(value):
                self.values[value] = f"{{{number}.{name}}}"

    def known(self, value: str) -> bool:
        return value in self.values

    def hide(self, text: str) -> str:
        """Put names for values."""
        for value, name in sorted(self.values.items(), key=lambda item: -len(item[0])):
            text = text.replace(value, name).replace(quote(value, safe=""), name)
        return text

    def show(self, text: str) -> str:
        """Put values for names."""
        for value, name in self.values.items():
            text = text.replace(name, value)
        return text


def settled(value: Any, names: Names) -> Any:
    """A content state or attributes without what differs from run to run."""
    if isinstance(value, dict):
        # How much of a timer is left depends on the moment in which it was stopped.
        return {
            name: "{seconds}" if name.startswith("frozen_") else settled(entry, names)
            for name, entry in value.items()
        }
    if isinstance(value, list):
        return [settled(entry, names) for entry in value]
    if isinstance(value, str):
        # A webhook's button shows the address by which the gateway was asked, and a signature.
        return names.hide(re.sub(r"http://[^/]+(/.*/taps/).+", r"{url}\1{tap}", value))
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 1e9:
        return "{time}"
    return value


def shape(value: Any) -> Any:
    """The kinds of an answer's fields."""
    if isinstance(value, dict):
        return {name: shape(entry) for name, entry in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


@contextmanager
def gateway(directory: Path) -> Iterator[dict[str, Any]]:
    """Run the gateway with its fake in a thread; yield its facts with a card that an app started itself."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(trying(Place(directory=directory))) as ready,
    ):
        with httpx.Client(base_url=ready["inspector"]) as fake:
            device = fake.get("/v1/devices").json()["items"][0]["id"]
            made = fake.post(f"/v1/devices/{device}/activities", json=CARD)
            assert made.status_code == 201, made.text
            token = fake.get(
                "/v1/tokens/next", params={"kind": "activity", "device": device, "after": 0}
            ).json()
        ready["card"] = {"device": device, "token": token["token"]}
        yield ready


def phones(ready: Mapping[str, Any], names: Names) -> list[dict[str, Any]]:
    """What the phones show, in an order of its own."""
    with httpx.Client(base_url=ready["inspector"]) as fake:
        cards = fake.get("/v1/activities", params={"limit": 1000}).json()["items"]
    found = [
        {
            "device": names.hide(card["device"]),
            "state": card["state"],
            "attributes_type": card["attributes_type"],
            "attributes": settled(card["attributes"], names),
            "content_state": settled(card["content_state"], names),
        }
        for card in cards
    ]
    return sorted(found, key=lambda card: json.dumps(card, sort_keys=True))


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target = ""
    names: Names
    kept: list[dict[str, Any]]

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        place = urlsplit(self.target)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        said = answer.read()
        names = self.names
        request = {
            "method": self.command,
            "path": names.hide(self.path),
            "headers": {
                name.lower(): names.hide(value)
                for name, value in self.headers.items()
                if name.lower() not in _LEFT_OUT
            },
            "body": names.hide(body.decode()),
        }
        told = json.loads(said) if said else None
        self.kept.append({**request, "status": answer.status, "answer": shape(told)})
        names.learn(len(self.kept) - 1, told)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                self.send_header(name, value)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
        connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main(out: str, name: str, version: str, *command: str) -> None:
    kept: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory, gateway(Path(directory)) as ready:
        names = Names(ready)
        handler = type("Handler", (_Proxy,), {"target": ready["url"], "names": names, "kept": kept})
        proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        told = {**ready, "url": f"http://127.0.0.1:{proxy.server_port}"}
        environment = {**os.environ, "APNS_LIVE_READY": json.dumps(told)}
        subprocess.run(command, env=environment, check=True)
        before: list[dict[str, Any]] = []
        while not before or before != (now := phones(ready, names)):
            before = now if before else phones(ready, names)
            threading.Event().wait(2.0)
        proxy.shutdown()
        proxy.server_close()
    recorded = {"client": name, "version": version, "requests": kept, "phones": before}
    Path(out).write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
