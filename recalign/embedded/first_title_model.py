"""The embedded LLM before any training: a small Llama with one token per title."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from recalign.config import TitleModelConfig
from recalign.errors import UserError
from recalign.seeding import derive_seed

POSITIONS = 512  # at least so many; rotary embeddings cost nothing
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
    UserError when `heads` does not divide `hidden` into even widths.
    """
    if config.hidden % (2 * config.heads):
        raise UserError(
            f"sft.bootstrap: hidden {config.hidden} must be an even multiple of heads "
            f"{config.heads}"
        )
    settings = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        intermediate_size=-(-config.hidden * 8 // 3 // 32) * 32,  # SwiGLU's usual 8/3, rounded up
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=max(POSITIONS, 2 * history_items),
        initializer_range=SPREAD,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
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

    Scaled together to the spread of random weights, so that the first components, which tell most
    apart, stay the widest. Signs are fixed: each component's largest value is positive.
    """
    centred = vectors - vectors.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    found = (left * sizes)[:, :width]
    found *= np.sign(found[np.abs(found).argmax(0), np.arange(found.shape[1])])
    return (SPREAD * found / max(found.std(), 1e-12)).astype(np.float32)
