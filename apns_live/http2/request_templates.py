"""Writes many requests at a time that differ only in stream, path and id."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from apns_live.http2.constants import END_HEADERS, END_STREAM
from apns_live.http2.frames import FRAME_HEADER
from apns_live.http2.header_encoder import PATH, Prefix, PreparedHeaders, encode_integer


class Template:
    """What requests of equal sizes share: nine texts each, four of them empty until they are filled."""

    def __init__(self, key: tuple[object, ...], body: bytes, parts: list[str]) -> None:
        self.key = key
        self.body = body
        self.parts = parts

    def filled(self, first: int, names: Sequence[str], request_ids: Sequence[str]) -> bytes:
        """Return the frames of requests from stream ``first`` on: text is joined, and becomes bytes once."""
        count = len(names)
        packed = pack(f">{count}L", *range(first, first + 2 * count, 2)).decode("latin-1")
        text = self.parts * count
        text[1::9] = text[7::9] = [packed[at : at + 4] for at in range(0, 4 * count, 4)]
        text[3::9] = names
        text[5::9] = request_ids
        return "".join(text).encode("latin-1")


class Templates:
    """The template used last."""

    def __init__(self) -> None:
        self._kept: Template | None = None

    def of(
        self,
        headers: PreparedHeaders,
        prefix: Prefix,
        sizes: tuple[int, int],
        folder: str,
        body: bytes,
    ) -> Template:
        """Return what requests have in common whose path and id have these ``sizes``."""
        kept = self._kept
        key = (headers, prefix.generation, sizes, folder)
        if kept is not None and kept.key == key and kept.body is body:
            return kept
        path_size, id_size = (encode_integer(size, 7) for size in sizes)
        before_path = PATH + path_size
        before_id = prefix.shared + prefix.id_head + id_size
        block_length = len(before_path) + len(before_id) + sum(sizes)
        head = FRAME_HEADER.pack(block_length << 8 | 1, END_HEADERS, 0)[:5]
        data_head = FRAME_HEADER.pack(len(body) << 8, END_STREAM, 0)[:5]
        parts = (head, before_path, before_id, data_head, body)
        text = [part.decode("latin-1") for part in parts]
        text[1] += folder
        self._kept = Template(
            key, body, [text[0], "", text[1], "", text[2], "", text[3], "", text[4]]
        )
        return self._kept
