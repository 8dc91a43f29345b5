"""Texts a second of an OpenAI-compatible server, beside our generator in this process.

    python benchmarks/server.py URL SERVED_MODEL [--model smollm2] [--dtypes float32 bfloat16]
                                [--prompts 32] [--new-tokens 28] [--at-once 1 4 16] [--repeats 1]

URL ends in /v1. Prompts are 250 random tokens, sent as such to /completions; 10 samples each, asked
for in one request with `n`, and `--at-once` requests together; no token ends a text. The server and
this process share the machine's cores: one rests while the other works. Wall seconds.
"""

import argparse
import asyncio
import statistics
from collections.abc import Callable

import httpx
import numpy as np
import torch
from generation_model import LENGTH, N_SAMPLES, SAMPLING, opened, ours, seconds


async def asked(url: str, served: str, prompts: list[list[int]], n_new: int, at_once: int) -> None:
    """Have the server write all texts (llama.cpp's `usage` counts one of them alone)."""
    body = {
        "model": served, "n": N_SAMPLES, "max_tokens": n_new, "min_tokens": n_new,
        "ignore_eos": True, "top_k": 0, "min_p": 0.0, **SAMPLING,
    }  # fmt: skip
    gate = asyncio.Semaphore(at_once)

    async def one(client: httpx.AsyncClient, prompt: list[int], seed: int) -> None:
        async with gate:
            answer = await client.post("/completions", json=body | {"prompt": prompt, "seed": seed})
        answer.raise_for_status()
        n = len(answer.json()["choices"])
        if n != N_SAMPLES:
            raise SystemExit(f"asked for n = {N_SAMPLES}, got {n} texts")

    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        await asyncio.gather(*(one(client, p, i) for i, p in enumerate(prompts)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("served")
    parser.add_argument(
        "--model", default="smollm2", help="the same LLM: a name, folder, GGUF file"
    )
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=28)
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    model = opened(given.model)
    works: dict[str, Callable[[], object]] = {}
    written: dict[str, list[float]] = {}
    rng = np.random.default_rng(0)

    def fresh() -> list[list[int]]:  # prompts that no cache of the server has read
        return rng.integers(100, model.config.vocab_size, (given.prompts, LENGTH)).tolist()

    def local(name: str) -> None:
        ours(model.to(getattr(torch, name)), fresh(), given.new_tokens)

    def remote(at_once: int) -> None:
        asyncio.run(asked(given.url, given.served, fresh(), given.new_tokens, at_once))

    works |= {f"ours, {name}": lambda name=name: local(name) for name in given.dtypes}
    works |= {f"server, {n} requests at once": lambda n=n: remote(n) for n in given.at_once}
    n_tokens = given.prompts * N_SAMPLES * given.new_tokens
    print(f"{given.model}: {given.prompts} prompts x {N_SAMPLES} x {given.new_tokens} tokens")
    for _ in range(given.repeats):
        for name, work in works.items():
            written.setdefault(name, []).append(n_tokens / seconds(work))
    for name, speeds in written.items():
        print(f"  {name:32s} {statistics.median(speeds):8.0f} tokens/s")


if __name__ == "__main__":
    main()
