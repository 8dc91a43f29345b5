"""Sampling of `recalign.llm` against transformers' own generate on a processor, interleaved.

    python benchmarks/generation.py [--parts speed check embedded] [--threads 1] [--repeats 3]
                                    [--prompts 32] [--new-tokens 28] [--embedded-prompts 2000]
                                    [--dtypes float32 bfloat16] [--profile]
                                    [--folder MODEL] [--device cuda]
    python benchmarks/generation.py --model smollm2 --threads 2 [--prompts 16] [--new-tokens 32]

speed: a random Llama of about 5 million parameters, or the model in `--folder` (see shapes.py);
prompts of 50-100 tokens, 10 samples each of a fixed number of tokens. transformers'
`generate(num_return_sequences=10)` gets the batch size that suits it best of those tried; every
sampling field of both is set. check: both draw from the same distribution. embedded: a random model
of the embedded policy's size, texts per second. CPU seconds with one thread (so that a busy machine
matters less), else wall seconds, and those on a GPU. --model compares with a real LLM instead (a
fetched one, a folder or a GGUF file), and with the processor's own products.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
from device import clock, forget_peak, free_bytes, gigabytes_at_once, peak_gib, row
from generation_model import compare_model
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from recalign.config import LoadedModelConfig, SamplingConfig
from recalign.llm.generate import Room, generate
from recalign.llm.load import load_policy
from recalign.llm.shared_prefix import SharedPrefix, hooked
from recalign.writer import Asked

N_SAMPLES = 10
THEIR_BATCHES = (8, 32)
OUR_ROOM = Room(rows=2048)
GOAL_RATIO = 3.5
GOAL_TEXTS = 1500


def random_llama(
    hidden: int, layers: int, heads: int, vocabulary: int, scale: float
) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=hidden * 8 // 3 // 8 * 8, vocab_size=vocabulary,
        max_position_embeddings=512, initializer_range=scale, pad_token_id=0, bos_token_id=1,
        eos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    return model


def random_prompts(n: int, shortest: int, longest: int, vocabulary: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(shortest, longest + 1, n)
    return [rng.integers(3, vocabulary, length).tolist() for length in lengths]


def ours(
    model: PreTrainedModel,
    prompts: list[list[int]],
    n_samples: int,
    new: int,
    room: Room = OUR_ROOM,
) -> Tensor:
    """Sampled tokens, int64 [P * n_samples, new]."""
    sampling = SamplingConfig(max_new_tokens=new, temperature=1.0, top_k=0, top_p=1.0)
    asked = Asked(sampling, n_samples, greedy=False)
    # No token ends a text, so that all have the same length.
    found = generate(model, prompts, range(len(prompts)), asked, stops=[], room=room)
    return torch.tensor([one.token_ids for batch in found for one in batch])


def theirs(
    model: PreTrainedModel, prompts: list[list[int]], n_samples: int, new: int, batch: int
) -> Tensor:
    """The same from model.generate, `batch` prompts (of similar length, left-padded) at once."""
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, typical_p=1.0, min_p=None,
        repetition_penalty=1.0, num_beams=1, num_return_sequences=n_samples, max_new_tokens=new,
        min_new_tokens=new, pad_token_id=0, eos_token_id=None, use_cache=True,
    )  # fmt: skip
    parts = []
    ordered = sorted(prompts, key=len)
    for first in range(0, len(ordered), batch):
        part = ordered[first : first + batch]
        width = max(map(len, part))
        tokens = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in part])
        mask = (tokens > 0).long().to(model.device)
        written = model.generate(
            tokens.to(model.device), attention_mask=mask, generation_config=settings
        )
        parts.append(written[:, width:].cpu())
    return torch.cat(parts)


def seconds(work: Callable[[], object], options: argparse.Namespace) -> float:
    now = clock(options.device, options.threads)
    started = now()
    work()
    return now() - started


def measured_model(options: argparse.Namespace, dtype: torch.dtype) -> PreTrainedModel:
    if not options.folder:
        return random_llama(256, 6, 4, 1000, 0.02).to(dtype).to(options.device)
    held = LoadedModelConfig.model_validate(
        {"kind": "huggingface", "model": options.folder, "dtype": str(dtype).split(".")[1]}
    )
    return load_policy(options.folder, held, device=options.device).model


def compare_speed(options: argparse.Namespace, dtype: torch.dtype) -> None:
    model = measured_model(options, dtype)
    prompts = random_prompts(options.prompts, 50, 100, model.config.vocab_size)
    new, n_tokens = options.new_tokens, len(prompts) * N_SAMPLES * options.new_tokens
    room = OUR_ROOM._replace(
        gigabytes=gigabytes_at_once(OUR_ROOM.gigabytes, free_bytes(options.device))
    )
    variants: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(model, prompts, N_SAMPLES, new, room)
    }
    for batch in THEIR_BATCHES:
        variants[f"generate, {batch} prompts a batch"] = lambda batch=batch: theirs(  # type: ignore[misc]
            model, prompts, N_SAMPLES, new, batch
        )
    taken: dict[str, list[float]] = {name: [] for name in variants}
    ours(model, prompts[:2], N_SAMPLES, new)
    theirs(model, prompts[:2], N_SAMPLES, new, 2)
    forget_peak(options.device)
    peak = 0.0
    for _ in range(options.repeats):
        for name, work in variants.items():
            taken[name].append(seconds(work, options))
            peak = peak or peak_gib(options.device)  # after ours, before `generate` holds its own
    size = sum(weight.numel() for weight in model.parameters()) / 1e6
    print(
        f"\n{dtype}, {size:.1f} M parameters, {len(prompts)} prompts x {N_SAMPLES} x {new} tokens"
    )
    for name, spent_all in taken.items():
        print(f"  {name:32s} {n_tokens / statistics.median(spent_all):10,.0f} tokens/s")
    best = min((statistics.median(taken[name]), name) for name in taken if name != "ours")[1]
    ratios = [b / o for b, o in zip(taken[best], taken["ours"], strict=True)]
    print(
        f"  ratio to the better one: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f}), goal {GOAL_RATIO}"
    )
    named = Path(options.folder).name or f"{size:.0f} M"
    speed = n_tokens / statistics.median(taken["ours"])
    row(
        f"generation, {named}, {str(dtype).split('.')[1]}", f"{speed:,.0f} tokens/s",
        f"{statistics.median(ratios):.2f} x generate", peak,
    )  # fmt: skip


@torch.inference_mode()
def check_logits() -> None:
    """Log-probabilities of forced continuations against the ordinary forward, float32."""
    model, prompts = random_llama(256, 6, 4, 1000, 0.06), random_prompts(8, 50, 100, 1000)
    forced = torch.tensor(random_prompts(8, 28, 28, 1000))
    with hooked(model):
        decoder = SharedPrefix(model)
        found = [decoder.prefill(prompts)]
        found += [decoder.step(forced[:, step]) for step in range(28)]
    difference = 0.0
    for place, prompt in enumerate(prompts):
        tokens = torch.tensor([prompt + forced[place].tolist()])
        expected = model(tokens, use_cache=False).logits[0, len(prompt) - 1 :].log_softmax(-1)
        mine = torch.stack([step[place] for step in found]).log_softmax(-1)
        difference = max(difference, float((mine - expected).abs().max()))
    print(f"\nforced continuations: log-probabilities differ by at most {difference:.1e}")


@torch.inference_mode()
def check_distribution(n_samples: int = 20_000) -> None:
    """Chi-square of first and second tokens against the exact distribution; z is about N(0, 1)."""
    vocabulary = 200
    model = random_llama(128, 3, 4, vocabulary, 0.08)
    prompt = random_prompts(1, 60, 60, vocabulary)[0]
    first = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1)
    pairs = torch.tensor([[*prompt, token] for token in range(vocabulary)])
    second = first @ model(pairs).logits[:, -1].double().softmax(-1)
    copies = [prompt] * (n_samples // 100)
    torch.manual_seed(1)
    print(f"chi-square z and total variation from the exact distribution, {n_samples} samples")
    for name, tokens in (
        ("ours", ours(model, copies, 100, 2)),
        ("generate", theirs(model, copies, 100, 2, 20)),
    ):
        for place, exact in enumerate((first, second)):
            counts = tokens[:, place].bincount(minlength=vocabulary).double()
            expected = exact * len(tokens)
            chi_square = float(((counts - expected) ** 2 / expected).sum())
            z = (chi_square - vocabulary + 1) / (2 * (vocabulary - 1)) ** 0.5
            distance = float((counts / len(tokens) - exact).abs().sum() / 2)
            print(f"  {name:9s} token {place + 1}: z {z:+.2f}, total variation {distance:.4f}")


def embedded_speed(options: argparse.Namespace, dtype: torch.dtype) -> None:
    model = random_llama(128, 3, 4, 200, 0.02).to(dtype)
    prompts = random_prompts(options.embedded_prompts, 50, 50, 200)
    ours(model, prompts[:200], N_SAMPLES, 13)
    taken = [
        seconds(lambda: ours(model, prompts, N_SAMPLES, 13), options)
        for _ in range(options.repeats)
    ]
    speeds = [len(prompts) * N_SAMPLES / spent for spent in taken]
    size = sum(weight.numel() for weight in model.parameters()) / 1e6
    print(
        f"\nembedded size ({size:.2f} M parameters, {dtype}), {len(prompts)} prompts of 50 tokens "
        f"x {N_SAMPLES} x 13:\n  {statistics.median(speeds):,.0f} texts per second "
        f"({min(speeds):,.0f}-{max(speeds):,.0f}), goal {GOAL_TEXTS:,}"
    )
    if options.profile:
        with torch.profiler.profile() as profile:
            ours(model, prompts[:256], N_SAMPLES, 13)
        table = profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=14)
        print("\n".join(line[:110] for line in table.splitlines()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a real LLM, such as smollm2")
    parser.add_argument("--threads", type=int, default=1, help="0: all cores")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=28)
    parser.add_argument("--embedded-prompts", type=int, default=2000)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--parts", nargs="*", default=["speed", "check", "embedded"])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--folder", default="", help="of a causal LM")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    by_cpu = options.threads == 1 and options.device == "cpu" and not options.model
    unit = "CPU second" if by_cpu else "wall second"
    print(f"torch {torch.__version__}, {options.threads} thread(s), all speeds per {unit}")
    if options.model:
        compare_model(options.model, options.prompts, options.new_tokens, options.repeats)
        return
    dtypes = [getattr(torch, name) for name in options.dtypes]
    for part in options.parts:
        match part:
            case "speed":
                for dtype in dtypes:
                    compare_speed(options, dtype)
            case "check":
                check_logits()
                check_distribution()
            case "embedded":
                for dtype in dtypes:
                    embedded_speed(options, dtype)
            case _:
                parser.error(f"no part is called {part}")


if __name__ == "__main__":
    main()
