"""Stage alignment with every optimiser, on what the smallest runs have sampled."""

from contextlib import nullcontext

import polars as pl
import pytest

from flows.dpo4rec import begin
from flows.rosepo import configured_row, variants
from recalign.artifacts.identity import Identity
from recalign.config import AlignmentConfig, RosePOAlignmentConfig, RosePOConfig, SftConfig
from recalign.errors import UserError
from recalign.schemas import COMPLETIONS
from recalign.stored import open_policy
from recalign.training.log_table import LOG
from tasks.alignment import alignment, check_progress
from tests.tasks.pair_steps import rejected, smoothed, started
from tests.tasks.test_rosepo_model_stages import untrained
from tests.tasks.tiny_run import CONFIG, direct

PAIRS = "pairs, round 1"


def aligned(walk, start, completions, config, **settings):
    """The artifact of an alignment of these completions."""
    changed = type(config).model_validate(config.model_dump() | settings)
    return walk.store.open(walk(alignment, changed, {"start": start, "completions": completions}))


@pytest.mark.parametrize("optimiser", ["listwise", "best_of_n", "grpo"])
def test_every_optimiser_makes_a_policy_of_a_round(finished, copy, optimiser):
    first, pairs = (finished.done[name] for name in ("policy", PAIRS))
    made = aligned(direct(copy), first, pairs, CONFIG.alignment, optimiser=optimiser)
    manifest, table = made.manifest, COMPLETIONS.read(finished.artifact(PAIRS))
    assert manifest.rows == table.height
    assert manifest.figures["prompts"] + sum(manifest.dropped.values()) == table.height
    assert manifest.figures["completions"] >= manifest.figures["prompts"]
    assert pl.read_parquet(made.path(LOG))["held_out_loss"].count() == 3  # and at the start
    assert open_policy(made, str(copy), "cpu").encode_prompt(table["prompt"][0])


def test_a_policy_that_another_run_let_go_far_from_its_reference_is_not_reused(finished, copy):
    walk, start, pairs = direct(copy), finished.done["policy"], finished.done[PAIRS]
    made = aligned(walk, start, pairs, CONFIG.alignment, optimiser="grpo", allow_worse=True)
    far = made.manifest.figures["held_out_kl_highest"]
    assert far == max(pl.read_parquet(made.path(LOG))["held_out_kl"].drop_nulls()) > 0
    for most, refused in ((2 * far, False), (far / 2, True)):
        settings = {"optimiser": "grpo", "allow_worse": True, "grpo": {"max_kl": most}}
        config = AlignmentConfig.model_validate(CONFIG.alignment.model_dump() | settings)
        again = walk(alignment, config, {"start": start, "completions": pairs})
        assert again == made.reference
        with pytest.raises(UserError, match="max_kl") if refused else nullcontext():
            check_progress(walk, made.reference, config)
        figures = {"held_out_loss_start": 1.0, "held_out_loss": 1.0}  # of an earlier version
        draft = walk.store.draft(Identity("alignment", 1, {"most": most}, {}, {}), {})
        draft.tell(figures)
        check_progress(walk, walk.store.commit(draft).reference, config)


def test_once_all_weights_are_trained_the_first_policy_still_is_the_reference(copy):
    changes = {"method": "full", "learning_rate": 1e-3, "optimiser": "grpo"}
    full = CONFIG.alignment.model_validate(CONFIG.alignment.model_dump() | changes)
    walk = direct(copy)
    rounds = begin(walk, CONFIG.model_copy(update={"alignment": full}))
    rounds.advance()
    rounds.advance()
    start, pairs = (walk.done[name] for name in ("alignment, round 1", "pairs, round 2"))
    for reference, apart in (("initial", True), ("previous", False)):
        log = pl.read_parquet(aligned(walk, start, pairs, full, reference=reference).path(LOG))
        assert (log["held_out_kl"][0] > 1e-4) == apart
        assert log["held_out_reward_gain"][0] == pytest.approx(0, abs=1e-4)  # of its own start


def test_titles_are_optimised_against_the_sft_model(copy):
    walk = started(copy)
    sft = untrained(walk, SftConfig())
    pairs, _ = rejected(walk, sft=sft, strategy="self_softmax", n_rejected=3)
    completions, _ = smoothed(walk, pairs, estimator="none")
    config = RosePOAlignmentConfig(batch_size=16, micro_batch_size=16, evaluations=2)
    for optimiser in ("listwise", "grpo"):
        made = aligned(walk, sft, completions.reference, config, optimiser=optimiser)
        log = pl.read_parquet(made.path(LOG))
        assert made.manifest.figures["completions"] == 4 * made.manifest.figures["prompts"]
        assert log["held_out_chosen_drift"][0] == pytest.approx(0, abs=1e-4)
        assert log["held_out_loss"].count() == 3


def test_what_reads_no_smoothing_is_one_row_of_rosepo():
    def aligned_rows(config):
        return [row.label for row in variants(config) if row.kind == "aligned"]

    config = RosePOConfig()
    assert len(aligned_rows(config)) > 3
    changed = config.alignment.model_copy(update={"optimiser": "grpo"})
    optimised = config.model_copy(update={"alignment": changed})
    assert aligned_rows(optimised) == [configured_row(optimised)] == ["self_hard, grpo"]
