"""Trainings of a few steps: the first step counts."""

from pathlib import Path

import pytest
import torch

from recalign.training.arguments import warm_up_steps
from tests.alignment.alignment_samples import CONFIG, Run, make_pairs, policy, saved_adapter


@pytest.mark.parametrize(("steps", "raised"), [(1, 0), (9, 0), (10, 1), (11, 2), (100, 10)])
def test_the_learning_rate_starts_at_0_only_where_steps_abound(steps: int, raised: int) -> None:
    assert warm_up_steps(steps) == raised


def test_a_training_of_one_step_trains(run: Run, tmp_path: Path) -> None:
    once = CONFIG.model_copy(update={"epochs": 1, "batch_size": 32, "micro_batch_size": 8})
    figures = run(policy(), make_pairs(24), tmp_path, once).figures
    assert figures["steps"] == 1
    assert figures["held_out_loss"] < figures["held_out_loss_start"]
    moved = [one for name, one in saved_adapter(tmp_path).items() if "lora_B" in name]
    assert any(torch.count_nonzero(one) for one in moved)
