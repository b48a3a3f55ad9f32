"""Broadcast channels: create, read, list and delete them on Apple's management host.

Sources: Apple, "Sending channel management requests to APNs" and "Handling error responses from
Apple Push Notification service". Management is rare, so it uses httpx instead of
the pool: one separate HTTP/2 connection with the same provider tokens.
"""

from __future__ import annotations

import json
import socket
import ssl
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import httpx

from .clock import Clock, SystemClock
from .credentials import ProviderToken, ProviderTokens
from .errors import ChannelError, ClientClosed, ConnectFailed, InvalidSetting, ManagementUnreachable
from .payload import ChannelId, check_bundle_id, check_channel
from .pool.connect import make_ssl_context
from .reasons import Answer, Retry, read_answer
from .refusals import refused
from .retry import Circumstances, LinkAction, next_step

MAX_CHANNELS = 10_000
"""Apple's limit for one app in one environment, and our bound on remembered storage policies."""
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.PoolTimeout)


class BroadcastChannel(ChannelId):
    """A channel id with its storage policy. It is a str, so it can be stored as such.

    ``storage_policy`` is 0 (nothing is stored), 1 (the newest message is stored for at most 8
    hours), or None if only the id is known (Apple's list has only ids).
    """

    storage_policy: int | None
    environment: str

    def __new__(
        cls, text: str, *, storage_policy: int | None = None, environment: str = ""
    ) -> BroadcastChannel:
        """Check the id as `ChannelId` does. Raises `InvalidToken` if it is not valid."""
        self = str.__new__(cls, check_channel(text))
        self.storage_policy = storage_policy
        self.environment = environment
        return self

    def __repr__(self) -> str:
        return (
            f"BroadcastChannel({str(self)!r}, storage_policy={self.storage_policy}, "
            f"environment={self.environment!r})"
        )

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        named = {"storage_policy": self.storage_policy, "environment": self.environment}
        return (str(self),), named


Listing = list[BroadcastChannel]


_OPERATIONS = {
    "create": ("POST", "channels", 201),
    "read": ("GET", "channels", 200),
    "list": ("GET", "all-channels", 200),
    "delete": ("DELETE", "channels", 204),
}
"""Method, collection and status of success of each operation. A create is never sent twice."""


@dataclass(slots=True, eq=False)
class _Link:
    """One HTTP/2 connection and the provider token that it is bound to."""

    client: httpx.AsyncClient
    token: ProviderToken
    users: int = 0
    retired: bool = False
    """Whether it takes no more requests; it is closed when its last one ends."""

    async def close_if_unused(self) -> None:
        if self.retired and not self.users:
            await self.client.aclose()


