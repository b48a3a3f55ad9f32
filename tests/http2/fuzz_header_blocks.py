"""Mutated header blocks, fed to our decoder and to ``hpack`` side by side.

``python -m tests.http2.fuzz_header_blocks COUNT [SEED]`` prints what it saw as JSON. Every block that
``hpack`` refuses has to end in one of our connection errors, every block that it takes has to
decode to the same fields, except for what STRICTER names.
"""

from __future__ import annotations

import json
import random
import sys

import hpack

from apns_live.errors import Http2ConnectionError
from apns_live.http2.frames import ErrorCode
from apns_live.http2.headers import HeaderDecoder

# What we refuse and hpack takes.
STRICTER = ("too many table size updates",)

NAMES = [b":status", b"apns-id", b"apns-unique-id", b"content-type", b"x", b"", b":path", b"date"]
VALUES = [
    b"200",
    b"410",
    b"",
    b"EC1BF194-B3B2-424A-89A9-5A918A6E6B5D",
    b"application/json",
    b"a" * 130,
    bytes(range(256)),
    b"z" * 5000,
]
INTERESTING = bytes.fromhex("00 01 0f 10 1f 20 3f 40 7e 7f 80 81 bd be bf c0 e1 fe ff 3d 62")


def valid_block(rng: random.Random, encoder: hpack.Encoder) -> bytes:
    if rng.random() < 0.05:
        encoder.header_table_size = rng.choice([0, 31, 64, 100, 1000, 4096])
    if rng.random() < 0.3:  # answers that differ in their last string only
        identifier = b"%08X-%04X" % (rng.randrange(2**32), rng.randrange(2**16))
        fields = [(b":status", b"200"), (b"apns-id", identifier)]
        return encoder.encode(fields, huffman=rng.random() < 0.7)
    fields = [
        hpack.HeaderTuple(rng.choice(NAMES), rng.choice(VALUES[: rng.choice([4, 6, 8])]))
        if rng.random() < 0.8
        else hpack.NeverIndexedHeaderTuple(rng.choice(NAMES), rng.randbytes(rng.randrange(9)))
        for _ in range(rng.randrange(5))
    ]
    return encoder.encode(fields, huffman=rng.random() < 0.5)


def mutate(rng: random.Random, block: bytes) -> bytes:
    mutated = bytearray(block)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(mutated) + 1)
        kind = rng.randrange(7)
        if kind == 0:
            mutated[at : at + rng.randrange(1, 5)] = b""
        elif kind == 1:
            mutated[at:at] = rng.randbytes(rng.randrange(1, 4))
        elif kind == 2:
            mutated[at:at] = bytes([rng.choice(INTERESTING)])
        elif kind == 3:
            del mutated[at:]
        elif kind == 4 and mutated:
            mutated[at % len(mutated)] ^= 1 << rng.randrange(8)
        elif kind == 5 and mutated:
            mutated[at % len(mutated)] = rng.choice(INTERESTING)
        else:
            mutated[at:at] = mutated[: rng.randrange(8)]
    return bytes(mutated)


def compare(ours: HeaderDecoder, reference: hpack.Decoder, block: bytes, seen: dict) -> bool:
    """Decode with both; return whether both can go on."""
    try:
        expected = [(bytes(f[0]), bytes(f[1])) for f in reference.decode(block, raw=True)]
    except Exception:  # noqa: BLE001 - hpack has errors of several kinds
        expected = None
    try:
        found = ours.decode(block)
    except Http2ConnectionError as error:
        calm = error.code == ErrorCode.ENHANCE_YOUR_CALM
        assert calm or error.code == ErrorCode.COMPRESSION_ERROR, error
        seen["refused by both" if expected is None else "refused by us"] += 1
        if expected is not None:
            assert any(reason in str(error) for reason in STRICTER), (block.hex(), str(error))
        return False
    if expected is None:
        seen["taken by us"] += 1
        return False
    assert found == expected, block.hex()
    seen["taken by both"] += 1
    return True


def run(count: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    seen = dict.fromkeys(("taken by both", "refused by both", "refused by us", "taken by us"), 0)
    blocks = 0
    while blocks < count:
        ours, reference, encoder = HeaderDecoder(), hpack.Decoder(65_536), hpack.Encoder()
        shared = valid_block(rng, encoder)
        for _ in range(rng.randrange(1, 8)):
            block = shared if rng.random() < 0.3 else valid_block(rng, encoder)
            if rng.random() < 0.1:
                block = rng.randbytes(rng.randrange(24))
            blocks += 1
            if not compare(ours, reference, mutate(rng, block), seen):
                break
    return seen


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)))
