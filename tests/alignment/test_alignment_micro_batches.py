"""How many pairs are in memory at once changes neither gradients nor held-out losses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tests.alignment.alignment_samples import CONFIG, Run, make_pairs, policy

STEP = CONFIG.model_copy(
    update={"epochs": 1, "anchor": 0.5, "evaluations": 4, "learning_rate": 1e-3}
)


class Gradients(TrainerCallback):
    """Keeps the gradient of every optimiser step, as one vector."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        model: nn.Module = given["model"]
        found = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
        self.steps.append(torch.cat(found).clone())


@pytest.mark.parametrize("change", [{"loss": "dpo"}, {"loss": "nll"}, {"optimiser": "listwise"}])
def test_gradients_and_held_out_losses_are_those_of_whole_batches(
    run: Run, tmp_path: Path, change: dict[str, str]
) -> None:
    pairs = make_pairs(29)  # chosen texts of 2 to 5 words; 23 are trained on: 8, 8 and 7
    found = {}
    for size in (8, 2, 1):
        config = STEP.model_copy(update={"micro_batch_size": size, **change})
        gradients = Gradients()
        made = run(policy(), pairs, tmp_path / str(size), config, callbacks=(gradients,))
        found[size] = gradients.steps, made.log["held_out_loss"].drop_nulls().to_list()
    whole, losses = found[8]
    rows = "prompts" if "optimiser" in change else "pairs"
    assert made.figures[rows] - made.figures[f"held_out_{rows}"] == 23
    assert len(whole) == 3
    for size in (2, 1):
        steps, others = found[size]
        assert others == pytest.approx(losses, rel=1e-5)
        for one, expected in zip(steps, whole, strict=True):
            assert float((one - expected).norm() / expected.norm()) < 1e-3
