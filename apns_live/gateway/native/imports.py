"""Bulk import: a file of devices, users or tokens as the body of a request."""

import io
import tempfile
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from ...activities.people.imports.fields import Kind
from ...activities.people.imports.importer import Layout, LineError
from ...activities.people.imports.reading import Form
from ...errors import BadBody
from ..calls import Call
from ..problems import problem, respond
from .face import Routes
from .shapes import Moment, Strict, milliseconds_of

routes = Routes("import")

_JSON_LINES: Form = "jsonl"
_FORMS: dict[str, Form] = {
    "text/csv": "csv",
    "application/x-ndjson": _JSON_LINES,
    "application/jsonl": _JSON_LINES,
}
_SECONDS = 60.0
"""Time limit of an upload. It is short because an upload uses one of few slots."""
_USED_SECONDS = 600.0
_GZIP = b"\x1f\x8b"


class ImportQuery(Strict, frozen=True, kw_only=True):
    """How to read the body.

    ``vendor`` reads that vendor's export of devices. ``ignore_unknown`` ignores unknown columns.
    ``registered_at`` is the time of tokens without one; otherwise such tokens never replace what a
    phone has registered.
    """

    dry_run: bool = False
    ignore_unknown: bool = False
    vendor: Literal["onesignal", "braze"] | None = None
    registered_at: Moment | None = None


class ImportAnswer(msgspec.Struct, frozen=True, kw_only=True, rename={"errors": "problems"}):
    """The result. ``accepted`` and ``refused`` count lines; ``problems`` has the first 100.

    ``skipped`` counts lines for other platforms in a vendor's export. ``devices``, ``users`` and
    ``tokens`` count those in accepted lines, new or known. ``ignored`` has the ignored columns.
    """

    dry_run: bool
    lines: int
    accepted: int
    refused: int
    skipped: int
    devices: int
    users: int
    tokens: int
    ignored: list[str]
    errors: list[LineError]


def _route(kind: Kind, csv: str, lines: str, text: str) -> None:
    """Add the operation that imports a kind of records; ``text`` describes it to callers."""

    async def handler(call: Call, query: ImportQuery) -> Any:
        return await _import(call, query, kind)

    handler.__name__, handler.__doc__ = f"import_{kind}", text
    routes(
        f"POST /v1/imports/{kind}",
        f"Import {kind}",
        scope="devices:write",
        takes={"text/csv": csv, "application/x-ndjson": lines, "application/jsonl": lines},
        answer=ImportAnswer,
    )(handler)


_route(
    "devices",
    "id,user,language,start_token.MatchAttributes,tag.team\nphone-17,user-1,de,80e1ad44,red\n",
    '{"id": "phone-17", "user": "user-1", "start_tokens": {"MatchAttributes": "80e1ad44"}}\n',
    """Devices with tags, attributes, groups and tokens, one per line.

    A refused line is reported and does not affect the others. Importing the same body twice changes
    nothing, so repeat it after a 503 or a lost answer.
    """,
)
_route(
    "users",
    "id,alias.crm,tag.team,groups\nuser-1,C-881,red,operators\n",
    '{"id": "user-1", "aliases": {"crm": "C-881"}, "tags": {"team": "red"}}\n',
    "Users with aliases, tags, attributes and groups, one per line; otherwise as for devices.",
)
_route(
    "tokens",
    "device,attributes_type,token,registered_at\n"
    "phone-17,MatchAttributes,80e1ad44,2027-01-15T08:00:00Z\n",
    '{"device": "phone-17", "attributes_type": "MatchAttributes", "token": "80e1ad44"}\n',
    "Push-to-start and device tokens, one per line; otherwise as for devices.",
)


class _Upload(io.BufferedReader):
    """A body on disk, read as a file."""

    name = "body"  # error messages show this name


async def _import(call: Call, query: ImportQuery, kind: Kind) -> ImportAnswer | Response:
    gateway = call.gateway
    form = _FORMS.get(call.header(b"content-type").partition(";")[0].strip().lower())
    if form is None or call.header(b"content-encoding").lower() not in ("", "identity"):
        text = "the body is not declared as CSV or JSON Lines, or it is compressed"
        remedy = f"Send {' or '.join(_FORMS)}, not compressed."
        return respond(problem("media_type", 415, text, remedy=remedy))
    most, limit_bytes = gateway.settings.imports, gateway.settings.import_bytes
    share, what = max(1, most - 1), "imports are in progress"  # uploads may be slow
    place = gateway.place(gateway.importing, call.app.row, most, share, what)
    # The body is kept in an unnamed file, and nothing is read from it before it is complete.
    with place, tempfile.TemporaryFile(buffering=0) as file:
        await call.visit.receive_body(limit_bytes, _SECONDS, _USED_SECONDS, file.write)
        file.seek(0)
        body = _Upload(file)
        if not (begin := body.peek(2)[:2]):
            raise BadBody("the body is empty, and this call needs one")
        if begin == _GZIP:
            raise BadBody("the body is compressed: send it as it is", status=400)
        moment = milliseconds_of(query.registered_at, "registered_at")
        layout = Layout(form=form, vendor=query.vendor, ignore_unknown=query.ignore_unknown)
        if moment is not None:
            layout = msgspec.structs.replace(layout, registered_at=moment)
        report = await call.service.imports.run(
            call.app, kind, body, layout=layout, dry_run=query.dry_run
        )
    if not query.dry_run:
        await call.note("import", kind, accepted=report.accepted, refused=report.refused)
    return msgspec.convert(report, ImportAnswer, from_attributes=True)
