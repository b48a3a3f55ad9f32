"""The webhook relay: what it refuses, what it retries, and that it calls the checked address."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from apns_live.activities.cards.buttons import (
    Button,
    TapSigner,
    WebhookRelay,
    check_button,
    is_public,
)
from apns_live.errors import ActivitiesError, InvalidPayload

HOSTILE = [
    # written addresses
    "https://127.0.0.1/",
    "https://127.8.8.8/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://0.0.0.0/",
    "https://192.0.0.8/",
    "https://198.18.0.1/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    # IPv6 forms
    "https://[::1]/",
    "https://[::]/",
    "https://[fe80::1]/",
    "https://[fc00::1]/",
    "https://[ff02::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[fec0::1]/",
    "https://192.88.99.1/",
    "https://[64:ff9b:1::a00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:102:304:0:0:80ff:fffe]/",
    "https://[2001:db8::1]/",
    # odd schemes
    "http://hooks.example/",
    "file:///etc/passwd",
    "gopher://hooks.example/",
    "ftp://hooks.example/",
    "//hooks.example/",
    "javascript:alert(1)",
    # odd shapes
    "https://user:secret@hooks.example/",
    "https://user@hooks.example/",
    "https:///path",
    "https://hooks.example:99999/",
    "https://[::1/",
    "https://hooks.example\\@127.0.0.1/",
    "https://hooks.example /",
    # numbers that some resolvers take for 127.0.0.1
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://localhost/",
]


class Clock:
    """Remembers how long it was asked to wait, and does not."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def time(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    def call_later(self, delay: float, callback: object) -> asyncio.TimerHandle:
        raise AssertionError("the relay sets no timers")

    async def sleep(self, delay: float) -> None:
        self.slept.append(delay)


class Hooks:
    """A webhook receiver that answers from a list, and keeps what it was sent."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (
                int(line[16:])
                for line in head.lower().split("\r\n")
                if line.startswith("content-length: ")
            ),
            0,
        )
        self.requests.append(head + (await reader.readexactly(length)).decode())
        writer.write(f"HTTP/1.1 {self.answers.pop(0)}\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(hooks: Hooks, tls: object) -> AsyncIterator[int]:
    server = await asyncio.start_server(hooks.serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


def resolving(*answers: Sequence[str]):
    """A resolver that gives these answers in turn, and the last one ever after."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def test_there_are_enough_hostile_addresses() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 25


@pytest.mark.parametrize("url", HOSTILE)
async def test_a_hostile_address_is_never_called(url: str, tls) -> None:
    hooks = Hooks()
    async with serving(hooks, tls.server), WebhookRelay(tls=tls.client, clock=Clock()) as relay:
        call = await relay.call(Button("Tap", "webhook", url), event_id="event-1")
    assert not call.ok
    assert call.status == 0
    assert call.error
    assert hooks.requests == []


@pytest.mark.parametrize("address", ["10.1.2.3", "::1", "169.254.169.254", "nonsense"])
async def test_one_private_address_among_public_ones_is_enough(address: str, tls) -> None:
    resolver = resolving(["93.184.215.14", address])
    async with WebhookRelay(tls=tls.client, resolver=resolver, clock=Clock()) as relay:
        call = await relay.call(Button("T", "webhook", "https://hooks.example/"), event_id="e")
    assert "not public" in call.error
    assert call.attempts == 1


