"""AUC and calibration against a known truth, and the tables that smoothing writes."""

import numpy as np
import polars as pl
import pytest

from recalign.schemas import REJECTIONS
from recalign.smoothing.estimators import PairScores, pairwise
from recalign.smoothing.preferences import asked_items, preference_table, quality_table
from recalign.smoothing.quality import BINS, calibration_error, expected_auc, expected_brier


def test_auc_of_sure_labels_counts_ordered_pairs_and_half_of_ties():
    estimate = np.array([0.1, 0.4, 0.4, 0.9])
    labels = np.array([0.0, 0.0, 1.0, 1.0])
    # positives .4 .9 against negatives .1 .4: three ordered pairs, one tie
    assert expected_auc(estimate, labels) == pytest.approx(3.5 / 4)
    assert expected_auc(-estimate, labels) == pytest.approx(0.5 / 4)
    assert expected_auc(np.ones(4), labels) == 0.5
    assert np.isnan(expected_auc(estimate, np.ones(4)))


def test_expected_auc_and_brier_are_the_means_over_drawn_labels():
    random = np.random.default_rng(4)
    truth = random.random(300)
    estimate = np.clip(truth + random.normal(0, 0.3, 300), 0, 1)
    aucs, briers = [], []
    for _ in range(300):
        labels = (random.random(300) < truth).astype(float)
        aucs.append(expected_auc(estimate, labels))
        briers.append(((estimate - labels) ** 2).mean())
    assert expected_auc(estimate, truth) == pytest.approx(np.mean(aucs), abs=0.004)
    assert expected_brier(estimate, truth) == pytest.approx(np.mean(briers), abs=0.002)


def test_calibration_error_is_the_gap_of_the_means_in_a_bin():
    middle = (np.arange(BINS) + 0.5) / BINS
    assert calibration_error(middle, middle) == pytest.approx(0)
    assert calibration_error(middle, middle - 0.01) == pytest.approx(0.01)
    # within one bin, errors of both signs cancel; in different bins they do not
    assert calibration_error(np.full(2, 0.01), np.array([0.0, 0.02])) == pytest.approx(0)
    assert calibration_error(np.array([0.0, 1.0]), np.array([0.1, 0.9])) == pytest.approx(0.1)


def rejections(candidates: list[list[int]]) -> pl.DataFrame:
    rows = [
        {
            "user_index": i, "position": 5, "first_position": 4, "history": [1],
            "candidates": candidates[i], "prompt": f"prompt {i}", "chosen": 2 + i,
            "chosen_score": None, "rejected": [4, 5 + i], "strategies": ["random", "semantic"],
            "scores": [0.0, 0.0], "seed": i,
        }
        for i in range(2)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=REJECTIONS)


def test_the_oracle_is_asked_about_chosen_rejected_and_candidates():
    assert asked_items(rejections([[], []])).tolist() == [[2, 4, 5], [3, 4, 6]]
    shown = asked_items(rejections([[5, 2, 4, 1], [6, 4, 3]]))
    assert shown.tolist() == [[2, 4, 5, 5, 2, 4, 1], [3, 4, 6, 6, 4, 3, 0]]


def test_preferences_carry_titles_and_eps_row_by_row():
    titles = ["", *(f"Title {i}" for i in range(1, 8))]
    table = preference_table(rejections([[], []]), titles, np.array([[0.1, 0.2], [0.3, 0.4]]))
    columns = ("prompt", "completions", "chosen", "rejected", "smoothing")
    assert table.select(columns).rows() == [
        ("prompt 0", ["Title 2", "Title 4", "Title 5"], 0, [1, 2], [0.1, 0.2]),
        ("prompt 1", ["Title 3", "Title 4", "Title 6"], 0, [1, 2], [0.3, 0.4]),
    ]


def test_quality_is_told_by_strategy_and_as_a_whole():
    strategies = [["random", "semantic"]] * 3
    scores = np.array([[0.0, -2.0, 1.0], [0.0, -1.0, -1.0], [0.0, 3.0, 0.5]], np.float32)
    judged = PairScores(scores, np.full(3, 4.0))
    truth = np.array([[0.1, 0.6], [0.2, 0.1], [0.9, 0.4]])
    eps = np.minimum(pairwise(scores, 4.0), 0.49)
    table = quality_table(strategies, eps, 0.49, judged, truth)
    assert table["strategy"].to_list() == ["random", "semantic", "all"]
    first = table.row(0, named=True)
    assert first["rejected"] == 3
    assert first["smoothing"] == pytest.approx(eps[:, 0].mean())
    assert first["capped"] == pytest.approx(1 / 3)
    assert first["oracle_prefers"] == pytest.approx(1 / 3)
    assert first["truth"] == pytest.approx(0.4)
    assert first["auc"] == pytest.approx(expected_auc(eps[:, 0], truth[:, 0]))
    raw = pairwise(scores, 1.0)[:, 0]
    assert first["ece_uncalibrated"] == pytest.approx(calibration_error(raw, truth[:, 0]))
    tempered = pairwise(scores, 4.0)[:, 0]
    assert first["brier_calibrated"] == pytest.approx(expected_brier(tempered, truth[:, 0]))
    assert table.row(2, named=True)["rejected"] == 6


def test_what_is_unknown_is_null_and_not_a_number_made_up():
    row = quality_table([["random"]], np.array([[0.2]]), 0.49).row(0, named=True)
    unknown = set(row) - {"strategy", "rejected", "smoothing", "capped"}
    assert all(row[name] is None for name in unknown)
