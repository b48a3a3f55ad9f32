"""Checks content states against the app's Swift source, or against JSON Schemas.

ActivityKit decodes with default decoders: a missing key that is not optional, an unknown enum case
or a date as text discards the whole push silently (Apple, "Starting and updating Live
Activities with ActivityKit push notifications"; seen on a device). Extra keys are ignored by Swift,
so a schema should not forbid them.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import msgspec

from apns_live.contracts import Contract
from apns_live.errors import FakeError

_REMEMBERED = 1024


class ContentStateSchemas:
    """Checks by attributes type. Verdicts on the same bytes are cached."""

    def __init__(self, schemas: Mapping[str, Mapping[str, object]]) -> None:
        self._validators: dict[str, Callable[[bytes], str]] = {}
        self.contracts: dict[str, Contract] = {}
        """The app's Swift source by version, as phones decode; ``""`` is for all other versions."""
        for name, schema in schemas.items():
            self.add(name, schema)

    def __len__(self) -> int:
        return len(self._validators) + len(self.contracts)

    def add(self, attributes_type: str, schema: Mapping[str, object]) -> None:
        """Check content states of ``attributes_type`` by ``schema`` from now on.

        Raises ``FakeError`` when it is not a valid JSON Schema or when jsonschema is not installed.
        """
        try:
            import jsonschema  # noqa: PLC0415  # only who gives a schema needs the extra
        except ImportError:
            raise FakeError(
                "a schema needs jsonschema; install the extra: pip install 'apns-live[fake]'"
            ) from None
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        try:
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise FakeError(
                f"the schema of {attributes_type} is not a valid JSON Schema: {error.message}"
            ) from None
        self._validators[attributes_type] = lru_cache(_REMEMBERED)(partial(_judge, kind(schema)))

    def problem(
        self, attributes_type: str | None, attributes: bytes, content: bytes, app_version: str = ""
    ) -> str:
        """Return why a card's state or attributes do not decode, or ``""``.

        An unknown type (None) is checked by the contract or schema if there is exactly one.
        """
        contract = self.contracts.get(app_version) or self.contracts.get("")
        if contract is not None and content:
            names = contract.names
            kind = attributes_type or (names[0] if len(names) == 1 else "")
            if (verdict := contract.check(kind, content)).ok is False:
                return f"content-state does not decode: {verdict.message}"
        problem = self._schema_problem(attributes_type, content) if content else ""
        if not problem and contract is not None and attributes_type is not None and attributes:
            verdict = contract.check_attributes(attributes_type, attributes)
            if verdict.ok is False:
                return f"attributes do not decode: {verdict.message}"
        return problem

    def _schema_problem(self, attributes_type: str | None, content: bytes) -> str:
        validators = self._validators
        if attributes_type is None and len(validators) == 1:
            attributes_type = next(iter(validators))
        judge = validators.get(attributes_type or "")
        return "" if judge is None else judge(content)


def _judge(validator: Any, content: bytes) -> str:  # jsonschema creates the class at run time
    try:
        state = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        return str(error)
    errors = sorted(validator.iter_errors(state), key=lambda error: list(map(str, error.path)))
    if not errors:
        return ""
    place = ".".join(map(str, errors[0].path))
    return f"content-state.{place}: {errors[0].message}" if place else errors[0].message
