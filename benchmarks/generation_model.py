"""A real LLM: our generator, transformers' generate and the processor's products, interleaved.

Part of `benchmarks/generation.py --model`. Prompts are 250 random tokens, 10 samples each; no token
ends a text, so that all do the same work. Wall seconds; memory is the process's largest.
"""

import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from device import products_per_second
from shapes import folder_of
from transformers import GenerationConfig, PreTrainedModel

from recalign.config import PolicyConfig, SamplingConfig
from recalign.llm.generate import generate
from recalign.llm.load import load_policy
from recalign.llm.sampling import sample_tokens
from recalign.writer import Asked

LENGTH, N_SAMPLES = 250, 10
SAMPLING = {"temperature": 0.7, "top_p": 0.95}


def compare_model(name: str, n_prompts: int, n_new: int, repeats: int) -> None:
    """Print tokens per second of both, the share of the peak, of sampling, and the memory."""
    model = opened(name)
    rng = np.random.default_rng(0)
    prompts = rng.integers(100, model.config.vocab_size, (n_prompts, LENGTH)).tolist()
    before = memory()
    taken: dict[str, list[float]] = {"ours": [], "peak": [], "sampling": [], "generate": []}
    with_ours = 0.0
    for _ in range(repeats):
        taken["ours"].append(seconds(lambda: ours(model, prompts, n_new)))
        with_ours = with_ours or memory()  # before anything else has run
        taken["peak"].append(products_per_second())
        taken["sampling"].append(seconds_of_sampling(model, prompts, n_new))
        taken["generate"].append(seconds(lambda: theirs(model, prompts, n_new)))
    medians = {part: statistics.median(spent) for part, spent in taken.items()}
    n_tokens = n_prompts * N_SAMPLES * n_new
    weights = sum(weight.numel() for weight in model.parameters())
    head = model.config.vocab_size * model.config.hidden_size
    flops = 2 * (n_prompts * LENGTH * (weights - head) + n_tokens * weights)
    ratios = [b / o for b, o in zip(taken["generate"], taken["ours"], strict=True)]
    print(f"{name}: {weights / 1e6:.1f} M weights, {n_prompts} x {N_SAMPLES} x {n_new} tokens")
    for part in ("ours", "generate"):
        print(f"  {part:10s} {n_tokens / medians[part]:8.0f} tokens/s, {medians[part]:.1f} s")
    print(f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    share = flops / medians["ours"] / medians["peak"]
    print(f"  products {medians['peak'] / 1e9:.0f} GFLOP/s at best; ours uses {share:.0%} of that")
    print(f"  sampling {medians['sampling'] / medians['ours']:.1%} of ours")
    print(f"  memory {before:.1f} GB with the model, {with_ours:.1f} GB in the first of our runs")


def opened(name: str) -> PreTrainedModel:
    """The model in float32."""
    folder = str(folder_of(name))
    return load_policy(folder, PolicyConfig(kind="huggingface", model=folder)).model


def ours(model: PreTrainedModel, prompts: list[list[int]], n_new: int) -> object:
    asked = Asked(SamplingConfig(max_new_tokens=n_new, **SAMPLING), N_SAMPLES, greedy=False)
    return list(generate(model, prompts, range(len(prompts)), asked, stops=[]))


def theirs(model: PreTrainedModel, prompts: list[list[int]], n_new: int) -> object:
    settings = GenerationConfig(
        do_sample=True, top_k=0, max_new_tokens=n_new, min_new_tokens=n_new,
        num_return_sequences=N_SAMPLES, pad_token_id=0, **SAMPLING,
    )  # fmt: skip
    ids = torch.tensor(prompts)
    mask = torch.ones_like(ids)
    return model.generate(ids, attention_mask=mask, generation_config=settings)  # type: ignore[operator]


@torch.inference_mode()
def seconds_of_sampling(model: PreTrainedModel, prompts: list[list[int]], n_new: int) -> float:
    """What drawing all tokens takes, from the logits behind the prompts."""
    logits = model(torch.tensor(prompts), use_cache=False, logits_to_keep=1).logits[:, 0]
    rows = torch.arange(len(prompts)).repeat_interleave(N_SAMPLES)
    logits, rows = logits[rows], torch.arange(len(rows))
    draws = torch.rand(len(rows), dtype=torch.float64)
    sampling = SamplingConfig(**SAMPLING)
    none = torch.zeros(len(rows), dtype=torch.bool)
    return n_new * seconds(lambda: sample_tokens(logits, rows, draws, none, sampling))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def memory() -> float:
    """The process's largest so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
