"""Commands that tell what can be set: a method's settings, and its presets."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from flows.methods import Method
from recalign.config import Config, Runtime
from recalign.config.presets import PRESETS, load_settings, preset_names, says_of_itself
from recalign.errors import UserError
from recalign.report.terminal import print_table

COLUMNS = ("field", "value", "may be", "what it is")
RUNTIME = "Where and how to compute; given by --set alone: no preset holds these."
BOUNDS = {
    "minimum": "{} or more",
    "exclusiveMinimum": "above {}",
    "maximum": "{} or less",
    "exclusiveMaximum": "below {}",
}
Prefix = Annotated[
    str, typer.Argument(metavar="[PREFIX]", help="Only these: alignment, or oracle.epochs.")
]


@dataclass(frozen=True)
class Table:
    """The fields of one table of settings, as a TOML file has it."""

    name: str
    about: str
    rows: list[list[str]]

    def beginning(self, prefix: str) -> list[list[str]]:
        """The rows of fields whose whole name begins so."""
        return [row for row in self.rows if f"{self.name}.{row[0]}".startswith(prefix)]


def show_settings(method: Method, prefix: str, preset: str) -> None:
    """Print the settings whose name begins so, with the preset's values where one is named."""
    given = load_settings(method.config, preset)
    tables = [*_tables(given, method.config()), *_tables(Runtime(), Runtime(), "runtime", RUNTIME)]
    found = [(table, rows) for table in tables if (rows := table.beginning(prefix))]
    if not found:
        known = ", ".join(dict.fromkeys(table.name.partition(".")[0] for table in tables))
        raise UserError(f"no setting of {method.name} begins with {prefix!r}; there are {known}")
    for table, rows in found:
        typer.echo(f"[{table.name}]  {table.about}")
        print_table(COLUMNS, rows)
        typer.echo()


def list_presets(method: Method) -> None:
    """Print the method's packaged presets, each with what it says of itself."""
    names = preset_names(method.config)
    width = max(map(len, names))
    for name in names:
        about = says_of_itself(PRESETS / method.config.presets / f"{name}.toml")
        typer.echo(f"{name:{width}}  {about}")


def _tables(given: Config, usual: Config, name: str = "", about: str = "") -> Iterator[Table]:
    """The settings' own fields, then the tables in them; in the order of the run form."""
    schemas = type(given).model_json_schema()["properties"]
    rows, inner = [], []
    for field, schema in schemas.items():
        value, default, told = getattr(given, field), getattr(usual, field), _told(schema)
        if isinstance(value, Config):
            path = f"{name}.{field}" if name else field
            inner.append(_tables(value, default, path, told))
        else:
            rows.append([field, _shown(value, default), _allowed(schema), told])
    if rows:
        yield Table(name, about, rows)
    for tables in inner:
        yield from tables


def _told(schema: dict[str, Any]) -> str:
    return " ".join(schema.get("description", "").split())


def _shown(given: Any, usual: Any) -> str:
    """A value as a preset file has it, a text without its quotes; and the default if another."""
    shown, default = (
        one if isinstance(one, str) and one else json.dumps(one) for one in (given, usual)
    )
    return shown if given == usual else f"{shown} (default {default})"


def _allowed(schema: dict[str, Any]) -> str:
    """What a field takes, from its schema: choices, bounds, or a kind of value."""
    match schema:
        case {"enum": choices}:
            return ", ".join(map(str, choices))
        case {"type": "array", "items": each}:
            return f"list: {_allowed(each)}"
        case {"type": "boolean"}:
            return "true, false"
        case {"type": "string"}:
            return "text"
        case {"minimum": low, "maximum": high}:
            return f"{low} to {high}"
    told = [words.format(schema[bound]) for bound, words in BOUNDS.items() if bound in schema]
    return ", ".join(told) or "a number"
