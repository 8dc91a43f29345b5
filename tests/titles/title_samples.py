"""A tiny Llama whose titles are byte pairs, and one whose titles are one token each."""

from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from recalign.embedded.title_tokenizer import title_tokenizer
from recalign.policy import Policy, in_lines

TITLES = [
    "", "Alien", "Aliens", "Alien Resurrection", "Heat", "The Heat", "The Third Man", "The Thing",
    "Up", "The Third Man Returns", "M", "Thing", "Man of Aran", "The Man", "Aliens in the Attic",
]  # fmt: skip
HISTORIES = [[1, 2], [7], [5, 5, 8, 9], [14, 3, 2, 1], [10, 4, 6], [12]]


def llama(n_tokens: int, attention: str = "sdpa") -> PreTrainedModel:
    """Grouped heads, weights so wide that log-probabilities differ by nats."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=n_tokens,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
            initializer_range=0.3,
            max_position_embeddings=256,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).eval()
    model.set_attn_implementation(attention)
    return model


def gemma3(n_tokens: int) -> PreTrainedModel:
    """An LLM with an eye: what says how it reads texts is a config inside its config."""
    torch.manual_seed(0)
    text = {
        "vocab_size": n_tokens, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "initializer_range": 0.3, "max_position_embeddings": 256, "sliding_window": 100,
        "layer_types": ["sliding_attention", "full_attention"], "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    eye = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=eye, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config).eval()


def pieces_policy(
    format: Literal["history", "candidates"] = "history", attention: str = "sdpa"
) -> Policy:
    """Titles of several tokens each, line breaks included."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([f"{title}\n" for title in TITLES], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    model = llama(len(tokenizer), attention)
    policy = Policy(model, tokenizer, "never", [2], 0)
    return in_lines(policy) if format == "history" else policy


def single_policy() -> Policy:
    """The embedded LLM's tokenizer: one token per title."""
    tokenizer = title_tokenizer(TITLES)
    return in_lines(Policy(llama(len(tokenizer)), tokenizer, "never", [2], 0))


def title_ids(policy: Policy) -> list[list[int]]:
    return [[], *(policy.encode_completion(title) for title in TITLES[1:])]


def prompts_of(policy: Policy) -> list[list[int]]:
    texts = ["".join(f"{TITLES[item]}\n" for item in history) for history in HISTORIES]
    return [policy.encode_prompt(text) for text in texts]


@torch.no_grad()
def alone(policy: Policy, prompt: list[int], title: list[int]) -> float:
    """log p(title | prompt) from one plain pass over both, nothing shared, nothing padded."""
    logits = policy.model(torch.tensor([prompt + title])).logits[0].double()
    log_probs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return float(log_probs[torch.arange(len(title)), torch.tensor(title)].sum())


def all_alone(policy: Policy) -> np.ndarray:
    """`alone` for every prompt and title: float64 [B, I+1], -inf for padding."""
    ids = title_ids(policy)
    rows = [[alone(policy, prompt, title) for title in ids[1:]] for prompt in prompts_of(policy)]
    return np.pad(np.array(rows), ((0, 0), (1, 0)), constant_values=-np.inf)


def beam(scorer, prompts, width, forbidden, rows=4):
    """The beam's items and scores, of batches of `rows` prompts."""
    parts = [
        scorer.read(prompts[first : first + rows]).beam(width, forbidden[first : first + rows])
        for first in range(0, len(prompts), rows)
    ]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def answers(scorer, prompts, max_new_tokens, rows=4):
    """Free answers, of batches of `rows` prompts."""
    batches = (prompts[first : first + rows] for first in range(0, len(prompts), rows))
    return [ids for batch in batches for ids in scorer.read(batch).answers(max_new_tokens)]
