"""DPO steps of `recalign.alignment` against TRL's own trainer on a processor, interleaved.

    python benchmarks/alignment.py [--threads 1] [--method full] [--repeats 3] [--steps 8]
                                   [--model FOLDER] [--device cuda] [--variants recalign ...]
                                   [--weights bfloat16] [--quantisation nf4]

A random Llama of about 5 million parameters, or `--model` (see shapes.py); 8 pairs a batch, prompts
of about 100 tokens, completions of about 25. Variants: TRL with its defaults (bfloat16, activation
checkpointing, the reference by its own default), TRL tuned (bfloat16, no checkpointing, reference
precomputed), and ours with precision "weights" (those of --weights) and "bfloat16". Reported is the
median step over all repeats, in CPU seconds with one thread (so that a busy machine does not
matter), else in wall seconds. Precomputation of reference log-probabilities is outside the steps
for all who do it.
"""

import argparse
import os
import re
import statistics
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
from datasets import Dataset
from device import clock, forget_peak, peak_gib, row
from peft import LoraConfig
from shapes import tokenizer_of
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer

from recalign.alignment.train import align
from recalign.config import AlignmentConfig, LoadedModelConfig
from recalign.llm.load import load_policy
from recalign.schemas import COMPLETIONS
from recalign.training.run import TrainingRun

BATCH = 8
WARM_UP_STEPS = 2
GOALS = {"TRL defaults": 4.0, "TRL tuned": 2.0}


def words_of(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Words that are one token each behind a space."""
    found = re.findall(r"^(?:Ġ[a-z]{3,}|w\d+)$", "\n".join(tokenizer.get_vocab()), re.MULTILINE)
    return sorted(word.removeprefix("Ġ") for word in found)


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


def sample_pairs(n: int, tokenizer: PreTrainedTokenizerBase) -> pl.DataFrame:
    """n users' pairs of random words: prompts of 90-110, completions of 20-30."""
    random, words = np.random.default_rng(0), words_of(tokenizer)

    def text(low: int, high: int) -> str:
        length = int(random.integers(low, high + 1))
        return " ".join(words[i] for i in random.integers(0, len(words), length))

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

    def __init__(self, threads: int, device: str = "cpu") -> None:
        self.now = clock(device, threads)
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time."""
        self.ends.append(self.now())

    def steps(self) -> list[float]:
        """Seconds of every step after the warm-up."""
        return np.diff(self.ends)[WARM_UP_STEPS - 1 :].tolist()


def time_trl(folder: Path, place: Path, options: argparse.Namespace, tuned: bool) -> list[float]:
    """Seconds per step of DPOTrainer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = sample_pairs(BATCH * options.steps, tokenizer).drop("user_index")
    texts = [
        row | {key: f" {row[key]} {tokenizer.eos_token}" for key in ("chosen", "rejected")}
        for row in pairs.to_dicts()
    ]
    faster = {"activation_checkpointing": False, "precompute_ref_log_probs": True, "bf16": True}
    args = DPOConfig(
        output_dir=str(place), per_device_train_batch_size=BATCH, num_train_epochs=1,
        use_cpu=options.device == "cpu", save_strategy="no", report_to="none", disable_tqdm=True,
        **(faster if tuned else {}),
    )  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    watch = Clock(options.threads, options.device)
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, options.weights)),
        args=args,
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
        peft_config=lora if options.method == "lora" else None,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return watch.steps()


def time_ours(
    folder: Path, place: Path, options: argparse.Namespace, precision: str
) -> list[float]:
    """Seconds per step of `align`."""
    watch = Clock(options.threads, options.device)
    held = LoadedModelConfig(
        kind="huggingface", model=str(folder), dtype=options.weights, chat_template="never",
        quantisation=options.quantisation,
    )  # fmt: skip
    policy = load_policy(folder, held, device=options.device, trainable=True)
    pairs = sample_pairs(BATCH * (options.steps + 1), policy.tokenizer)
    align(
        policy,
        completions(pairs),
        AlignmentConfig(
            method=options.method, precision=precision, epochs=1, batch_size=BATCH,
            micro_batch_size=BATCH, held_out=1 / (options.steps + 1), evaluations=1, anchor=0,
            allow_worse=True,  # a real LLM may diverge: speed alone is asked for
        ),
        TrainingRun(
            "alignment", place / "work", place / "folder", device=options.device,
            callbacks=(watch,),
        ),
    )  # fmt: skip
    return watch.steps()


def tell(seconds: dict[str, list[float]], peaks: dict[str, float], named: str) -> None:
    """Speeds, ratios and goals, and a row of the table for each of ours."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peers = [peer for peer in GOALS if peer in medians]
    for name, step in medians.items():
        against = [f"{medians[peer] / step:.2f} x {peer}" for peer in peers if peer != name]
        print(f"{name:18s} {1 / step:6.2f} steps/s {BATCH / step:7.1f} pairs/s  {against}")
        if name not in GOALS:
            beside = ", ".join(against) or "-"
            row(f"DPO step, {named}, {name}", f"{BATCH / step:,.1f} pairs/s", beside, peaks[name])
    for peer in peers:
        best = min((step for name, step in medians.items() if name not in GOALS), default=0.0)
        if best:
            met = "met" if medians[peer] / best >= GOALS[peer] else "MISSED"
            print(f"goal {GOALS[peer]:.0f}x {peer}: {met} ({medians[peer] / best:.2f}x)")


def main() -> None:
    """Time every variant in turn, repeat, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="0: all cores")
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="steps per repeat, warm-up included")
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--model", type=Path, help="folder of a causal LM")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--quantisation", choices=["none", "int8", "nf4"], default="none")
    parser.add_argument("--variants", nargs="*", help="of those above; all if not given")
    options = parser.parse_args()
    if options.threads:
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
    wanted = options.variants or list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in variants if name in wanted}
    peaks = dict.fromkeys(seconds, 0.0)
    with tempfile.TemporaryDirectory() as root:
        folder = options.model or Path(root, "model")
        if not options.model:
            random_model(options.vocabulary).save_pretrained(folder)
            tokenizer_of(options.vocabulary).save_pretrained(folder)
        print(options)
        for repeat in range(options.repeats):
            for name in seconds:
                forget_peak(options.device)
                seconds[name] += variants[name](Path(root, f"{repeat}-{name}"))
                peaks[name] = max(peaks[name], peak_gib(options.device))
    held = options.weights if options.quantisation == "none" else options.quantisation
    tell(seconds, peaks, f"{folder.name if options.model else '5 M'}, {options.method}, {held}")


if __name__ == "__main__":
    main()
