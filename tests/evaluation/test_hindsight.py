"""eps against what users took later: worked out by hand, and resampled the long way."""

import numpy as np
import polars as pl
import pytest

from recalign.evaluation.intervals import TAILS, drawn_counts
from recalign.evaluation.next_items.hindsight import hindsight_table, rejected_eps
from recalign.schemas import COMPLETIONS, REJECTIONS
from recalign.sequences import Sequences
from tests.evaluation.next_item_world import sequences

POPULARITY = np.array([0, 3, 3, 2, 1, 2, 4, 1])


def smoothed(rows) -> pl.DataFrame:
    return pl.DataFrame(rows, ["user_index", "position", "item", "eps"], orient="row")


# User 0 takes 3 and 4 after position 1, user 1 takes 5 and 1, user 2 takes 6.
PAIRS = [(0, 1, 3, 0.4), (0, 1, 5, 0.1), (1, 1, 5, 0.2), (1, 1, 6, 0.3), (2, 1, 1, 0.2)]
LATER = np.array([1, 0, 1, 0, 0])


def table(rows=PAIRS, where: Sequences | None = None, n_resamples=400) -> pl.DataFrame:
    given = {"self_hard pairwise": smoothed(rows)}
    return hindsight_table(given, where or sequences(), POPULARITY, n_resamples, seed=1)


def test_auc_and_correlation_are_those_worked_out_by_hand():
    (line,) = table().to_dicts()
    assert (line["rejected"], line["n_users"], line["taken_later"]) == (5, 3, 2 / 5)
    # Taken .4 and .2, not taken .1, .3 and .2: .4 is above all three, .2 above one and ties one.
    assert line["auc"] == pytest.approx((3 + 1.5) / 6)
    eps = [row[3] for row in PAIRS]
    assert line["correlation"] == pytest.approx(np.corrcoef(eps, LATER)[0, 1])
    # Popularity: taken 2 and 2, not taken 2, 4 and 3: two ties among six.
    assert line["auc_popularity"] == pytest.approx(1 / 6)


def long_way(eps: np.ndarray, later: np.ndarray) -> float:
    wins = [(one > other) + (one == other) / 2 for one in eps[later] for other in eps[~later]]
    return float(np.mean(wins))


def test_intervals_are_quantiles_over_users_who_are_drawn_with_all_their_pairs():
    random = np.random.default_rng(3)
    n_users = 25
    taken = [random.permutation(7)[:4] + 1 for _ in range(n_users)]
    where = Sequences(np.arange(n_users + 1) * 4, np.concatenate(taken), 7)
    rows = [
        (user, 1, int(item), round(random.random(), 1))
        for user in range(n_users)
        for item in random.permutation(7)[: random.integers(1, 4)] + 1
    ]
    (line,) = table(rows, where, 60).to_dicts()
    users, eps = np.array([row[0] for row in rows]), np.array([row[3] for row in rows])
    later = np.array([item in taken[user][2:] for user, _, item, _ in rows])
    assert line["auc"] == pytest.approx(long_way(eps, later))
    (counts,) = drawn_counts(n_users, 60, seed=1)
    drawn = [np.repeat(np.arange(len(rows)), one[users].astype(int)) for one in counts]
    aucs = [long_way(eps[one], later[one]) for one in drawn]
    slopes = [np.corrcoef(eps[one], later[one])[0, 1] for one in drawn]
    for name, draws in (("auc", aucs), ("correlation", slopes)):
        found = line[f"{name}_low"], line[f"{name}_high"]
        assert found == pytest.approx(tuple(np.quantile(draws, TAILS)))


def test_a_constant_eps_has_no_line_and_without_an_item_taken_later_nothing_is_claimed():
    assert table([(*row[:3], 0.1) for row in PAIRS]).is_empty()
    (line,) = table([row for row, later in zip(PAIRS, LATER, strict=True) if not later]).to_dicts()
    assert line["taken_later"] == 0
    assert {line[one] for one in ("auc", "auc_low", "correlation_high", "auc_popularity")} == {None}


def test_each_eps_belongs_to_the_item_at_its_place():
    rejections = pl.DataFrame(
        {"user_index": [4, 7], "position": [9, 2], "rejected": [[11, 12], [13, 14]]},
        {name: REJECTIONS[name] for name in ("user_index", "position", "rejected")},
    )
    names = ("user_index", "position", "rejected", "smoothing")
    given = [7, 4], [2, 9], [[1, 2], [2]], [[0.1, 0.2], [0.3]]
    completions = pl.DataFrame(
        dict(zip(names, given, strict=True)), {name: COMPLETIONS[name] for name in names}
    )
    assert rejected_eps(rejections, completions).rows() == [
        (7, 2, 0.1, 13), (7, 2, 0.2, 14), (4, 9, 0.3, 12)
    ]  # fmt: skip
