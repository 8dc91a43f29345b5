"""Rejections, fold oracles and smoothing as stages: what they write, resume, and refuse."""

import re

import numpy as np
import polars as pl
import pytest

import recalign.oracle.fit
import tasks.rejections
import tasks.smoothing
from recalign.config import TitlePromptConfig
from recalign.errors import LeakageError, UserError
from recalign.oracle.calibration import probability
from recalign.oracle.inference import scores_of
from recalign.oracle.storage import load_oracle
from tasks.splits import splits
from tests.tasks.pair_steps import folded, rejected, smoothed, started, tables, world
from tests.tasks.tiny_run import CONFIG


@pytest.fixture
def walk(copy):
    return started(copy)


def test_every_strategy_rejects_for_the_same_chosen_items(walk):
    question = TitlePromptConfig(format="candidates", n_candidates=6)
    drawn = [
        rejected(walk, strategy="random")[1],
        rejected(walk, strategy="popularity", n_rejected=3)[1],
        rejected(walk, question, strategy="semantic", seed=0)[1],
    ]
    for table in drawn:
        assert table.select("user_index", "position", "chosen", "history").equals(
            drawn[0].select("user_index", "position", "chosen", "history")
        )
    assert len(drawn[0]) == 150
    assert drawn[0]["user_index"].n_unique() == 60


def test_a_plain_prompt_is_the_titles_shown_and_a_question_names_every_candidate(walk):
    titles = tables(walk).items["title"]
    made, table = rejected(walk)
    first = table.row(0, named=True)
    assert first["prompt"] == "".join(f"{titles[item - 1]}\n" for item in first["history"])
    question = TitlePromptConfig(format="candidates", n_candidates=6)
    for row in rejected(walk, question)[1].head(5).iter_rows(named=True):
        assert all(titles[item - 1] in row["prompt"] for item in row["candidates"])
    figures = walk.store.open(made).manifest.figures
    assert figures["pairs_proved"] == 150
    assert 0 < figures["strategies"][0]["false_negatives"] < 0.5


def test_smoothing_is_the_earlier_oracles_calibrated_and_discounted_doubt(walk):
    pairs, table = rejected(walk, n_rejected=2)
    opened, preferences = smoothed(walk, pairs, walk.done["oracle"])
    model, facts = load_oracle(walk.artifact("oracle").folder)
    sequences = tables(walk).sequences
    items = np.column_stack([table["chosen"], np.array(table["rejected"].to_list())])
    users, positions = table["user_index"].to_numpy(), table["position"].to_numpy()
    scores = scores_of(model, sequences, users, positions, items.astype(np.int64))
    gap = (scores[:, 1:] - scores[:, :1]).astype(np.float64)
    expected = np.minimum(0.5 * probability(gap, facts["temperature"]), 0.49)
    np.testing.assert_allclose(np.array(preferences["smoothing"].to_list()), expected, rtol=1e-6)
    assert opened.manifest.figures["oracles"][0]["temperature"] == facts["temperature"]
    quality = opened.manifest.figures["strategies"][0]
    assert quality["truth"] is not None
    assert quality["rejected"] == 300


def test_controls_need_no_oracle_and_share_all_but_the_smoothing(walk):
    pairs, _ = rejected(walk)
    _, none = smoothed(walk, pairs, estimator="none")
    _, constant = smoothed(walk, pairs, estimator="constant", constant=0.3)
    _, truth = smoothed(walk, pairs, estimator="truth", cap=0.4)
    for table, values in ((none, {0.0}), (constant, {0.3})):
        assert set(table["smoothing"].explode()) == values
        assert table.drop("smoothing").equals(truth.drop("smoothing"))
    eps = truth["smoothing"].explode()
    assert eps.max() == 0.4
    assert eps.n_unique() > 50


def test_a_killed_fit_of_folds_goes_on_with_the_fold_it_was_at(walk, monkeypatch):
    fit = recalign.oracle.fit.fit_oracle
    fitted: list[str] = []

    def killed_in_the_third(*arguments):
        if len(fitted) == 2:
            fitted.append("killed")
            raise KeyboardInterrupt
        fitted.append(arguments[2].name)
        return fit(*arguments)

    monkeypatch.setattr(recalign.oracle.fit, "fit_oracle", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        folded(walk)
    made = folded(walk)
    assert fitted == ["fitting-0", "fitting-1", "killed", "fitting-2", "fitting-3", "fitting-4"]
    pairs, _ = rejected(walk)
    opened, preferences = smoothed(walk, pairs, made, oracle="cross_fitted")
    assert len(opened.manifest.figures["oracles"]) == 5
    _, earlier = smoothed(walk, pairs, walk.done["oracle"])
    assert not preferences["smoothing"].equals(earlier["smoothing"])


def test_pairs_before_the_oracles_cut_off_stop_the_run(walk, monkeypatch):
    draw = tasks.rejections.draw_positions

    def too_early(windows, n_pairs, seed):
        users, positions = draw(windows, n_pairs, seed)
        starts = windows["fit_start"].to_numpy()[users]
        return users, np.where(np.arange(len(users)) == 4, starts - 1, positions)

    monkeypatch.setattr(tasks.rejections, "draw_positions", too_early)
    with pytest.raises(LeakageError, match=r"prompts, row 4, user .*outside fit_start to valid"):
        rejected(walk)


def test_a_rejected_item_that_was_taken_before_stops_the_run(walk, monkeypatch):
    make = tasks.rejections.reject_in_shards

    def with_an_accident(*arguments):
        table, left_out = make(*arguments)
        rejected = table["rejected"].to_list()
        rejected[7] = [table["history"][7][0]]
        return table.with_columns(rejected=pl.Series(rejected, dtype=pl.List(pl.Int32))), left_out

    monkeypatch.setattr(tasks.rejections, "reject_in_shards", with_an_accident)
    with pytest.raises(LeakageError, match=r"rejections, row 7, user \d+: rejects item \d+"):
        rejected(walk)


def test_pairs_judged_by_the_oracle_of_another_fold_stop_the_run(walk, monkeypatch):
    made = folded(walk)
    pairs, _ = rejected(walk)
    name = tasks.smoothing.fold_name
    monkeypatch.setattr(tasks.smoothing, "fold_name", lambda fold: name((fold + 1) % 5))
    with pytest.raises(LeakageError, match=r"is judged by an oracle that was fitted on positions"):
        smoothed(walk, pairs, made, oracle="cross_fitted")


def test_fresh_items_are_of_the_same_users_and_may_not_be_judged_by_the_oracle(walk):
    pairs, table = rejected(walk, n_pairs=90)
    made, fresh = rejected(walk, matched=pairs, n_pairs=90)
    assert fresh["user_index"].equals(table["user_index"])
    assert fresh.join(table, on=["user_index", "position"]).is_empty()
    starts = tables(walk).windows["reward_start"].to_numpy()[fresh["user_index"]]
    assert (fresh["position"].to_numpy() < starts).any()  # the oracle was stopped on these
    _, plain = smoothed(walk, made, estimator="none")
    assert plain.height == table.height
    with pytest.raises(LeakageError, match="is judged by an oracle that was fitted on positions"):
        smoothed(walk, made, walk.done["oracle"])


def test_without_a_position_between_history_and_validation_the_user_is_told(walk):
    none = CONFIG.splits.model_copy(update={"fit": 0, "reward": 0})
    walk(splits, none, {"interactions": world(walk)["interactions"]})
    with pytest.raises(UserError, match=re.escape("raise splits.reward")):
        rejected(walk)
