"""Checks content states against the app's contract: its Swift source, stored in its settings.

The setting ``contract`` is ``{"mode": "refuse", "versions": {"2.4": {"Match.swift": "..."}}}``: one
set of files for each version of the app. A state must decode under all versions that devices use (see
`AppVersions`). ``mode`` is refuse (raises `InvalidPayload`), warn (logs it) or off.
"""

import functools
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from ..contracts import Contract
from ..errors import InvalidInput, InvalidPayload
from . import checks

_log = logging.getLogger("apns_live.contracts")
_encode = msgspec.json.Encoder().encode
MODES = ("off", "warn", "refuse")


def has_contract(settings: Mapping[str, Any]) -> bool:
    """Return whether states of the app with these settings are checked."""
    setting = settings.get("contract")
    return setting is not None and setting.get("mode", "refuse") != "off"


def check_decodes(
    settings: Mapping[str, Any],
    attributes_type: str,
    content_state: Mapping[str, Any] | None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Check a state, and the attributes of a start, against every version in the settings.

    Raises `InvalidPayload` with the field if the mode is refuse. A state that cannot be checked
    passes.
    """
    if not has_contract(settings):
        return
    setting = settings["contract"]
    for version, files in setting["versions"].items():
        contract = _contract(tuple(files.items()))
        for field, value, check in (
            ("content_state", content_state, contract.check),
            ("attributes", attributes, contract.check_attributes),
        ):
            if value is None or (verdict := check(attributes_type, _encode(value))).ok is not False:
                continue
            place = ".".join((field, *verdict.path))
            problem = f"version {version} of the app does not decode it ({verdict.kind})"
            problem = f"{problem}: {verdict.message}"
            if setting.get("mode", "refuse") == "refuse":
                raise InvalidPayload(problem.rstrip("."), place)
            _log.warning("%s: %s", place, problem)


def undecodable(
    settings: Mapping[str, Any], version: str | None, attributes_type: str, content_state: str
) -> str:
    """Return why an app version cannot decode a state (JSON text); empty if it can or if unknown.

    See `people.devices.AppVersions` for the contract that a version uses.
    """
    if version is None or not has_contract(settings):
        return ""
    versions = settings["contract"]["versions"]
    ordered = sorted(versions, key=checks.version_order)
    own = [name for name in ordered if checks.version_order(name) <= checks.version_order(version)]
    files = versions[[*ordered[:1], *own][-1]]
    verdict = _contract(tuple(files.items())).check(attributes_type, content_state)
    return verdict.message if verdict.ok is False else ""


def checked_contract(setting: Any) -> None:
    """Check the setting before it is stored. Raises `InvalidInput`."""
    field = "settings.contract"
    if not isinstance(setting, Mapping) or not isinstance(setting.get("versions"), Mapping):
        remedy = 'Give {"mode": "refuse", "versions": {"1.0": {"Match.swift": "<its text>"}}}.'
        raise InvalidInput("has no versions", field, remedy)
    if setting.get("mode", "refuse") not in MODES:
        raise InvalidInput("is not a valid mode", f"{field}.mode", "Give off, warn or refuse.")
    for version, files in setting["versions"].items():
        where = f"{field}.versions.{version}"
        texts = files.items() if isinstance(files, Mapping) else [(None, None)]
        if not all(isinstance(name, str) and isinstance(text, str) for name, text in texts):
            raise InvalidInput("maps no file to its text", where)
        if not _contract(tuple(texts)).names:
            remedy = "Give the files that declare your ActivityAttributes and what they use."
            raise InvalidInput("declares no ActivityAttributes type", where, remedy)


@functools.lru_cache(maxsize=64)
def _contract(files: tuple[tuple[str, str], ...]) -> Contract:
    return Contract(dict(files))
