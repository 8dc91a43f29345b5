"""DPO steps of `recalign.alignment` against TRL's own trainer on a processor, interleaved.

    python benchmarks/alignment.py [--threads 1] [--method full] [--repeats 3] [--steps 8]

A random Llama of about 5 million parameters, 8 pairs a batch, prompts of about 100 tokens,
completions of about 25. Variants: TRL with its defaults (bfloat16, activation checkpointing, the
reference by its own default), TRL tuned (bfloat16, no checkpointing, reference precomputed), and
ours with precision "weights" (float32) and "bfloat16". Reported is the median step over all
repeats, in CPU seconds with one thread (so that a busy machine does not matter), else in wall
seconds. Precomputation of reference log-probabilities is outside the steps for all who do it.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import numpy as np
import polars as pl
import torch
import transformers
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer

from recalign.alignment.train import align
from recalign.config import AlignmentConfig
from recalign.policy import Policy
from recalign.schemas import COMPLETIONS
from recalign.training.run import TrainingRun

BATCH = 8
WARM_UP_STEPS = 2
GOALS = {"TRL defaults": 4.0, "TRL tuned": 2.0}


def tokenizer_of(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token per word."""
    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, vocabulary)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def random_model(vocabulary: int) -> LlamaForCausalLM:
    """A Llama of about 5 million parameters."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=4,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )


def sample_pairs(n: int, vocabulary: int) -> pl.DataFrame:
    """n users' pairs of random words: prompts of 90-110, completions of 20-30."""
    random = np.random.default_rng(0)

    def text(low: int, high: int) -> str:
        length = int(random.integers(low, high + 1))
        return " ".join(f"w{i}" for i in random.integers(3, vocabulary, length))

    rows = [(u, text(90, 110), text(20, 30), text(20, 30)) for u in range(n)]
    columns = ["user_index", "prompt", "chosen", "rejected"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def completions(pairs: pl.DataFrame) -> pl.DataFrame:
    """COMPLETIONS of `sample_pairs`."""
    rows = [
        {"user_index": user, "prompt": prompt, "completions": texts, "chosen": 0, "rejected": [1],
         "smoothing": [0.0]}
        for user, prompt, *texts in pairs.iter_rows()
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=COMPLETIONS)


class Clock(TrainerCallback):
    """Seconds between the ends of consecutive steps: batch, forward, backward, optimiser, log."""

    def __init__(self, threads: int) -> None:
        self.now = time.process_time if threads == 1 else time.perf_counter
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time."""
        self.ends.append(self.now())

    def steps(self) -> list[float]:
        """Seconds of every step after the warm-up."""
        return np.diff(self.ends)[WARM_UP_STEPS - 1 :].tolist()


def time_trl(folder: Path, place: Path, options: argparse.Namespace, tuned: bool) -> list[float]:
    """Seconds per step of DPOTrainer."""
    tokenizer = tokenizer_of(options.vocabulary)
    pairs = sample_pairs(BATCH * options.steps, options.vocabulary).drop("user_index")
    texts = [
        row | {key: f" {row[key]} <eos>" for key in ("chosen", "rejected")}
        for row in pairs.to_dicts()
    ]
    faster = {"activation_checkpointing": False, "precompute_ref_log_probs": True, "bf16": True}
    args = DPOConfig(
        output_dir=str(place), per_device_train_batch_size=BATCH, num_train_epochs=1, use_cpu=True,
        save_strategy="no", report_to="none", disable_tqdm=True, **(faster if tuned else {}),
    )  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    clock = Clock(options.threads)
    trainer = DPOTrainer(
        model=LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=args,
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
        peft_config=lora if options.method == "lora" else None,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.steps()


def time_ours(
    folder: Path, place: Path, options: argparse.Namespace, precision: str
) -> list[float]:
    """Seconds per step of `align`."""
    clock = Clock(options.threads)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    pairs = sample_pairs(BATCH * (options.steps + 1), options.vocabulary)
    align(
        Policy(model, tokenizer_of(options.vocabulary), "never", eos_ids=[1], pad_id=0),
        completions(pairs),
        AlignmentConfig(
            method=options.method, precision=precision, epochs=1, batch_size=BATCH,
            micro_batch_size=BATCH, held_out=1 / (options.steps + 1), evaluations=1, anchor=0,
        ),
        TrainingRun("alignment", place / "work", place / "folder", callbacks=(clock,)),
    )  # fmt: skip
    return clock.steps()


def main() -> None:
    """Time every variant in turn, repeat, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="steps per repeat, warm-up included")
    parser.add_argument("--vocabulary", type=int, default=8000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    variants = {
        "TRL defaults": lambda at: time_trl(folder, at, options, tuned=False),
        "TRL tuned": lambda at: time_trl(folder, at, options, tuned=True),
        "recalign": lambda at: time_ours(folder, at, options, "weights"),
        "recalign bfloat16": lambda at: time_ours(folder, at, options, "bfloat16"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "model")
        model = random_model(options.vocabulary)
        model.save_pretrained(folder)
        print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {options}")
        for repeat in range(options.repeats):
            for name, run in variants.items():
                seconds[name] += run(Path(root, f"{repeat}-{name}"))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, step in medians.items():
        against = "".join(f"  {medians[peer] / step:5.2f}x {peer}" for peer in GOALS)
        print(f"{name:18s} {1 / step:6.2f} steps/s {BATCH / step:7.1f} pairs/s{against}")
    for peer, goal in GOALS.items():
        ratio = medians[peer] / min(medians["recalign"], medians["recalign bfloat16"])
        print(f"goal {goal:.0f}x {peer}: {'met' if ratio >= goal else 'MISSED'} ({ratio:.2f}x)")


if __name__ == "__main__":
    main()
