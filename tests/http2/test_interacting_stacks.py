"""Random conversations with the ``h2`` library as the peer, in both roles.

h2 is strict: whatever we send that breaks the RFC in its eyes raises in the test. Each machine
carries a model of what must have happened; at the end everything in flight is let finish.
"""

from __future__ import annotations

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from apns_live.http2 import (
    ClientConnection,
    ErrorCode,
    GoAwayReceived,
    Indexing,
    PingAcknowledged,
    PreparedHeaders,
    RequestReceived,
    ResponseReceived,
    ServerConnection,
    Setting,
    SettingsAcknowledged,
    SettingsReceived,
    StreamReset,
)

from .support import APNS_ID, AUTHORITY, PATH, apns_id

STATES = [
    PreparedHeaders(
        [
            (b"authorization", b"bearer " + b"t" * 200, Indexing.VALUE),
            (b"apns-topic", topic, Indexing.VALUE),
            (b"apns-expiration", b"17%08d" % number, Indexing.NAME),
            (b"apns-collapse-id", b"c" * 64, Indexing.NONE),
        ]
    )
    for number, topic in enumerate([b"com.example.a", b"com.example.b", b"c" * 900, b"d" * 3000])
]
SIZES = st.sampled_from([0, 1, 50, 4096, 5000, 16_384, 16_385, 40_000])
TABLES = st.sampled_from([0, 50, 500, 4096])
WINDOWS = st.sampled_from([0, 1, 100, 5000, 65_535, 100_000])
STREAMS = st.sampled_from([0, 1, 5, 50, 1000])
CHOICE = st.integers(0, 10**6)
ROUNDS = 20


