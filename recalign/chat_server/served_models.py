"""The policy behind a server: known to it by name, loaded while it runs, or what to start."""

from pathlib import Path
from typing import TYPE_CHECKING

from recalign.chat_server.client import said
from recalign.chat_server.engines import Engine, listed_models
from recalign.errors import UserError

if TYPE_CHECKING:  # a second to import
    from openai import OpenAI


def ensure_served(client: "OpenAI", engine: Engine, name: str, aligned: Path | None) -> None:
    """See to it that the server knows the policy as `name`.

    The adapter of an aligned policy (a PEFT folder) goes through vLLM's /v1/load_lora_adapter; the
    server must see the folder under the same path. Raises UserError that says what to start where
    there is no such endpoint or the server cannot read the folder, for all weights, which no server
    takes while it runs, and where another model is served: llama.cpp answers to any name.
    """
    if engine == "transformers" and aligned is None:
        return  # opens what a request names
    listed = _names(client, engine)
    if name in listed:
        return
    if aligned is not None:
        _load(client, engine, name, aligned.absolute())  # the server runs in another folder
    elif engine in ("vllm", "sglang", "llama.cpp"):
        raise UserError(
            f"{client.base_url}: the server has {', '.join(listed)}, not {name}; start it with "
            "this model, or say in served_model of reasonings or item_reasonings what it calls it"
        )


def _names(client: "OpenAI", engine: Engine) -> list[str]:
    """What the server has; transformers' own lists no models that it was sent to a folder for."""
    return [] if engine == "transformers" else [model.id for model in listed_models(client)]


def _load(client: "OpenAI", engine: Engine, name: str, folder: Path) -> None:
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{client.base_url}: start a server of the aligned model, {folder}, under the name "
            f"{name} (vllm serve {folder} --served-model-name {name})"
        )
    from openai import BadRequestError, NotFoundError

    try:
        client.post(
            "/load_lora_adapter",
            body={"lora_name": name, "lora_path": str(folder)},
            cast_to=str,
        )
    except (BadRequestError, NotFoundError) as error:
        if name in _names(client, engine):
            return  # by an earlier try, whose answer was lost
        if isinstance(error, BadRequestError):
            raise  # it says what is wrong with the adapter
        raise UserError(
            f"{client.base_url}: the adapter {folder} is not loaded: either the server does not "
            "see this folder under the same path, or it loads none while it runs; then start it "
            f"with the adapter as {name} (vLLM: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or "
            f"--enable-lora --lora-modules {name}={folder}). It answers 404: "
            f"{said(error.response.text)}"
        ) from None
