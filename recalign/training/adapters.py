"""The trainable part of the policy: a LoRA adapter or all weights, and how it is saved."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recalign.config import TrainingConfig
from recalign.errors import UserError
from recalign.seeding import derive_seed
from recalign.training.run import TrainingRun

ADAPTER = "default"


def trainable_policy(
    model: PreTrainedModel | PeftModel, config: TrainingConfig, run: TrainingRun
) -> PreTrainedModel | PeftModel:
    """The same model on the run's device, what `config.method` trains switched on, the rest frozen.

    lora: an existing adapter goes on being trained; a plain model gets one on every linear layer
    but the LM head (in place). Raises UserError, naming the run's stage, for an adapter that does
    not fit the config, and for method full on a model that has an adapter or coarse weights.
    """
    if config.method == "full":
        if isinstance(model, PeftModel):
            raise UserError(
                f"{run.stage}.method 'full' needs a policy without adapter: merge it, or use 'lora'"
            )
        if any(p.is_floating_point() and p.itemsize < 4 for p in model.parameters()):
            raise UserError(
                f"{run.stage}.method 'full' needs weights in float32: in coarser ones steps as "
                "small as a learning rate are rounded away"
            )
        # Tied weights are saved once; else transformers warns that the copies are missing.
        model._keys_to_ignore_on_save = set(model.all_tied_weights_keys)
        return _on_device(model.requires_grad_(True), run.device)
    if not isinstance(model, PeftModel):
        torch.manual_seed(derive_seed(config.seed, "adapter"))
        lora = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, lora)
    _check_adapter(model, config, run.stage)
    # An empty name: with a hub id peft would ask the hub for it at every checkpoint.
    model.peft_config[ADAPTER].base_model_name_or_path = ""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name and f".{ADAPTER}" in name)
    return _on_device(model, run.device)


def _on_device(model: PreTrainedModel | PeftModel, device: str) -> PreTrainedModel | PeftModel:
    if model.device.type != device:
        cast(Any, model).to(device)
    return model


def _check_adapter(model: PeftModel, config: TrainingConfig, stage: str) -> None:
    """UserError unless the one adapter is LoRA with the config's rank and scale."""
    adapter = model.peft_config.get(ADAPTER)
    if len(model.peft_config) != 1 or not isinstance(adapter, LoraConfig):
        raise UserError(
            f"{stage} continues one LoRA adapter called {ADAPTER!r}, the policy has"
            f" {', '.join(model.peft_config)}"
        )
    if (adapter.r, adapter.lora_alpha) != (config.lora_rank, config.lora_alpha):
        raise UserError(
            f"the policy's adapter has rank {adapter.r} and alpha {adapter.lora_alpha}, {stage}"
            f" asks for {config.lora_rank} and {config.lora_alpha}"
        )


def base_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model under the adapter, if there is one."""
    if isinstance(model, PeftModel):
        return cast(PreTrainedModel, model.get_base_model())
    return model


def save_policy(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Write the adapter, or the whole model with its tokenizer; equal weights give equal bytes."""
    if not isinstance(model, PeftModel):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    name = base_model(model).name_or_path or ""
    # A folder's path says where, not what; a hub id tells a later reader what to load below.
    model.peft_config[ADAPTER].base_model_name_or_path = "" if Path(name).exists() else name
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's form of a model card, left blank
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["target_modules"] = sorted(settings["target_modules"])  # peft writes a set's order
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


@contextmanager
def attention(model: PreTrainedModel | PeftModel, precision: str) -> Iterator[None]:
    """Attention as it is computed in training, the model's own again afterwards.

    On a processor torch's fused attention has a slow bfloat16 backward pass: eager is used there.
    """
    base = base_model(model)
    before = base.config._attn_implementation
    eager = precision == "bfloat16" and base.device.type == "cpu"
    if eager:
        base.set_attn_implementation("eager")
    try:
        yield
    finally:
        if eager:
            base.set_attn_implementation(before)
