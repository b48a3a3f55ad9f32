"""Where the tokens of a fan-out come from, so that it can be resumed without reading all again."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from ..errors import InvalidInput, JournalError
from .journal import SHARD


class TokenPage(NamedTuple):
    """Some tokens, and where to go on after them."""

    tokens: list[str]
    after: str
    """What `TokenSource.read` is given to get the next page: a row id, an offset, a last token."""


@runtime_checkable
class TokenSource(Protocol):
    """Tokens that can be read again from any page on: a table, a file, a service."""

    async def read(self, *, after: str | None, limit: int) -> TokenPage | None:
        """Return at most ``limit`` tokens behind ``after`` (None: from the start); None at the end."""


Tokens = TokenSource | Iterable[str] | AsyncIterable[str]


class FileTokens:
    """A `TokenSource` on a text file with one token a line; empty lines are skipped."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"FileTokens({str(self.path)!r})"

    async def read(self, *, after: str | None, limit: int) -> TokenPage | None:
        """Return the lines behind byte offset ``after``."""
        tokens: list[str] = []
        with self.path.open("rb") as file:
            file.seek(int(after or 0))
            while len(tokens) < limit:
                line = file.readline()
                if not line:
                    break
                token = line.decode("ascii", "replace").strip()
                if token:
                    tokens.append(token)
            return TokenPage(tokens, str(file.tell())) if tokens else None


class Reader:
    """Reads shards from whatever the caller gave.

    ``skip`` tokens were read in an earlier life; a plain iterable must begin with the same ones
    (``digest``), a `TokenSource` goes on behind ``after``.
    """

    def __init__(
        self, tokens: Tokens, *, skip: int = 0, after: str | None = None, digest: bytes = b""
    ) -> None:
        self.after = after
        self.digest = b""
        self.exhausted = False
        self._source: TokenSource | None = None
        self._plain: Iterator[str] | None = None
        self._slow: AsyncIterator[str] | None = None
        self._skip = skip
        self._expected = digest
        if isinstance(tokens, str | bytes):
            raise InvalidInput(
                "one string was given",
                field="tokens",
                remedy="Give a list of tokens, even for one.",
            )
        if isinstance(tokens, TokenSource):
            self._source = tokens
            self.digest = digest
        elif isinstance(tokens, AsyncIterable):
            self._slow = aiter(tokens)
        elif isinstance(tokens, Iterable):
            self._plain = iter(tokens)
        else:
            raise InvalidInput(
                f"{type(tokens).__name__} is neither iterable nor a TokenSource",
                field="tokens",
                remedy="Give an iterable, an async iterable or an object with read(after=..., limit=...).",
            )

    async def next(self) -> list[str]:
        """Return the next tokens, at most a shard; empty at the end.

        Raises JournalError when a plain iterable is not the one that was begun with.
        """
        if self.exhausted:
            return []
        if self._source is not None:
            page = await self._source.read(after=self.after, limit=SHARD)
            if page is None or not page.tokens:
                self.exhausted = True
                return []
            self.after = page.after
            return list(page.tokens)
        while self._skip:
            skipped = await self._some(min(SHARD, self._skip))
            if not skipped:
                break
            self._skip -= len(skipped)
            self.digest = _digest(self.digest, skipped)
        if self._expected:
            if self._skip or self.digest != self._expected:
                raise JournalError(
                    "the tokens are not those that this fan-out was begun with. Give the same ones in "
                    "the same order, or another name."
                )
            self._expected = b""
        tokens = await self._some(SHARD)
        if not tokens:
            self.exhausted = True
        else:
            self.digest = _digest(self.digest, tokens)
        return tokens

    async def _some(self, limit: int) -> list[str]:
        if self._plain is not None:
            return list(islice(self._plain, limit))
        tokens: list[str] = []
        if self._slow is None:
            return tokens
        async for token in self._slow:
            tokens.append(token)
            if len(tokens) == limit:
                break
        return tokens


def _digest(before: bytes, tokens: list[str]) -> bytes:
    # Shards of an iterable are always full but the last, so a second reading cuts it alike.
    return hashlib.blake2b(before + "\n".join(tokens).encode(), digest_size=16).digest()
