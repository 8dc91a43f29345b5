"""What every configuration model shares: frozen, closed, described, and with a stable identity."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, JsonValue
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

NOT_IDENTITY: dict[str, JsonValue] = {"fingerprint": False}
"""`json_schema_extra` of fields that say where or how, never what (a folder, a worker count)."""

UNLESS_DEFAULT: dict[str, JsonValue] = {"fingerprint": "unless default"}
"""`json_schema_extra` of a choice whose default is what was always done: it counts when changed."""

AT_DEFAULT: dict[str, JsonValue] = {"fingerprint": "at its default"}
"""`json_schema_extra` of a field that decides nothing any more but stands in identities on which
much is built: it counts as its default, whatever it is."""

Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""A browser's form changes greater integers, and Prefect's server cannot show those of 2**63 on."""


@dataclass(frozen=True)
class OnlyWhen:
    """`json_schema_extra` of a field that counts only while other fields have certain values."""

    alternatives: tuple[dict[str, tuple[JsonValue, ...]], ...]
    """Field of the same model -> the values it may have; one alternative has to hold."""
    held: bool = False
    """Whether the identity keeps the field, at its default, while it does not count."""
    unless_default: bool = False
    """Whether the identity leaves it out at its default too, which is what was always done."""
    counted: Callable[[Any], Any] | None = None
    """What of the value is part of the identity; None: all of it."""

    def __or__(self, other: "OnlyWhen") -> "OnlyWhen":
        return replace(self, alternatives=self.alternatives + other.alternatives)

    def __call__(self, schema: dict[str, Any]) -> None:
        """Let the run form say it, behind the field's own description."""
        schema["description"] = f"{schema.get('description', '')} {self}".strip()

    def __str__(self) -> str:
        told = [
            " and ".join(f"{name} is {_in_words(values)}" for name, values in one.items())
            for one in self.alternatives
        ]
        return f"Used only when {', or '.join(told)}."


def only_when(**conditions: JsonValue | tuple[JsonValue, ...]) -> OnlyWhen:
    """The field counts only while all these fields count and have this value, or one of these.

    A field that does not count leaves the identity: a new setting of this kind makes no earlier
    artifact out of date. Its stage is given the default in its place, so that it cannot read it.
    """
    return OnlyWhen(
        ({name: v if isinstance(v, tuple) else (v,) for name, v in conditions.items()},)
    )


def held_unless(**conditions: JsonValue | tuple[JsonValue, ...]) -> OnlyWhen:
    """As `only_when`, but a field that does not count stays in the identity, at its default.

    For fields that were in the identity of stages on which everything stands before they became
    conditional: artifacts made with the defaults are still found.
    """
    return OnlyWhen(only_when(**conditions).alternatives, held=True)


class Config(BaseModel):
    """A frozen model that refuses unknown fields; the sentence under a field is its description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    presets: ClassVar[str] = ""
    """Folder under recalign/presets with presets of these settings; of a method's alone."""
    seeds: ClassVar[tuple[str, ...]] = ()
    """The fields that a training seed enters (recalign/config/sweep.py); of a method's alone."""

    first: ClassVar[tuple[str, ...]] = ()
    """Fields that the run form shows first: what is changed most."""
    heading: ClassVar[str] = ""
    """What the run form calls these settings; empty: the class's name in words."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema with fields in the form's order, which PostgreSQL would lose otherwise."""
        schema = handler(core_schema)
        told = handler.resolve_ref_schema(schema)
        fields = told.get("properties", {})
        order = [*cls.first, *(name for name in fields if name not in cls.first)]
        places = enumerate(order)
        told["properties"] = {name: fields[name] | {"position": place} for place, name in places}
        told["title"] = cls.heading or _words_of(cls.__name__.removesuffix("Config"))
        return schema

    def identity(self) -> dict[str, Any]:
        """The fields that decide what is computed, as plain JSON values."""
        values: dict[str, Any] = {}
        for name, value in self.settled():
            field = type(self).model_fields[name]
            rule = field.json_schema_extra
            left_out = isinstance(rule, OnlyWhen) and not (rule.held or self.counts(name))
            optional = isinstance(rule, OnlyWhen) and rule.unless_default
            if isinstance(rule, OnlyWhen) and rule.counted:
                value = rule.counted(value)
            left_out |= (optional or rule == UNLESS_DEFAULT) and value == field.default
            if rule == AT_DEFAULT:
                value = field.default
            if rule != NOT_IDENTITY and not left_out:
                values[name] = _identity_of(value)
        return values

    def counts(self, name: str) -> bool:
        """Whether a field is read, the model's other fields being as they are."""
        rule, values = type(self).model_fields[name].json_schema_extra, dict(self)
        return not isinstance(rule, OnlyWhen) or any(
            all(self.counts(other) and values[other] in those for other, those in one.items())
            for one in rule.alternatives
        )

    def settled(self) -> Self:
        """The same settings with every field that does not count at its default."""
        changed: dict[str, Any] = {}
        for name, value in self:
            field = type(self).model_fields[name]
            rule = field.json_schema_extra
            if not self.counts(name):
                changed[name] = field.get_default(call_default_factory=True)
            elif isinstance(value, Config):
                counted = rule.counted if isinstance(rule, OnlyWhen) else None
                changed[name] = (counted(value) if counted else value).settled()
        return self.model_copy(update=changed)


def _identity_of(value: Any) -> Any:
    if isinstance(value, Config):
        return value.identity()
    return [_identity_of(one) for one in value] if isinstance(value, list) else value


def _words_of(name: str) -> str:
    """SyntheticWorld as "Synthetic world"."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", name).capitalize()


def _in_words(values: tuple[JsonValue, ...]) -> str:
    return " or ".join(str(value).lower() for value in values)
