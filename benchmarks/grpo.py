"""GRPO steps of `recalign.alignment` against TRL's GRPOTrainer on the same samples, on a processor.

    python benchmarks/grpo.py [--threads 1] [--method full] [--repeats 3] [--steps 6]

A random Llama of about 5 million parameters, 4 prompts of about 100 tokens a step, 10 completions
of about 25 tokens each, KL to a reference. Variants: TRL with its defaults (bfloat16, activation
checkpointing), TRL tuned (float32, none), ours with precision "weights" (float32) and "bfloat16".
Nothing is generated: TRL is handed the samples, their advantages and the reference's
log-probabilities in place of what it would sample and score; ours reads them from columns. Every
variant runs in a process of its own, in turn, so that its peak memory is its own. Reported is the
median step over all repeats, in CPU seconds with one thread (so that a busy machine does not
matter), else in wall seconds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import numpy as np
import polars as pl
import torch
import transformers
from alignment import Clock, random_model
from datasets import Dataset
from peak_memory import peak_mib
from peft import LoraConfig
from shapes import tokenizer_of
from torch import Tensor
from transformers import LlamaForCausalLM, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from recalign.alignment.grpo import advantages
from recalign.alignment.train import align
from recalign.config import AlignmentConfig
from recalign.policy import Policy
from recalign.schemas import COMPLETIONS
from recalign.training.run import TrainingRun

PROMPTS = 4
SAMPLES = 10
KL_WEIGHT = 0.04
VARIANTS = ("TRL defaults", "TRL tuned", "recalign", "recalign bfloat16")
GOAL = 3.0


def groups(n: int, vocabulary: int) -> pl.DataFrame:
    """COMPLETIONS of n users: prompts of 90-110 random words, ten completions of 20-30, rewards."""
    random = np.random.default_rng(0)

    def text(low: int, high: int) -> str:
        length = int(random.integers(low, high + 1))
        return " ".join(f"w{i}" for i in random.integers(3, vocabulary, length))

    rows = []
    for user in range(n):
        rewards = random.normal(size=SAMPLES)
        rows.append(
            {
                "user_index": user, "prompt": text(90, 110),
                "completions": [text(20, 30) for _ in range(SAMPLES)],
                "samples": list(range(SAMPLES)), "rewards": rewards.tolist(),
                "chosen": int(rewards.argmax()), "rejected": [int(rewards.argmin())],
                "smoothing": [0.0],
            }
        )  # fmt: skip
    return pl.DataFrame(rows, schema=COMPLETIONS)


def batches(table: pl.DataFrame, vocabulary: int) -> list[dict[str, Tensor]]:
    """What GRPOTrainer makes of every step's prompts before it computes the loss."""
    tokenizer, made = tokenizer_of(vocabulary), []
    for part in table.iter_slices(PROMPTS):
        prompts = [tokenizer(text)["input_ids"] for text in part["prompt"] for _ in range(SAMPLES)]
        texts = [[*tokenizer(text)["input_ids"], 1] for own in part["completions"] for text in own]
        tokenizer.padding_side = "left"
        asked = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        tokenizer.padding_side = "right"
        answered = tokenizer.pad({"input_ids": texts}, return_tensors="pt")
        rewards = torch.tensor(part["rewards"].to_list(), dtype=torch.float32)
        given = advantages(rewards, torch.ones_like(rewards, dtype=torch.bool), scaled=True)
        made.append(
            {
                "prompt_ids": asked["input_ids"], "prompt_mask": asked["attention_mask"],
                "completion_ids": answered["input_ids"],
                "completion_mask": answered["attention_mask"],
                "advantages": given.flatten(),
                "ref_per_token_logps": torch.full(answered["input_ids"].shape, -9.0),
                "num_items_in_batch": answered["attention_mask"].sum(),
            }
        )  # fmt: skip
    return made


