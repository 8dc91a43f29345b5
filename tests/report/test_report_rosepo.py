"""RosePO's parts of the page say what the tables hold, and no more."""

import polars as pl
import pytest

from recalign.config import ComparedRow
from recalign.evaluation.next_items.claims import rosepo_rows
from recalign.metric_columns import CATALOGUE, Metric
from recalign.report.content import DataSet
from recalign.report.rosepo import (
    HARMFUL,
    HELPFUL,
    LIFT,
    rosepo_sections,
    rosepo_sentences,
    rosepo_title,
)
from recalign.report.tables import headline_metrics
from recalign.report.tradeoff import tradeoff
from recalign.schemas import RESULTS

COMPARED = [
    ComparedRow(label="Popularity", kind="popularity"),
    ComparedRow(label="SFT", kind="sft"),
    ComparedRow(label="hard, eps", kind="aligned", strategy="self_hard", estimator="pairwise"),
]
DATA = DataSet("toys", 20, 30, 500)
QUESTION = "Does a personal eps beat none?"


def cell(row, metric, mean, difference=None, low=None, high=None, base=None):
    relative = None if difference is None else difference / mean
    paired = (base, difference, low, high, relative)
    (known,) = [one for one in rosepo_rows(COMPARED) if one.label == row]
    return (*known.columns, *metric, mean, mean - 0.01, mean + 0.01, *paired, 90)


def table(*cells):
    return pl.DataFrame(list(cells), schema=RESULTS, orient="row")


RESULT = table(
    *(
        cell(row.label, metric, 0.1 * (number + 1))
        for number, row in enumerate(COMPARED)
        for metric in (HELPFUL, *HARMFUL)
    )
)


def contrasts(low, high):
    answer = cell("hard, eps", HELPFUL, 0.3, (low + high) / 2, low, high, "hard, no eps")
    return table(answer).select(pl.lit(QUESTION).alias("question"), pl.all())


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.03, "a gain"), (-0.03, -0.01, "a loss"), (-0.01, 0.03, "no difference shown")],
)
def test_an_answer_claims_only_what_its_interval_allows(low, high, verdict):
    *_, sentence = rosepo_sentences(COMPARED, DATA, contrasts(low, high), {"self_hard": 400})
    assert sentence.startswith(QUESTION)
    assert verdict in sentence
    assert sum(one in sentence for one in ("a gain", "a loss", "no difference")) == 1


def test_the_page_opens_with_what_was_run_and_the_terms_it_uses():
    opening, terms, *_ = rosepo_sentences(COMPARED, DATA, contrasts(0, 1), {"self_hard": 1400})
    assert "500 interactions of 20 users and 30 items (toys)" in opening
    assert "in 1 way on pairs" in opening
    assert "(1,400 pairs self_hard), and 3 rows are compared" in opening
    for term in ("Candidate lists", "HR@1", "eps", "SFT continued", "popularity lift"):
        assert term.lower() in terms.lower()


def test_the_main_table_shows_ndcg_and_popularity_lift_beside_the_hit_rate():
    names = [("HR", 1), ("HR", 5), ("HR", 10), ("NDCG", 5), ("NDCG", 10), ("MRR", None)]
    full = [*(Metric(CATALOGUE, *name) for name in names), LIFT]
    shown = headline_metrics(table(*(cell("SFT", one, 0.1) for one in full)), full[0], CATALOGUE)
    assert [one.label for one in shown] == [
        "HR@1", "HR@10", "NDCG@10", "popularity lift", "NDCG@5"
    ]  # fmt: skip


def test_a_grid_is_titled_as_one():
    other = ComparedRow(label="o", kind="aligned", strategy="random", estimator="none")
    assert rosepo_title([*COMPARED, other], "toys") == "RosePO on toys"
    doubted = other.model_copy(update={"estimator": "pairwise"})
    assert rosepo_title([*COMPARED, doubted], "toys") == "RosePO grid on toys"


def test_the_sections_hold_claims_trade_off_validation_pairs_and_doubt():
    pairs = pl.DataFrame({"pairs": ["self_hard"], "mean_cosine": [0.25], "rejected": [400]})
    doubt = pl.DataFrame(
        {"pairs": ["self_hard pairwise"], "auc": [None]}, schema_overrides={"auc": pl.Float64}
    )
    scores = {"Popularity": 0.05, "SFT": 0.10, "hard, eps": 0.11}
    sections = rosepo_sections(COMPARED, RESULT, contrasts(0.01, 0.03), scores, pairs, doubt)
    named = {section.short: section for section in sections}
    assert list(named) == ["Claims", "Trade-off", "Validation", "Pairs", "Smoothing"]
    claim = named["Claims"].grids[0]
    assert (claim.title, claim.rows[0][0].below) == (QUESTION, "against hard, no eps")
    assert claim.rows[0][1].text == "+0.0200"
    gains = {row[0].text: row[2].text for row in named["Validation"].grids[0].rows}
    assert gains == {"Popularity": "−50.0 %", "SFT": "", "hard, eps": "+10.0 %"}
    assert [one.text for one in named["Pairs"].grids[0].rows[0]] == ["self_hard", "0.2500", "400"]
    assert named["Smoothing"].grids[0].rows[0][1].text == "–"
    assert len(named["Trade-off"].figures) == 2


def test_the_trade_off_leaves_popularity_out_and_names_the_baselines():
    svg = tradeoff(RESULT, HELPFUL, LIFT)
    assert ">SFT<" in svg
    assert ">Popularity<" not in svg
    assert "self_hard" in svg


def test_no_trade_off_is_drawn_of_what_was_not_measured():
    assert tradeoff(RESULT, HELPFUL, Metric(CATALOGUE, "novelty")) is None
