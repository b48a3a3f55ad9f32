"""Token sources of a fan-out, which can be resumed without reading everything again."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from ..client.reading import AsyncReader, TokenReader, read_tokens
from ..errors import InvalidInput, JournalError
from ..refusals import refused
from .journal import SHARD, RunRecord


class TokenPage(NamedTuple):
    """Some tokens, and where the source continues after them."""

    tokens: list[str]
    after: str
    """The argument of `TokenSource.read` for the next page: a row id, an offset, a last token."""


@runtime_checkable
class TokenSource(Protocol):
    """Tokens that can be read again from any page on: a table, a file, a service."""

    async def read(self, *, after: str | None, limit: int) -> TokenPage | None:
        """Return at most ``limit`` tokens after ``after`` (None: from the start); None at the end."""


Tokens = TokenSource | Iterable[str] | AsyncIterable[str]


class FileTokens:
    """A `TokenSource` on a text file with one token a line; empty lines are skipped."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"FileTokens({str(self.path)!r})"

    async def read(self, *, after: str | None, limit: int) -> TokenPage | None:
        """Return the lines after byte offset ``after``."""
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


class PagedReader(AsyncReader):
    """A `TokenSource`, read one page ahead."""

    def __init__(self, source: TokenSource, *, dedupe: bool) -> None:
        super().__init__(
            self._read_pages(), dedupe=dedupe, ahead=1, tokens_of=self._tokens_of_pages
        )
        self.after: str | None = None
        """Where the source continues after the taken tokens."""
        self._source = source

    def _next(self, limit: int) -> list[str]:
        return super()._next(1)  # a page is taken whole: the source continues after it

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
            size = len(page.tokens)
            if size > SHARD:
                raise refused(InvalidInput, "page_size", "tokens", size=size, shard=SHARD)
            after = page.after
            yield page


def reader_of(tokens: Tokens | None, *, dedupe: bool) -> TokenReader:
    """Return the reader of a source. Raises InvalidInput for any other object."""
    if isinstance(tokens, TokenSource):
        return PagedReader(tokens, dedupe=dedupe)
    return read_tokens(() if tokens is None else tokens, dedupe=dedupe)


class Bookmark:
    """The place of a fan-out in its source, so that it can be resumed there.

    A `TokenSource` continues at ``after``. A plain source must begin with the tokens that an
    earlier run read. Their digest is compared, and they are skipped.
    """

    def __init__(self, reader: TokenReader, *, kept: bool, given: bool) -> None:
        self.given = given
        """Whether there is a source; without one, a run was read to its end before."""
        self.skip = 0
        """Tokens that an earlier run read and that must still be skipped."""
        self._reader = reader
        self._pages = reader if isinstance(reader, PagedReader) else None
        self._hash = hashlib.blake2b(digest_size=16) if kept and self._pages is None else None
        self._expected = b""

    @property
    def after(self) -> str | None:
        """Where a `TokenSource` continues."""
        return self._pages.after if self._pages is not None else None

    @property
    def digest(self) -> bytes:
        """The digest of the tokens taken from a plain source."""
        return self._hash.digest() if self._hash is not None else b""

    def find(self, record: RunRecord) -> None:
        """Continue after what ``record`` has as read. Call it before the reader is open."""
        self._reader.exhausted = record.exhausted
        if self._pages is not None:
            self._pages.after = record.after
        elif not record.exhausted:
            self.skip, self._expected = record.read, record.digest

    def take(self, limit: int) -> list[str]:
        """Return at most ``limit`` new tokens that are available now."""
        reader = self._reader
        if self._expected:
            skipped = reader.take(self.skip)
            self._add(skipped)
            self.skip -= len(skipped)
            if self.skip and not reader.ended:
                return []
            if self.digest != self._expected:
                reader.error = JournalError(
                    "the tokens are not those that this fan-out was begun with. Give the same ones "
                    "in the same order, or another name."
                )
                return []
            self._expected = b""
        tokens = reader.take(limit)
        self._add(tokens)
        return tokens

    def _add(self, tokens: list[str]) -> None:
        if self._hash is not None:
            names = [each if isinstance(each, str) else type(each).__name__ for each in tokens]
            lines = "".join(f"{name}\n" for name in names)
            self._hash.update(lines.encode("utf-8", "surrogatepass"))