class GivenSamples(GRPOTrainer):
    """GRPOTrainer whose samples are made before."""

    batches: list[dict[str, Tensor]]

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        return self.batches[self._step % len(self.batches)]


def time_trl(model: Any, place: Path, options: argparse.Namespace, *, tuned: bool) -> list[float]:
    """Seconds per step of GRPOTrainer."""
    table = groups(PROMPTS * options.steps, options.vocabulary)
    args = GRPOConfig(
        output_dir=str(place), per_device_train_batch_size=PROMPTS * SAMPLES,
        num_generations=SAMPLES, max_steps=options.steps, beta=KL_WEIGHT, loss_type="grpo",
        max_completion_length=32, use_cpu=True, save_strategy="no", report_to="none",
        disable_tqdm=True, **({"activation_checkpointing": False, "bf16": False} if tuned else {}),
    )  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    clock = Clock(options.threads, options.steps)
    trainer = GivenSamples(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=Dataset.from_list(table.select("prompt").to_dicts()),
        processing_class=tokenizer_of(options.vocabulary),
        peft_config=lora if options.method == "lora" else None,
        callbacks=[clock],
    )
    trainer.batches = batches(table, options.vocabulary)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.timed().seconds


def time_ours(model: Any, place: Path, options: argparse.Namespace, precision: str) -> list[float]:
    """Seconds per step of `align`."""
    clock = Clock(options.threads, options.steps)
    config = AlignmentConfig.model_validate(
        {
            "optimiser": "grpo", "grpo": {"kl_weight": KL_WEIGHT, "max_kl": 100},
            "method": options.method, "precision": precision, "epochs": 1, "batch_size": PROMPTS,
            "micro_batch_size": PROMPTS, "held_out": 1 / (options.steps + 2), "evaluations": 1,
            "learning_rate": 1e-6,
        }
    )  # fmt: skip
    align(
        Policy(model, tokenizer_of(options.vocabulary), "never", eos_ids=[1], pad_id=0),
        groups(PROMPTS * (options.steps + 2), options.vocabulary),
        config,
        TrainingRun("alignment", place / "work", place / "folder", callbacks=(clock,)),
    )
    return clock.timed().seconds


def time_one(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds per step of `options.only`, and its peak memory above the loaded model."""
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    with tempfile.TemporaryDirectory() as root:
        random_model(options.vocabulary).save_pretrained(root)
        model = LlamaForCausalLM.from_pretrained(root, dtype=torch.float32)
        before, place = peak_mib(), Path(root, "run")
        if options.only.startswith("TRL"):
            steps = time_trl(model, place, options, tuned=options.only == "TRL tuned")
        else:
            precision = "bfloat16" if options.only.endswith("bfloat16") else "weights"
            steps = time_ours(model, place, options, precision)
    return {"steps": steps, "mib": peak_mib() - before}


def main() -> None:
    """Time every variant in turn, repeat, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="steps per repeat, warm-up included")
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--only", choices=VARIANTS, help="one variant, in this process")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(time_one(options)))
        return
    print(options)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    for _ in range(options.repeats):
        for name in VARIANTS:
            command = [sys.executable, *sys.argv, "--only", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        name: statistics.median(step for one in runs for step in one["steps"])
        for name, runs in found.items()
    }
    for name, step in medians.items():
        against = "".join(f"  {medians[peer] / step:5.2f}x {peer}" for peer in VARIANTS[:2])
        memory = statistics.median(one["mib"] for one in found[name])
        texts = PROMPTS * SAMPLES / step
        above = f"{memory:5.0f} MiB above the model"
        print(f"{name:18s} {step:6.2f} s/step {texts:6.1f} texts/s {above}{against}")
    ours = min(medians["recalign"], medians["recalign bfloat16"])
    for peer in VARIANTS[:2]:
        ratio = medians[peer] / ours
        print(f"goal {GOAL:.0f}x {peer}: {'met' if ratio >= GOAL else 'MISSED'} ({ratio:.2f}x)")


if __name__ == "__main__":
    main()