class OurClient(RuleBasedStateMachine):
    """Our client, h2 as the server."""

    @initialize()
    def connect(self) -> None:
        self.client = ClientConnection(authority=AUTHORITY, connection_window=65_535)
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.server = h2.connection.H2Connection(config)
        self.client.start()
        self.server.initiate_connection()
        self.sent: dict[int, bytes] = {}
        self.ids: dict[int, bytes] = {}
        self.received: dict[int, bytearray] = {}
        self.complete: list[int] = []
        self.replies: dict[int, tuple[int, bytes]] = {}
        self.reply_rest: dict[int, bytes] = {}
        self.outcomes: dict[int, object] = {}
        self.cancelled: set[int] = set()
        self.reset: dict[int, int] = {}
        self.withheld = 0
        self.going_away = False
        self.pings = 0
        self.exchange()

    # --- carrying bytes ------------------------------------------------------------------------

    def exchange(self) -> None:
        while True:
            to_server = self.client.data_to_send()
            if to_server:
                for event in self.server.receive_data(to_server):
                    self.server_saw(event)
            self.send_replies()
            to_client = self.server.data_to_send()
            if to_client:
                for event in self.client.receive(to_client):
                    self.client_saw(event)
            if not to_server and not to_client:
                return

    def server_saw(self, event: object) -> None:
        if isinstance(event, h2.events.RequestReceived):
            headers = dict((bytes(n), bytes(v)) for n, v in event.headers)  # noqa: C402
            assert headers[b"apns-id"] == self.ids[event.stream_id]
            assert headers[b":path"] == PATH
            self.received[event.stream_id] = bytearray()
        elif isinstance(event, h2.events.DataReceived):
            self.received[event.stream_id] += event.data
            self.withheld += event.flow_controlled_length
        elif isinstance(event, h2.events.StreamEnded):
            assert bytes(self.received[event.stream_id]) == self.sent[event.stream_id]
            self.complete.append(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            assert event.remote_reset
            assert event.stream_id in self.cancelled
            self.reply_rest.pop(event.stream_id, None)
            if event.stream_id in self.complete:
                self.complete.remove(event.stream_id)

    def client_saw(self, event: object) -> None:
        if isinstance(event, ResponseReceived):
            status, body = self.replies[event.stream_id]
            assert (event.status, event.body) == (status, body)
            self.settle(event.stream_id, event)
        elif isinstance(event, StreamReset):
            assert not event.local, event
            assert event.error_code == self.reset[event.stream_id]
            assert event.processed is (event.error_code != ErrorCode.REFUSED_STREAM)
            self.settle(event.stream_id, event)
        elif isinstance(event, GoAwayReceived):
            assert self.going_away
            for stream_id in event.unprocessed:
                self.settle(stream_id, event)
        else:
            kinds = (SettingsReceived, SettingsAcknowledged, PingAcknowledged)
            assert isinstance(event, kinds)

    def settle(self, stream_id: int, event: object) -> None:
        assert stream_id not in self.outcomes
        assert stream_id not in self.cancelled
        self.outcomes[stream_id] = event

    def send_replies(self) -> None:
        for stream_id, rest in list(self.reply_rest.items()):
            window = self.server.local_flow_control_window(stream_id)
            size = min(window, len(rest), self.server.max_outbound_frame_size)
            if size > 0:
                last = size == len(rest)
                self.server.send_data(stream_id, rest[:size], end_stream=last)
                self.reply_rest[stream_id] = rest[size:]
                if last:
                    del self.reply_rest[stream_id]

    # --- what may happen -----------------------------------------------------------------------

    @rule(state=st.sampled_from(STATES), size=SIZES, count=st.integers(1, 12))
    def send_several(self, state: PreparedHeaders, size: int, count: int) -> None:
        for number in range(count):
            self.send(STATES[(STATES.index(state) + number // 4) % 4], size)

    def send(self, state: PreparedHeaders, size: int) -> None:
        if not self.client.room_for(size):
            return
        body = bytes([65 + len(self.sent) % 26]) * size
        identifier = apns_id(len(self.sent))
        self.ids[self.client.next_stream_id] = identifier
        stream_id = self.client.send_request(state, PATH, identifier, body)
        self.sent[stream_id] = body

    @rule(choice=CHOICE, status=st.sampled_from([200, 400, 410, 503]), size=SIZES)
    def answer_several(self, choice: int, status: int, size: int) -> None:
        self.exchange()
        for number in range(min(len(self.complete), 1 + choice % 7)):
            self.answer(choice + number, status, size)

    def answer(self, choice: int, status: int, size: int) -> None:
        stream_id = self.complete.pop(choice % len(self.complete))
        body = b"r" * size
        self.replies[stream_id] = (status, body)
        if choice % 3 == 0:
            self.server.send_headers(stream_id, [(b":status", b"103")])
        headers = [(b":status", b"%d" % status), (b"apns-id", self.ids[stream_id])]
        if choice % 2 and size:
            headers.append((b"content-length", b"%d" % size))
        self.server.send_headers(stream_id, headers, end_stream=not size)
        if size:
            self.reply_rest[stream_id] = body

    @rule(choice=CHOICE)
    def cancel(self, choice: int) -> None:
        open_streams = [*self.client._waiting, *self.client._streams]
        if len(open_streams) > 3:
            stream_id = open_streams[choice % len(open_streams)]
            self.cancelled.add(stream_id)
            self.client.reset_stream(stream_id)

    @rule(choice=CHOICE, code=st.sampled_from([7, 7, 2, 8]))
    @precondition(lambda self: self.complete)
    def reset_by_the_server(self, choice: int, code: int) -> None:
        self.exchange()  # so that a cancellation does not cross it
        if self.complete:
            stream_id = self.complete.pop(choice % len(self.complete))
            self.reset[stream_id] = code
            self.server.reset_stream(stream_id, code)

    @rule(window=WINDOWS)
    def change_initial_window(self, window: int) -> None:
        self.server.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})

    @rule(streams=STREAMS)
    def change_streams(self, streams: int) -> None:
        self.server.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: streams})

    @rule(table=TABLES, again=TABLES)
    def change_table(self, table: int, again: int) -> None:
        self.server.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: table})
        self.server.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: again})

    @rule()
    def grant(self) -> None:
        if self.withheld:
            self.server.increment_flow_control_window(self.withheld)
            self.withheld = 0
        for stream_id in list(self.received):
            if stream_id in self.client._streams:
                self.server.increment_flow_control_window(20_000, stream_id)

    @rule(stream_choice=CHOICE)
    @precondition(lambda self: not self.going_away)
    def go_away(self, stream_choice: int) -> None:
        if stream_choice % 25:
            return
        self.exchange()
        self.going_away = True
        self.client_goaway_last = max(self.received, default=0)
        # h2 closes its own state on close_connection, so the frame is written by hand.
        last = self.client_goaway_last.to_bytes(4, "big")
        self.server._data_to_send += b"\0\0\x08\x07\0\0\0\0\0" + last + b"\0\0\0\0"

    @rule()
    def ping(self) -> None:
        self.pings += 1
        self.client.ping(self.pings.to_bytes(8, "big"))
        self.server.ping(b"pingping")

    @rule()
    def carry(self) -> None:
        self.exchange()

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "client"):
            return
        settled = len(self.outcomes) + len(self.cancelled)
        assert self.client.open_streams == len(self.sent) - settled
        assert self.client._queue.waiting_bytes >= 0
        if self.going_away and self.client.going_away:
            assert self.client.available_streams == 0

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        window = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
        self.server.update_settings({window: 100_000})
        for _ in range(200):
            self.exchange()
            if self.withheld:
                self.server.increment_flow_control_window(self.withheld)
                self.withheld = 0
            while self.complete:
                self.answer(1, 200, 10)
            if not self.client.open_streams:
                break
        assert self.client.open_streams == 0
        assert self.client._queue.waiting_bytes == 0
        assert len(self.outcomes) + len(self.cancelled) == len(self.sent)


