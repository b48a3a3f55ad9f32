"""The client: sends pushes with one provider key, for one bundle id, in one environment."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from ..clock import Clock, SystemClock
from ..credentials import ProviderKey, ProviderTokens
from ..errors import ClientClosed, InvalidPayload, InvalidSetting
from ..outcome import Outcome
from ..payload import EncodedMessage, Message, check_bundle_id, check_channel, check_token, encode
from ..pool import Endpoint, Hooks, Pool, PoolOptions, Push, RequestIds, Sendable, Transport
from ..pool.connect import Connector, Proxy, Resolver, make_ssl_context, system_resolver
from ..pool.endpoint import check_positive, resolve_environment
from ..refusals import refused
from .attachment import AlikeSource, Attachment, WorkSource
from .edge import DropsTo, HomeLoop, check_deadline, check_seconds
from .engine import Engine
from .prepared import HeaderBook, RecentMessage
from .reading import Tokens, read_tokens
from .run import EngineRun, Run
from .single import WaitingRoom
from .statistics import Statistics, snapshot
from .workers import Sharing, check_workers

if TYPE_CHECKING:
    from ..channels import Channels
    from ..contracts import Contract
    from .httpx_transport import HttpxTransport


class Client:
    """Sends pushes for one bundle id with one provider key. Create one and keep it open.

    It connects at the first push. All times are seconds.

    - ``environment``: ``"production"``, ``"sandbox"`` or an `Endpoint`.
    - ``transport``: ``"http2"`` (our own, fast) or ``"httpx"`` (slow; if a proxy breaks ours).
    - ``max_connections``, ``min_connections``: limits of the pool, which grows by need.
    - ``connect_timeout``: for DNS, TCP and TLS. ``response_timeout``: for one answer.
      ``close_timeout``: for pushes in flight when closing.
    - ``waiting_room``: how many ``send`` calls may wait for a connection. A further call waits
      ``queue_timeout`` and then raises `PoolFull`.
    - ``proxy``: ``http://[user:password@]host:port`` of a CONNECT proxy.
    - ``resolver``: an async function of host and port that returns addresses.
    - ``ssl_context``: your own context; it must verify certificates. ``hooks``: see `Hooks`.
    - ``never_index_authorization``: keep the provider token out of HPACK's tables.
    - ``deterministic_tokens``: see `ProviderTokens`. ``pool``: all other settings of the pool.
    - ``contracts``: the app's Swift source (`apns_live.contracts`). A state that it does not
      decode raises `InvalidPayload`. ``request_ids``: gives each push its ``apns-id``.

    Raises `InvalidSetting` for an invalid argument.
    """

    def __init__(
        self,
        key: ProviderKey,
        *,
        bundle_id: str,
        environment: str | Endpoint = "production",
        transport: Literal["http2", "httpx"] = "http2",
        clock: Clock | None = None,
        max_connections: int | None = None,
        min_connections: int | None = None,
        connect_timeout: float | None = None,
        response_timeout: float | None = None,
        close_timeout: float | None = None,
        waiting_room: int = 10_000,
        queue_timeout: float = 30.0,
        proxy: str | None = None,
        resolver: Resolver = system_resolver,
        ssl_context: ssl.SSLContext | None = None,
        hooks: Hooks | None = None,
        never_index_authorization: bool = False,
        deterministic_tokens: bool = True,
        pool: PoolOptions | None = None,
        contracts: Contract | None = None,
        request_ids: RequestIds | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        if not isinstance(key, ProviderKey):
            raise refused(InvalidSetting, "not_a_key", "key", kind=type(key).__name__)
        if transport not in ("http2", "httpx"):
            raise refused(InvalidSetting, "transport", "transport", transport=transport)
        check_positive("waiting_room", waiting_room)
        check_positive("queue_timeout", queue_timeout)
        self.bundle_id = check_bundle_id(bundle_id)
        self.endpoint = resolve_environment(environment)
        self.environment = environment if isinstance(environment, str) else ""
        self.clock: Clock = clock or SystemClock()
        given: dict[str, Any] = {
            "max_connections": max_connections,
            "min_connections": min_connections,
            "connect_timeout": connect_timeout,
            "response_timeout": response_timeout,
            "close_timeout": close_timeout,
        }
        self.options = replace(
            pool or PoolOptions(),
            **{name: value for name, value in given.items() if value is not None},
        )
        tunnel = None if proxy is None else Proxy.from_url(proxy)
        self.ssl_context = make_ssl_context(self.endpoint.ca_file, ssl_context)
        self.hooks = hooks or Hooks()
        self._contracts = contracts
        self.provider_tokens = ProviderTokens(key, self.clock, deterministic=deterministic_tokens)
        self._sharing = Sharing(
            bundle_id=self.bundle_id,
            endpoint=self.endpoint,
            options=self.options,
            proxy=proxy,
            never_index=never_index_authorization,
            own={
                "clock": clock,
                "resolver": resolver is not system_resolver,
                "ssl_context": ssl_context,
                "hooks": hooks,
                "request_ids": request_ids,
                "transport": transport != "http2",
            },
        )
        self._headers = HeaderBook(self.bundle_id, never_index_authorization)
        self._engine = Engine(self.clock, self.options.response_timeout, self.hooks, request_ids)
        kind: type[Pool | HttpxTransport] = Pool
        if transport == "httpx":
            from .httpx_transport import HttpxTransport  # noqa: PLC0415 - most programs do not

            kind = HttpxTransport
        self._transport: Transport = kind(
            self._engine,
            Connector(self.endpoint, self.ssl_context, resolver, tunnel),
            self.provider_tokens,
            clock=self.clock,
            options=self.options,
            hooks=self.hooks,
            uniform=uniform,
        )
        self._engine.transport = self._transport
        self._room = WaitingRoom(self._engine, capacity=waiting_room, queue_timeout=queue_timeout)
        self._channels: Channels | None = None
        self._recent = RecentMessage(
            lambda message, now: self.prepare(self.check_decodes(encode(message, now=now)))
        )
        self._home = HomeLoop()
        self._end: asyncio.Future[None] | None = None
        """Set when closing begins, done when it has ended."""

    def __repr__(self) -> str:
        state = "closed" if self.is_closed() else "closing" if self._end else "open"
        return (
            f"<Client {state} {self.bundle_id} at {self.endpoint.host}:{self.endpoint.port} "
            f"key {self.provider_tokens.key.key_id} {self._transport!r}>"
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        await self.aclose(drain=None if kind is None else 0.0)

    def is_closed(self) -> bool:
        """Whether `aclose` has finished."""
        return self._end is not None and self._end.done()

    # Sending

    async def send(
        self, message: Message | Sendable, token: str, *, deadline: float | None = None
    ) -> Outcome:
        """Send one push and return its outcome.

        ``deadline`` is in seconds from now, for waiting, retries and the answer together. Without
        it the client retries for at most a minute. Raises `InvalidInput` if APNs or a phone would
        refuse the message, `PoolFull` or `ClientClosed`; in these cases nothing was sent.
        """
        self._check_open()
        sendable = self._sendable(message)
        check_token(token, message=sendable.encoded)
        check_deadline(deadline)
        return await self._room.send(Push(token, sendable), deadline)

    async def broadcast(
        self, message: Message, channel: str, *, deadline: float | None = None
    ) -> Outcome:
        """Send an `Update` or `End` to every subscriber of a channel and return its outcome.

        Apple, "Sending broadcast push notification requests to APNs". Raises as `send` does.
        """
        self._check_open()
        check_channel(channel)
        check_deadline(deadline)
        policy = getattr(channel, "storage_policy", None)
        if policy is None and self._channels is not None:
            policy = self._channels.storage_policy(channel)
        encoded = encode(message, now=self.clock.time(), target="broadcast", storage_policy=policy)
        sendable = self.prepare(self.check_decodes(encoded), channel=channel)
        return await self._room.send(Push(channel, sendable), deadline)

    def fan_out(
        self,
        message: Message | Sendable,
        tokens: Tokens,
        *,
        deadline: float | None = None,
        dedupe: bool = False,
        drops_to: DropsTo | None = None,
        workers: int = 1,
    ) -> Run:
        """Send one message to many tokens; see `Run`. Raises `InvalidInput`.

        ``tokens`` is an iterable or async iterable, read only as fast as it can be sent.
        ``deadline`` is in seconds from the start of the run. ``dedupe`` skips repeated tokens.
        ``drops_to`` is a function that is called with each outcome with DROP_TOKEN, or a file for
        them (JSON Lines). ``workers`` is the number of worker processes. They divide
        ``max_connections`` among them, and ``connection_id`` is a number within one worker.
        """
        self._check_open()
        check_deadline(deadline)
        check_workers(workers)
        sendable = self._sendable(message)
        reader = read_tokens(tokens, dedupe=dedupe)
        options: dict[str, Any] = {
            "priority": sendable.priority,
            "deadline": deadline,
            "drops_to": drops_to,
            "may_start": self._check_open,
        }
        if workers > 1:
            return self._sharing.run(
                self.clock, sendable, reader, self.provider_tokens, workers=workers, **options
            )
        return EngineRun(self._engine, sendable, reader, **options)

    @property
    def channels(self) -> Channels:
        """Creates, lists and deletes broadcast channels, on Apple's management host."""
        if self._channels is None:
            from ..channels import Channels  # noqa: PLC0415 - needs httpx; most programs do not

            host, port = self.endpoint.management
            ca_file = self.endpoint.ca_file
            self._channels = Channels(
                self.provider_tokens,
                bundle_id=self.bundle_id,
                host=host,
                port=port,
                environment=self.environment,
                ca_file=None if ca_file is None else str(ca_file),
                proxy=self._sharing.proxy,
                clock=self.clock,
                connect_timeout=self.options.connect_timeout,
                response_timeout=self.options.response_timeout,
            )
        return self._channels

    # For delivery and other sources of work

    def check_decodes(self, encoded: EncodedMessage) -> EncodedMessage:
        """Return the message. Raises `InvalidPayload` if a contract refuses it."""
        if self._contracts is not None and encoded.push_type == "liveactivity":
            # A start names its type, which may differ from the last start's.
            named = encoded.event == "start"
            check = self._contracts.check_payload if named else self._contracts.check_change
            verdict = check(encoded.body)
            if verdict.ok is False:
                problem = f"the app does not decode it: {verdict.message}"
                raise InvalidPayload(problem, field="message")
        return encoded

    def prepare(self, encoded: EncodedMessage, *, channel: str | None = None) -> Sendable:
        """Return an encoded message with this client's headers, for use with many pushes."""
        if channel is None:
            return Sendable(encoded, self._headers.of(encoded))
        path = f"/4/broadcasts/apps/{self.bundle_id}"
        return Sendable(encoded, self._headers.of(encoded, channel), channel_path=path)

    def attach(
        self,
        source: WorkSource | AlikeSource,
        *,
        retry: bool = True,
        response_timeout: float | None = None,
        deadline: float | None = None,
        tokens_checked: bool = False,
        alike: bool = False,
    ) -> Attachment:
        """Send pushes that ``source`` provides; see `WorkSource`. Times are seconds from now.

        With ``retry=False`` the source gets SLOW_DOWN, RETRY_LATER and UNKNOWN at once and decides
        about retries. The client still resends pushes that were certainly not processed. An invalid
        token gets FIX_REQUEST. ``tokens_checked`` means that `check_token` was called for all,
        ``alike`` that the source is an `AlikeSource`.
        """
        self._check_open()
        check_deadline(deadline)
        check_deadline(response_timeout, "response_timeout")
        how: dict[str, Any] = {"response_timeout": response_timeout, "deadline": deadline}
        how |= {"retry": retry, "checked": tokens_checked, "alike": alike}
        return self._engine.attach(source, **how)

    # Keys, statistics, closing.

    def replace_key(self, key: ProviderKey) -> None:
        """Use another key for new pushes. Pushes in flight finish on their connections."""
        self._check_open()
        self.provider_tokens = self.provider_tokens.with_key(key)
        self._headers.forget_tokens()
        self._transport.retire_all("the provider key was replaced", self.provider_tokens)
        if self._channels is not None:
            self._channels.use_tokens(self.provider_tokens)

    def statistics(self) -> Statistics:
        """Return a frozen snapshot."""
        return snapshot(
            self._engine.counters,
            transport=self._transport,
            waiting=len(self._room) + len(self._engine.waiting),
            pause=self._engine.refusals.pause(self.clock.monotonic()),
        )

    async def aclose(self, *, drain: float | None = None) -> None:
        """Accept no more pushes, wait up to ``drain`` seconds for pending ones, and close.

        ``drain`` defaults to ``close_timeout``; an exception that leaves ``async with`` drains
        nothing. After that, pushes that were not sent are NOT_SENT, and pushes without an answer are
        UNKNOWN. May be called more than once: each call returns when the client is closed.
        """
        if drain is not None:
            check_seconds(drain, "drain", zero=True)
        if self._end is not None:
            if not self._end.done():
                await asyncio.shield(self._end)
            return
        gone = self._home.has_ended()
        if not gone:
            self._home.check()
        self._end = asyncio.get_running_loop().create_future()
        if gone:  # its event loop, and everything to close on it, is gone
            self._end.set_result(None)
            return
        patience = self.options.close_timeout if drain is None else drain
        deadline = self.clock.monotonic() + patience
        self._room.closed = True
        self._engine.stop_sources()
        try:
            await self._sharing.close(patience)
            while patience > 0 and (self._engine.busy() or len(self._room)):
                left = deadline - self.clock.monotonic()
                if left <= 0:
                    break
                await self._engine.changed(left)
        finally:
            try:
                self._room.close()
                self._engine.close()
                await self._transport.aclose(deadline)
                if self._channels is not None:
                    await self._channels.aclose()
            finally:
                self._end.set_result(None)

    # Helpers

    def _check_open(self) -> None:
        if self._end is not None:
            raise ClientClosed("the client is closed; nothing was sent")
        self._home.check()

    def _sendable(self, message: Message | Sendable) -> Sendable:
        if isinstance(message, Sendable):
            return message
        return self._recent.sendable(message, self.clock.time())
