"""The embedded LLM before any training: a small Llama with one token per title."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from recalign.config import TitleModelConfig
from recalign.errors import UserError
from recalign.seeding import derive_seed

POSITIONS = 512  # at least so many; rotary embeddings cost nothing
SPREAD = 0.02


def first_model(
    config: TitleModelConfig, tokenizer: PreTrainedTokenizerBase, history_items: int, seed: int
) -> LlamaForCausalLM:
    """A Llama with tied embeddings for histories of `history_items` titles.

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
        return LlamaForCausalLM(settings)
