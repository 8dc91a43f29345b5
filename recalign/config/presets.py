"""Presets (sparse TOML) and `stage.field=value` overrides, merged into one typed configuration."""

import json
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from recalign.config.base import Config
from recalign.errors import UserError

PRESETS = Path(__file__).parent.parent / "presets"
Settings = TypeVar("Settings", bound=Config)


def preset_names(model: type[Config]) -> list[str]:
    """Names of the packaged presets of a method's settings."""
    return sorted(path.stem for path in (PRESETS / model.presets).glob("*.toml"))


def load_settings(
    model: type[Settings], preset: str = "", overrides: Sequence[str] = ()
) -> Settings:
    """The settings of a preset (a packaged name or a TOML file's path) with overrides on top.

    Raises UserError that names the field and what is allowed.
    """
    values = _read_preset(model, preset) if preset else {}
    for override in overrides:
        _set(values, override)
    return _validated(model, values)


def changes(model: type[Config], given: Config | dict[str, Any]) -> dict[str, Any]:
    """What is given beside the model's defaults, nested like the model; it may be invalid."""
    own = given.model_dump() if isinstance(given, Config) else given
    return _differing(own, model().model_dump())


def fill_from_preset(
    model: type[Settings], given: Settings | dict[str, Any], preset: str = ""
) -> Settings:
    """The settings given, with the preset's value in every field that has its class's default.

    A form submits all its fields, so a default that was meant cannot be told from one that was
    left alone: only a field that differs from the default beats the preset. A list is one field.
    Raises UserError that names the field and what is allowed.
    """
    if isinstance(given, model) and not preset:
        return given
    values = _read_preset(model, preset) if preset else {}
    _lay_over(values, changes(model, given))
    return _validated(model, values, f"with preset {preset}: " if preset else "")


def _validated(model: type[Settings], values: dict[str, Any], where: str = "") -> Settings:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(where + explain(error, model)) from error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """A validation error as one line per mistake: field, what is wrong, and what there is."""
    lines = []
    for mistake in error.errors(include_url=False):
        where = ".".join(str(part) for part in mistake["loc"])
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            known = ", ".join(_fields_at(model, mistake["loc"][:-1]))
            message = f"no such setting; there are {known}"
        if mistake["type"] == "list_type":
            message = 'must be a list, as in [1, 5] or ["genre", "year"]'
        lines.append(f"{where}: {message}" if where else message)
    return "\n".join(lines)


def _read_preset(model: type[Config], preset: str) -> dict[str, Any]:
    path = PRESETS / model.presets / f"{preset}.toml"
    if not path.is_file():
        path = Path(preset)
    if not path.is_file():
        known = ", ".join(preset_names(model))
        raise UserError(f"preset {preset!r} is neither a file nor one of: {known}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from error


def _differing(values: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """The values that differ from the usual ones, down to single fields."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        before = usual.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := _differing(value, before):
                found[name] = inner
        elif name not in usual or value != before:
            found[name] = value
    return found


def _lay_over(values: dict[str, Any], changed: dict[str, Any]) -> None:
    for name, value in changed.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            _lay_over(values[name], value)
        else:
            values[name] = value


def _set(values: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    *parents, last = name.strip().split(".")
    if not separator or not last:
        raise UserError(f"--set {override}: write stage.field=value")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: {parent} is a single value")
    values[last] = text.strip()
    if values[last][:1] in ("[", "{"):
        with suppress(json.JSONDecodeError):
            values[last] = json.loads(text)


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
