"""What the tests of this room share: prepared headers, pumps, peers made of the h2 library."""

from __future__ import annotations

from apns_live.http2 import (
    ClientConnection,
    Indexing,
    PreparedHeaders,
    RequestReceived,
    ServerConnection,
    Setting,
)

AUTHORITY = b"api.push.example:443"
APNS_ID = b"EC1BF194-B3B2-424A-89A9-5A918A6E6B5D"
PATH = b"/3/device/" + b"ab" * 32
HEADERS = PreparedHeaders(
    [
        (b"authorization", b"bearer " + b"x" * 200, Indexing.VALUE),
        (b"apns-topic", b"com.example.scores.push-type.liveactivity", Indexing.VALUE),
        (b"apns-push-type", b"liveactivity", Indexing.VALUE),
        (b"apns-priority", b"10", Indexing.VALUE),
        (b"apns-expiration", b"1700000000", Indexing.NAME),
    ]
)


def apns_id(number: int) -> bytes:
    return b"00000000-0000-0000-0000-%012d" % number


def pump(client: ClientConnection, server: ServerConnection) -> tuple[list, list]:
    """Carry bytes both ways until both are silent; return the events of client and server."""
    client_events, server_events = [], []
    while True:
        to_server, to_client = client.data_to_send(), server.data_to_send()
        if not to_server and not to_client:
            return client_events, server_events
        if to_server:
            server_events += server.receive(to_server)
        if to_client:
            client_events += client.receive(to_client)


def connected(
    streams: int = 1000, client_options: dict | None = None, **server_options
) -> tuple[ClientConnection, ServerConnection]:
    settings = {Setting.MAX_CONCURRENT_STREAMS: streams, **server_options.pop("settings", {})}
    client = ClientConnection(authority=AUTHORITY, **(client_options or {}))
    server = ServerConnection(settings=settings, **server_options)
    client.start()
    server.start()
    pump(client, server)
    return client, server


def push(client: ClientConnection, number: int = 0, body: bytes = b"{}") -> int:
    return client.send_request(HEADERS, PATH, apns_id(number), body)


def answer_all(
    server: ServerConnection, events: list, status: int = 200, body: bytes = b""
) -> None:
    for event in events:
        if isinstance(event, RequestReceived):
            given = dict(event.headers)[b"apns-id"]
            server.send_response(event.stream_id, status, [(b"apns-id", given)], body)
