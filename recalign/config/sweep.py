"""A sweep's cells: settings (a grid, or named rows) times training seeds."""

import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from recalign.config.base import Config
from recalign.config.presets import load_settings
from recalign.errors import UserError

Settings = TypeVar("Settings", bound=Config)

FIXED = {
    "interactions": "data and windows are",
    "splits": "data and windows are",
    "recommendations.n_cases": "what each user is judged by is",
    "recommendations.list_length": "what each user is judged by is",
}
"""What is the same in all cells: the claims are over users, of whom each has to mean the same.
Candidate lists of DPO4Rec may differ: its claims are about ranks in the whole catalogue."""
BETWEEN_VALUES = re.compile(r",(?![^\[]*\])")  # a comma outside of [...]


@dataclass(frozen=True)
class Setting:
    """What one row of a sweep changes."""

    label: str
    overrides: tuple[str, ...]
    """As "stage.field=value"."""


@dataclass(frozen=True)
class SweepCell(Generic[Settings]):
    """One run of a sweep."""

    setting: Setting
    seed: int
    config: Settings

    @property
    def label(self) -> str:
        """How the plan and the page call it."""
        return f"{self.setting.label}, seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """What is asked of a sweep: a preset with changes, and what is varied on top of it."""

    preset: str = ""
    settings: Sequence[str] = ()
    """"stage.field=value" for every cell."""
    over: Sequence[str] = ()
    """"stage.field=a,b,c": every value; several make a grid."""
    rows: str = ""
    """Path of a TOML file with a table of settings per row; its name is the row's."""
    seeds: int = 1

    def cells(self, model: type[Settings]) -> list[SweepCell[Settings]]:
        """Every setting with every training seed; UserError names what is wrong with one."""
        if self.seeds < 1:
            raise UserError(f"seeds: {self.seeds} training seeds make no run; ask for 1 or more")
        cells: list[SweepCell[Settings]] = []
        known: dict[str, str] = {}
        fixed: dict[str, Any] = {}
        for setting in self.varied():
            overrides = [*self.settings, *setting.overrides]
            try:
                config = load_settings(model, self.preset, overrides)
            except UserError as error:
                raise UserError(f"{setting.label}: {error}") from error
            counts = config.settled().model_dump()
            for name, what in FIXED.items():
                value = _at(counts, name)
                if value != fixed.setdefault(name, value):
                    told = f"{setting.label}: {what} the same in all of a sweep"
                    raise UserError(f"{told}, so that users can be paired; run it by itself")
            twin = known.setdefault(json.dumps(counts, sort_keys=True), setting.label)
            if twin != setting.label:
                why = "what differs between them does not count there"
                raise UserError(f"{twin} and {setting.label} are the same run: {why}")
            cells += [
                SweepCell(setting, seed, with_seed(config, seed)) for seed in range(self.seeds)
            ]
        return cells

    def varied(self) -> list[Setting]:
        """The settings, in their order: the rows of the file, each with every point of the grid."""
        axes = [_values_of(text) for text in self.over]
        named = _read_rows(Path(self.rows)) if self.rows else [Setting("", ())]
        found = [
            Setting(", ".join(filter(None, [row.label, *point])), (*row.overrides, *point))
            for row in named
            for point in itertools.product(*axes)
        ]
        for one in found:
            fields = [text.partition("=")[0].strip() for text in one.overrides]
            if again := [field for field in fields if fields.count(field) > 1]:
                raise UserError(f"{one.label}: {again[0]} is set twice, by --over or by the row")
        labels = [one.label for one in found]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise UserError(f"{twice[0]} is asked for twice")
        return found if found[0].label else [Setting("as configured", ())]


def with_seed(config: Settings, number: int) -> Settings:
    """The settings with another seed in everything that training and sampling draw.

    Number 0 is the settings as they are: an ordinary run is seed 0 of a sweep. Data, windows and
    the oracle stay.
    """
    for name in config.seeds:
        config = _raised(config, name.split("."), number)
    return config


def _at(settings: dict[str, Any], name: str) -> Any:
    """The value of "stage.field"; None where the method has no such stage."""
    stage, _, field = name.partition(".")
    found = settings.get(stage)
    return found[field] if found and field else found


def _raised(config: Settings, path: Sequence[str], number: int) -> Settings:
    first, *rest = path
    value = getattr(config, first)
    raised = _raised(value, rest, number) if rest else value + number
    return config.model_copy(update={first: raised})


def _values_of(text: str) -> list[str]:
    """ "stage.field=a,b" as ["stage.field=a", "stage.field=b"]."""
    field, separator, values = text.partition("=")
    found = [value.strip() for value in BETWEEN_VALUES.split(values)]
    if not separator or not all(found):
        raise UserError(f"--over {text}: write stage.field=value,value,...")
    return [f"{field.strip()}={value}" for value in found]


def _read_rows(path: Path) -> list[Setting]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"rows: {path}: {error}") from error
    wrong = [name for name, table in tables.items() if not isinstance(table, dict)]
    if wrong or not tables:
        told = f"{wrong[0]} stands outside of any row" if wrong else "there is no row"
        raise UserError(f"rows: {path}: {told}; write [name], then stage.field = value")
    return [Setting(name, tuple(_flat(table))) for name, table in tables.items()]


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={value if isinstance(value, str) else json.dumps(value)}"
