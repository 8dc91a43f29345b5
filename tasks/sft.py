"""Stage sft: the LLM learns to answer with the next title."""

from typing import TYPE_CHECKING

from recalign.artifacts.store import Artifact
from recalign.config import LoadedModelConfig, SftConfig
from tasks.policy import ADAPTER, MODEL

if TYPE_CHECKING:
    from recalign.titles.policy import TitlePolicy

SETTINGS = "sft.json"  # the SftConfig later stages load and ask this LLM with


def open_titles(
    sft: Artifact, aligned: Artifact | None, device: str, *, trainable: bool = False
) -> "TitlePolicy":
    """The fine-tuned LLM, or what an alignment made of it: another adapter, or all weights anew.

    `trainable` keeps an adapter apart from the weights under it, so that it can be trained on.
    """
    from recalign.policy.load import load_policy
    from recalign.titles.policy import title_policy

    config = SftConfig.model_validate_json(sft.path(SETTINGS).read_text())
    weights = config.model if config.method == "lora" else sft.path(MODEL)
    adapter = sft.path(ADAPTER) if config.method == "lora" else None
    if aligned is not None and aligned.path(ADAPTER).is_dir():
        adapter = aligned.path(ADAPTER)
    elif aligned is not None:
        weights, adapter = aligned.path(MODEL), None
    held = LoadedModelConfig() if config.kind == "bootstrap" else config
    loaded = load_policy(weights, held, adapter, device, trainable=trainable)
    return title_policy(loaded, config.format)
