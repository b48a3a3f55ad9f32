"""Content states held to JSON Schemas, as the app's Swift type would hold them.

ActivityKit decodes with default decoders: a missing key that is not optional, an unknown enum case
or a date as text discards the whole push without a word (Apple, "Starting and updating Live
Activities with ActivityKit push notifications"; seen on a device). Extra keys are ignored by Swift,
so a schema should not forbid them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from apns_live.errors import FakeError

_REMEMBERED = 1024


class ContentStateSchemas:
    """Checks by attributes type; the verdict on the same bytes is remembered for a while."""

    def __init__(self, schemas: Mapping[str, Mapping[str, object]]) -> None:
        self._validators: dict[str, Any] = {}
        self._verdicts: dict[tuple[str, bytes], str] = {}
        for name, schema in schemas.items():
            self.add(name, schema)

    def __len__(self) -> int:
        return len(self._validators)

    def add(self, attributes_type: str, schema: Mapping[str, object]) -> None:
        """Hold content states of ``attributes_type`` to ``schema`` from now on.

        Raises ``FakeError`` when it is no JSON Schema or when jsonschema is not installed.
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
                f"the schema of {attributes_type} is no JSON Schema: {error.message}"
            ) from None
        self._validators[attributes_type] = kind(schema)
        self._verdicts.clear()

    def problem(self, attributes_type: str | None, content_state: bytes) -> str:
        """Return what keeps the state from decoding, ``""`` if nothing is known against it.

        An unknown type (None) is held to the schema if there is exactly one.
        """
        validators = self._validators
        if attributes_type is None:
            if len(validators) != 1:
                return ""
            attributes_type = next(iter(validators))
        validator = validators.get(attributes_type)
        if validator is None:
            return ""
        key = (attributes_type, content_state)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._judge(validator, content_state)
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            self._verdicts[key] = verdict
        return verdict

    @staticmethod
    def _judge(
        validator: Any, content_state: bytes
    ) -> str:  # jsonschema's class is made at run time
        try:
            state = msgspec.json.decode(content_state)
        except (msgspec.DecodeError, RecursionError) as error:
            return str(error)
        errors = sorted(validator.iter_errors(state), key=lambda error: list(map(str, error.path)))
        if not errors:
            return ""
        place = ".".join(map(str, errors[0].path))
        return f"content-state.{place}: {errors[0].message}" if place else errors[0].message
