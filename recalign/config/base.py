"""What every configuration model shares: frozen, closed, described, and with a stable identity."""

from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

NOT_IDENTITY: dict[str, JsonValue] = {"fingerprint": False}
"""`json_schema_extra` of fields that say where or how, never what (a folder, a worker count)."""


class Config(BaseModel):
    """A frozen model that refuses unknown fields; the sentence under a field is its description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    def identity(self) -> dict[str, Any]:
        """The fields that decide what is computed, as plain JSON values."""
        values: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if field.json_schema_extra == NOT_IDENTITY:
                continue
            values[name] = _identity_of(getattr(self, name))
        return values


def _identity_of(value: Any) -> Any:
    if isinstance(value, Config):
        return value.identity()
    return [_identity_of(one) for one in value] if isinstance(value, list) else value
