"""The other senders of a benchmark: known ones by name, and the user's commands."""

from __future__ import annotations

import shlex
import shutil
import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from ..bench.runner import Contender
from ..bench.senders import PEERS
from ..errors import InvalidInput
from ..misfits import misfit

H2LOAD = (
    "h2load -c{connections} -m500 -n{count} -d{body} "
    + " ".join(
        f"-H '{name}: {{{name}}}'"
        for name in ("apns-topic", "apns-push-type", "apns-priority", "apns-expiration")
    )
    + f" -H 'authorization: bearer {'x' * 180}' -H 'apns-id: {uuid.UUID(int=1)}'"
    + f" https://localhost:{{port}}/3/device/{1:064x}"
)


def contenders_of(
    names: Sequence[str], commands: Sequence[str], file: str | None
) -> list[Contender]:
    """Return the peers named, and commands of the user's own.

    ``file`` is JSON: the name of a sender -> its command. Raises InvalidInput for a peer that is
    not installed, and for a name that nobody knows.
    """
    known: dict[str, str] = {"h2load": H2LOAD}
    if file is not None:
        try:
            known |= msgspec.json.decode(Path(file).read_bytes(), type=dict[str, str])
        except msgspec.DecodeError as error:
            said = misfit(error) if isinstance(error, msgspec.ValidationError) else error
            raise InvalidInput(
                f"{file}: {said}", field="senders", remedy='Write {"name": "command"}.'
            ) from None
    found = []
    for name in names:
        if name in PEERS and find_spec(PEERS[name]) is not None:
            found.append(Contender(name, sender=name))
        elif name in known and shutil.which(shlex.split(known[name])[0]) is not None:
            found.append(Contender(name, command=known[name]))
        elif name in PEERS or name in known:
            wanted = PEERS.get(name) or shlex.split(known[name])[0]
            raise InvalidInput(
                f"{name} needs {wanted}, which is not installed here",
                field="against",
                remedy=f"Install {wanted}, or leave it out.",
            )
        else:
            raise InvalidInput(
                f"{name!r:.40} is not known",
                field="against",
                remedy=f"Use one of {', '.join((*PEERS, *known))}, or register it with --senders.",
            )
    return found + [
        Contender(Path(shlex.split(command)[0]).name, command=command) for command in commands
    ]
