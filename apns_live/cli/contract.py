"""``apns-live contract``: checks content states against the app's Swift source."""

import contextlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..contracts import Contract
from ..contracts.generate import example as make
from ..contracts.generate import losses, python_models
from ..contracts.shapes import Unknown
from ..errors import InvalidInput
from .options import Shared, command, group
from .output import ExitCode

app = group("Check content states against the app's Swift source; needs the extra contracts.")
_FILES = """
FILE.swift...: Swift files (or folders) that declare the ActivityAttributes and what they use.
--type TEXT: One attributes type; all by default.
"""


class _Line(msgspec.Struct):
    """One line of --states."""

    type: str
    json: msgspec.Raw


@app.command("check")
@command(
    _FILES,
    """
    --states FILE|-: JSON Lines {"type": "MatchAttributes", "json": "..."}; - reads stdin. Without it the
        types are listed.
    """,
)
def check(shared: Shared, files: list[Path], states: str | None = None) -> int:
    """Check whether the app decodes content states, as Swift's JSONDecoder would."""
    contract = Contract.read(*files)
    if states is None:
        return _list_types(shared, contract)
    if states == "-":
        return _check_lines(shared, contract, sys.stdin.buffer)
    with Path(states).open("rb") as lines:
        return _check_lines(shared, contract, lines)


def _check_lines(shared: Shared, contract: Contract, source: BinaryIO) -> int:
    counts = {True: 0, False: 0, None: 0}
    encode = msgspec.json.Encoder().encode
    for first, block in _blocks(source):
        answers = []
        for number, line in enumerate(block, first):
            if not line.strip():
                continue
            kind, document = _state(line, number)
            verdict = contract.check(kind, document)
            counts[verdict.ok] += 1
            if shared.json_mode:
                answers.append(encode({"type": kind, **msgspec.structs.asdict(verdict)}))
            elif verdict.ok is not True:
                refused = "" if verdict.ok is None else f"refused ({verdict.kind}). "
                answers.append(f"line {number}, {kind}: {refused}{verdict.message}".encode())
        if answers:
            sys.stdout.buffer.write(b"\n".join(answers) + b"\n")
            sys.stdout.buffer.flush()
    said = f"{counts[True]} decode, {counts[False]} are refused, {counts[None]} cannot be told"
    shared.line(said)
    return ExitCode.NOT_ACCEPTED if counts[False] else ExitCode.OK


def _blocks(source: BinaryIO) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the lines as they arrive, with the number of the first one."""
    rest, number = b"", 1
    while chunk := source.read1(1 << 18):  # type: ignore[attr-defined]
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield number, lines
            number += len(lines)
    if rest:
        yield number, [rest]


_decode_line = msgspec.json.Decoder(_Line).decode


def _state(line: bytes, number: int) -> tuple[str, str | bytes]:
    try:
        state = _decode_line(line)
        raw = bytes(state.json)
        return state.type, msgspec.json.decode(raw, type=str) if raw[:1] == b'"' else raw
    except msgspec.MsgspecError:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            loose = json.loads(line)  # the standard library takes lone surrogates
            if isinstance(loose["type"], str) and isinstance(loose["json"], str):
                return loose["type"], loose["json"]
    remedy = 'Write one object a line: {"type": "MatchAttributes", "json": "{...}"}.'
    raise InvalidInput(f"line {number} is not a state", "--states", remedy)


@app.command("example")
@command(
    _FILES,
    """
    --count N [1..]: Number of states for each type.
    --seed N: Seed; the same seed gives the same states.
    """,
)
def example(
    shared: Shared, files: list[Path], type_: str | None = None, count: int = 1, seed: int = 0
) -> None:
    """Generate content states that the app decodes; with --json in the format of `check --states`."""
    contract = Contract.read(*files)
    chance = random.Random(seed)  # noqa: S311 - examples, not secrets
    for name in _chosen(contract, type_):
        for _ in range(count):
            try:
                state = make(contract.types[name].state.shape, chance)
            except LookupError as error:
                raise InvalidInput(f"{name} has no example: {error.args[0]}") from error
            text = json.dumps(state, ensure_ascii=False, indent=None if shared.json_mode else 2)
            shared.answer({"type": name, "json": text}, name, text)


@app.command("python")
@command(_FILES)
def python(shared: Shared, files: list[Path], type_: str | None = None) -> None:
    """Generate typed models (msgspec) of the content states; the app decodes what they encode."""
    contract = Contract.read(*files)
    names = _chosen(contract, type_)
    text = python_models({f"{name}State": contract.types[name].state.shape for name in names})
    shared.answer({"types": names, "python": text}, text.rstrip("\n"))


@app.command("diff")
@command("OLD: The old version's Swift file or folder.", "NEW: The new version's.")
def diff(shared: Shared, old: Path, new: Path) -> int:
    """Find states of the old version that the new one does not decode, and the reverse."""
    before, after = Contract.read(old), Contract.read(new)
    found = []
    for name in dict.fromkeys([*before.names, *after.names]):
        for direction, one, other in (("old to new", before, after), ("new to old", after, before)):
            if name not in other.types:
                reasons = [f"there is no {name}"]
            elif name not in one.types:
                continue
            else:
                reasons = losses(one.types[name].state, other.types[name].state)
            place = {"type": name, "direction": direction}
            found += [place | {"reason": reason} for reason in reasons]
    said = [f"{item['type']}, states {item['direction']}: {item['reason']}" for item in found]
    same = ["every state of one version decodes under the other"]
    shared.answer({"same": not found, "losses": found}, *(said or same))
    return ExitCode.NOT_ACCEPTED if found else ExitCode.OK


def _chosen(contract: Contract, name: str | None) -> list[str]:
    if name is None:
        return list(contract.names)
    if name not in contract.types:
        known = ", ".join(contract.names) or "none"
        raise InvalidInput(f"no file declares {name}", "--type", f"Found: {known}.")
    return [name]


def _list_types(shared: Shared, contract: Contract) -> int:
    for name in contract.names:
        found = contract.types[name]
        shape = found.state.shape
        reason = shape.reason if isinstance(shape, Unknown) else ""
        said = f"{name} ({found.place})" + (f": cannot tell: {reason}" if reason else "")
        shared.answer({"type": name, "place": found.place, "cannot_tell": reason}, said)
    if not contract.names:
        shared.line("no file declares an ActivityAttributes type")
    return ExitCode.OK
