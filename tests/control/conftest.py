"""A fake APNs with its control API, over real sockets, on the test's event loop."""

import contextlib
import json

import httpx
import pytest

from apns_live.testing import FakeApns, SimulatedClock
from apns_live.testing.control import serve_control
from apns_live.testing.state import Push

GAME = "GameAttributes"
TOPIC = "com.example.scores.push-type.liveactivity"


class Stage:
    """The fake, a client of its control API, and pushes as the rules hand them over."""

    def __init__(self, fake, client, url):
        self.fake = fake
        self.client = client
        self.url = url
        self.count = 0

    async def get(self, path, status=200, **query):
        answer = await self.client.get(path, params=query)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def post(self, path, body=None, status=200, method="POST"):
        answer = await self.client.request(method, path, json={} if body is None else body)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def push(self, token, event="update", state=None, *, push_type="liveactivity", **more):
        self.count += 1
        now = self.fake.clock.time()
        aps = {"event": event, "timestamp": int(now) + self.count, "content-state": state or {}}
        if event == "start":
            aps |= {"attributes-type": GAME, "attributes": {}, "alert": {"title": "t", "body": "b"}}
            aps["input-push-token"] = 1
        topic = TOPIC if push_type == "liveactivity" else "com.example.scores"
        push = Push(
            self.count,
            f"ID-{self.count}",
            "",
            token,
            topic,
            push_type,
            more.pop("priority", 10),
            None,
            None,
            more.pop("body", None) or json.dumps({"aps": aps | more}).encode(),
            now,
            1,
        )
        self.fake.phones.receive(push)

    def events(self, **query):
        return Events(self.client, query)


class Events:
    """Reads server-sent events."""

    def __init__(self, client, query):
        self._client = client
        self._query = query
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        self.response = await self._stack.enter_async_context(
            self._client.stream("GET", "/v1/events", params=self._query)
        )
        self._lines = self.response.aiter_lines()
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()

    async def next(self):
        fields = {}
        async for line in self._lines:
            if line.startswith(":"):
                continue
            if not line:
                if fields:
                    return fields["event"], json.loads(fields["data"])
                continue
            name, _, value = line.partition(": ")
            fields[name] = value
        raise EOFError

    async def until(self, condition):
        """Return the data of the first delta for which the condition holds."""
        while True:
            _, data = await self.next()
            if condition(data):
                return data


@pytest.fixture
async def stage():
    clock = SimulatedClock()
    async with (
        FakeApns(clock=clock, devices="strict") as fake,
        serve_control(fake) as url,
        httpx.AsyncClient(base_url=url, timeout=20) as client,
    ):
        yield Stage(fake, client, url)
