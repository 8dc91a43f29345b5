"""train_sft: learns, stops, resumes to the bit, and counts the loss that TRL counts."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from recalign.config import SftConfig
from recalign.errors import UserError
from recalign.sft.examples import Examples, next_item_examples
from recalign.sft.train import train_sft
from recalign.training.checkpoints import checkpoints
from recalign.training.run import Trained
from tests.sft.sft_samples import CONFIG, TITLES, asking, circle, examples, policy, run


class Stopped(Exception):
    """Stands for the end of the process."""


def train(place: Path, config: SftConfig = CONFIG, stop_at: int = -1, **given: Any) -> Trained:
    def progress(done: int, total: int, note: str = "") -> None:
        if done == stop_at:
            raise Stopped

    fitted, valid = examples()
    return train_sft(policy(), fitted, given.get("valid", valid), config, run(place, progress))


def weights(place: Path) -> bytes:
    return (place / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    place = tmp_path_factory.mktemp("whole")
    return place, train(place)


def test_the_next_item_is_learned_and_the_saved_model_is_the_returned_one(
    whole: tuple[Path, Trained],
) -> None:
    place, tuned = whole
    assert tuned.figures["valid_loss_start"] == pytest.approx(np.log(len(TITLES) + 3), abs=0.2)
    assert tuned.figures["valid_loss"] < 1.0
    assert tuned.figures["valid_accuracy"] > 0.9
    saved = AutoModelForCausalLM.from_pretrained(place / "model")
    valid = examples()[1]
    losses = []
    for ids in valid.ids:  # one prompt at a time, nothing padded
        with torch.no_grad():
            logits = saved(torch.tensor([ids[:-1]])).logits[0, -1]
        losses.append(-float(logits.log_softmax(-1)[ids[-1]]))
    assert np.mean(losses) == pytest.approx(tuned.figures["valid_loss"], abs=1e-5)


def test_the_curve_tells_every_evaluation(whole: tuple[Path, Trained]) -> None:
    tuned = whole[1]
    n_steps = 4 * -(-tuned.figures["examples"] // 16)
    evaluated = tuned.log.drop_nulls("valid_loss")
    assert evaluated["step"].to_list() == [0, *(round(n_steps * i / 4) for i in (1, 2, 3, 4))]
    assert tuned.figures["valid_loss"] == evaluated["valid_loss"][1:].min()
    assert tuned.figures["trained_tokens"] == 60 * 9


def test_a_stopped_run_resumes_to_the_same_bits(
    whole: tuple[Path, Trained], tmp_path: Path
) -> None:
    steps = whole[1].figures["steps"]
    for stop_at in (steps // 2 + 1, steps - 1):
        with pytest.raises(Stopped):
            train(tmp_path, stop_at=stop_at)
        assert not (tmp_path / "model").exists()
    tuned = train(tmp_path)
    assert weights(tmp_path) == weights(whole[0])
    assert tuned.log.equals(whole[1].log)


@pytest.mark.slow
def test_a_process_killed_while_saving_resumes_to_the_same_bits(
    whole: tuple[Path, Trained], tmp_path: Path
) -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.sft import sft_samples as samples
from recalign.sft.train import train_sft
from recalign.sft.trainer import TitleSFTTrainer
save = TitleSFTTrainer._save_optimizer_and_scheduler
def kill(self, output_dir):
    if len(list(Path(self.args.output_dir).glob("checkpoint-*"))) > 1:
        os.kill(os.getpid(), signal.SIGKILL)  # weights are written, the rest is not
    save(self, output_dir)
TitleSFTTrainer._save_optimizer_and_scheduler = kill
train_sft(samples.policy(), *samples.examples(), samples.CONFIG,
          samples.run(Path({str(tmp_path)!r})))
"""
    killed = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert len(checkpoints(tmp_path / "work")) == 2
    tuned = train(tmp_path)
    assert weights(tmp_path) == weights(whole[0])
    assert tuned.log.equals(whole[1].log)


def test_training_stops_when_validation_gets_worse_and_keeps_the_best(tmp_path: Path) -> None:
    """Validation where everybody turns round: the better the circle is known, the worse."""
    backwards = circle()
    valid = next_item_examples(backwards, np.arange(60), np.full(60, 9), [()] * 60, asking())
    contrary = Examples([[*ids[:-1], ids[-3]] for ids in valid.ids], valid.first)
    config = CONFIG.model_copy(update={"epochs": 10, "evaluations": 50, "patience": 2})
    tuned = train(tmp_path, config, valid=contrary)
    losses = tuned.log.drop_nulls("valid_loss").filter(pl.col("step") > 0)
    best = losses.sort("valid_loss").row(0, named=True)
    assert tuned.figures["stopped_early"]
    assert tuned.figures["best_step"] == best["step"]
    assert len(losses.filter(pl.col("step") > best["step"])) == 2
    kept = load_file(tmp_path / "work" / f"checkpoint-{best['step']}" / "model.safetensors")
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(saved[name], weight) for name, weight in kept.items())


def test_nothing_to_train_on_is_told(whole: tuple[Path, Trained]) -> None:
    with pytest.raises(UserError, match="no validation example fits into sft"):
        train(whole[0], valid=Examples([], []))
