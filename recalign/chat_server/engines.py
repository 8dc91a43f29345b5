"""Which server it is, and what it has to be told so that nothing but our settings shapes a text.

Left alone, most servers add the model's own defaults (vLLM takes them from generation_config.json,
llama.cpp a top-k of 40 and min-p). Each engine names the fields that switch these off differently.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urljoin

from recalign.chat_server.client import reading
from recalign.config import AnswersConfig
from recalign.errors import UserError
from recalign.policy import DATE

if TYPE_CHECKING:  # a second to import
    from openai import OpenAI
    from openai.types import Model

Engine = Literal["vllm", "sglang", "llama.cpp", "ollama", "transformers", "unknown"]

OWNERS: dict[str, Engine] = {  # `owned_by` in the list of models
    "vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp", "library": "ollama",
}  # fmt: skip

NEUTRAL: dict[str, Any] = {
    "num_beams": 1, "num_return_sequences": 1, "penalty_alpha": 0.0, "guidance_scale": 1.0,
    "min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
    "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0,
    "min_new_tokens": 0, "max_time": 1e9,  # the former goes before the model's min_length
    "exponential_decay_length_penalty": [10**9, 1.0],  # from that token on
    "suppress_tokens": [], "begin_suppress_tokens": [], "sequence_bias": [[[0], 0.0]],
    "token_healing": False, "use_mtp": False,
}  # fmt: skip
"""What says "no" to each habit of transformers; it takes what is not told from the model's own.

None can be said to top_h, stop_strings, watermarking_config and forced_eos_token_id.
"""


def find_engine(client: "OpenAI") -> Engine:
    """The kind of server behind `client`, by its list of models and its other paths.

    Raises openai.APIConnectionError when nobody answers, and AuthenticationError for a wrong key.
    """
    if "/load_model" in _paths(client):  # and its list of models may be an error
        return "transformers"
    owners = [getattr(model, "owned_by", None) for model in listed_models(client)]
    return next((engine for owner, engine in OWNERS.items() if owner in owners), "unknown")


def listed_models(client: "OpenAI") -> "list[Model]":
    """What the server says it has; UserError for an answer that is no such list."""
    raw = client.models.with_raw_response.list()
    with reading(raw):
        return list(raw.parse())


def _paths(client: "OpenAI") -> set[str]:
    """What the server says it serves; FastAPI's description stands above /v1."""
    from openai import APIStatusError

    try:
        told: Any = client.get(urljoin(str(client.base_url), "/openapi.json"), cast_to=object)
    except (APIStatusError, ValueError):  # the latter: what is called JSON and is none
        return set()
    return set(told.get("paths") or {}) if isinstance(told, dict) else set()


def extra_fields(
    engine: Engine, sampling: AnswersConfig, eos_ids: Sequence[int], pad_id: int
) -> dict[str, Any]:
    """Fields of a request beside OpenAI's own: top-k as set, no penalty, no floor, no thinking.

    And the date that training reads, where the model's chat template can be told one.

    Raises UserError for a top_k that this server cannot be told.
    """
    told = {"enable_thinking": False, "date_string": DATE}
    plain = {"chat_template_kwargs": told, "min_p": 0.0}
    match engine:
        case "vllm" | "sglang":
            return plain | {"top_k": sampling.top_k or -1, "repetition_penalty": 1.0}
        case "llama.cpp":
            return plain | {"top_k": sampling.top_k, "repeat_penalty": 1.0}
        case "transformers":
            own = {"do_sample": True, "top_k": sampling.top_k, "pad_token_id": pad_id}
            ends = {
                "eos_token_id": list(eos_ids),
                "bad_words_ids": [[end] for end in eos_ids],  # ends are never forbidden: no words
            }
            return {
                "generation_config": json.dumps(NEUTRAL | own | ends),
                "chat_template_kwargs": told,
            }
        case "ollama" | "unknown":
            if sampling.top_k:
                raise UserError("reasonings.top_k: this server takes no top_k; set it to 0")
            return {}


def not_promised(engine: Engine) -> list[str]:
    """What the writer in this process promises and this server does not."""
    told = ["equal texts for equal seeds: sums depend on what else the server has in its batch"]
    if engine in ("ollama", "unknown"):
        told.append("plain sampling: top-k, min-p and penalties of the server's own may apply")
    return told
