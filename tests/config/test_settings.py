"""Presets and overrides become typed settings, and mistakes in them become one clear line."""

from pathlib import Path

import pytest

from recalign.config import DPO4RecConfig
from recalign.config.presets import (
    PRESETS,
    changes,
    fill_from_preset,
    load_settings,
    preset_names,
)
from recalign.errors import UserError

BENCHMARKED = Path(__file__).parent.parent.parent / "benchmarks" / "oracle_settings"


def dpo4rec(preset="", *overrides):
    return load_settings(DPO4RecConfig, preset, list(overrides))


def test_there_are_presets():
    assert {"embedded", "tiny", "ml-100k", "ml-1m", "amazon-beauty", "paper"} <= set(
        preset_names(DPO4RecConfig)
    )
    assert [path.name for path in PRESETS.iterdir() if path.is_dir()]


@pytest.mark.parametrize("name", preset_names(DPO4RecConfig))
def test_every_preset_is_valid_and_says_something_of_itself(name):
    assert isinstance(dpo4rec(name), DPO4RecConfig)
    assert (PRESETS / "dpo4rec" / f"{name}.toml").read_text().startswith("# ")


@pytest.mark.parametrize("name", ["ml-1m", "amazon-beauty", "ml-100k"])
def test_the_settings_behind_the_published_accuracy_are_valid(name):
    assert dpo4rec(str(BENCHMARKED / f"{name}.toml")).oracle.epochs >= 30


def test_an_override_beats_the_preset_and_the_preset_beats_the_default():
    assert dpo4rec().oracle.epochs != dpo4rec("tiny").oracle.epochs
    assert dpo4rec("tiny", "oracle.epochs=9").oracle.epochs == 9
    assert dpo4rec("", "interactions.synthetic.noise=0.25").interactions.synthetic.noise == 0.25
    assert dpo4rec("", "evaluation.cutoffs=[3, 7]").evaluation.cutoffs == [3, 7]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("alignment.bta=1", "alignment.bta: no such setting; there are lora_rank,"),
        ("alignement.beta=1", "alignement: no such setting; there are interactions,"),
        ("alignment.beta=0", "alignment.beta: Input should be greater than 0"),
        ("alignment.beta=much", "alignment.beta: Input should be a valid number"),
        ("oracle.loss=hinge", "oracle.loss: Input should be 'full',"),
        ("oracle.heads=3", "oracle: heads must divide hidden"),
        ("alignment", "write stage.field=value"),
        ("splits.fit=0", "splits.fit and splits.reward must be at least 1"),
        ("policy.kind=huggingface", "policy: model must name a hub id or folder"),
    ],
)
def test_a_mistake_names_the_field_and_what_is_allowed(override, message):
    with pytest.raises(UserError) as refused:
        dpo4rec("", override)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_preset_that_is_not_there_or_not_toml_is_named(tmp_path):
    with pytest.raises(UserError, match=r"'nope' is neither a file nor one of: amazon-beauty,"):
        dpo4rec("nope")
    bad = tmp_path / "bad.toml"
    bad.write_text("[oracle\n")
    with pytest.raises(UserError, match=r"bad\.toml"):
        dpo4rec(str(bad))


def test_a_phase_has_its_own_count_of_samples_and_shares_the_rest():
    config = dpo4rec("", "reasonings.n_eval_samples=7", "reasonings.temperature=0.5").reasonings
    other = dpo4rec("", "reasonings.n_eval_samples=8", "reasonings.temperature=0.5").reasonings
    assert config.for_phase("test").n_samples == 7
    assert config.for_phase("fit") == other.for_phase("fit")
    assert config.for_phase("fit").temperature == 0.5


def filled(preset, **given):
    return fill_from_preset(DPO4RecConfig, given, preset)


def test_an_untouched_form_with_a_preset_is_the_preset():
    for name in preset_names(DPO4RecConfig):
        form = DPO4RecConfig().model_dump(mode="json")  # a form submits every field
        assert filled(name, **form) == dpo4rec(name)
        assert fill_from_preset(DPO4RecConfig, DPO4RecConfig(), name) == dpo4rec(name)


def test_what_differs_from_the_default_beats_the_preset_and_its_neighbours_come_from_it():
    form = DPO4RecConfig().model_dump(mode="json")
    form["oracle"]["epochs"] = 9
    form["interactions"]["synthetic"]["n_users"] = 77
    form["evaluation"]["cutoffs"] = [3]
    config, preset = filled("tiny", **form), dpo4rec("tiny")
    assert (config.oracle.epochs, config.oracle.hidden) == (9, preset.oracle.hidden)
    assert config.interactions.synthetic.n_users == 77
    assert config.interactions.synthetic.n_items == preset.interactions.synthetic.n_items
    assert config.evaluation.cutoffs == [3]
    assert config.evaluation.n_resamples == preset.evaluation.n_resamples


def test_a_value_equal_to_the_default_yields_to_the_preset():
    default, preset = DPO4RecConfig().oracle.epochs, dpo4rec("tiny").oracle.epochs
    assert default != preset
    assert filled("tiny", oracle={"epochs": default}).oracle.epochs == preset


def test_settings_are_judged_after_the_preset_has_filled_them():
    assert filled("tiny", policy={"model": "some/llm"}).policy.kind == "bootstrap"
    wide = {"hidden": 48, "heads": 3}
    assert filled("tiny", oracle=wide).oracle.heads == 3
    assert filled("paper", policy={"model": "other/llm"}).policy.model == "other/llm"
    with pytest.raises(UserError, match="with preset tiny: oracle: heads must divide hidden"):
        filled("tiny", oracle={"heads": 3})  # its hidden is 32
    with pytest.raises(UserError, match=r"oracle\.hiden: no such setting; there are architecture,"):
        filled("", oracle={"hiden": 3})


def test_changes_are_what_differs_from_the_defaults_down_to_single_fields():
    assert changes(DPO4RecConfig, DPO4RecConfig()) == {}
    assert changes(DPO4RecConfig, dpo4rec("", "interactions.synthetic.noise=0.25")) == {
        "interactions": {"synthetic": {"noise": 0.25}}
    }
