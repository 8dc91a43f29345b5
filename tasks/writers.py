"""The writer of a stage: the LLM in this process, behind a server, or in vLLM."""

from collections.abc import Callable
from pathlib import Path

from recalign.artifacts.artifact import Artifact
from recalign.chat_server.server_writer import ServedPolicy, ServerWriter
from recalign.config import AnswersConfig, Runtime
from recalign.errors import UserError
from recalign.stored import first_of, open_policy, stored
from recalign.writer import Writer


def open_writer(
    config: AnswersConfig,
    policy: Artifact,
    runtime: Runtime,
    device: Callable[[], str],
    work: Path,
) -> Writer:
    """The writer of this policy, aligned or not; new kinds are opened here.

    `device` takes the device, which no server needs; `work` is a folder of the policy's reasonings.
    """
    match config.writer:
        case "local":
            from recalign.llm.generate import Room  # transformers: seconds
            from recalign.llm.local_writer import LocalWriter

            room = Room(runtime.generation_rows, runtime.generation_gb)
            return LocalWriter(open_policy(policy, runtime.root, device()), room)
        case "openai":
            return ServerWriter(runtime.server, _served(config, policy, runtime.root), work)
        case "vllm":
            from recalign.llm.vllm_writer import VllmWriter

            return VllmWriter(stored(policy, runtime.root), device(), runtime.devices)


def _served(config: AnswersConfig, policy: Artifact, root: str) -> ServedPolicy:
    """Under which name the server knows this policy; UserError for the embedded LLM."""
    first = stored(first_of(policy, root), root)
    if first.held.kind == "bootstrap":
        raise UserError("reasonings.writer: a server cannot write for the embedded LLM; use local")
    if "warm_up" in first_of(policy, root).manifest.config:
        raise UserError(
            "reasonings.writer: the server's LLM is not the one that policy.warm_up has trained;"
            " use local"
        )
    here = stored(policy, root)
    local = here.unweighted()
    if here == first:
        return ServedPolicy(config.served_model or first.held.model, local)
    # By its content: another root, or another try, may give other weights to the same fingerprint.
    name = f"recalign-{policy.manifest.digest[:10]}"
    return ServedPolicy(name, local, here.adapter or Path(here.weights))
