"""Finished runs in Python: their tables, their LLM, their recommendations (docs/python.md)."""

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Literal

import polars as pl

from recalign.artifacts.lookup import open_existing
from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.store import Store
from recalign.chain import METHOD_REPORTS, finished_run, policy_of_run
from recalign.config import ServingConfig
from recalign.config.presets import complete
from recalign.config.runtime import checked_root
from recalign.errors import UserError
from recalign.policy import Policy
from recalign.report import PAGE
from recalign.schemas import COMPLETIONS, RESULTS, REWARDS, Table
from recalign.stored import open_policy

MethodName = Literal["dpo4rec", "rosepo"]


@dataclass(frozen=True)
class Runs:
    """The runs whose artifacts lie at one root, a folder or URL."""

    root: str
    store: Store

    def latest(self, method: MethodName | Literal[""] = "") -> "FinishedRun":
        """The newest finished run, of this method or of any; UserError where there is none."""
        if method and method not in METHOD_REPORTS:
            raise UserError(f"no method {method!r}; there are {', '.join(METHOD_REPORTS)}")
        return FinishedRun(self.root, self.store, finished_run(self.store, method=method))

    def run(self, name: str) -> "FinishedRun":
        """The run of this report, "report/" and its first digits as `recalign ls` shows them."""
        return FinishedRun(self.root, self.store, finished_run(self.store, name))


@dataclass(frozen=True)
class FinishedRun:
    """A run from its interactions to its report; nothing is read before it is asked for."""

    root: str
    store: Store
    manifest: Manifest
    """Of the report."""

    @property
    def name(self) -> str:
        """The name of the report's artifact."""
        return self.manifest.reference.name

    @property
    def page(self) -> Path:
        """The report, an HTML file."""
        return self.store.open(self.manifest.reference).path(PAGE)

    @property
    def tables(self) -> Path:
        """The folder of the ingested tables: interactions, items and users."""
        return self.store.open(self.manifest.inputs["interactions"]).folder

    @property
    def results(self) -> pl.DataFrame:
        """RESULTS: every row in every metric on the test window, with intervals."""
        return RESULTS.read(self.store.open(self.manifest.inputs.get("evaluation", self._own)))

    @property
    def pairs(self) -> pl.DataFrame:
        """COMPLETIONS of all rounds or rows, with `made_by`: pairs_1 is the first round's."""
        return self._tables("smoothing" if self._is_rosepo else "pairs", COMPLETIONS)

    @property
    def rewards(self) -> pl.DataFrame:
        """REWARDS of all rounds, with `made_by`: rewards_1 is the first round's.

        UserError for a method without rewards.
        """
        if self._is_rosepo:
            raise UserError(f"{self.name} is of RosePO, which has no rewards")
        return self._tables("rewards", REWARDS)

    def policy(self, device: str = "") -> Policy:
        """The aligned LLM: `model`, `tokenizer`, and how it is asked (see recalign.policy).

        An empty device is the processor, or for quantised weights a GPU; without one they are
        loaded unquantised.
        """
        made = self.store.open(policy_of_run(self.store, self.manifest))
        return open_policy(made, self.root, device)

    def recommend(
        self, users: Iterable[str | int], k: int = 10, *, exclude_seen: bool = True
    ) -> pl.DataFrame:
        """SERVING rows for these user ids, each once, from everything the run knows about them.

        A whole number is the id of these digits. UserError for anything else, and for a bad k.
        """
        asked = pl.Series("user_id", ids_of(users), dtype=pl.String).unique(maintain_order=True)
        config = complete(ServingConfig(), {"k": k, "exclude_seen": exclude_seen})
        from recalign.recommending import recommend_users  # torch and transformers: seconds
        from recalign.title_recommending import recommend_by_title

        by = recommend_by_title if self._is_rosepo else recommend_users
        return by(self.store, self.root, self.manifest, asked, config)

    @property
    def _own(self) -> Reference:
        return self.manifest.reference

    @property
    def _is_rosepo(self) -> bool:
        return self.manifest.stage == METHOD_REPORTS["rosepo"]

    def _tables(self, stage: str, table: Table) -> pl.DataFrame:
        """The table in all artifacts of one stage that the report was given."""
        given = [(name, one) for name, one in self.manifest.inputs.items() if one.stage == stage]
        return pl.concat(
            table.read(self.store.open(one)).select(pl.lit(name).alias("made_by"), pl.all())
            for name, one in sorted(given)
        )


def ids_of(users: Iterable[str | int]) -> list[str]:
    """User ids as texts, as the tables have them; UserError for what can be no list of ids."""
    if isinstance(users, str | bytes) or not isinstance(users, Iterable):
        raise UserError(f"users: {users!r} is no list of user ids; one id needs a list, too")
    ids = list(users)
    for one in ids:
        if isinstance(one, bool) or not isinstance(one, str | Integral):
            kind = type(one).__name__  # a table's columns would fill lines
            raise UserError(f"users: a {kind} is no user id; ids are texts or whole numbers")
    return [str(one) for one in ids]


def open_runs(root: str | Path = "artifacts") -> Runs:
    """The runs at a folder or URL that exists; UserError otherwise."""
    place = checked_root(str(root))
    return Runs(place, open_existing(place))
