"""The writer in vLLM, inside this process on a GPU. It was type-checked and never run."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recalign.errors import UserError
from recalign.llm.storage import StoredPolicy
from recalign.seeding import derive_seed
from recalign.writer import Asked, Written

MOST_TOKENS = 16_384
"""Of a prompt and its text. vLLM reserves memory for the longest text that it may be asked for,
and an LLM's own limit (131,072 of Llama-3.1) does not fit on a card of 24 GB beside its weights."""


class VllmWriter:
    """Samples from the policy by continuous batching. See `recalign.writer.Writer`.

    Prompts are encoded here, so that training sees the same tokens; those that samples and users
    share are computed once (prefix caching). Texts are reproducible on one GPU with one version of
    vLLM as far as vLLM's own batching lets them be.
    """

    def __init__(self, stored: StoredPolicy, device: str, n_devices: int = 1) -> None:
        """Load weights and adapter, split over `n_devices` GPUs of this machine.

        UserError without vLLM, without a GPU, or for quantisation.
        """
        if stored.held.quantisation != "none":
            raise UserError("reasonings.writer = vllm takes policy.quantisation = none alone")
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest
        except ImportError:
            raise UserError(
                "reasonings.writer = vllm: vLLM is not installed here, and its releases pin other "
                "versions of torch and transformers than recalign does; start `vllm serve` in an "
                "environment of its own and set reasonings.writer to openai"
            ) from None
        if device != "cuda":
            raise UserError("reasonings.writer = vllm needs a GPU; set it to local")
        self.local = stored.unweighted()
        self.most_tokens = most_tokens(self.local.model.config.get_text_config())
        self.llm = LLM(
            model=str(stored.weights),
            revision=None if Path(stored.weights).is_dir() else stored.held.revision,
            dtype=stored.held.dtype,
            max_model_len=self.most_tokens,
            tensor_parallel_size=n_devices,
            enable_prefix_caching=True,
            enable_lora=stored.adapter is not None,
            max_lora_rank=_room_for(stored.adapter) if stored.adapter else 16,
            generation_config="vllm",  # not the model's own temperature and penalties
        )
        folder = stored.adapter
        self.adapter = LoRARequest("aligned", 1, str(folder)) if folder else None

    def write(
        self, prompts: Sequence[str], users: Sequence[int], asked: Asked
    ) -> Iterator[list[Written]]:
        """The texts of all prompts, handed over at the end: vLLM chooses the order of work.

        UserError for a prompt that with its text has more than `MOST_TOKENS`.
        """
        from vllm import SamplingParams

        sampling = asked.sampling
        rows = [(u, p, s) for u, p in zip(users, prompts, strict=True) for s in asked.samples]
        encoded = {prompt: self.local.encode_prompt(prompt) for prompt in prompts}
        for user, prompt in zip(users, prompts, strict=True):
            refuse_long(user, len(encoded[prompt]), sampling.max_new_tokens, self.most_tokens)
        parameters = [
            SamplingParams(
                temperature=0.0 if sample < 0 else sampling.temperature,
                top_k=sampling.top_k or -1,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                stop_token_ids=self.local.eos_ids,
                seed=derive_seed(sampling.seed, asked.stream, user, sample),
            )
            for user, _, sample in rows
        ]
        questions = [{"prompt_token_ids": encoded[prompt]} for _, prompt, _ in rows]
        given = self.llm.generate(questions, parameters, lora_request=self.adapter, use_tqdm=False)
        written = []
        for (user, _, sample), request in zip(rows, given, strict=True):
            (one,) = request.outputs
            finished = one.finish_reason == "stop"
            n_tokens = len(one.token_ids) - finished  # the token that ended it is among them
            written.append(Written(user, sample, one.text, n_tokens, finished))
        yield written


def most_tokens(config: Any) -> int:
    """Tokens of a prompt and its text: the LLM's own limit, or `MOST_TOKENS` if that is less."""
    return min(MOST_TOKENS, getattr(config, "max_position_embeddings", None) or MOST_TOKENS)


def refuse_long(user: int, n_tokens: int, max_new: int, most: int) -> None:
    """UserError for a prompt that leaves no room for max_new_tokens."""
    if n_tokens + max_new > most:
        raise UserError(
            f"the prompt of user {user} has {n_tokens} tokens; with max_new_tokens = {max_new} that"
            f" is more than the {most} that reasonings.writer = vllm takes; lower"
            " reasonings.history_items, or use local"
        )


def _room_for(adapter: Path) -> int:
    """The adapter's rank, rounded up to a power of two that vLLM offers."""
    rank = json.loads((adapter / "adapter_config.json").read_text())["r"]
    return max(16, 1 << (rank - 1).bit_length())
