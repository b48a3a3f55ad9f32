"""Channel management against a scripted host."""

import json
import pickle
from typing import Any

import pytest

from apns_live.channels import BroadcastChannel, Channels
from apns_live.credentials import ProviderKey, ProviderTokens
from apns_live.errors import (
    ChannelError,
    ClientClosed,
    ConnectFailed,
    InvalidSetting,
    InvalidToken,
    ManagementUnreachable,
)

from .conftest import CHANNEL, Answer, PatientClock, Script, Vanishing, refusal

CREATED = Answer(201, {"apns-channel-id": CHANNEL})


def body(**content: object) -> bytes:
    return json.dumps({name.replace("_", "-"): value for name, value in content.items()}).encode()


async def test_create_says_what_apple_documents(script: Script, channels: Channels) -> None:
    script.answers = [CREATED]
    channel = await channels.create(storage_policy=0)
    assert channel == CHANNEL
    assert isinstance(channel, str)
    assert (channel.storage_policy, channel.environment) == (0, "sandbox")
    (seen,) = script.seen
    assert (seen.method, seen.path) == ("POST", "/1/apps/com.example.scores/channels")
    assert json.loads(seen.body) == {"message-storage-policy": 0, "push-type": "LiveActivity"}
    assert seen.headers["authorization"].startswith("bearer ey")
    assert len(seen.headers["apns-request-id"]) == 36
    assert seen.http_version == "2"


async def test_read_list_and_delete(script: Script, channels: Channels) -> None:
    script.answers = [
        Answer(200, body=body(message_storage_policy=1, push_type="LiveActivity")),
        Answer(200, body=body(channels=[CHANNEL, "b3RoZXI="])),
        Answer(204),
    ]
    assert (await channels.read(CHANNEL)).storage_policy == 1
    listing = await channels.list()
    assert listing == [CHANNEL, "b3RoZXI="]
    assert [channel.storage_policy for channel in listing] == [1, None]
    assert await channels.delete(CHANNEL) is True
    assert [seen.method for seen in script.seen] == ["GET", "GET", "DELETE"]
    assert script.seen[1].path == "/1/apps/com.example.scores/all-channels"
    assert [seen.headers.get("apns-channel-id") for seen in script.seen] == [CHANNEL, None, CHANNEL]
    assert channels.storage_policy(CHANNEL) is None


async def test_one_connection_serves_all_calls(script: Script, channels: Channels) -> None:
    script.answers = [Answer(204)]
    for _ in range(5):
        await channels.delete(CHANNEL)
    assert len({seen.connection for seen in script.seen}) == 1


async def test_deleting_what_is_gone_is_a_success(script: Script, channels: Channels) -> None:
    script.answers = [CREATED, refusal(404, "BadPath")]
    channel = await channels.create()
    assert await channels.delete(channel) is False
    # The channel that the caller still holds knows its policy; the client has forgotten it.
    assert channels.storage_policy(str(channel)) is None


async def test_policy_is_remembered_for_broadcasts(script: Script, channels: Channels) -> None:
    script.answers = [CREATED]
    await channels.create(storage_policy=0)
    assert channels.storage_policy(CHANNEL) == 0
    assert channels.storage_policy("b3RoZXI=") is None
    assert channels.storage_policy(BroadcastChannel("b3RoZXI=", storage_policy=1)) == 1


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (400, "BroadcastFeatureNotEnabled", "Switch Broadcast on"),
        (400, "FeatureNotEnabled", "Switch Broadcast on"),
        (400, "CannotCreateChannelConfig", "Delete channels"),
        (400, "BadChannelId", "Create the channel again"),
        (403, "InvalidProviderToken", "team id"),
        (404, "BadPath", "bundle id"),
        (400, "SomethingNew", "not in Apple's documentation"),
    ],
)
async def test_refusals_say_what_to_do(
    script: Script, channels: Channels, status: int, reason: str, said: str
) -> None:
    script.answers = [refusal(status, reason)]
    with pytest.raises(ChannelError, match=said) as caught:
        await channels.read(CHANNEL)
    error = caught.value
    assert (error.status, error.reason) == (status, reason)
    assert error.remedy
    assert error.request_id == script.seen[0].headers["apns-request-id"]
    assert len(script.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, body=b"<html>"),
        Answer(200, body=b"[]"),
        Answer(200, body=b""),
        Answer(200, body=body(message_storage_policy="1")),
    ],
)
async def test_p17_strange_answers_are_channel_errors(
    script: Script, channels: Channels, answer: Answer
) -> None:
    script.answers = [answer]
    with pytest.raises(ChannelError, match="Apple's management host"):
        await channels.read(CHANNEL)


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", b'{"reason": 7}'])
async def test_p17_strange_refusals_are_channel_errors(
    script: Script, channels: Channels, content: bytes
) -> None:
    script.answers = [Answer(418, body=content)]
    with pytest.raises(ChannelError) as caught:
        await channels.list()
    assert (caught.value.status, caught.value.reason) == (418, "")