@dataclass(eq=False, repr=False)
class Channels:
    """Channel management of one bundle id in one environment.

    ``host`` and ``port`` are the management host's (`Endpoint.management`). ``ca_file`` replaces the
    system's trusted roots. Times are seconds: ``connect_timeout`` for DNS, TCP and TLS together,
    ``response_timeout`` for one answer, ``deadline`` for one call with its retries and waits.
    ``make_id`` returns a fresh lower-case UUID for ``apns-request-id``.
    """

    tokens: ProviderTokens
    _: KW_ONLY
    bundle_id: str
    host: str
    port: int
    environment: str = ""
    ca_file: str | None = None
    proxy: str | None = None
    clock: Clock = field(default_factory=SystemClock)
    connect_timeout: float = 10.0
    response_timeout: float = 10.0
    deadline: float = 60.0
    make_id: Callable[[], object] = uuid.uuid4
    _link: _Link | None = None
    _closed: bool = False
    _policies: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        check_bundle_id(self.bundle_id)
        self._where = f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Channels({self.bundle_id!r} at {self._where})"

    async def create(self, storage_policy: int = 1) -> BroadcastChannel:
        """Create a channel and return it.

        With ``storage_policy`` 1 APNs stores the newest message for up to 8 hours; with 0 nothing,
        and it allows more pushes. The policy cannot be changed. Raises `ChannelError` if APNs
        refuses, or if its answer is lost (then `list` shows whether it exists),
        `ManagementUnreachable` or `ConnectFailed` if the host cannot be reached, `InvalidSetting`
        for another policy.
        """
        if storage_policy not in (0, 1) or isinstance(storage_policy, bool):
            raise refused(
                InvalidSetting, "channel_policy", "storage_policy", storage_policy=storage_policy
            )
        body = {"message-storage-policy": int(storage_policy), "push-type": "LiveActivity"}
        response = await self._request("create", body=json.dumps(body).encode())
        text = response.headers.get("apns-channel-id", "")
        if not text:
            raise self._malformed("create", response, "there is no apns-channel-id")
        self._remember(text, storage_policy)
        return self._channel(text)

    async def read(self, channel: str) -> BroadcastChannel:
        """Return the channel with its storage policy.

        Raises `ChannelError` if it does not exist, `InvalidToken` for a malformed id.
        """
        response = await self._request("read", channel)
        policy = self._json("read", response).get("message-storage-policy")
        if policy not in (0, 1):
            raise self._malformed("read", response, "message-storage-policy is missing")
        self._remember(str(channel), int(policy))
        return self._channel(str(channel))

    async def list(self) -> Listing:
        """Return every channel of the app in this environment, at most 10,000.

        Apple's list has only ids, so ``storage_policy`` is set only if this client knows it.
        """
        response = await self._request("list")
        found = self._json("list", response).get("channels")
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise self._malformed("list", response, "channels is not a list of ids")
        return [self._channel(item) for item in found]

    async def delete(self, channel: str) -> bool:
        """Delete the channel permanently; return False if it did not exist.

        APNs answers 404 BadPath for an unknown channel, which counts as success.
        """
        found = True
        try:
            await self._request("delete", channel)
        except ChannelError as error:
            if error.status != 404:
                raise
            found = False
        self._policies.pop(str(channel), None)
        return found

    def storage_policy(self, channel: str) -> int | None:
        """Return the policy of a channel that was created or read here, or None."""
        if isinstance(channel, BroadcastChannel) and channel.storage_policy is not None:
            return channel.storage_policy
        return self._policies.get(str(channel))

    def use_tokens(self, tokens: ProviderTokens) -> None:
        """Use another key's provider tokens from now on, on a connection of their own."""
        self.tokens = tokens
        if self._link is not None:
            self._link.retired = True

    async def aclose(self) -> None:
        """Close the connection. Calls in progress finish; later ones raise `ClientClosed`."""
        self._closed = True
        if self._link is not None:
            self._link.retired = True
            await self._link.close_if_unused()

    async def _request(
        self, operation: str, channel: str | None = None, body: bytes | None = None
    ) -> httpx.Response:
        """Send a request, with the retries of its reason."""
        method, collection, success = _OPERATIONS[operation]
        repeatable = operation != "create"
        headers = {} if channel is None else {"apns-channel-id": check_channel(channel)}
        request_id = str(self.make_id())
        give_up = self.clock.monotonic() + self.deadline
        tries, renewed = 0, False
        while True:
            link = await self._current_link()
            link.users += 1
            try:
                response = await link.client.request(
                    method,
                    f"/1/apps/{self.bundle_id}/{collection}",
                    content=body,
                    headers={
                        **headers,
                        "authorization": link.token.value.decode("ascii"),
                        "apns-request-id": request_id,
                    },
                )
            except httpx.TransportError as error:
                link.retired = True
                if isinstance(error, _NOT_SENT):
                    raise self._unreachable(error) from error
                tries += 1
                if not repeatable or tries > 1:
                    late = isinstance(error, httpx.TimeoutException)
                    what = f"no answer{' in time' if late else ''} from {self._where}"
                    what += f" ({type(error).__name__})"
                    remedy = "The channel may exist: list the channels before creating another."
                    remedy = "Try again." if repeatable else remedy
                    raise _error(operation, what, remedy, request_id) from error
                continue
            finally:
                link.users -= 1
                await link.close_if_unused()
            if response.status_code == success:
                return response
            fields = [(name.lower(), value) for name, value in response.headers.raw]
            answer = read_answer(response.status_code, fields, response.content, self.clock.time())
            step = next_step(
                answer.row,
                Circumstances(
                    tries=tries,
                    renewed=renewed,
                    replay_safe=repeatable,
                    token_is_current=self.tokens.current().value == link.token.value,
                    retry_after=answer.retry_after,
                ),
            )
            if step.link is not LinkAction.KEEP:
                link.retired = True
                await link.close_if_unused()
                renewed = renewed or answer.row.retry is not Retry.NEW_LINK
            delay = step.delay or 0.0
            if not step.again or self.clock.monotonic() + delay > give_up:
                raise self._refused(operation, answer, request_id, response)
            tries += 1
            if delay > 0:
                await self.clock.sleep(delay)

    async def _current_link(self) -> _Link:
        while (link := self._link) is None or link.retired:
            if self._closed:
                raise ClientClosed("the client was closed; channel management is closed with it")
            client = http2_client(
                self.host,
                self.port,
                make_ssl_context(self.ca_file),
                proxy=self.proxy,
                timeout=httpx.Timeout(self.response_timeout, connect=self.connect_timeout),
                keepalive_expiry=300.0,
            )
            self._link = _Link(client, self.tokens.current())
            if link is not None:
                await link.close_if_unused()
        link.token = self.tokens.for_connection(link.token)
        return link

    # Errors for the caller.

    def _channel(self, text: str) -> BroadcastChannel:
        return BroadcastChannel(
            text, storage_policy=self._policies.get(text), environment=self.environment
        )

    def _remember(self, text: str, policy: int) -> None:
        self._policies[text] = policy
        self._policies.move_to_end(text)
        if len(self._policies) > MAX_CHANNELS:
            self._policies.popitem(last=False)

    def _json(self, operation: str, response: httpx.Response) -> dict[str, Any]:
        try:
            content = json.loads(response.content)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise self._malformed(operation, response, "the body is not a JSON object")
        return content

    def _malformed(self, operation: str, response: httpx.Response, problem: str) -> ChannelError:
        what = f"answered {response.status_code}, but {problem}"
        remedy = f"Check that {self._where} is Apple's management host."
        request_id = response.headers.get("apns-request-id", "")
        return _error(operation, what, remedy, request_id, response.status_code)

    def _refused(
        self, operation: str, answer: Answer, request_id: str, response: httpx.Response
    ) -> ChannelError:
        remedy = answer.row.remedy
        if answer.row.retry is Retry.NEW_TOKEN_ONCE and answer.skew is not None:
            remedy += f" It is {answer.skew:+.0f} s off APNs' clock."
        elif operation != "delete" and answer.reason == "BadPath":
            remedy = "Check the channel id and the bundle id."
        said = f"{f'{answer.status} {answer.reason}'.rstrip()}: {answer.row.meaning}"
        request_id = response.headers.get("apns-request-id", request_id)
        return _error(operation, said, remedy, request_id, answer.status, answer.reason)

    def _unreachable(self, error: httpx.TransportError) -> ConnectFailed:
        where, cause = self._where, _root_cause(error)
        if isinstance(cause, ssl.SSLError):
            return ConnectFailed(
                f"TLS with the management host {where} failed ({cause}). "
                "Check ca_file, and whether a proxy opens TLS on the way."
            )
        if isinstance(cause, socket.gaierror):
            return ConnectFailed(f"the management host {self.host} has no address ({cause})")
        if isinstance(error, httpx.ProxyError):
            return ConnectFailed(f"the proxy gave no way to the management host {where} ({error})")
        why = "timed out" if isinstance(error, httpx.TimeoutException) else str(cause or error)
        return ManagementUnreachable(
            f"the channel management port {where} cannot be reached ({why}). Pushes use another "
            "port and may work all the same. Networks often block 2195 and 2196: open the port, "
            "use a proxy, or set the endpoint's manage_host and manage_port."
        )


def _error(
    operation: str, what: str, remedy: str, request_id: str, status: int = 0, reason: str = ""
) -> ChannelError:
    text = f"channel {operation}: {what}. {remedy}".rstrip()
    return ChannelError(text, status=status, reason=reason, remedy=remedy, request_id=request_id)


def http2_client(
    host: str,
    port: int,
    context: ssl.SSLContext,
    *,
    proxy: str | None,
    timeout: httpx.Timeout,
    keepalive_expiry: float | None = 5.0,
) -> httpx.AsyncClient:
    """Return httpx's client with at most one HTTP/2 connection, without settings of the environment."""
    return httpx.AsyncClient(
        base_url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        http1=False,
        http2=True,
        verify=context,
        proxy=proxy,
        trust_env=False,
        timeout=timeout,
        limits=httpx.Limits(max_connections=1, keepalive_expiry=keepalive_expiry),
    )


def _root_cause(error: BaseException) -> BaseException | None:
    """Return the operating system's or TLS library's error that httpx and httpcore wrap."""
    seen: BaseException | None = error
    for _ in range(8):
        seen = seen and (seen.__cause__ or seen.__context__)
        if seen is None or isinstance(seen, OSError):
            return seen
    return None
