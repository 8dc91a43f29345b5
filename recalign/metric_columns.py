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
MEASURES = {
    "HR": "the target is among the first k, k 1, 5, 10",
    "NDCG": "1 / log2(1 + rank) within the first k, k 5, 10",
    "MRR": "1 / rank",
    "wrong": "another item than the target stands in the first place",
    "semantic hallucination": "among wrong first places: nearly the same text as the target",
    "semantic error": "among all cases: wrong, and nearly the same text as the target",
    "popular hallucination": "among wrong first places: one of the most popular 5 %",
    "popular error": "among all cases: wrong, and one of the most popular 5 %",
    "popularity lift": "mean log(1 + popularity) of what is recommended, minus the target's",
    "long-tail share": "of the recommended list outside the most popular fifth",
    "average popularity": "of the recommended list, in interactions of the history windows",
    "answer HR": "the free answer is the target's title",
    "valid": "the free answer is a title of the catalogue",
    "already seen": "the free answer is something the user took before",
    "repeated": "the same free answer stood already for an earlier case of the user",
    "in candidates": "the free answer is one of the titles to pick from",
}
"""What each measure of RosePO's rows means. Ranks in the catalogue leave out what the user took
before; popularity lift is that of the `top` first items there, and of the first place in lists."""

FEWEST_USERS = 10
"""Of fewer no interval is told: of 5 users 15 % of the 95 % intervals miss the mean, of 1 all."""
BY_INTERVALS = (
    "low", "high", "difference_low", "difference_high", "p", "p_holm", "detectable",
    "auc_low", "auc_high", "correlation_low", "correlation_high",
)  # fmt: skip
"""Columns that are left out with the intervals."""


def primary_of(table: pl.DataFrame) -> Metric:
    """What the rows of a table of results are compared by first: what every row has, if it can."""
    if (table["lists"] == RERANKED).any():
        return RERANKED_NDCG
    shared = validated_by(table)
    return shared if shared.lines(table).height else NDCG_AT_10


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

    So are a sweep's tables and HINDSIGHT read; p-values and what could be found go with the
    intervals.
    """
    enough = pl.col("n_users") >= FEWEST_USERS
    left_out = [name for name in BY_INTERVALS if name in results.columns]
    return results.with_columns(pl.when(enough).then(pl.col(name)).alias(name) for name in left_out)
