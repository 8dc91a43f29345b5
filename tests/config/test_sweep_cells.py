"""A sweep's cells: which settings and seeds there are, and what is refused before anything runs."""

import pytest

from recalign.config import DPO4RecConfig, RosePOConfig
from recalign.config.presets import load_settings
from recalign.config.sweep import Sweep, with_seed
from recalign.errors import UserError

GRID = ("alignment.beta=0.1,0.2", "reasonings.n_samples=5,10")


def labels(sweep, model=DPO4RecConfig):
    return [cell.label for cell in sweep.cells(model)]


def test_a_grid_has_every_value_with_every_other_and_every_seed():
    cells = Sweep(over=GRID, seeds=2).cells(DPO4RecConfig)
    told = {(c.config.alignment.beta, c.config.reasonings.n_samples, c.seed) for c in cells}
    assert told == {(b, n, s) for b in (0.1, 0.2) for n in (5, 10) for s in (0, 1)}
    assert cells[0].label == "alignment.beta=0.1, reasonings.n_samples=5, seed 0"
    assert len(cells) == 8


@pytest.mark.parametrize("model", [DPO4RecConfig, RosePOConfig])
def test_seed_0_is_the_ordinary_run(model):
    (cell,) = Sweep(preset="tiny").cells(model)
    assert cell.config == load_settings(model, "tiny")
    assert cell.label == "as configured, seed 0"


def test_a_seed_enters_training_and_sampling_and_leaves_data_windows_and_oracle():
    config = load_settings(DPO4RecConfig, "", ["alignment.seed=7"])
    other = with_seed(config, 2)
    seeds = (other.policy.bootstrap.seed, other.reasonings.seed, other.recommender.seed)
    assert (seeds, other.pairs.seed, other.alignment.seed) == ((2, 2, 2), 2, 9)
    kept = {"alignment", "pairs", "policy", "reasonings", "recommender"}
    assert all(getattr(other, name) == getattr(config, name)
               for name in DPO4RecConfig.model_fields if name not in kept)  # fmt: skip
    rosepo = with_seed(RosePOConfig(), 3)
    assert (rosepo.sft.seed, rosepo.rejections.seed, rosepo.alignment.seed) == (3, 3, 3)
    assert (rosepo.oracle, rosepo.smoothing) == (RosePOConfig().oracle, RosePOConfig().smoothing)


def test_rows_have_names_and_may_be_crossed_with_a_grid(tmp_path):
    file = tmp_path / "rows.toml"
    file.write_text(
        '[none]\nsmoothing.estimator = "none"\n'
        "[cautious]\nalignment.beta = 2.0\nrejections = { n_rejected = 2 }\n"
    )
    cells = Sweep(rows=str(file), over=["alignment.epochs=1,2"]).cells(RosePOConfig)
    assert [cell.setting.label for cell in cells] == [
        "none, alignment.epochs=1", "none, alignment.epochs=2",
        "cautious, alignment.epochs=1", "cautious, alignment.epochs=2",
    ]  # fmt: skip
    last = cells[-1].config
    assert (last.alignment.beta, last.rejections.n_rejected, last.alignment.epochs) == (2.0, 2, 2)
    assert cells[0].config.smoothing.estimator == "none"


def test_files_are_settings_although_their_place_is_no_identity():
    cells = Sweep(over=["reasonings.template=movies,books"]).cells(DPO4RecConfig)
    assert [cell.config.reasonings.template for cell in cells] == ["movies", "books"]


def test_values_that_are_lists_are_not_cut():
    cells = Sweep(over=["evaluation.cutoffs=[1,5],[10]"]).cells(DPO4RecConfig)
    assert [cell.config.evaluation.cutoffs for cell in cells] == [[1, 5], [10]]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (Sweep(over=["alignment.beta"]), "write stage.field=value,value,..."),
        (Sweep(over=["alignment.beta=0.1,"]), "write stage.field=value,value,..."),
        (Sweep(over=["alignment.betta=0.1"]), "alignment.betta: no such setting"),
        (Sweep(over=["alignment.beta=0.1,11"]), "alignment.beta: Input should be less than"),
        (Sweep(over=["alignment.beta=0.1,0.1"]), "alignment.beta=0.1 is asked for twice"),
        (Sweep(over=["alignment.gamma=0.1,0.2"]),
         "alignment.gamma=0.1 and alignment.gamma=0.2 are the same run"),
        (Sweep(over=["policy.warm_up.text=likes,recent"]), "are the same run"),
        (Sweep(over=["recommender.others_text=likes,recent"]),
         "recommender.others_text=recent: recommender.others_text is read only"),
        (Sweep(over=["alignment.beta=0.1", "alignment.beta=0.2"]), "alignment.beta is set twice"),
        (Sweep(over=["splits.test=4,5"]), "splits.test=5: data and windows are the same"),
        (Sweep(rows="nowhere.toml"), "nowhere.toml: "),
        (Sweep(seeds=0), "0 training seeds"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_anything_runs(sweep, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.").replace("[", r"\[")):
        labels(sweep)


@pytest.mark.parametrize("asked", ["list_length=10,20", "n_cases=1,2"])
def test_a_sweep_that_would_judge_its_cells_by_other_cases_is_refused(asked):
    """One hit among 10 items is more than one among 20: no setting would have earned it."""
    with pytest.raises(UserError, match="what each user is judged by is the same in all of a"):
        labels(Sweep(over=[f"recommendations.{asked}"]), RosePOConfig)
    both = Sweep(
        settings=[f"recommendations.{asked.partition(',')[0]}"], over=["recommendations.beam=0,20"]
    )
    assert len(labels(both, RosePOConfig)) == 2
    assert len(labels(Sweep(over=["evaluation.list_length=10,20"]))) == 2


def test_a_file_without_rows_is_refused(tmp_path):
    file = tmp_path / "rows.toml"
    for text, message in (("", "there is no row"), ("beta = 1\n", "beta stands outside")):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            labels(Sweep(rows=str(file)))
