"""``apns-live contract``: hold content states against the Swift source of the app."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import msgspec
import typer

from ..errors import InvalidInput
from .options import Shared, command
from .output import ExitCode

if TYPE_CHECKING:
    from ..contracts import Verdict

app = typer.Typer(
    help="Check content states against the app's Swift source; needs apns-live[contracts].",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_FILES = typer.Argument(
    help="Swift files (or folders) that declare the ActivityAttributes and what they use.",
    metavar="FILE.swift...",
)


class _Line(msgspec.Struct):
    """One line of --states."""

    type: str
    json: msgspec.Raw


@app.command("check")
@command()
def check(
    shared: Shared,
    files: Annotated[list[Path], _FILES],
    states: Annotated[
        str | None,
        typer.Option(
            "--states",
            metavar="FILE|-",
            help='JSON Lines {"type": "MatchAttributes", "json": "..."}; - reads stdin. '
            "Without it the types are listed.",
        ),
    ] = None,
) -> int:
    """Say of each content state whether the app decodes it, as Swift's JSONDecoder would."""
    from ..contracts import Contract

    contract = Contract.read(*files)
    if states is None:
        return _list_types(shared, contract)
    if states == "-":
        return _check_lines(shared, contract, sys.stdin.buffer)
    try:
        with Path(states).open("rb") as lines:
            return _check_lines(shared, contract, lines)
    except OSError as error:
        raise InvalidInput(
            f"{states} cannot be read: {error.strerror}", field="--states"
        ) from error


def _check_lines(shared: Shared, contract: Any, source: BinaryIO) -> int:
    counts = {True: 0, False: 0, None: 0}
    encode = msgspec.json.Encoder().encode
    out = sys.stdout.buffer
    for first, block in _blocks(source):
        answers = []
        for number, line in enumerate(block, first):
            if not line.strip():
                continue
            kind, document = _state(line, number)
            verdict = contract.check(kind, document)
            counts[verdict.ok] += 1
            if shared.screen.json_mode:
                answers.append(
                    encode(
                        {
                            "type": kind,
                            "ok": verdict.ok,
                            "kind": verdict.kind,
                            "path": verdict.path,
                            "message": verdict.message,
                        }
                    )
                )
            elif verdict.ok is not True:
                answers.append(_sentence(number, kind, verdict).encode())
        if answers:
            out.write(b"\n".join(answers) + b"\n")
            out.flush()
    if not shared.screen.json_mode:
        shared.screen.line(
            f"{counts[True]} decode, {counts[False]} are refused, {counts[None]} cannot be told"
        )
    return ExitCode.NOT_ACCEPTED if counts[False] else ExitCode.OK


def _blocks(source: BinaryIO) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the number of the first line and the lines that have come, as they come."""
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
        pass
    try:  # the standard library takes lone surrogates
        loose = json.loads(line)
        if isinstance(loose["type"], str) and isinstance(loose["json"], str):
            return loose["type"], loose["json"]
    except (ValueError, TypeError, KeyError):
        pass
    raise InvalidInput(
        f"line {number} is not a state",
        field="--states",
        remedy='Write one object a line: {"type": "MatchAttributes", "json": "{...}"}.',
    )


def _sentence(number: int, kind: str, verdict: Verdict) -> str:
    if verdict.ok is None:
        return f"line {number}, {kind}: {verdict.message}"
    return f"line {number}, {kind}: refused ({verdict.kind}). {verdict.message}"


def _list_types(shared: Shared, contract: Any) -> int:
    from ..contracts.contract import unknowns

    for name in contract.names:
        found = contract.types[name]
        reason = unknowns(found.state.shape)
        if shared.screen.json_mode:
            shared.screen.answer({"type": name, "place": found.place, "cannot_tell": reason}, "")
        else:
            shared.screen.line(
                f"{name} ({found.place})" + (f": cannot tell: {reason}" if reason else "")
            )
    if not contract.names and not shared.screen.json_mode:
        shared.screen.line("no file declares an ActivityAttributes type")
    return ExitCode.OK