async def test_create_without_an_id_is_an_error(script: Script, channels: Channels) -> None:
    script.answers = [Answer(201)]
    with pytest.raises(ChannelError, match="no apns-channel-id"):
        await channels.create()


async def test_overload_is_waited_out(
    script: Script, channels: Channels, clock: PatientClock
) -> None:
    script.answers = [refusal(503, "Service Unavailable"), refusal(503, ""), CREATED]
    assert await channels.create() == CHANNEL
    assert clock.waits == [1.0, 2.0]
    assert len({seen.headers["apns-request-id"] for seen in script.seen}) == 1


async def test_p18_retry_after_is_honoured(
    script: Script, channels: Channels, clock: PatientClock
) -> None:
    date = "Fri, 15 Jan 2027 08:00:41 GMT"  # 1_800_000_041
    script.answers = [
        refusal(429, "TooManyRequests", retry_after="7"),
        refusal(503, "ServiceUnavailable", retry_after=date),
        CREATED,
    ]
    await channels.create()
    assert clock.waits == [7.0, pytest.approx(34.0)]


async def test_waiting_ends_at_the_deadline(
    script: Script, channels: Channels, clock: PatientClock
) -> None:
    script.answers = [refusal(503, "ServiceUnavailable")]
    with pytest.raises(ChannelError) as caught:
        await channels.list()
    assert caught.value.status == 503
    assert clock.waits == [1.0, 2.0, 4.0, 8.0, 16.0]


async def test_a_failed_create_is_not_tried_again(script: Script, channels: Channels) -> None:
    script.answers = [refusal(500, "InternalServerError"), CREATED]
    with pytest.raises(ChannelError) as caught:
        await channels.create()
    assert caught.value.status == 500
    assert len(script.seen) == 1


async def test_a_failed_read_is_tried_twice_more(
    script: Script, channels: Channels, clock: PatientClock
) -> None:
    script.answers = [
        refusal(500, "InternalServerError"),
        refusal(500, "InternalServerError"),
        Answer(200, body=body(channels=[])),
    ]
    assert await channels.list() == []
    assert clock.waits == [1.0, 10.0]


async def test_shutdown_means_another_connection_at_once(
    script: Script, channels: Channels, clock: PatientClock
) -> None:
    script.answers = [refusal(503, "Shutdown"), CREATED]
    await channels.create()
    assert clock.waits == []
    first, second = script.seen
    assert first.connection != second.connection


async def test_p3_an_expired_token_is_replaced_once(
    script: Script, key: ProviderKey, clock: PatientClock
) -> None:
    async def late(answer: Answer) -> Channels:
        script.answers = [CREATED, answer, CREATED]
        channels = Channels(
            ProviderTokens(key, clock),
            bundle_id="com.example.scores",
            host="localhost",
            port=script.port,
            ca_file=script.ca_file,
            clock=clock,
        )
        await channels.create()
        return channels

    channels = await late(refusal(403, "ExpiredProviderToken"))
    clock.now += 1_400  # another window, but the connection's token is not 50 minutes old
    await channels.create()
    tokens = [seen.headers["authorization"] for seen in script.seen]
    assert tokens[0] == tokens[1] != tokens[2]
    await channels.aclose()

    script.seen.clear()
    channels = await late(
        refusal(403, "ExpiredProviderToken", date="Fri, 15 Jan 2027 06:33:20 GMT")
    )
    with pytest.raises(ChannelError, match=r"clock.*\+6600 s off"):
        await channels.create()
    assert len(script.seen) == 2
    await channels.aclose()