async def test_the_checked_address_is_the_one_that_is_called(tls) -> None:
    """One look-up an attempt, and the attempt goes to it: rebinding the name gains nothing."""
    hooks = Hooks("503 Busy\r\ncontent-length: 0")
    asked: list[str] = []

    async def resolver(host: str, _: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.9"]  # nobody listens there

    async with (
        serving(hooks, tls.server) as port,
        WebhookRelay(
            tls=tls.client, resolver=resolver, clock=Clock(), allow=frozenset({"hooks.example"})
        ) as relay,
    ):
        url = f"https://hooks.example:{port}/hook"
        call = await relay.call(Button("Tap", "webhook", url, body='{"a":1}'), event_id="e")
    assert asked == ["hooks.example"] * 3
    assert (call.status, call.attempts) == (0, 3)
    assert len(hooks.requests) == 1
    assert f"host: hooks.example:{port}" in hooks.requests[0].lower()
    assert hooks.requests[0].endswith('{"a":1}')


async def test_a_name_that_resolves_to_loopback_is_refused(tls) -> None:
    hooks = Hooks("503 Busy\r\ncontent-length: 0")
    relay = WebhookRelay(
        tls=tls.client, resolver=resolving(["127.0.0.1"]), clock=Clock(), allow=frozenset()
    )
    async with serving(hooks, tls.server) as port, relay:
        url = f"https://hooks.example:{port}/hook"
        call = await relay.call(Button("Tap", "webhook", url), event_id="e")
    assert "not public" in call.error
    assert hooks.requests == []


async def test_a_proxy_of_the_environment_is_not_asked(
    tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would resolve the name anew, and call an address that nobody has checked."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.9:9")  # nobody listens there
    hooks = Hooks("204 No Content")
    async with (
        serving(hooks, tls.server) as port,
        WebhookRelay(
            tls=tls.client,
            resolver=resolving(["127.0.0.1"]),
            clock=Clock(),
            allow=frozenset({"hooks.example"}),
        ) as relay,
    ):
        url = f"https://hooks.example:{port}/hook"
        call = await relay.call(Button("Tap", "webhook", url), event_id="e")
    assert (call.ok, call.status) == (True, 204)


async def test_a_redirect_is_not_followed(tls) -> None:
    hooks = Hooks("302 Found\r\nlocation: https://127.0.0.1/\r\ncontent-length: 0")
    async with (
        serving(hooks, tls.server) as port,
        WebhookRelay(
            tls=tls.client,
            resolver=resolving(["127.0.0.1"]),
            clock=Clock(),
            allow=frozenset({"hooks.example"}),
        ) as relay,
    ):
        call = await relay.call(
            Button("T", "webhook", f"https://hooks.example:{port}/"), event_id="e"
        )
    assert (call.ok, call.status, call.error) == (False, 302, "a redirect is not followed")
    assert len(hooks.requests) == 1


async def test_a_busy_receiver_is_tried_three_times_with_the_same_key(tls) -> None:
    clock = Clock()
    busy = "503 Busy\r\ncontent-length: 0"
    hooks = Hooks(busy, busy, "204 No Content")
    async with (
        serving(hooks, tls.server) as port,
        WebhookRelay(
            tls=tls.client,
            resolver=resolving(["127.0.0.1"]),
            clock=clock,
            allow=frozenset({"hooks.example"}),
        ) as relay,
    ):
        call = await relay.call(
            Button("T", "webhook", f"https://hooks.example:{port}/", "GET"), event_id="tap-7"
        )
    assert (call.ok, call.status, call.attempts) == (True, 204, 3)
    assert clock.slept == [1.0, 5.0]
    assert all("idempotency-key: tap-7" in request for request in hooks.requests)
    assert all(request.startswith("GET / HTTP/1.1") for request in hooks.requests)


async def test_an_endless_answer_is_cut_short(tls) -> None:
    hooks = Hooks("200 OK\r\ncontent-length: 100000000\r\n\r\n" + "x" * 200_000)
    async with (
        serving(hooks, tls.server) as port,
        WebhookRelay(
            tls=tls.client,
            resolver=resolving(["127.0.0.1"]),
            clock=Clock(),
            allow=frozenset({"hooks.example"}),
        ) as relay,
    ):
        call = await relay.call(
            Button("T", "webhook", f"https://hooks.example:{port}/"), event_id="e"
        )
    assert call.ok


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::"])
def test_public_addresses(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize(
    ("button", "field"),
    [
        ("x", "action"),
        ({"type": "open_url", "url": "https://a.example"}, "action.title"),
        ({"title": "T", "type": "call", "url": "https://a.example"}, "action.type"),
        ({"title": "T", "type": "open_url"}, "action.url"),
        ({"title": "T", "type": "open_url", "url": "javascript:alert(1)"}, "action.url"),
        ({"title": "T", "type": "open_url", "url": "shortcuts://other"}, "action.url"),
        ({"title": "T", "type": "open_url", "url": "https://a.example/\r\nx: y"}, "action.url"),
        ({"title": "T", "type": "webhook", "url": "http://a.example"}, "action.url"),
        ({"title": "T", "type": "webhook", "url": "https://a:b@a.example"}, "action.url"),
        (
            {"title": "T", "type": "webhook", "url": "https://a.example", "method": "PUT"},
            "action.method",
        ),
        ({"title": "T", "type": "webhook", "url": "https://a.example", "body": []}, "action.body"),
        (
            {
                "title": "T",
                "type": "webhook",
                "url": "https://a.example",
                "body": {"x": "y" * 20_000},
            },
            "action.body",
        ),
    ],
)
def test_a_bad_button_names_the_field(button: object, field: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        check_button(button, field="action")
    assert caught.value.field == field
    assert caught.value.remedy


def test_good_buttons() -> None:
    shortcut = "shortcuts://run-shortcut?name=Lights"
    assert (
        check_button({"title": "T", "type": "open_url", "url": shortcut}, field="a").url == shortcut
    )
    assert check_button(
        {"title": "T", "type": "open_url", "url": "http://a.example", "method": "POST"}, field="a"
    )
    hook = check_button(
        {"title": "T", "type": "webhook", "url": "https://a.example/x", "body": {"b": 1}}, field="a"
    )
    assert (hook.method, hook.body) == ("POST", '{"b":1}')
    scheme = {"title": "T", "type": "open_url", "url": "scores://match/7"}
    assert check_button(scheme, field="a", schemes=frozenset({"scores"}))


def test_a_tap_address_opens_until_it_expires() -> None:
    signer = TapSigner(b"s" * 32)
    text = signer.sign("app", "match-17", "action", expires=1000.5)
    assert signer.open(text, now=999.9) == ("app", "match-17", "action")
    with pytest.raises(ActivitiesError, match="expired"):
        signer.open(text, now=1000.0)


def test_a_forged_tap_address_is_refused() -> None:
    signer = TapSigner(b"s" * 32)
    text = signer.sign("app", "match-17", "action", expires=1000)
    other = TapSigner(b"t" * 32).sign("app", "match-17", "action", expires=1000)
    for forged in (other, text[:-2] + "AA", "x" + text, text.replace(".", ""), "", ".", "é.é"):
        with pytest.raises(ActivitiesError, match=r"malformed|not signed"):
            signer.open(forged, now=0)
    assert "ssss" not in repr(signer)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ActivitiesError, match="at least 32"):
        TapSigner(b"short")
