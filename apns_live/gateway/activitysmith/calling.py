"""A call of this dialect: what is further known of it."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from ...activities.accept.idempotency import Key
from ...activities.times import to_text
from ..calls import Call as AnyCall
from .dialect import DialectSettings, settings_of


class Call(AnyCall):
    """A call whose key is of this dialect.

    What only reads may be called by a phone as well, with its device credential: then there is no
    key.
    """

    __slots__ = ()

    @property
    def chosen(self) -> DialectSettings:
        """What the app has set of this dialect. Raises `InvalidSetting`."""
        return settings_of(self.app)

    @property
    def lenient(self) -> bool:
        """Whether fields that nobody knows are ignored."""
        return self.chosen.unknown_fields == "ignore"

    @property
    def moment(self) -> float:
        """Seconds since 1970."""
        return self.gateway.clock.time()

    @property
    def timestamp(self) -> str:
        """The time of the answer, as this dialect writes it."""
        return to_text(self.now) or ""

    def once(self, digest: bytes | None = None) -> Key | None:
        """Return the idempotency key, which this gateway takes beside the API. Raises `InvalidInput`.

        It stands for the request as it came: times and ids that are made of it do not count.
        """
        if b"idempotency-key" not in self.headers:
            return None
        said: list[Any] = [self.scope["method"], self.scope["path"].removeprefix("/api"), self.body]
        return super().once(
            hashlib.sha256(msgspec.json.encode(said, order="deterministic")).digest()
        )

    def base(self) -> str:
        """Return the address of this gateway as phones reach it; empty when it is not known.

        Never what the caller's Host says: phones would send their taps there.
        """
        return self.gateway.settings.public_url or self.gateway.address
