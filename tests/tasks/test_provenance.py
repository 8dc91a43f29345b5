"""Inputs that do not belong together are refused before any work, and both artifacts are named."""

import re
import shutil

import pytest

from recalign.config import (
    PairsConfig,
    RecommendationsConfig,
    RejectionsConfig,
    ReportConfig,
    RosePOAlignmentConfig,
    ServingConfig,
    SftConfig,
    SmoothingConfig,
)
from recalign.errors import UserError
from tasks.alignment import alignment
from tasks.comparison import comparison
from tasks.engine.provenance import RULES, Same, check_provenance
from tasks.engine.stage import Stage
from tasks.evaluation import evaluation
from tasks.fold_oracles import fold_oracles
from tasks.pairs import pairs
from tasks.reasonings import reasonings
from tasks.recommendations import recommendations
from tasks.recommender import recommender
from tasks.reference import reference
from tasks.report import report
from tasks.rewards import rewards
from tasks.serving import serving
from tasks.smoothing import smoothing
from tasks.splits import splits
from tests.tasks.pair_steps import PLAIN
from tests.tasks.tiny_run import CONFIG, direct

FIT, REWARD, VALID, TEST = (
    f"reasonings for {phase}, base" for phase in ("fit", "reward", "valid", "test")
)
TITLES = RosePOAlignmentConfig()
JUDGING = RecommendationsConfig()


@pytest.fixture(scope="module")
def walk(finished, tmp_path_factory):
    """A finished DPO4Rec; beside it, as manifests alone, what can be confused with its artifacts.

    Whatever is refused is refused before one of its files is opened.
    """
    walk = direct(shutil.copytree(finished.store.root, tmp_path_factory.mktemp("wired") / "root"))
    walk.done |= finished.done
    other = CONFIG.splits.model_copy(update={"seed": 1})
    walk(splits, other, {"interactions": walk.done["interactions"]}, label="other splits")

    def add(stage, config, label, splits="splits", **inputs):
        """An artifact without files, made from the artifacts of these labels."""
        given = {"interactions": "interactions", "splits": splits} | inputs
        references = {name: walk.done[one] for name, one in given.items()}
        walk(Stage(stage, 99, lambda job, config, **made: None), config, references, label=label)

    oracle = CONFIG.oracle
    add("oracle", oracle.model_copy(update={"seed": 9}), "other oracle")
    add("recommender", CONFIG.recommender, "by other oracle", oracle="other oracle", reasonings=FIT)
    moved = {"splits": "other splits"}
    add("oracle", oracle, "moved oracle", **moved)
    add("sft", SftConfig(), "moved sft", **moved)
    add("sft", SftConfig(), "sft")
    add("sft", SftConfig(seed=9), "other sft")
    hard = RejectionsConfig(strategy="self_hard").asked_as(PLAIN)
    drawn = RejectionsConfig(strategy="random").asked_as(PLAIN)
    add("rejections", hard, "hard", sft="sft")
    add("rejections", drawn, "random")
    add("rejections", drawn, "moved pairs", **moved)
    none = SmoothingConfig(estimator="none")
    add("smoothing", none, "hard none", rejections="hard")
    add("smoothing", none, "random none", rejections="random")
    add("reference", TITLES.for_reference(), "hard scored", sft="sft", rejections="hard")
    add("reference", TITLES.for_reference(), "random scored", sft="sft", rejections="random")
    for phase in ("valid", "test"):
        add("recommendations", JUDGING.for_phase(phase), f"sft, {phase}", policy="sft")
    add("recommendations", JUDGING.for_phase("test"), "other sft, test", policy="other sft")
    add("recommendations", JUDGING.for_phase("test"), "oracle, test", oracle="other oracle")
    add("recommendations", JUDGING.for_phase("valid"), "oracle, valid", oracle="oracle")
    add("alignment", TITLES, "aligned", start="other sft", completions="random none")
    add("recommendations", JUDGING.for_phase("test"), "aligned, test", policy="aligned")
    add("recommendations", JUDGING.for_phase("test"), "moved, test", policy="moved sft", **moved)
    return walk


