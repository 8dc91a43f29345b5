"""A conditional setting counts while its condition holds, and only then."""

import itertools
from typing import Literal, get_args, get_origin

import pytest
from pydantic import Field

from recalign.config import (
    AlignmentConfig,
    ComparisonConfig,
    Config,
    DPO4RecConfig,
    EvaluationPhase,
    FoldsConfig,
    OracleConfig,
    PairsConfig,
    PhaseConfig,
    RecommendationsPhase,
    ReferenceConfig,
    RejectionsStage,
    RosePOConfig,
    SamplingConfig,
    SmoothingConfig,
    SplitsConfig,
    TitlePromptConfig,
)
from recalign.config.base import OnlyWhen, only_when

ROOTS = [
    DPO4RecConfig(),
    RosePOConfig(),
    DPO4RecConfig().reasonings.for_phase("fit"),
    DPO4RecConfig().evaluation.for_phase("test"),
    RosePOConfig().recommendations.for_phase("test"),
    RosePOConfig().recommendations.compare([]),
    RosePOConfig().rejections.asked_as(TitlePromptConfig()),
    RosePOConfig().smoothing.folding,
    RosePOConfig().alignment.for_reference(),
]
BESIDE_THE_METHODS = {
    PhaseConfig, EvaluationPhase, RecommendationsPhase, ComparisonConfig, RejectionsStage,
    FoldsConfig, ReferenceConfig,
}  # fmt: skip


def models(config):
    """The model and all models inside, with the settings they have by default."""
    yield config
    for _, value in config:
        if isinstance(value, Config):
            yield from models(value)


def rule_of(config, name):
    return type(config).model_fields[name].json_schema_extra


CONDITIONAL = {
    f"{type(config).__name__}.{name}": (config, name)
    for root in ROOTS
    for config in models(root)
    for name in type(config).model_fields
    if isinstance(rule_of(config, name), OnlyWhen)
}
KNOWN = {
    "AlignmentConfig.gamma", "AlignmentConfig.lora_rank", "InteractionsConfig.amazon",
    "InteractionsConfig.files", "InteractionsConfig.goodreads", "InteractionsConfig.synthetic",
    "OracleConfig.encoder", "OracleConfig.n_negatives", "PolicyConfig.bootstrap",
    "PhaseConfig.served_model", "PolicyConfig.model", "RejectionsConfig.mix",
    "RejectionsConfig.neighbours",
    "RejectionsStage.pool", "RewardsConfig.k", "RosePOAlignmentConfig.lora_alpha",
    "SftConfig.chat_template", "SftConfig.max_windows", "SftConfig.n_candidates",
    "SftConfig.n_examples",
    "SmoothingConfig.cap", "SmoothingConfig.folds", "SmoothingConfig.seed", "SplitsConfig.fit",
    "SplitsConfig.n_negatives", "SplitsConfig.popularity_alpha", "SplitsConfig.test_share",
    "TitleModelConfig.encoder", "TitlePromptConfig.n_candidates",
}  # fmt: skip


def values_of(config, name):
    """All values that the field may have; it is a choice or a switch."""
    annotation = type(config).model_fields[name].annotation
    assert annotation is bool or get_origin(annotation) is Literal, f"{name}: not a choice"
    return [True, False] if annotation is bool else list(get_args(annotation))


def circumstances(config, name):
    """The model with all combinations of values of the fields on which `name` depends."""
    names, queue = [], [name]
    while queue:
        rule = rule_of(config, queue.pop())
        fields = [one for alternative in rule.alternatives for one in alternative]
        names += [one for one in fields if one not in names]
        queue += [one for one in fields if isinstance(rule_of(config, one), OnlyWhen)]
    for values in itertools.product(*(values_of(config, one) for one in names)):
        yield config.model_copy(update=dict(zip(names, values, strict=True)))


def changed(config, name):
    """The model with another value in this field."""
    return config.model_copy(update={name: other(dict(config)[name])})


def other(value):
    """Another value; of a model inside, one with other values in all fields that always count."""
    match value:
        case Config():
            own = [name for name, _ in value if rule_of(value, name) is None]
            return value.model_copy(update={name: other(dict(value)[name]) for name in own})
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case list():
            return [*value, "x"]
    raise AssertionError(f"no other value of {value!r}")


