"""Token sources of a fan-out, which can be resumed without reading everything again."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from ..client.reading import AsyncReader, TokenReader, read_tokens
from ..errors import InvalidInput, JournalError
from ..refusals import refused
from .journal import SHARD, RunRecord


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


class _PagedReader(AsyncReader):
    """A `TokenSource`, read one page ahead."""

    def __init__(self, source: TokenSource, *, dedupe: bool) -> None:
        super().__init__(
            self._read_pages(), dedupe=dedupe, ahead=1, tokens_of=self._tokens_of_pages
        )
        self.after: str | None = None
        """Where the source goes on behind what was taken."""
        self._source = source

    def _next(self, limit: int) -> list[str]:
        return super()._next(1)  # a page is taken whole: the source goes on behind it

    def _tokens_of_pages(self, pages: list[TokenPage]) -> list[str]:
        if pages and not self.stopped:
            self.after = pages[-1].after
        return [token for page in pages for token in page.tokens]

    async def _read_pages(self) -> AsyncIterator[TokenPage]:
        after = self.after
        while True:
            page = await self._source.read(after=after, limit=SHARD)
            if page is None or not page.tokens:
                return
            if len(page.tokens) > SHARD:
                raise refused(
                    InvalidInput, "page_size", "tokens", size=len(page.tokens), shard=SHARD
                )
            after = page.after
            yield page


class TrackedReader(TokenReader):
    """The reader of a fan-out under delivery: it knows how to find its place again.

    Nothing is read before `begin`. Tokens that an earlier life read are passed over: a
    `TokenSource` goes on behind ``after``, a plain source must begin with the same ones (``digest``).
    Raises InvalidInput for anything that is not a source of tokens.
    """

    def __init__(self, tokens: Tokens | None, *, dedupe: bool = False) -> None:
        self.is_given = tokens is not None
        pages = _PagedReader(tokens, dedupe=dedupe) if isinstance(tokens, TokenSource) else None
        self._pages = pages
        self._inner: TokenReader = pages or read_tokens(
            () if tokens is None else tokens, dedupe=dedupe
        )
        super().__init__()
        self._digest = _Digest()
        self._skip = 0
        self._expected = b""
        self._open = self._begun = False

    @property
    def after(self) -> str | None:
        """Where a `TokenSource` goes on."""
        return self._pages.after if self._pages is not None else None

    @property
    def digest(self) -> bytes:
        """What the tokens of a plain source that were taken come to."""
        return b"" if self._pages is not None else self._digest.value()

    def open(self, wake: Callable[[], object]) -> None:
        """Be ready to read; `begin` begins."""
        super().open(wake)
        self._open = True
        self._go()

    def begin(self, record: RunRecord | None) -> None:
        """Begin to read, behind what ``record`` says was read before."""
        if record is not None:
            self.exhausted = record.exhausted
            if self._pages is not None:
                self._pages.after = record.after
            else:
                self._skip, self._expected = record.read, record.digest
        self._begun = True
        self._go()

    def _go(self) -> None:
        if self._open and self._begun and not self.ended:
            self._inner.open(self._wake)

    def _next(self, limit: int) -> list[str]:
        if not self._begun:
            return []
        inner = self._inner
        while self._expected:
            skipped = inner.take(self._skip)
            self._digest.add(skipped)
            self._skip -= len(skipped)
            if self._skip and not inner.ended:
                return []
            if self._digest.value() != self._expected:
                self.error = JournalError(
                    "the tokens are not those that this fan-out was begun with. Give the same ones "
                    "in the same order, or another name."
                )
                return []
            self._expected = b""
        tokens = inner.take(limit)
        if self._pages is None:
            self._digest.add(tokens)
        self.exhausted, self.error = inner.exhausted, inner.error
        self.duplicates = inner.duplicates
        return tokens

    def _left(self) -> list[str]:
        return self._inner.stop()[self._skip :]

    async def aclose(self) -> None:
        """Stop, and wait until the source is closed."""
        await super().aclose()
        await self._inner.aclose()


class _Digest:
    """A running digest of tokens. It depends on their order alone, not on how they were cut."""

    def __init__(self) -> None:
        self._full = b""
        self._rest: list[str] = []

    def add(self, tokens: list[str]) -> None:
        self._rest.extend(
            token if isinstance(token, str) else type(token).__name__ for token in tokens
        )
        while len(self._rest) >= SHARD:
            self._full = _hash(self._full, self._rest[:SHARD])
            del self._rest[:SHARD]

    def value(self) -> bytes:
        return _hash(self._full, self._rest) if self._rest else self._full


def _hash(before: bytes, tokens: list[str]) -> bytes:
    text = "\n".join(tokens).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(before + text, digest_size=16).digest()
