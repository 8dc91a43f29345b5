"""Presets (sparse TOML) and `stage.field=value` overrides, merged into one typed configuration."""

import json
import os
import re
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from recalign.config.base import Config, OnlyWhen
from recalign.errors import UserError

PRESETS = Path(__file__).parent.parent / "presets"
NAME = "[a-z0-9][a-z0-9-]{0,49}"  # of a user's preset: also of its series and deployments
SWITCHED_ON = "when what it belongs to is switched on"
PATHS = ("raw_folder", "interactions", "items")  # fields of a data source that are paths
Settings = TypeVar("Settings", bound=Config)


def preset_names(model: type[Config]) -> list[str]:
    """Names of the packaged presets of a method's settings."""
    return sorted(path.stem for path in (PRESETS / model.presets).glob("*.toml"))


def says_of_itself(path: Path) -> str:
    """A preset's first line, if that is a comment; else empty."""
    line = path.read_text(encoding="utf-8-sig").partition("\n")[0]
    return line.lstrip("# ").strip() if line.startswith("#") else ""


def load_settings(
    model: type[Settings], preset: str = "", overrides: Sequence[str] = ()
) -> Settings:
    """The settings of a preset (a packaged name or a TOML file's path) with overrides on top.

    Raises UserError that names the field and what is allowed.
    """
    values = read_preset(_found(model, preset)) if preset else {}
    for override in overrides:
        _set(values, override)
    return _validated(model, values)


def idle(config: Config, overrides: Sequence[str]) -> list[str]:
    """A line on each "stage.field=value" that has no effect, as the other settings are.

    The overrides are part of the config.
    """
    lines: list[str] = []
    given: Any
    used: Any
    for override in overrides:
        name = override.partition("=")[0].strip()
        given, used, why, parts = config, config.settled(), "", name.split(".")
        for place, part in enumerate(parts):
            rule = type(given).model_fields[part].json_schema_extra
            if isinstance(rule, OnlyWhen) and not (why or given.counts(part)):
                when = str(rule).removeprefix("Used only ").rstrip(".")
                why = f"{when} (under {'.'.join(parts[:place])})"
            given, used = getattr(given, part), getattr(used, part)
            if not isinstance(given, Config):
                break
        if given != used and not isinstance(given, Config):
            lines.append(f"{name} has no effect here: it is used only {why or SWITCHED_ON}")
    return lines


def changes(usual: Config, given: Config) -> dict[str, Any]:
    """What differs from the usual settings, nested like the model, down to single fields."""
    return _differing(given.model_dump(), usual.model_dump())


def complete(usual: Settings, *given: dict[str, Any]) -> Settings:
    """The usual settings with those given on top, the last on top of all; a list is one field.

    Raises UserError that names the field and what is allowed.
    """
    values = usual.model_dump()
    for changed in given:
        _lay_over(values, changed)
    return _validated(type(usual), values)


def read_preset(path: Path) -> dict[str, Any]:
    """A preset file's own values; UserError where it is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # integers of thousands of digits, too
        raise UserError(f"{path}: {error}") from error


def own_preset(path: Path, usual: Settings) -> Settings:
    """A user's preset on top of a method's usual settings; UserError where it does not fit."""
    if not re.fullmatch(NAME, path.stem):
        raise UserError(f"{path.name}: a preset's name has only a-z, 0-9 and -")
    if path.stem in preset_names(type(usual)):
        raise UserError(f"{path.stem} is the name of a packaged preset: rename the file")
    return complete(usual, with_whole_paths(read_preset(path), path.resolve().parent))


def with_whole_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A preset's values with relative paths of data, templates and models made absolute.

    They count from the preset's own folder: who runs it later starts somewhere else.
    """
    whole: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            whole[name] = with_whole_paths(value, folder)
        elif isinstance(value, str) and (name in PATHS or value.startswith(("./", "../", "~"))):
            whole[name] = str(folder / os.path.expanduser(value)) if value else ""
        else:
            whole[name] = value
    return whole


def _validated(model: type[Settings], values: dict[str, Any]) -> Settings:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, model)) from error


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


def _found(model: type[Config], preset: str) -> Path:
    for path in (PRESETS / model.presets / f"{preset}.toml", Path(preset)):
        if path.is_file():
            return path
    known = ", ".join(preset_names(model))
    raise UserError(f"preset {preset!r} is neither a file nor one of: {known}")


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