OF_PHASE = r"{0} is \w+/\w+, of phase {1} instead of {2}"
DIFFER = r"{0} is \w+/\w+, but {1} is \w+/\w+$"
SPLITS = (
    r"splits is splits/\w+, but {0} is splits/\w+: all inputs have to come from the same splits"
)
WRONG = [
    (recommender, CONFIG.recommender, {"oracle": "oracle", "reasonings": REWARD},
     OF_PHASE.format("reasonings", "reward", "fit")),
    (recommender, CONFIG.recommender, {"oracle": "moved oracle", "reasonings": FIT},
     SPLITS.format("oracle.splits")),
    (reasonings, CONFIG.reasonings.for_phase("test"), {"policy": "moved sft"},
     SPLITS.format("policy.splits")),
    (rewards, CONFIG.rewards, {"oracle": "oracle", "recommender": "recommender, base",
                               "reasonings": VALID},
     OF_PHASE.format("reasonings", "valid", "reward")),
    (rewards, CONFIG.rewards, {"oracle": "oracle", "recommender": "by other oracle",
                               "reasonings": REWARD},
     DIFFER.format("oracle", "recommender.oracle")),
    (rewards, CONFIG.rewards, {"splits": "other splits", "oracle": "moved oracle",
                               "recommender": "recommender, base", "reasonings": REWARD},
     SPLITS.format("recommender.splits")),
    (pairs, PairsConfig(), {"rewards": "rewards, round 1", "reasonings": VALID},
     DIFFER.format("reasonings", "rewards.reasonings")),
    (alignment, CONFIG.alignment, {"start": "alignment, round 1", "completions": "pairs, round 1"},
     DIFFER.format("start", "completions.reasonings.policy")),
    (evaluation, CONFIG.evaluation.for_phase("valid"),
     {"oracle": "oracle", "recommender": "recommender, base", "base": VALID, "aligned": TEST},
     OF_PHASE.format("aligned", "test", "valid")),
    (evaluation, CONFIG.evaluation.for_phase("valid"),
     {"oracle": "oracle", "recommender": "recommender, base", "base": TEST, "aligned": VALID},
     OF_PHASE.format("base", "test", "valid")),
    (evaluation, CONFIG.evaluation.for_phase("valid"),
     {"oracle": "other oracle", "recommender": "recommender, base", "base": VALID,
      "aligned": VALID}, DIFFER.format("oracle", "recommender.oracle")),
    (evaluation, CONFIG.evaluation.for_phase("test"),
     {"independent_oracle": "oracle", "independent": "by other oracle"},
     DIFFER.format("independent_oracle", "independent.oracle")),
    (serving, ServingConfig(), {"oracle": "other oracle", "recommender": "recommender, base"},
     DIFFER.format("oracle", "recommender.oracle")),
    (evaluation, CONFIG.evaluation.for_phase("test"),
     {"oracle": "oracle", "recommender": "recommender, base", "base": TEST, "aligned": TEST,
      "refitted": "by other oracle"}, DIFFER.format("oracle", "refitted.oracle")),
    (report, ReportConfig(), {"evaluation": "validation, base", "base": VALID, "aligned": VALID},
     OF_PHASE.format("evaluation", "valid", "test")),
    (report, ReportConfig(), {"evaluation": "evaluation", "base": TEST, "aligned": TEST},
     DIFFER.format("aligned", "evaluation.aligned")),
    (report, ReportConfig(), {"validation_1": "evaluation"},
     OF_PHASE.format("validation_1", "test", "valid")),
    (report, ReportConfig(), {"evaluation": "evaluation", "base": VALID},
     DIFFER.format("base", "evaluation.base")),
    (report, ReportConfig(), {"evaluation": "evaluation", "oracle": "other oracle"},
     DIFFER.format("oracle", "evaluation.oracle")),
    (fold_oracles, SmoothingConfig().folding, {"oracle": "moved oracle"},
     SPLITS.format("oracle.splits")),
    (smoothing, SmoothingConfig(), {"rejections": "moved pairs", "oracle": "oracle"},
     SPLITS.format("rejections.splits")),
    (smoothing, SmoothingConfig(), {"rejections": "random", "oracle": "moved oracle"},
     SPLITS.format("oracle.splits")),
    (reference, TITLES.for_reference(), {"sft": "other sft", "rejections": "hard"},
     DIFFER.format("sft", "rejections.sft")),
    (alignment, TITLES, {"start": "other sft", "completions": "hard none",
                         "reference": "hard scored"},
     DIFFER.format("start", "completions.rejections.sft")),
    (alignment, TITLES, {"start": "other sft", "completions": "random none",
                         "reference": "random scored"}, DIFFER.format("start", "reference.sft")),
    (alignment, TITLES, {"start": "sft", "completions": "hard none", "reference": "random scored"},
     DIFFER.format("completions.rejections", "reference.rejections")),
    (recommendations, JUDGING.for_phase("test"), {"policy": "moved sft"},
     SPLITS.format("policy.splits")),
    (comparison, JUDGING.compare([]), {"row_0": "sft, valid", "valid_0": "sft, valid"},
     OF_PHASE.format("row_0", "valid", "test")),
    (comparison, JUDGING.compare([]), {"row_0": "sft, test", "valid_0": "sft, test"},
     OF_PHASE.format("valid_0", "test", "valid")),
    (comparison, JUDGING.compare([]), {"row_0": "other sft, test", "valid_0": "sft, valid"},
     DIFFER.format("row_0.policy", "valid_0.policy")),
    (comparison, JUDGING.compare([]), {"oracle": "oracle", "row_1": "oracle, test"},
     DIFFER.format("oracle", "row_1.oracle")),
    (comparison, JUDGING.compare([]), {"row_1": "oracle, test", "valid_1": "oracle, valid"},
     DIFFER.format("row_1.oracle", "valid_1.oracle")),
    (comparison, JUDGING.compare([]), {"sft": "sft", "row_0": "aligned, test"},
     DIFFER.format("sft", "row_0.policy.start")),
    (comparison, JUDGING.compare([]), {"row_0": "sft, test", "row_1": "moved, test"},
     SPLITS.format("row_1.splits")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "config", "labels", "told"),
    WRONG,
    ids=[f"{w[0].name}-{i}" for i, w in enumerate(WRONG)],
)
def test_what_does_not_belong_together_is_refused_and_named(walk, stage, config, labels, told):
    known = {"interactions": "interactions", "splits": "splits"} | labels
    inputs = {name: walk.done[label] for name, label in known.items()}
    drafts = list(walk.store.root.glob("*/.draft-*"))
    with pytest.raises(UserError) as refused:
        walk(stage, config, inputs)
    assert re.search(rf"^{stage.name}: {told}", str(refused.value)), refused.value
    assert list(walk.store.root.glob("*/.draft-*")) == drafts


UNSEEN = {("serving", Same("histories", "reasonings.histories"))}
"""Rules without a case above: `test_recommending.py` has one, with a run that recommends."""


def test_every_rule_refuses_something_above():
    told = {(stage.name, re.sub(r"_\d", "_*", text)) for stage, *_, text in WRONG}
    for stage, rules in RULES.items():
        for rule in rules:
            if (stage, rule) in UNSEEN:
                continue
            if isinstance(rule, Same):
                assert (stage, DIFFER.format(rule.first, rule.second)) in told
            else:
                start = OF_PHASE.partition(", of phase")[0].format(rule.path)
                assert any(name == stage and text.startswith(start) for name, text in told), rule


def test_every_stage_of_a_finished_run_may_be_given_what_it_was_given(finished):
    root = str(finished.store.root)
    for label in finished.done:
        manifest = finished.artifact(label).manifest
        check_provenance(root, manifest.identity, manifest.inputs)


def test_what_is_gone_from_the_root_is_not_compared(walk, tmp_path):
    manifest = walk.artifact("pairs, round 1").manifest
    check_provenance(str(tmp_path), manifest.identity, manifest.inputs)
