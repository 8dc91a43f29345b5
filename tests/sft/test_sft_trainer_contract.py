"""What TitleSFTTrainer exchanges gives the numbers of TRL's own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from trl import SFTTrainer

from recalign.sft.examples import Examples
from recalign.sft.train import _arguments, _dataset
from recalign.sft.trainer import TitleSFTTrainer
from recalign.training.adapters import trainable_policy
from tests.sft.sft_samples import CONFIG, examples, model, run, tokenizer


def trainer(place: Path) -> TitleSFTTrainer:
    both = [_dataset(rows) for rows in examples()]
    arguments = _arguments(CONFIG, run(place), 10)
    return TitleSFTTrainer(model(), arguments, both[0], both[1], tokenizer())


def loss_and_gradient(run: Any, compute: Any, rows: list[dict[str, Any]]) -> tuple[float, Any]:
    run.model.zero_grad()
    loss = compute(run.model, run.data_collator(rows))
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in run.model.named_parameters()}


def test_loss_and_gradient_are_those_of_trl(tmp_path: Path) -> None:
    """On rows of unequal length, so that there is padding, some with untrained tokens in front."""
    run = trainer(tmp_path)
    rows = Examples([[1, 5, 6, 7, 8], [1, 9], [1, 4, 10, 11]], [1, 1, 3])
    batch = list(_dataset(rows))
    ours, our_gradient = loss_and_gradient(run, run.compute_loss, batch)
    theirs, gradient = loss_and_gradient(
        run, lambda *given: SFTTrainer.compute_loss(run, *given), batch
    )
    assert abs(ours - theirs) < 1e-6
    for name, expected in gradient.items():
        torch.testing.assert_close(our_gradient[name], expected, atol=1e-6, rtol=1e-4)


def test_a_process_of_a_launch_computes_its_share_as_trl_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Any = trainer(tmp_path)
    monkeypatch.setattr(type(run.accelerator), "num_processes", 2)
    batch = run.data_collator(list(_dataset(Examples([[1, 5, 6, 7, 8], [1, 9]], [1, 1]))))
    of_both = torch.tensor(12)  # labels of both processes, five of them here
    ours = run.compute_loss(run.model, batch, num_items_in_batch=of_both)
    theirs = SFTTrainer.compute_loss(run, run.model, batch, num_items_in_batch=of_both)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_a_step_is_a_mean_over_its_labels_whatever_the_model_says_of_losses(
    tmp_path: Path,
) -> None:
    """Gemma 3n and 4 say that their own loss takes no count of labels; ours does."""
    both = [_dataset(rows) for rows in examples()]
    arguments = _arguments(CONFIG, run(tmp_path), 10)
    uncounted: Any = model()
    uncounted.accepts_loss_kwargs = False
    step: Any = TitleSFTTrainer(uncounted, arguments, both[0], both[1], tokenizer())
    rows = list(_dataset(Examples([[1, 5, 6, 7, 8], [1, 9], [1, 4]], [1, 1, 1])))
    micro = [step.data_collator(rows[:1]), step.data_collator(rows[1:])]
    step.current_gradient_accumulation_steps = len(micro)
    batches, n_items = step.get_batch_samples(iter(micro), 2, torch.device("cpu"))
    losses = [step.training_step(step.model, batch, n_items) for batch in batches]
    with torch.no_grad():
        whole = step.compute_loss(step.model, step.data_collator(rows))  # 6 labels: 4 and 2
    assert sum(losses).item() == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 8])
def test_held_out_figures_are_means_over_tokens_however_rows_are_batched(
    tmp_path: Path, micro_batch_size: int
) -> None:
    lengths = [1, 6, 2, 1, 1, 3, 1]  # labels of each row, behind two tokens
    drawn = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 15, (2 + n,), generator=drawn).tolist() for n in lengths]
    config = CONFIG.model_copy(update={"micro_batch_size": micro_batch_size})
    held_out = _dataset(Examples(rows, [2] * len(rows)))
    arguments = _arguments(config, run(tmp_path), 10)
    trainer = TitleSFTTrainer(model(), arguments, _dataset(examples()[0]), held_out, tokenizer())
    whole: Any = trainer.model
    losses, hits = [], []
    for ids in rows:
        with torch.no_grad():
            logits = whole(torch.tensor([ids])).logits[0, 1:-1]
        wanted = torch.tensor(ids[2:])
        losses += (-logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0]).tolist()
        hits += (logits.argmax(-1) == wanted).tolist()
    found = trainer.evaluate()
    told = found | trainer.state.log_history[-1]
    assert told["eval_loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert told["eval_mean_token_accuracy"] == pytest.approx(sum(hits) / len(hits))


def test_the_model_comes_out_as_it_went_in(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    assert "forward" in run.model.__dict__
    run.release()
    assert "forward" not in run.model.__dict__


def test_the_adapter_of_a_quantised_llm_is_left_in_float32(tmp_path: Path) -> None:
    """A processor cannot quantise; the mark alone makes TRL round what is trained."""
    config = CONFIG.model_copy(update={"method": "lora"})
    quantised: Any = trainable_policy(model(), config, run(tmp_path))
    quantised.base_model.model.is_loaded_in_4bit = True
    before = {n: p.detach().clone() for n, p in quantised.named_parameters() if p.requires_grad}
    assert any((one != one.bfloat16()).any() for one in before.values()), "rounding would show"
    both = [_dataset(rows) for rows in examples()]
    arguments = _arguments(config, run(tmp_path), 10)
    TitleSFTTrainer(quantised, arguments, both[0], both[1], tokenizer())
    after = dict(quantised.named_parameters())
    assert {after[name].dtype for name in before} == {torch.float32}
    assert all(torch.equal(after[name], weights) for name, weights in before.items())
