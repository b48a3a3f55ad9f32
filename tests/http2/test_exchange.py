"""Whole requests and whole answers, between our two roles and with the h2 library."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import pytest

from apns_live.http2 import ClientConnection, RequestReceived, ResponseReceived, ServerConnection

from .support import APNS_ID, AUTHORITY, HEADERS, PATH, answer_all, apns_id, connected, pump, push


def test_a_push_and_its_answer() -> None:
    client, server = connected()
    stream_id = push(client, 7, b'{"aps":{}}')
    _, requests = pump(client, server)
    (request,) = requests
    assert isinstance(request, RequestReceived)
    assert request.stream_id == stream_id == 1
    assert request.body == b'{"aps":{}}'
    headers = dict(request.headers)
    assert headers[b":method"] == b"POST"
    assert headers[b":scheme"] == b"https"
    assert headers[b":authority"] == AUTHORITY
    assert headers[b":path"] == PATH
    assert headers[b"apns-id"] == apns_id(7)
    answer_all(server, requests, 400, b'{"reason":"BadDeviceToken"}')
    answers, _ = pump(client, server)
    assert answers == [
        ResponseReceived(1, 400, [(b"apns-id", apns_id(7))], b'{"reason":"BadDeviceToken"}')
    ]
    assert client.open_streams == server.open_streams == 0


def test_many_pushes_in_one_write() -> None:
    client, server = connected(500)
    assert client.available_streams == 500
    sent = [push(client, number) for number in range(500)]
    assert client.available_streams == 0
    _, requests = pump(client, server)
    assert [request.stream_id for request in requests] == sent
    answer_all(server, requests)
    answers, _ = pump(client, server)
    assert [answer.stream_id for answer in answers] == sent
    assert {answer.status for answer in answers} == {200}
    assert client.available_streams == 500


@pytest.mark.parametrize("size", [0, 1, 4096, 16_384, 16_385, 60_000])
def test_our_client_against_the_h2_library(size: int) -> None:
    client = ClientConnection(authority=AUTHORITY)
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    client.start()
    server.initiate_connection()
    client.receive(server.data_to_send())
    server.receive_data(client.data_to_send())
    client.receive(server.data_to_send())
    body = b"x" * size
    stream_id = client.send_request(HEADERS, PATH, APNS_ID, body)
    events = server.receive_data(client.data_to_send())
    received = b"".join(event.data for event in events if isinstance(event, h2.events.DataReceived))
    assert received == body
    assert any(isinstance(event, h2.events.StreamEnded) for event in events)
    server.send_headers(stream_id, [(":status", "200"), ("apns-id", "x")], end_stream=size == 0)
    if size:
        server.send_data(stream_id, b"reply", end_stream=True)
    (answer,) = client.receive(server.data_to_send())
    assert answer == ResponseReceived(stream_id, 200, [(b"apns-id", b"x")], b"reply" * bool(size))


def test_our_server_against_the_h2_library() -> None:
    server = ServerConnection()
    client = h2.connection.H2Connection()
    client.initiate_connection()
    server.start()
    server.receive(client.data_to_send())
    client.receive_data(server.data_to_send())
    request = [(":method", "POST"), (":path", "/x"), (":scheme", "https"), (":authority", "a")]
    client.send_headers(1, request)
    client.send_data(1, b"abc", end_stream=True)
    events = [e for e in server.receive(client.data_to_send()) if isinstance(e, RequestReceived)]
    (received,) = events
    assert received.body == b"abc"
    server.send_response(1, 410, [(b"apns-id", b"i")], b"y" * 100_000)
    body = b""
    while data := server.data_to_send():
        for event in client.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
                client.acknowledge_received_data(event.flow_controlled_length, 1)
        server.receive(client.data_to_send())
    assert body == b"y" * 100_000
    assert server.open_streams == 0