async def test_too_many_token_updates_retires_the_connection(
    script: Script, channels: Channels
) -> None:
    script.answers = [refusal(429, "TooManyProviderTokenUpdates"), CREATED]
    await channels.create()
    first, second = script.seen
    assert first.connection != second.connection
    assert first.headers["authorization"] == second.headers["authorization"]


async def test_another_key_gets_another_connection(
    script: Script, channels: Channels, key: ProviderKey, clock: PatientClock, tmp_path: object
) -> None:
    from pathlib import Path

    from apns_live.testing.certificates import provider_key_in

    script.answers = [CREATED]
    await channels.create()
    path, _ = provider_key_in(Path(str(tmp_path)), "ZYX987WVUT")
    other = ProviderKey.from_file(path, team_id="DEF123GHIJ")
    channels.use_tokens(ProviderTokens(other, clock))
    await channels.create()
    first, second = script.seen
    assert first.connection != second.connection
    assert first.headers["authorization"] != second.headers["authorization"]


async def test_a_blocked_port_is_named(
    key: ProviderKey, clock: PatientClock, unused_port: int
) -> None:
    channels = Channels(
        ProviderTokens(key, clock),
        bundle_id="com.example.scores",
        host="127.0.0.1",
        port=unused_port,
        clock=clock,
    )
    with pytest.raises(ManagementUnreachable, match="2195 and 2196"):
        await channels.list()
    await channels.aclose()


async def test_an_untrusted_host_is_a_tls_error(
    script: Script, key: ProviderKey, clock: PatientClock
) -> None:
    channels = Channels(
        ProviderTokens(key, clock),
        bundle_id="com.example.scores",
        host="localhost",
        port=script.port,
        clock=clock,
    )
    with pytest.raises(ConnectFailed, match="TLS with the management host") as caught:
        await channels.list()
    assert not isinstance(caught.value, ManagementUnreachable)
    assert "certificate" in str(caught.value)
    await channels.aclose()


async def test_a_lost_answer_to_create_is_not_repeated(
    vanishing: Vanishing, certificates: Any, key: ProviderKey, clock: PatientClock
) -> None:
    channels = Channels(
        ProviderTokens(key, clock),
        bundle_id="com.example.scores",
        host="127.0.0.1",
        port=vanishing.port,
        ca_file=str(certificates.ca_file),
        clock=clock,
    )
    with pytest.raises(ChannelError, match="The channel may exist") as caught:
        await channels.create()
    assert caught.value.status == 0
    assert vanishing.requests == 1
    # Reading does no harm, so it is tried once more.
    with pytest.raises(ChannelError, match="Try again"):
        await channels.list()
    assert vanishing.requests == 3
    await channels.aclose()


async def test_closed_means_closed(channels: Channels) -> None:
    await channels.aclose()
    with pytest.raises(ClientClosed):
        await channels.list()


@pytest.mark.parametrize("policy", [2, -1, True, None, "1"])
async def test_other_policies_are_refused_before_anything_is_sent(
    script: Script, channels: Channels, policy: object
) -> None:
    with pytest.raises(InvalidSetting, match="storage_policy"):
        await channels.create(policy)  # type: ignore[arg-type]
    assert script.seen == []


@pytest.mark.parametrize("text", ["", "a\r\nb", "ä", "x" * 5000])
async def test_what_is_no_channel_id_is_refused_before_anything_is_sent(
    script: Script, channels: Channels, text: str
) -> None:
    with pytest.raises(InvalidToken):
        await channels.read(text)
    assert script.seen == []


def test_a_channel_survives_pickling() -> None:
    channel = BroadcastChannel(CHANNEL, storage_policy=1, environment="production")
    copy = pickle.loads(pickle.dumps(channel))
    assert (copy, copy.storage_policy, copy.environment) == (CHANNEL, 1, "production")
    assert "storage_policy=1" in repr(copy)


def test_the_repr_has_no_secrets(channels: Channels) -> None:
    assert repr(channels).startswith("Channels('com.example.scores' at localhost:")
