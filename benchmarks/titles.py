"""Candidates scored in one packed row against one full sequence each, and a greedy answer.

    python benchmarks/titles.py [--prompts 16] [--candidates 20] [--repeats 3]

A random Llama of about 5 million parameters on one thread of a processor, float32. Prompts of
about 250 tokens, titles of 3 to 9 tokens. Reported is the median over all repeats, interleaved, in
CPU seconds per prompt; full sequences are scored in right-padded batches, the head run only where
a title's token is predicted.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from recalign.titles.likelihood import TitleScorer

VOCABULARY, GOAL = 4096, 10.0


@torch.no_grad()
def full_sequences(
    model: LlamaForCausalLM, prompt: list[int], titles: list[list[int]]
) -> list[float]:
    """log p of each title from [prompt | title] as a row of its own."""
    longest = max(map(len, titles))
    rows = torch.zeros(len(titles), len(prompt) + longest, dtype=torch.int64)
    for row, title in enumerate(titles):
        rows[row, : len(prompt) + len(title)] = torch.tensor(prompt + title)
    logits = model(input_ids=rows, use_cache=False, logits_to_keep=longest + 1).logits[:, :-1]
    tokens = logits.log_softmax(-1).gather(2, rows[:, len(prompt) :, None])[:, :, 0]
    inside = torch.arange(longest) < torch.tensor([len(title) for title in titles])[:, None]
    return torch.where(inside, tokens, 0.0).sum(1).tolist()


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=6,
            num_attention_heads=4, max_position_embeddings=512, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip
    random = np.random.default_rng(0)

    def tokens(low: int, high: int) -> list[int]:
        return random.integers(3, VOCABULARY, random.integers(low, high + 1)).tolist()

    titles = [[], *(tokens(3, 9) for _ in range(1000))]
    prompts = [tokens(230, 270) for _ in range(given.prompts)]
    lists = np.stack([1 + random.permutation(1000)[: given.candidates] for _ in prompts])
    scorer = TitleScorer(SimpleNamespace(model=model, pad_id=0, eos_ids=[]), titles)
    rows = scorer.rows_at_once(prompts, given.prompts)
    found: list[list[float]] = []
    work: dict[str, Callable[[], object]] = {
        "full sequences": lambda: found.extend(
            full_sequences(model, prompt, [titles[item] for item in items])
            for prompt, items in zip(prompts, lists, strict=True)
        ),
        "packed row": lambda: scorer.candidates(prompts, lists),
        "greedy answer of 9 tokens": lambda: [
            scorer.read(prompts[first : first + rows]).answers(9)
            for first in range(0, len(prompts), rows)
        ],
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(given.repeats + 1):  # the first round warms up
        for name, one in work.items():
            times[name].append(seconds(one) / given.prompts)
    medians = {name: statistics.median(taken[1:]) for name, taken in times.items()}
    apart = np.abs(scorer.candidates(prompts, lists) - np.array(found[: given.prompts])).max()
    ratio = medians["full sequences"] / medians["packed row"]
    for name, taken in medians.items():
        print(f"{name:28s}{1000 * taken:8.1f} CPU ms per prompt")
    met = "met" if ratio >= GOAL else "missed"
    print(
        f"packed {ratio:.1f}x as fast (goal {GOAL:g}x: {met}); largest difference {apart:.1e} nats"
    )


if __name__ == "__main__":
    main()
