"""Train the embedded policy: a small Llama on rule-based demonstrations, with no download."""

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from recalign.artifacts.digests import whole_file
from recalign.config import BootstrapConfig
from recalign.embedded.batches import batches, rows_of
from recalign.embedded.demonstrations import Demonstrations
from recalign.embedded.grammar import parse_reasoning
from recalign.embedded.small_llama import first_model, prediction_loss
from recalign.embedded.word_tokenizer import build_tokenizer
from recalign.errors import UserError
from recalign.progress import Progress
from recalign.schemas import CURVE_FILE
from recalign.seeding import stream
from recalign.training.packing import PackedRow, pack
from recalign.training.run import TrainingRun
from recalign.user_text import UserText

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_STEPS = 50
HELD_OUT = 128  # at most so many prompts are kept aside, to tell how well the policy generalises
WARM_UP = 0.05  # share of the steps
LAST_RATE = 0.02  # of the peak learning rate
TEXT_ROOM = 512  # positions beyond the longest demonstration
CURVE = {"step": pl.Int64, "loss": pl.Float64, "held_out_loss": pl.Float64}  # null: not taken


@dataclass
class _Training:
    """All that a resumed run needs. Nothing random happens after the initial weights."""

    model: LlamaForCausalLM
    optimiser: torch.optim.Optimizer
    config: BootstrapConfig
    data: str  # digest of settings and demonstrations; a checkpoint of others is not taken
    checkpoint: Path
    step: int = 0
    curve: list[tuple[int, float, float | None]] = field(default_factory=list)

    def save(self) -> None:
        """Write the checkpoint."""
        state: dict[str, Any] = {"data": self.data, "step": self.step, "curve": self.curve}
        state |= {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        with whole_file(self.checkpoint) as file:
            torch.save(state, file)

    def restore(self) -> None:
        """Take up a checkpoint of the same settings and demonstrations, if there is one."""
        if not self.checkpoint.is_file():
            return
        state = torch.load(self.checkpoint, map_location=self.model.device, weights_only=True)
        if state["data"] != self.data:
            return
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.curve = state["step"], [tuple(point) for point in state["curve"]]


def train_bootstrap(
    config: BootstrapConfig, demonstrations: Demonstrations, run: TrainingRun
) -> dict[str, float]:
    """Train on `demonstrations`; save model and tokenizer.

    The run's folder is in Hugging Face format, plus the loss curve. The loss is the mean negative
    log-likelihood of the reasonings' tokens and EOS given the prompt; demonstrations of equal
    prompts share a row. Checkpoints are written every 50 steps; a run killed and started again
    with the same arguments ends with the same weights, bit for bit. Progress is told after
    every step, behind the step's checkpoint. Returns figures: sizes, losses (nats per token) on
    training and (from 20 prompts on) held-out demonstrations, and the share of grammatical greedy
    texts. Raises UserError when there are no demonstrations.
    """
    started = time.monotonic()
    if not demonstrations.prompts:
        raise UserError("there is no demonstration to train the embedded policy on")
    tokenizer, rows, longest = _encode(config, demonstrations)
    rows, held_out = _hold_out(rows, config.seed)
    model = first_model(config, tokenizer, max_length=longest + TEXT_ROOM)
    model.to(torch.device(run.device))  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW(
        model.parameters(), config.learning_rate, (0.9, 0.95), weight_decay=0.01, fused=True
    )
    data = _digest(config, demonstrations)
    training = _Training(model, optimiser, config, data, run.work / CHECKPOINT)
    training.restore()
    _train(training, rows, held_out, run.progress)

    model.eval()
    model.save_pretrained(run.folder)
    tokenizer.save_pretrained(run.folder)
    curve = pl.DataFrame(training.curve, schema=CURVE, orient="row")
    curve.write_parquet(run.folder / CURVE_FILE)
    figures = {
        "demonstrations": len(demonstrations.prompts),
        "prompts": len(rows) + len(held_out),
        "tokens": sum(row.n_tokens for row in rows),
        "vocabulary": len(tokenizer),
        "parameters": model.num_parameters(),
        "steps": training.step,
        "loss": float(np.mean([loss for _, loss, _ in training.curve[-CHECKPOINT_STEPS:]])),
        "seconds": time.monotonic() - started,
    }
    if held_out:
        figures["held_out_loss"] = _held_out_loss(model, held_out)
        figures["grammatical"] = _grammatical_share(model, tokenizer, held_out)
    return figures


def _encode(
    config: BootstrapConfig, demonstrations: Demonstrations
) -> tuple[PreTrainedTokenizerFast, list[PackedRow], int]:
    """The tokenizer, all rows, and the longest demonstration in tokens."""
    prompts, reasonings = demonstrations.prompts, demonstrations.reasonings
    tokenizer = build_tokenizer(prompts, reasonings, config.max_values)
    encode = UserText(tokenizer).encode
    starts = [encode(prompt) for prompt in prompts]
    ends = [[*encode(text), tokenizer.eos_token_id] for text in reasonings]
    longest = max(len(start) + len(end) for start, end in zip(starts, ends, strict=True))
    return tokenizer, rows_of(starts, ends), longest


def _hold_out(rows: list[PackedRow], seed: int) -> tuple[list[PackedRow], list[PackedRow]]:
    """Rows to train on, and up to a twentieth (at most 128) to validate on."""
    order = stream(seed, "bootstrap", "held out").permutation(len(rows))
    n = min(HELD_OUT, len(rows) // 20)
    return [rows[i] for i in np.sort(order[n:])], [rows[i] for i in order[:n]]


def _digest(config: BootstrapConfig, demonstrations: Demonstrations) -> str:
    hashed = hashlib.sha256(config.model_dump_json().encode())
    for text in (*demonstrations.prompts, *demonstrations.reasonings):
        hashed.update(text.encode() + b"\n")
    return hashed.hexdigest()


def _train(
    training: _Training, rows: list[PackedRow], held_out: list[PackedRow], progress: Progress
) -> None:
    model, device, config = training.model.train(), training.model.device, training.config
    plan = [
        batch
        for epoch in range(config.epochs)
        for batch in batches(rows, config.batch_size, epoch, config.seed)
    ]
    while training.step < len(plan):
        batch = pack([rows[i] for i in plan[training.step]])
        for group in training.optimiser.param_groups:
            group["lr"] = config.learning_rate * _rate(training.step, len(plan))
        with torch.autocast(device.type, torch.bfloat16, enabled=_fast_bfloat16(device)):
            loss = prediction_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        training.optimiser.step()
        training.optimiser.zero_grad(set_to_none=True)
        training.step += 1
        due = training.step % CHECKPOINT_STEPS == 0 or training.step == len(plan)
        validated = _held_out_loss(model, held_out) if due and held_out else None
        training.curve.append((training.step, loss.item(), validated))
        if due:
            training.save()
        progress(training.step, len(plan), f"loss {training.curve[-1][1]:.3f}")


def _rate(step: int, n_steps: int) -> float:
    """Linear warm-up and linear decay, as a share of the peak."""
    warm = min(1.0, (step + 1) / max(1.0, WARM_UP * n_steps))
    return warm * max(LAST_RATE, 1 - step / n_steps)


def _fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware (elsewhere it is slower)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    abilities = torch.cpu.get_capabilities()
    return any(abilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


@torch.no_grad()
def _held_out_loss(model: LlamaForCausalLM, held_out: list[PackedRow]) -> float:
    """Mean negative log-likelihood per completion token."""
    total = count = 0.0
    for start in range(0, len(held_out), 32):
        batch = pack(held_out[start : start + 32])
        n = int(batch.lengths.sum())
        total += float(prediction_loss(model, batch)) * n
        count += n
    return total / count


@torch.no_grad()
def _grammatical_share(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, held_out: list[PackedRow]
) -> float:
    """Share of the held-out prompts whose greedy text follows the grammar."""
    longest = max(len(ids) for row in held_out for ids in row.completions)
    found = []
    for length in {len(row.prompt) for row in held_out}:  # prompts of one length need no padding
        ids = torch.tensor([row.prompt for row in held_out if len(row.prompt) == length])
        texts = model.generate(
            ids.to(model.device),
            attention_mask=torch.ones_like(ids, device=model.device),
            max_new_tokens=2 * longest,
            do_sample=False,
        )
        found += [
            parse_reasoning(text) is not None
            for text in tokenizer.batch_decode(texts[:, length:], skip_special_tokens=True)
        ]
    return float(np.mean(found))
