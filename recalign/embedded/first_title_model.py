"""The embedded LLM before any training: a small Llama with one token per title."""

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from recalign.config import TitleModelConfig
from recalign.embedded.small_llama import llama_settings
from recalign.seeding import derive_seed

POSITIONS = 512  # at least; rotary embeddings cost nothing
SPREAD = 0.02


def first_model(
    config: TitleModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    history_items: int,
    seed: int,
    vectors: np.ndarray | None = None,
) -> LlamaForCausalLM:
    """A Llama with tied embeddings for histories of `history_items` titles.

    vectors [n_items + 1, e]: what the items' texts mean. The last n_items tokens, the titles,
    start as their main components instead of at random: a real LLM knows its titles' meaning too.
    """
    positions = max(POSITIONS, 2 * history_items)
    settings = llama_settings(config, tokenizer, positions, SPREAD)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "sft", "weights"))
        model = LlamaForCausalLM(settings)
    if vectors is not None:
        start = torch.from_numpy(main_components(vectors[1:], config.hidden))
        with torch.no_grad():
            model.model.embed_tokens.weight[-len(start) :, : start.shape[1]] = start
    return model


def main_components(vectors: np.ndarray, width: int) -> np.ndarray:
    """The principal components of `vectors` [I, e], float32 [I, min(width, I, e)].

    Scaled together to the spread of random weights, so that the first components, which tell titles
    apart best, stay the widest. Signs are fixed: each component's largest value is positive.
    """
    centred = vectors - vectors.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    found = (left * sizes)[:, :width]
    found *= np.sign(found[np.abs(found).argmax(0), np.arange(found.shape[1])])
    return (SPREAD * found / max(found.std(), 1e-12)).astype(np.float32)
