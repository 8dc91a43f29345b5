"""A metric as columns of a table (what was ranked, the measure, its cut-off), and its label."""

from typing import Any, NamedTuple

import polars as pl

SCORE = "validation_score"  # the figure of a manifest by which rounds are compared
CATALOGUE = "catalogue"
RERANKED = "reranked"
STARTS = {
    CATALOGUE: "", "uniform": "list ", "popularity": "popular list ", RERANKED: "re-ranked ",
}  # fmt: skip
"""What can be ranked, the whole catalogue, candidate lists by how they are drawn, or the lists of
KAR's protocol, and how the label of a metric says so."""


class Metric(NamedTuple):
    """One metric, by the columns that hold it in PER_USER and RESULTS."""

    lists: str
    """A key of STARTS."""
    measure: str
    """NDCG, HR, popularity lift, ..."""
    k: int | None = None
    """Cut-off; None: the measure has none."""

    @property
    def name(self) -> str:
        """The measure with its cut-off, whatever was ranked: NDCG@10."""
        return self.measure if self.k is None else f"{self.measure}@{self.k}"

    @property
    def label(self) -> str:
        """The name after what was ranked: list NDCG@10."""
        return STARTS[self.lists] + self.name

    def lines(self, table: pl.DataFrame) -> pl.DataFrame:
        """The rows of a table that hold this metric."""
        return table.filter(pl.col("k").eq_missing(self.k), lists=self.lists, measure=self.measure)


NDCG_AT_10 = Metric(CATALOGUE, "NDCG", 10)
"""What rows are compared by first, unless told otherwise."""
RERANKED_NDCG = Metric(RERANKED, "NDCG", 5)
"""What they are compared by where lists are re-ranked."""

FEWEST_USERS = 10
"""Of fewer no interval is told: of 5 users 15 % of the 95 % intervals miss the mean, of 1 all."""
BY_INTERVALS = (
    "low", "high", "difference_low", "difference_high", "p", "p_holm", "detectable",
)  # fmt: skip
"""Columns that are left out with the intervals."""


def primary_of(table: pl.DataFrame) -> Metric:
    """What the rows of a table of DPO4Rec's results are compared by first."""
    return RERANKED_NDCG if (table["lists"] == RERANKED).any() else NDCG_AT_10


def validated_by(table: pl.DataFrame) -> Metric:
    """What the rows of a table of RosePO's results are chosen by: NDCG@10 in the catalogue, or in
    the uniform lists where a row ranks nothing else (an LLM that picks from titles it is shown)."""
    ranked = NDCG_AT_10.lines(table)["row"].n_unique()
    everywhere = ranked == table["row"].n_unique()
    return NDCG_AT_10 if everywhere else NDCG_AT_10._replace(lists="uniform")


def metrics_in(table: pl.DataFrame) -> list[Metric]:
    """The metrics that a table holds, in their order."""
    named = table.select(Metric._fields).unique(maintain_order=True)
    return [Metric(*values) for values in named.iter_rows()]


def cells(results: pl.DataFrame) -> dict[tuple[str, Metric], dict[str, Any]]:
    """The lines of RESULTS by row and metric."""
    return {
        (line["row"], Metric(line["lists"], line["measure"], line["k"])): line
        for line in results.iter_rows(named=True)
    }


def told_intervals(results: pl.DataFrame) -> pl.DataFrame:
    """RESULTS as people may read them: of fewer than FEWEST_USERS users without the intervals.

    So are a sweep's tables read; p-values and what could be found go with the intervals.
    """
    enough = pl.col("n_users") >= FEWEST_USERS
    left_out = [name for name in BY_INTERVALS if name in results.columns]
    return results.with_columns(pl.when(enough).then(pl.col(name)).alias(name) for name in left_out)
