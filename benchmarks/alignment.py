"""DPO steps of `recalign.alignment` against TRL's own trainer on a processor, interleaved.

    python benchmarks/alignment.py [--threads 1] [--method full] [--repeats 3] [--steps 8]
                                   [--model smollm2] [--device cuda] [--variants recalign ...]
                                   [--weights bfloat16] [--quantisation nf4] [--prompt-tokens 300]

A random Llama of about 5 million parameters, or `--model` (a fetched one, a folder or a GGUF file;
random ones: shapes.py); 8 pairs a batch, prompts of about 100 tokens, completions of about 25.
Variants: ours with precision "weights" (those of --weights) and "bfloat16", TRL with its defaults
(bfloat16, activation checkpointing, the reference by its own default) and TRL tuned (bfloat16,
checkpointing as in ours: none on a processor, reference precomputed). Reported is the median step
over all repeats, in CPU seconds with one thread (so that a busy machine does not matter), else in
wall seconds. Precomputation of reference log-probabilities is outside the steps for all who do it.
"""

import argparse
import os
import secrets
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import numpy as np
import torch
import transformers
from datasets import Dataset
from device import clock, forget_peak, peak_gib, products_per_second, row
from made_pairs import completions, sample_pairs
from peft import LoraConfig
from shapes import folder_of, tokenizer_of
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PrinterCallback,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer
from trl.trainer import dpo_trainer

from recalign.alignment.train import align
from recalign.config import AlignmentConfig, LoadedModelConfig
from recalign.llm.load import load_policy
from recalign.training.arguments import recomputes_activations
from recalign.training.run import TrainingRun

BATCH = 8
WARM_UP_STEPS = 2
GOALS = {"TRL defaults": 4.0, "TRL tuned": 2.0}


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


class Steps(NamedTuple):
    """What steps took."""

    seconds: list[float]
    operations: float  # of one, floating-point


class Clock(TrainerCallback):
    """Seconds between the ends of consecutive steps: batch, forward, backward, optimiser, log.

    Floating-point operations of the first step's products are counted (`counts`); it is not timed,
    and the peak of the memory is that of the steps behind it. TRL's cannot be counted: torch's
    counter has no formula for a product that it makes on a GPU.
    """

    def __init__(
        self, threads: int, n_steps: int, device: str = "cpu", counts: bool = True
    ) -> None:
        self.device, self.n_steps = device, n_steps
        self.now = clock(device, threads)
        self.ends: list[float] = []
        self.counter = FlopCounterMode(display=False) if counts else None

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count, in the first step."""
        if self.counter and not self.ends:
            self.counter.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time."""
        if not self.ends:
            if self.counter:
                self.counter.__exit__(None, None, None)
            forget_peak(self.device)
        self.ends.append(self.now())

    def timed(self) -> Steps:
        """Every whole batch after the warm-up; the last one of an epoch may be smaller."""
        ends = self.ends[: self.n_steps]
        operations = self.counter.get_total_flops() if self.counter else 0
        return Steps(np.diff(ends)[WARM_UP_STEPS - 1 :].tolist(), operations)


def tuned_arguments(device: str) -> dict[str, Any]:
    """The best that TRL offers; activations are kept or recomputed as in ours, so memory is too."""
    recomputed = recomputes_activations(device)
    return {
        "activation_checkpointing": recomputed, "precompute_ref_log_probs": True, "bf16": True,
    }  # fmt: skip