def test_every_model_is_walked():
    assert set(CONDITIONAL) >= KNOWN
    assert {type(root) for root in ROOTS[2:]} == BESIDE_THE_METHODS
    overriding = [
        type(config).__name__
        for root in ROOTS
        for config in models(root)
        if type(config).identity is not Config.identity
    ]
    assert not overriding


def test_a_choice_added_later_counts_once_it_is_not_what_was_always_done():
    before = SamplingConfig()
    assert "writer" not in before.identity()
    served = before.model_copy(update={"writer": "openai"})
    assert served.identity() == before.identity() | {"writer": "openai", "served_model": ""}


@pytest.mark.parametrize("field", sorted(CONDITIONAL))
def test_a_conditional_setting_counts_while_its_condition_holds_and_only_then(field):
    config, name = CONDITIONAL[field]
    seen = set()
    for settings in circumstances(config, name):
        counts = settings.counts(name)
        seen.add(counts)
        assert (changed(settings, name).identity() != settings.identity()) == counts
        given_to_the_stage = changed(settings, name).settled()
        assert (given_to_the_stage != settings.settled()) == counts
    assert seen == {True, False}


def test_what_counts_is_told_by_the_form():
    told = AlignmentConfig.model_json_schema()["properties"]
    margin = "What beta times the difference of log-probabilities per token should exceed (SimPO)."
    assert told["gamma"]["description"] == f"{margin} Used only when loss is simpo."
    assert told["lora_rank"]["description"].endswith("Used only when method is lora.")
    told = OracleConfig.model_json_schema()["properties"]
    assert told["n_negatives"]["description"].endswith("when loss is sampled or gbce.")
    assert told["encoder"]["description"].endswith("Used only when item_text is true.")
    inner = DPO4RecConfig.model_json_schema()["$defs"]["InteractionsConfig"]["properties"]
    assert inner["amazon"]["description"].endswith("Used only when source is amazon.")
    seed = SmoothingConfig.model_json_schema()["properties"]["seed"]["description"]
    assert seed.endswith("when estimator is permuted, or oracle is cross_fitted.")


def test_a_setting_that_does_not_count_leaves_the_identity_and_a_held_one_shows_its_default():
    assert "gamma" not in AlignmentConfig(gamma=3).identity()
    assert AlignmentConfig(loss="simpo", gamma=3).identity()["gamma"] == 3
    assert "constant_eps" not in AlignmentConfig().identity()
    assert AlignmentConfig(loss="cdpo").identity()["constant_eps"] == 0.1
    assert SplitsConfig(fit_share=0.2).identity()["fit_share"] == 0.1
    assert SplitsConfig(fit_share=0.2, protocol="temporal").identity()["fit_share"] == 0.2
    assert SplitsConfig(n_negatives=9, protocol="kar").identity()["n_negatives"] == 99
    assert SplitsConfig(n_negatives=9).identity()["n_negatives"] == 9


def test_a_new_conditional_setting_makes_nothing_out_of_date():
    class Earlier(Config):
        loss: Literal["dpo", "new"] = "dpo"

    class Later(Earlier):
        strength: float = Field(0.5, json_schema_extra=only_when(loss="new"))

    assert Later().identity() == Earlier().identity()


def test_a_setting_that_came_later_counts_when_it_is_changed():
    before = {"min_margin": 0.0, "max_pairs": 0}
    assert PairsConfig().identity() == before
    assert PairsConfig(select="top_bottom_k").identity() == before | {
        "select": "top_bottom_k", "k": 2
    }  # fmt: skip


def test_what_an_optimiser_does_not_read_is_not_in_its_identity():
    paired = AlignmentConfig().identity()
    assert "grpo" not in paired
    assert paired["beta"] == 0.1
    policy_gradient = AlignmentConfig(optimiser="grpo").identity()
    assert paired.keys() - policy_gradient.keys() == {"loss", "beta", "anchor"}
    assert policy_gradient["grpo"]["clip_high"] == 0.2


def test_a_condition_on_a_setting_that_does_not_count_fails():
    assert SmoothingConfig(oracle="cross_fitted", folds=7).counts("folds")
    assert not SmoothingConfig(estimator="truth", oracle="cross_fitted").counts("folds")
