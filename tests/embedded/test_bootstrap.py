"""Training of the embedded policy: what it learns, what it leaves behind, and how it resumes."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from recalign.config import BootstrapConfig
from recalign.embedded.bootstrap import CHECKPOINT_STEPS, train_bootstrap
from recalign.embedded.demonstrations import Demonstrations
from recalign.embedded.grammar import parse_reasoning
from recalign.errors import UserError
from recalign.progress import Progress, silent
from recalign.schemas import CURVE_FILE
from recalign.training.run import TrainingRun

MOODS = ["dark", "light", "wry", "tense"]
SMALL = BootstrapConfig(hidden=32, layers=2, heads=2, epochs=1, batch_size=32, learning_rate=1e-2)


def copy_task(n: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Prompts of three items, and the mood of the last: a text that hangs on the prompt alone."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(4, size=(n, 3))
    creators = rng.integers(20, size=(n, 3))
    prompts = [
        " ; ".join(f"War Name{c} {MOODS[m]}" for c, m in zip(cs, ms, strict=True)) + " ="
        for cs, ms in zip(creators, drawn, strict=True)
    ]
    return prompts, [f"Enjoys War. Mood {MOODS[ms[-1]]}." for ms in drawn]


class Stopped(Exception):
    """Stands for the end of the process."""


def at(folder: Path, progress: Progress = silent) -> TrainingRun:
    return TrainingRun("policy", folder / "work", folder / "model", progress)


def train(
    folder: Path, config: BootstrapConfig = SMALL, n: int = 2000, stop_at: int | None = None
) -> dict[str, float]:
    def progress(done: int, total: int, note: str = "") -> None:
        if done == stop_at:
            raise Stopped

    return train_bootstrap(config, Demonstrations(*copy_task(n)), at(folder, progress))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(folder, SMALL.model_copy(update={"epochs": 3}))


def test_texts_follow_the_grammar_and_the_prompt(trained: tuple[Path, dict[str, float]]) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained[0] / "model")
    tokenizer = AutoTokenizer.from_pretrained(trained[0] / "model")
    prompts, expected = copy_task(200, seed=1)
    encoded = tokenizer(prompts, return_tensors="pt")
    written = model.generate(**encoded, max_new_tokens=12, do_sample=False)
    start = encoded["input_ids"].shape[1]
    texts = tokenizer.batch_decode(written[:, start:], skip_special_tokens=True)
    assert np.mean([parse_reasoning(text) is not None for text in texts]) >= 0.97
    assert np.mean([a == b for a, b in zip(texts, expected, strict=True)]) > 0.9  # chance: 1/4


def test_figures_tell_size_losses_and_grammar(trained: tuple[Path, dict[str, float]]) -> None:
    folder, figures = trained
    assert figures["demonstrations"] == 2000
    assert figures["parameters"] == sum(
        weight.numel() for weight in load_file(folder / "model" / "model.safetensors").values()
    )
    assert 0 < figures["held_out_loss"] < 0.1
    assert figures["grammatical"] >= 0.97
    curve = pl.read_parquet(folder / "model" / CURVE_FILE)
    assert curve["step"].to_list() == list(range(1, int(figures["steps"]) + 1))
    assert curve["loss"][0] > 2  # about log of the vocabulary
    assert curve.drop_nulls()["step"].to_list() == [
        *range(CHECKPOINT_STEPS, curve.height, CHECKPOINT_STEPS), curve.height
    ]  # fmt: skip


def test_what_cannot_be_learned_is_not(tmp_path: Path) -> None:
    """Moods drawn without regard to the prompt: the loss stays at the entropy of a fair draw."""
    prompts, texts = copy_task(2000)
    order = np.random.default_rng(2).permutation(2000)
    figures = train_bootstrap(
        SMALL, Demonstrations(prompts, [texts[i] for i in order]), at(tmp_path)
    )
    n_tokens = len(["Enjoys", "War", ".", "Mood", "dark", "."]) + 1
    assert abs(figures["held_out_loss"] - np.log(4) / n_tokens) < 0.03


def test_a_run_killed_at_a_checkpoint_and_resumed_ends_with_the_same_weights(
    tmp_path: Path,
) -> None:
    config = SMALL.model_copy(update={"epochs": 2})
    whole = train(tmp_path / "whole", config)
    assert whole["steps"] > 2 * CHECKPOINT_STEPS
    for stop_at in (CHECKPOINT_STEPS, 2 * CHECKPOINT_STEPS + 7):  # the second, between two
        with pytest.raises(Stopped):
            train(tmp_path / "killed", config, stop_at=stop_at)
        assert not (tmp_path / "killed" / "model").exists()
    resumed = train(tmp_path / "killed", config)
    assert resumed["loss"] == whole["loss"]
    expected = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    found = load_file(tmp_path / "killed" / "model" / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    for name in (CURVE_FILE, "tokenizer.json"):
        paths = [tmp_path / run / "model" / name for run in ("whole", "killed")]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_resumed_run_does_not_start_over(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, stop_at=CHECKPOINT_STEPS)
    seen: list[int] = []
    told = at(tmp_path, lambda done, total, note="": seen.append(done))
    train_bootstrap(SMALL, Demonstrations(*copy_task(2000)), told)
    assert seen[0] == CHECKPOINT_STEPS + 1


def test_a_checkpoint_of_other_demonstrations_or_settings_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, stop_at=CHECKPOINT_STEPS)
    seen: list[int] = []

    def progress(done: int, total: int, note: str = "") -> None:
        seen.append(done)
        raise Stopped

    for config, n in ((SMALL, 1999), (SMALL.model_copy(update={"seed": 1}), 2000)):
        with pytest.raises(Stopped):
            train_bootstrap(config, Demonstrations(*copy_task(n)), at(tmp_path, progress))
    assert seen == [1, 1]


def test_no_demonstrations_are_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no demonstration"):
        train_bootstrap(SMALL, Demonstrations([], []), at(tmp_path))