def time_trl(folder: Path, place: Path, options: argparse.Namespace, tuned: bool) -> Steps:
    """Seconds per step of DPOTrainer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = sample_pairs(BATCH * options.steps, tokenizer, options.prompt_tokens).drop("user_index")
    texts = [
        row | {key: f" {row[key]} {tokenizer.eos_token}" for key in ("chosen", "rejected")}
        for row in pairs.to_dicts()
    ]
    args = DPOConfig(
        output_dir=str(place), per_device_train_batch_size=BATCH, num_train_epochs=1,
        use_cpu=options.device == "cpu", save_strategy="no", report_to="none", disable_tqdm=True,
        **(tuned_arguments(options.device) if tuned else {}),
    )  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    watch = Clock(options.threads, options.steps, options.device, counts=False)
    # Names the file of reference log-probabilities, which nobody reads again; of 16 GB it takes a
    # minute.
    dpo_trainer.hash_module = lambda module: secrets.token_hex()
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


def title(options: argparse.Namespace) -> str:
    """What was trained, and how."""
    held = options.weights if options.quantisation == "none" else options.quantisation
    recomputed = ", activations recomputed" if recomputes_activations(options.device) else ""
    return f"{Path(options.model).name or '5 M'}, {options.method}, {held}{recomputed}"


class Measured(NamedTuple):
    """What a variant showed, over all repeats."""

    seconds: list[float]  # of every timed step
    peak: float  # GiB
    operations: float  # of a step, 0 where they are not counted


def tell(found: dict[str, Measured], name: str, named: str, at_best: dict[str, float]) -> None:
    """The row of variant `name` as soon as it is measured, beside those measured before it.

    at_best: operations a second that products reach here, for ours.
    """
    one = found[name]
    step = statistics.median(one.seconds)
    beside = ", ".join(
        f"{statistics.median(other.seconds) / step:.2f} x {peer}"
        for peer, other in found.items()
        if peer != name and len(other.seconds) == len(one.seconds)
    )
    row(f"DPO step, {named}, {name}", f"{BATCH / step:,.1f} pairs/s", beside or "-", one.peak)
    if one.operations:
        print(f"{'':18s} {one.operations / at_best[name] / step:.0%} of what products reach")


def goals(found: dict[str, Measured]) -> None:
    """Speeds, and whether the better of ours meets the goals."""
    medians = {name: statistics.median(one.seconds) for name, one in found.items()}
    for name, step in medians.items():
        print(f"{name:18s} {1 / step:6.2f} steps/s {BATCH / step:7.1f} pairs/s")
    best = min((step for name, step in medians.items() if name not in GOALS), default=0.0)
    for peer, goal in GOALS.items():
        if best and peer in medians:
            ratio = medians[peer] / best
            print(f"goal {goal:.0f}x {peer}: {'met' if ratio >= goal else 'MISSED'} ({ratio:.2f}x)")


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
    variants = {  # ours first: its row is there though TRL fails or takes too long
        "recalign": lambda at: time_ours(folder, at, options, "weights"),
        "recalign bfloat16": lambda at: time_ours(folder, at, options, "bfloat16"),
        "TRL defaults": lambda at: time_trl(folder, at, options, tuned=False),
        "TRL tuned": lambda at: time_trl(folder, at, options, tuned=True),
    }
    wanted = [name for name in variants if name in (options.variants or variants)]
    found: dict[str, Measured] = {}
    dtypes = {"recalign": getattr(torch, options.weights), "recalign bfloat16": torch.bfloat16}
    at_best = dict.fromkeys(dtypes, 0.0)
    with tempfile.TemporaryDirectory() as root:
        folder = folder_of(options.model) if options.model else Path(root, "model")
        if not options.model:
            random_model(options.vocabulary).save_pretrained(folder)
            tokenizer_of(options.vocabulary).save_pretrained(folder)
        print(options)
        for repeat in range(options.repeats):
            for name, dtype in dtypes.items():
                best = products_per_second(options.device, dtype)
                at_best[name] = max(at_best[name], best)
            for name in wanted:
                forget_peak(options.device)
                steps = variants[name](Path(root, f"{repeat}-{name}"))
                before = found.get(name, Measured([], 0.0, 0.0))
                peak = max(before.peak, peak_gib(options.device))
                found[name] = Measured(before.seconds + steps.seconds, peak, steps.operations)
                if repeat == options.repeats - 1:
                    tell(found, name, title(options), at_best)
    goals(found)


if __name__ == "__main__":
    main()
