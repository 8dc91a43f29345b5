"""What we override of TRL and transformers, and that both compute the same loss and gradient."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Trainer
from transformers.modeling_utils import slice_logits_to_keep
from trl import DPOConfig, DPOTrainer

from recalign.alignment.forward import PackedCollator
from recalign.alignment.losses import Objective
from recalign.alignment.reference import reference_log_probs
from recalign.alignment.rows import encode_pairs
from recalign.alignment.trainer import SharedPromptDPOTrainer
from recalign.policy import Policy
from tests.alignment.alignment_samples import CONFIG, Run, adapter_bytes, make_pairs, policy

OVERRIDDEN = {
    "_prepare_dataset": ["self", "dataset", "processing_class", "args", "dataset_name"],
    "_set_signature_columns_if_needed": ["self"],
    "_precompute_ref_logps": ["self", "dataset", "name", "batch_size"],
    "_compute_loss": ["self", "model", "inputs", "return_outputs"],
    "get_batch_samples": ["self", "epoch_iterator", "num_batches", "device"],
    "_send_telemetry": ["self"],
    "_get_train_sampler": ["self", "train_dataset"],
}


def parameters(function: Callable) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_trl_is_the_version_whose_internals_are_overridden() -> None:
    assert trl.__version__.startswith("1.16.")


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_overridden_method_has_the_parameters_it_had(name: str) -> None:
    assert parameters(getattr(DPOTrainer, name)) == OVERRIDDEN[name]
    assert parameters(getattr(SharedPromptDPOTrainer, name)) == OVERRIDDEN[name]


def test_what_we_call_of_the_trainer_is_there() -> None:
    assert parameters(Trainer._load_from_checkpoint)[:2] == ["self", "resume_from_checkpoint"]
    kept = slice_logits_to_keep(
        torch.arange(6.0).view(1, 3, 2), torch.tensor([[True, False, True]])
    )
    assert kept.tolist() == [[0, 1], [4, 5]]


def trl_trainer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, losses: list[str], folder: Path
) -> DPOTrainer:
    """TRL's own trainer on the 8 sample pairs, all in one batch."""
    texts = [
        {"prompt": prompt, "chosen": f" {chosen} <eos>", "rejected": f" {rejected} <eos>"}
        for prompt, (chosen, rejected) in make_pairs(8).select("prompt", "completions").iter_rows()
    ]
    args = DPOConfig(
        output_dir=str(folder),
        loss_type=losses,
        loss_weights=[1.0, 0.7][: len(losses)],
        label_smoothing=0.2,
        beta=0.3,
        per_device_train_batch_size=8,
        precompute_ref_log_probs=True,
        activation_checkpointing=False,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    return DPOTrainer(
        model=model, args=args, train_dataset=Dataset.from_list(texts), processing_class=tokenizer
    )


def move(model: PreTrainedModel) -> None:
    """The same step away from the reference for every copy of the model, which then trains."""
    model.train()
    random = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.02)


@pytest.mark.parametrize(
    ("losses", "objective", "eps"),
    [
        (["sigmoid"], Objective("dpo", beta=0.3), 0.2),
        (["sigmoid"], Objective("rosepo", beta=0.3), 0.0),
        (["sigmoid"], Objective("rdpo", beta=0.3), 0.0),
        (["sigmoid"], Objective("sdpo", beta=0.3), 0.0),
        (["sigmoid"], Objective("dmpo", beta=0.3), 0.0),
        (["sigmoid", "sft"], Objective("dpo", beta=0.3, anchor=0.7), 0.2),
        (["robust"], Objective("rdpo", beta=0.3), 0.2),
        (["ipo"], Objective("ipo", beta=0.3), 0.2),
    ],
    ids=[
        "sigmoid is dpo",
        "sigmoid is rosepo",
        "sigmoid is rdpo",
        "sigmoid is sdpo",
        "sigmoid is dmpo",
        "sigmoid and sft",
        "robust",
        "ipo",
    ],
)
def test_loss_and_gradient_are_those_of_trl(
    losses: list[str],
    objective: Objective,
    eps: float,
    tokenizer: PreTrainedTokenizerFast,
    plain: Policy,
    tiny_llama: PreTrainedModel,
    tmp_path: Path,
) -> None:
    ours = LlamaForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.float32)
    theirs = trl_trainer(tiny_llama, tokenizer, losses, tmp_path / "theirs")
    assert isinstance(theirs.train_dataset, Dataset)
    assert isinstance(theirs.model, PreTrainedModel)
    their_batch = theirs.data_collator([theirs.train_dataset[i] for i in range(8)])
    move(theirs.model)
    their_loss = theirs.compute_loss(theirs.model, their_batch)
    their_loss.backward()

    rows = encode_pairs(make_pairs(8), plain, 64)
    rows.eps[:] = eps
    reference = reference_log_probs(
        replace(plain, model=ours), rows, CONFIG.model_copy(update={"micro_batch_size": 3})
    )
    np.testing.assert_allclose(
        reference.chosen, theirs.train_dataset["ref_chosen_logps"], rtol=1e-5
    )
    records = [
        row | {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected, "length": 0}
        for row, chosen, rejected in zip(
            rows.records(range(8)),
            reference.chosen.tolist(),
            reference.rejected.tolist(),
            strict=True,
        )
    ]
    args = DPOConfig(output_dir=str(tmp_path / "ours"), use_cpu=True, bf16=False, report_to="none")
    data = Dataset.from_list(records)
    trainer = SharedPromptDPOTrainer(ours, args, objective, data, data, tokenizer)
    move(ours)
    packed = PackedCollator(0)([data[i] for i in range(8)])
    (batch,), _ = trainer.get_batch_samples(iter([packed]), 1, torch.device("cpu"))
    our_loss = trainer.compute_loss(ours, batch)
    our_loss.backward()

    torch.testing.assert_close(our_loss, their_loss, rtol=1e-6, atol=1e-6)
    pairs = zip(ours.named_parameters(), tiny_llama.named_parameters(), strict=True)
    for (name, parameter), (other, expected) in pairs:
        assert name == other
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-5)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
        found, wanted = trainer._metrics["train"][name], theirs._metrics["train"][name]
        assert np.mean(found) == pytest.approx(np.mean(wanted), rel=1e-4, abs=1e-5), name
    for name in ("logps/chosen", "logps/rejected"):
        found, wanted = trainer._metrics["train"][name], theirs._metrics["train"][name]
        assert np.mean(found) == pytest.approx(np.mean(wanted), rel=1e-5), name


def test_the_adapter_of_a_quantised_llm_is_trained_in_float32_as_any_other(
    run: Run, tmp_path: Path
) -> None:
    """A processor cannot quantise; the mark alone makes TRL round what is trained."""
    quantised: Any = policy()
    quantised.is_loaded_in_8bit = True
    for name, model in (("any", policy()), ("quantised", quantised)):
        run(model, make_pairs(16), tmp_path / name, CONFIG.model_copy(update={"epochs": 1}))
    assert adapter_bytes(tmp_path / "quantised") == adapter_bytes(tmp_path / "any")