class OurServer(RuleBasedStateMachine):
    """Our server, h2 as the client."""

    @initialize(automatic=st.booleans())
    def connect(self, automatic: bool) -> None:
        self.server = ServerConnection(
            settings={Setting.MAX_CONCURRENT_STREAMS: 10},
            automatic_windows=automatic,
            max_request_body=1_000_000,
        )
        self.automatic = automatic
        self.table = 4096
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.server.start()
        self.client.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.body_rest: dict[int, bytes] = {}
        self.requests: list[int] = []
        self.replies: dict[int, tuple[int, bytes]] = {}
        self.got: dict[int, bytearray] = {}
        self.finished: set[int] = set()
        self.withheld = 0
        self.exchange()

    def exchange(self) -> None:
        # A window of one byte would take a round for each byte of a body: the rest goes later.
        for _ in range(ROUNDS):
            self.send_bodies()
            to_server = self.client.data_to_send()
            if to_server:
                for event in self.server.receive(to_server):
                    self.server_saw(event)
            to_client = self.server.data_to_send()
            if to_client:
                for event in self.client.receive_data(to_client):
                    self.client_saw(event)
            if not to_server and not to_client:
                return

    def send_bodies(self) -> None:
        for stream_id, rest in list(self.body_rest.items()):
            size = min(
                self.client.local_flow_control_window(stream_id),
                len(rest),
                self.client.max_outbound_frame_size,
            )
            if size > 0:
                last = size == len(rest)
                self.client.send_data(stream_id, rest[:size], end_stream=last, pad_length=None)
                self.body_rest[stream_id] = rest[size:]
                if last:
                    del self.body_rest[stream_id]

    def server_saw(self, event: object) -> None:
        if isinstance(event, RequestReceived):
            assert event.body == self.bodies[event.stream_id]
            assert not event.truncated
            self.requests.append(event.stream_id)
        elif isinstance(event, StreamReset):
            assert not event.local, event
            assert event.stream_id in self.finished
            if event.stream_id in self.requests:
                self.requests.remove(event.stream_id)
        else:
            kinds = (SettingsReceived, SettingsAcknowledged, PingAcknowledged)
            assert isinstance(event, kinds)

    def client_saw(self, event: object) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            status = dict((bytes(n), bytes(v)) for n, v in event.headers)[b":status"]  # noqa: C402
            assert int(status) == self.replies[event.stream_id][0]
            self.got[event.stream_id] = bytearray()
        elif isinstance(event, h2.events.DataReceived):
            self.got[event.stream_id] += event.data
            self.withheld += event.flow_controlled_length
        elif isinstance(event, h2.events.StreamEnded):
            assert bytes(self.got[event.stream_id]) == self.replies[event.stream_id][1]
            self.finished.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            assert event.remote_reset
            self.finished.add(event.stream_id)
            self.body_rest.pop(event.stream_id, None)

    @rule(size=SIZES, huge=st.integers(0, 9), trailers=st.booleans(), count=st.integers(1, 6))
    def request_several(self, size: int, huge: int, trailers: bool, count: int) -> None:
        for _ in range(count):
            self.request(size, huge == 1, trailers)

    def request(self, size: int, huge: bool, trailers: bool) -> None:
        self.exchange()
        limit = self.client.remote_settings.max_concurrent_streams
        if self.client.open_outbound_streams >= limit:
            return
        stream_id = self.client.get_next_available_stream_id()
        headers = [
            (b":method", b"POST"),
            (b":path", PATH),
            (b":scheme", b"https"),
            (b":authority", b"a"),
            (b"apns-id", apns_id(stream_id)),
        ]
        if huge:
            headers.append((b"x-huge", b"h" * 20_000))  # HEADERS and CONTINUATION
        self.bodies[stream_id] = b"b" * size
        if trailers and not size:
            self.client.send_headers(stream_id, headers)
            self.client.send_headers(stream_id, [(b"checksum", b"1")], end_stream=True)
            return
        self.client.send_headers(stream_id, headers, end_stream=not size)
        if size:
            self.body_rest[stream_id] = self.bodies[stream_id]

    @rule(choice=CHOICE, status=st.sampled_from([200, 400, 413]), size=SIZES)
    @precondition(lambda self: self.requests)
    def respond(self, choice: int, status: int, size: int) -> None:
        stream_id = self.requests.pop(choice % len(self.requests))
        body = b"r" * size
        self.replies[stream_id] = (status, body)
        self.server.send_response(stream_id, status, [(b"apns-id", APNS_ID)], body)

    @rule(choice=CHOICE)
    @precondition(lambda self: self.requests)
    def reset_by_the_server(self, choice: int) -> None:
        stream_id = self.requests.pop(choice % len(self.requests))
        self.server.reset_stream(stream_id, ErrorCode.INTERNAL_ERROR)

    @rule(choice=CHOICE)
    def reset_by_the_client(self, choice: int) -> None:
        self.exchange()
        open_streams = [stream_id for stream_id in self.bodies if stream_id not in self.finished]
        if len(open_streams) > 2:
            stream_id = open_streams[choice % len(open_streams)]
            self.finished.add(stream_id)
            self.body_rest.pop(stream_id, None)
            self.client.reset_stream(stream_id, 8)

    @rule(window=WINDOWS, table=TABLES)
    def client_settings(self, window: int, table: int) -> None:
        codes = h2.settings.SettingCodes
        self.client.update_settings(
            {codes.INITIAL_WINDOW_SIZE: window, codes.HEADER_TABLE_SIZE: table}
        )

    @rule(window=WINDOWS, streams=st.sampled_from([1, 5, 100]), table=TABLES)
    def server_settings(self, window: int, streams: int, table: int) -> None:
        changes = {Setting.INITIAL_WINDOW_SIZE: window, Setting.MAX_CONCURRENT_STREAMS: streams}
        if table != self.table:  # hpack forgets its size update when told the same size twice
            changes[Setting.HEADER_TABLE_SIZE] = self.table = table
        self.server.change_settings(changes)

    @rule()
    def client_grants(self) -> None:
        if self.withheld:
            self.client.increment_flow_control_window(self.withheld)
            self.withheld = 0

    @rule()
    def server_grants(self) -> None:
        if not self.automatic:
            self.server.grant_window(0, 1000)
            for stream_id in self.server.open_requests():
                self.server.grant_window(stream_id, 500)

    @rule()
    def ping(self) -> None:
        self.server.ping(b"12345678")
        self.client.ping(b"87654321")

    @rule()
    def carry(self) -> None:
        self.exchange()

    @invariant()
    def nothing_is_kept_for_finished_streams(self) -> None:
        if hasattr(self, "server"):
            assert self.server.open_streams <= len(self.bodies)

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        self.server.change_settings({Setting.INITIAL_WINDOW_SIZE: 200_000})
        window = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
        self.client.update_settings({window: 200_000})
        for _ in range(400):
            self.exchange()
            if not self.automatic:
                self.server.grant_window(0, 60_000)
            self.client_grants()
            while self.requests:
                self.respond(0, 200, 5)
            if not self.server.open_streams and len(self.finished) == len(self.bodies):
                break
        assert self.server.open_streams == 0
        assert len(self.finished) == len(self.bodies)


STEPS = settings(settings.default, stateful_step_count=60)


def test_our_client_with_h2_as_the_server() -> None:
    run_state_machine_as_test(OurClient, settings=STEPS)


def test_our_server_with_h2_as_the_client() -> None:
    run_state_machine_as_test(OurServer, settings=STEPS)
