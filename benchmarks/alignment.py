"""DPO steps of `recalign.alignment` against TRL's own trainer on a processor, interleaved.

    python benchmarks/alignment.py [--threads 1] [--method full] [--repeats 3] [--steps 8]
                                   [--model smollm2] [--device cuda] [--variants recalign ...]
                                   [--weights bfloat16] [--quantisation nf4] [--prompt-tokens 300]

A random Llama of about 5 million parameters, or `--model` (a fetched one, a folder or a GGUF file;
random ones: shapes.py); 8 pairs a batch, prompts of about 100 tokens, completions of about 25.
Variants: TRL with its defaults (bfloat16, activation
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
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import numpy as np
import polars as pl
import torch
import transformers
from datasets import Dataset
from device import clock, forget_peak, peak_gib, products_per_second, row
from peft import LoraConfig
from shapes import folder_of, tokenizer_of
from torch.utils.flop_counter import FlopCounterMode
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


def sample_pairs(n: int, tokenizer: PreTrainedTokenizerBase, about: int) -> pl.DataFrame:
    """n users' pairs of random words: prompts of `about` (10 % more or less), completions of 25."""
    random, words = np.random.default_rng(0), words_of(tokenizer)

    def text(low: int, high: int) -> str:
        length = int(random.integers(low, high + 1))
        return " ".join(words[i] for i in random.integers(0, len(words), length))

    few = about // 10
    rows = [(u, text(about - few, about + few), text(20, 30), text(20, 30)) for u in range(n)]
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


class Steps(NamedTuple):
    """What steps took."""

    seconds: list[float]
    operations: float  # of one, floating-point


class Clock(TrainerCallback):
    """Seconds between the ends of consecutive steps: batch, forward, backward, optimiser, log.

    Floating-point operations of the first step's products are counted; it is not timed.
    """

    def __init__(self, threads: int, n_steps: int, device: str = "cpu") -> None:
        self.now = clock(device, threads)
        self.n_steps = n_steps
        self.ends: list[float] = []
        self.counter = FlopCounterMode(display=False)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count, in the first step."""
        if not self.ends:
            self.counter.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time."""
        if not self.ends:
            self.counter.__exit__(None, None, None)
        self.ends.append(self.now())

    def timed(self) -> Steps:
        """Every whole batch after the warm-up; the last one of an epoch may be smaller."""
        ends = self.ends[: self.n_steps]
        return Steps(np.diff(ends)[WARM_UP_STEPS - 1 :].tolist(), self.counter.get_total_flops())


def time_trl(folder: Path, place: Path, options: argparse.Namespace, tuned: bool) -> Steps:
    """Seconds per step of DPOTrainer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = sample_pairs(BATCH * options.steps, tokenizer, options.prompt_tokens).drop("user_index")
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
    watch = Clock(options.threads, options.steps, options.device)
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
    return watch.timed()


def time_ours(folder: Path, place: Path, options: argparse.Namespace, precision: str) -> Steps:
    """Seconds per step of `align`."""
    watch = Clock(options.threads, options.steps, options.device)
    held = LoadedModelConfig(
        kind="huggingface", model=str(folder), dtype=options.weights, chat_template="never",
        quantisation=options.quantisation,
    )  # fmt: skip
    policy = load_policy(folder, held, device=options.device, trainable=True)
    pairs = sample_pairs(BATCH * (options.steps + 2), policy.tokenizer, options.prompt_tokens)
    align(
        policy,
        completions(pairs),
        AlignmentConfig(
            method=options.method, precision=precision, epochs=1, batch_size=BATCH,
            micro_batch_size=BATCH, max_length=1024, held_out=1 / (options.steps + 2),
            evaluations=1, anchor=0,
            allow_worse=True,  # a real LLM may diverge: speed alone is asked for
        ),
        TrainingRun(
            "alignment", place / "work", place / "folder", device=options.device,
            callbacks=(watch,),
        ),
    )  # fmt: skip
    return watch.timed()


def tell(
    seconds: dict[str, list[float]], peaks: dict[str, float], named: str, needed: dict[str, float]
) -> None:
    """Speeds, ratios and goals, and a row of the table for each of ours.

    needed: seconds that the products of ours take at the device's best.
    """
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peers = [peer for peer in GOALS if peer in medians]
    for name, step in medians.items():
        against = [f"{medians[peer] / step:.2f} x {peer}" for peer in peers if peer != name]
        print(f"{name:18s} {1 / step:6.2f} steps/s {BATCH / step:7.1f} pairs/s  {against}")
        if name not in GOALS:
            beside = ", ".join(against) or "-"
            row(f"DPO step, {named}, {name}", f"{BATCH / step:,.1f} pairs/s", beside, peaks[name])
            print(f"{'':18s} {needed[name] / step:.0%} of what products reach")
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
    parser.add_argument("--model", default="", help="a fetched LLM's name, a folder, a GGUF file")
    parser.add_argument("--prompt-tokens", type=int, default=100)
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
    peaks, operations = dict.fromkeys(seconds, 0.0), dict.fromkeys(seconds, 0.0)
    with tempfile.TemporaryDirectory() as root:
        folder = folder_of(options.model) if options.model else Path(root, "model")
        if not options.model:
            random_model(options.vocabulary).save_pretrained(folder)
            tokenizer_of(options.vocabulary).save_pretrained(folder)
        print(options)
        dtypes = {"recalign": getattr(torch, options.weights), "recalign bfloat16": torch.bfloat16}
        at_best = dict.fromkeys(dtypes, 0.0)
        for repeat in range(options.repeats):
            for name, dtype in dtypes.items():
                found = products_per_second(options.device, dtype)
                at_best[name] = max(at_best[name], found)
            for name in seconds:
                forget_peak(options.device)
                steps = variants[name](Path(root, f"{repeat}-{name}"))
                seconds[name] += steps.seconds
                operations[name] = steps.operations
                peaks[name] = max(peaks[name], peak_gib(options.device))
    needed = {name: operations.get(name, 0.0) / best for name, best in at_best.items()}
    held = options.weights if options.quantisation == "none" else options.quantisation
    name = Path(options.model).name or "5 M"
    tell(seconds, peaks, f"{name}, {options.method}, {held}", needed)


if __name__ == "__main__":
    main()
