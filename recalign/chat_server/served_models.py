"""The policy behind a server: known to it by name, loaded while it runs, or what to start."""

from pathlib import Path
from typing import TYPE_CHECKING

from recalign.chat_server.engines import Engine, listed_models
from recalign.errors import UserError

if TYPE_CHECKING:  # a second to import
    from openai import OpenAI


def ensure_served(client: "OpenAI", engine: Engine, name: str, aligned: Path | None) -> None:
    """See to it that the server knows the policy as `name`.

    The adapter of an aligned policy (a PEFT folder) goes through vLLM's /v1/load_lora_adapter; the
    server must see the folder under the same path. Raises UserError that says what to start where
    there is no such endpoint, for all weights, which no server takes while it runs, and where
    another model is served: llama.cpp answers to any name.
    """
    if engine == "transformers" and aligned is None:
        return  # opens what a request names
    listed = [] if engine == "transformers" else [model.id for model in listed_models(client)]
    if name in listed:
        return
    if aligned is not None:
        _load(client, name, aligned)
    elif engine in ("vllm", "sglang", "llama.cpp"):
        raise UserError(
            f"{client.base_url}: the server has {', '.join(listed)}, not {name}; start it with "
            "this model, or say in served_model of reasonings or item_reasonings what it calls it"
        )


def _load(client: "OpenAI", name: str, folder: Path) -> None:
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{client.base_url}: start a server of the aligned model, {folder}, under the name "
            f"{name} (vllm serve {folder} --served-model-name {name})"
        )
    from openai import NotFoundError

    try:
        client.post(
            "/load_lora_adapter",
            body={"lora_name": name, "lora_path": str(folder)},
            cast_to=str,
        )
    except NotFoundError:
        raise UserError(
            f"{client.base_url}: this server loads no adapter while it runs; start it with "
            f"{folder} as adapter {name} (vLLM: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or "
            f"--enable-lora --lora-modules {name}={folder})"
        ) from None
