"""align: learns, stops, resumes to the bit, and leaves the model as it was found."""

import json
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import PreTrainedModel, TrainerCallback
from trl.trainer import base_trainer

from recalign.alignment.divergence import refuse_worse
from recalign.alignment.reference import ReferenceLogProbs, reference_log_probs
from recalign.alignment.rows import Rows, encode_pairs, held_out
from recalign.errors import UserError
from recalign.policy import Policy
from tests.alignment.alignment_samples import (
    CONFIG,
    Fails,
    Run,
    adapter_bytes,
    make_pairs,
    policy,
    qwen2,
    saved_adapter,
)


def scored(plain: Policy, model: Any, rows: Rows, adapter: bool = True) -> ReferenceLogProbs:
    """Log-probabilities of the rows under this model."""
    return reference_log_probs(replace(plain, model=model), rows, CONFIG, adapter=adapter)


def test_training_separates_held_out_pairs_and_saves_what_it_returns(
    run: Run, pairs: pl.DataFrame, tmp_path: Path, plain: Policy
) -> None:
    seen: list[tuple[int, int]] = []
    notes: list[str] = []

    def progress(done: int, total: int, note: str = "") -> None:
        seen.append((done, total))
        notes.append(note)

    result = run(policy(), pairs, tmp_path, progress=progress)
    n_batches = max(int(note.rpartition(" ")[2]) for note in notes if "held-out rows" in note)
    assert notes.count(f"steps; held-out rows: batch {n_batches} of {n_batches}") == 4
    figures, log = result.figures, result.log
    assert figures["held_out_loss"] < figures["held_out_loss_start"] - 0.05
    assert figures["held_out_accuracy"] > 0.9
    assert figures["chosen_drift"] > figures["rejected_drift"] + 0.5
    held = held_out(pairs["user_index"].to_numpy(), 0.25, 0)
    assert figures["held_out_pairs"] == held.sum() > 3
    steps = 2 * -(-int((~held).sum()) // 8)
    assert seen[-1] == (steps, steps)
    assert log["step"].to_list() == list(range(steps + 1))
    evaluated = log.filter(pl.col("held_out_loss").is_not_null())["step"].to_list()
    assert evaluated == [0, *sorted({round(steps * i / 3) for i in (1, 2, 3)})]

    rows = encode_pairs(pairs, plain, 512)
    saved = PeftModel.from_pretrained(policy(), tmp_path / "folder")
    again, returned = (scored(plain, m, rows) for m in (saved, result.model))
    assert again.chosen.tolist() == returned.chosen.tolist()
    base = scored(plain, policy(), rows)
    assert result.log["held_out_chosen_drift"].to_list()[figures["best_step"]] == pytest.approx(
        float((again.chosen - base.chosen)[held].mean()), abs=1e-4
    )


def test_the_network_is_never_asked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refuse(*arguments: object, **options: object) -> None:
        asked.append((arguments, options))
        raise OSError("no network in this test")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(base_trainer, "send_telemetry", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("CI", raising=False)
    model = policy()
    model.name_or_path = model.config._name_or_path = "someone/some-model"
    run(model, make_pairs(16), tmp_path)
    assert asked == []
    settings = json.loads((tmp_path / "folder" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "someone/some-model"


def test_training_stops_when_held_out_pairs_get_worse_and_keeps_the_best(
    run: Run, pairs: pl.DataFrame, tmp_path: Path
) -> None:
    held = held_out(pairs["user_index"].to_numpy(), 0.25, 0)
    turned = pl.when(pl.Series(held))
    contrary = pairs.with_columns(
        completions=turned.then(pl.col("completions").list.reverse()).otherwise("completions")
    )
    config = CONFIG.model_copy(update={"epochs": 10, "evaluations": 25, "patience": 2})
    result = run(policy(), contrary, tmp_path, config)
    losses = result.log.drop_nulls("held_out_loss").filter(pl.col("step") > 0)
    best = losses.sort("held_out_loss").row(0, named=True)
    assert result.figures["stopped_early"]
    assert result.figures["best_step"] == best["step"]
    assert len(losses.filter(pl.col("step") > best["step"])) == 2
    kept = load_file(tmp_path / "work" / f"checkpoint-{best['step']}" / "adapter_model.safetensors")
    saved = load_file(tmp_path / "folder" / "adapter_model.safetensors")
    assert all(torch.equal(saved[name], kept[name]) for name in kept | saved)
    again = run(
        policy(), contrary, tmp_path, config, callbacks=(Fails(0), Fails(result.figures["steps"]))
    )
    assert again.log.equals(result.log)


def test_all_weights_can_be_trained_and_loaded(run: Run, tmp_path: Path, plain: Policy) -> None:
    pairs = make_pairs(24)
    config = CONFIG.model_copy(update={"method": "full", "learning_rate": 1e-3})
    result = run(qwen2(), pairs, tmp_path, config)
    assert result.figures["held_out_loss"] < result.figures["held_out_loss_start"]
    rows = encode_pairs(pairs, plain, 512)
    assert isinstance(result.model, PreTrainedModel)
    loaded = type(result.model).from_pretrained(tmp_path / "folder", dtype=torch.float32)
    again, returned = (scored(plain, m, rows) for m in (loaded, result.model))
    assert again.rejected.tolist() == returned.rejected.tolist()
    assert (tmp_path / "folder" / "tokenizer.json").exists()


def test_an_adapter_goes_on_from_where_it_was_against_either_reference(
    run: Run, tmp_path: Path, plain: Policy
) -> None:
    pairs = make_pairs(24)
    config = CONFIG.model_copy(update={"epochs": 1, "evaluations": 1})
    run(policy(), pairs, tmp_path / "first", config)

    def continued() -> PeftModel:
        return PeftModel.from_pretrained(policy(), tmp_path / "first" / "folder")

    rows = encode_pairs(pairs, plain, 512)
    held = held_out(rows.users, 0.25, 0)
    base, adapted = (scored(plain, m, rows) for m in (policy(), continued()))
    off = scored(plain, continued(), rows, adapter=False)
    assert off.chosen.tolist() == pytest.approx(base.chosen.tolist(), abs=1e-5)
    moved = float((adapted.chosen - base.chosen)[held].mean())
    assert abs(moved) > 0.1
    for place, reference, drift in (
        ("initial", "initial", moved),
        ("previous", "previous", 0.0),
        ("given", ReferenceLogProbs(adapted.chosen - 2.0, adapted.rejected), 2.0),
    ):
        result = run(continued(), pairs, tmp_path / place, config, reference=reference)
        start = result.log["held_out_chosen_drift"].to_list()[0]
        assert start == pytest.approx(drift, abs=1e-4), place
        assert list(result.model.peft_config) == ["default"]
        assert adapter_bytes(tmp_path / place) != adapter_bytes(tmp_path / "first")


def test_several_rejected_and_smoothing_reach_the_loss(
    run: Run, tmp_path: Path, plain: Policy
) -> None:
    pairs = make_pairs(16, n_rejected=3).with_columns(
        smoothing=pl.Series([[0.1, 0.2, 0.3]] * 8 + [[0.4, 0.0, 0.2]] * 8)
    )
    rows = encode_pairs(pairs, plain, 512)
    base = scored(plain, policy(), rows)
    away = ReferenceLogProbs(base.chosen + 1.0, base.rejected - [[0.5, 1.0, 2.0]])
    config = CONFIG.model_copy(update={"anchor": 0.0, "beta": 0.5})
    h = torch.tensor([[0.5, 1.0, 2.0]]) * -1 - 1.0  # r_rejected = .5, 1, 2 and r_chosen = -1
    eps = torch.tensor(rows.eps[held_out(rows.users, 0.25, 0)], dtype=torch.float32)
    p = torch.sigmoid(0.5 * h)
    smoothed = (-(1 - eps) * p.log() - eps * (1 - p).log()).mean()
    softmax = (0.5 * -h).exp().sum().log1p()
    for loss, expected in (("rosepo", smoothed), ("sdpo", softmax)):
        chosen = config.model_copy(update={"loss": loss})
        result = run(policy(), pairs, tmp_path / loss, chosen, reference=away)
        found = result.figures["held_out_loss_start"]
        assert found == pytest.approx(expected.item(), rel=1e-5), loss


def test_dropping_pairs_by_eps_is_training_without_them_and_is_counted(
    run: Run, tmp_path: Path
) -> None:
    pairs = make_pairs(24).with_columns(smoothing=pl.Series([[0.1], [0.3], [0.45]] * 8))
    config = CONFIG.model_copy(update={"loss": "rosepo"})
    dropping = config.model_copy(update={"drop_above": 0.3})
    found = run(policy(), pairs, tmp_path / "drops", dropping).figures
    kept = pairs.filter(pl.col("smoothing").list.first() <= 0.3)
    expected = run(policy(), kept, tmp_path / "without", config).figures
    counts = expected.pop("left_out")
    assert found.pop("left_out") == counts | {"eps_above": 8}
    assert found["pairs"] == 16
    # The reference scores all rows, in batches of other sizes, which some processors round apart.
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    without = saved_adapter(tmp_path / "without")
    for name, weights in saved_adapter(tmp_path / "drops").items():
        torch.testing.assert_close(weights, without[name], rtol=1e-3, atol=1e-5)
    with pytest.raises(UserError, match=r"drop_above = 0.05 leaves no pair .*: 24 of 24 have"):
        run(policy(), pairs, tmp_path / "all", config.model_copy(update={"drop_above": 0.05}))


def test_the_model_comes_out_as_it_went_in_but_for_its_adapter(run: Run, tmp_path: Path) -> None:
    model = policy()
    config = CONFIG.model_copy(update={"precision": "bfloat16"})
    result = run(model, make_pairs(16), tmp_path, config)
    assert isinstance(result.model, PeftModel)
    base = result.model.get_base_model()
    assert base is model
    assert "forward" not in base.__dict__
    assert "forward" not in result.model.__dict__
    assert base.config._attn_implementation == "sdpa"
    assert not result.model.training
    written = result.model.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=4, do_sample=False)
    assert written.shape[1] > 3
    again = run(policy(), make_pairs(16), tmp_path / "again", config)
    assert again.log.equals(result.log)


def test_a_reference_in_bfloat16_is_scored_as_the_policy_is_trained(
    run: Run, tmp_path: Path, plain: Policy
) -> None:
    config = CONFIG.model_copy(update={"precision": "bfloat16", "held_out": 0.5})
    pairs, asked = make_pairs(48), replace(plain, model=policy())
    known = reference_log_probs(asked, encode_pairs(pairs, plain, config.max_length), config)
    log = run(policy(), pairs, tmp_path, config, reference=known).log
    assert abs(log["held_out_chosen_drift"][0]) < 1e-4


def test_the_log_has_trls_metric_names(run: Run, tmp_path: Path) -> None:
    names: set[str] = set()

    class Listener(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            names.update(logs)

    run(policy(), make_pairs(16), tmp_path, callbacks=(Listener(),))
    both = {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"}
    both |= {"logps/chosen", "logps/rejected", "loss", "num_tokens"}
    assert both | {f"eval_{name}" for name in both} | {"grad_norm", "learning_rate"} <= names


def test_devices_that_cannot_share_a_batch_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # as `accelerate launch` tells its processes
    with pytest.raises(UserError, match=r"size: 4 devices .* take 4 x 4 .*\.batch_size 8$"):
        run(policy(), make_pairs(16), tmp_path)


def test_what_does_not_fit_is_said(run: Run, tmp_path: Path, plain: Policy) -> None:
    pairs = make_pairs(16)
    adapted = run(policy(), pairs, tmp_path / "adapter").model
    with pytest.raises(UserError, match="has rank 4 and alpha 8"):
        run(adapted, pairs, tmp_path / "a", CONFIG.model_copy(update={"lora_rank": 2}))
    with pytest.raises(UserError, match="without adapter"):
        run(adapted, pairs, tmp_path / "b", CONFIG.model_copy(update={"method": "full"}))
    coarse: Any = policy()
    coarse.to(torch.bfloat16)
    with pytest.raises(UserError, match="'full' needs weights in float32"):
        run(coarse, pairs, tmp_path / "b", CONFIG.model_copy(update={"method": "full"}))
    few = scored(plain, policy(), encode_pairs(make_pairs(3), plain, 512))
    with pytest.raises(UserError, match="3 reference log-probabilities given for 16 pairs"):
        run(policy(), pairs, tmp_path / "c", reference=few)
    with pytest.raises(UserError, match="diverged"):
        run(
            policy(),
            pairs,
            tmp_path / "d",
            CONFIG.model_copy(update={"learning_rate": 1e30, "method": "full"}),
        )


@pytest.mark.parametrize("after", [3.21, float("nan"), float("inf")])
def test_a_training_that_diverged_is_refused_by_the_setting_that_mends_it(after: float) -> None:
    figures = {"held_out_loss_start": 0.854, "held_out_loss": after}
    message = f"alignment: training diverged: .* 0.854 before .* {after:.4g} after it; lower alignm"
    with pytest.raises(UserError, match=message):
        refuse_worse(figures, CONFIG, "alignment")
    for noise in (0.5, 0.854, 0.88):
        refuse_worse(figures | {"held_out_loss": noise}, CONFIG, "alignment")


def test_a_tracker_that_is_asked_for_gets_the_curves_of_a_training(
    run: Run, pairs: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    result = run(policy(), pairs, tmp_path, report_to="tensorboard")
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert {"train/loss", "train/learning_rate", "eval/loss"} <= set(events.Tags()["scalars"])
    steps = [event.step for event in events.Scalars("train/loss")]
    assert steps[-1] == result.log["step"].to_list()[-1]


def test_processes_of_one_id_as_in_two_containers_save_the_same_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ReferenceLogProbs(np.ones(9, np.float32), np.ones((9, 2), np.float32))
    path, together, broken = tmp_path / "made.npz", threading.Barrier(2, timeout=60), []
    real = os.fsync

    def fsync(handle: int) -> None:
        together.wait()
        real(handle)

    def save() -> None:
        try:
            made.save(path)
        except OSError as error:
            broken.append(error)

    monkeypatch.setattr(os, "fsync", fsync)
    both = [threading.Thread(target=save) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert not broken
    assert np.array_equal(ReferenceLogProbs.load(path).rejected, made.rejected)
