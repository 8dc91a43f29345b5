"""How an LLM lies in an artifact's folder: the settings, and all weights or an adapter."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from recalign.config import LoadedModelConfig, PolicyConfig, SftConfig
from recalign.llm.published import source_of
from recalign.policy import Policy, in_lines
from recalign.schemas import CURVE_FILE

log = logging.getLogger(__name__)

MODEL = "model"  # folder of all weights
ADAPTER = "adapter"  # folder of a LoRA adapter on other weights
POLICY_CURVE = f"{MODEL}/{CURVE_FILE}"  # where policy 0 is trained here
POLICY = "policy.json"  # the PolicyConfig that a policy is loaded with
SFT = "sft.json"  # the SftConfig that a fine-tuned LLM is loaded and asked with
TEMPLATES = "template"  # folder of the question that a fine-tuned LLM was taught, under its name


@dataclass(frozen=True)
class StoredPolicy:
    """Where a policy's weights are, and how it is loaded and asked."""

    weights: str | Path  # a folder of an artifact, or a str: the hub id or folder that was named
    held: LoadedModelConfig
    adapter: Path | None = None
    lines: bool = False  # asked in plain lines, one title each

    def trained(self, folder: Path) -> "StoredPolicy":
        """What training made of it and saved under `folder`: an adapter, or all weights anew."""
        if (folder / ADAPTER).is_dir():
            return replace(self, adapter=folder / ADAPTER)
        return replace(self, weights=folder / MODEL, adapter=None)

    def load(self, device: str, *, trainable: bool = False) -> Policy:
        """`trainable` keeps an adapter apart from the weights under it. Raises as `load_policy`.

        An empty `device` is the processor; for quantised weights, which only a GPU reads, it is the
        GPU, and where there is none the processor again, with the same weights unquantised.
        """
        from recalign.llm.load import load_policy  # seconds to import

        if not device:
            place, device = self._here()
            return place.load(device, trainable=trainable)
        loaded = load_policy(self.weights, self.held, self.adapter, device, trainable=trainable)
        return in_lines(loaded) if self.lines else loaded

    @property
    def quantised(self) -> bool:
        """Whether its weights are held in fewer bits than they were published in."""
        return self.held.quantisation != "none"

    def _here(self) -> "tuple[StoredPolicy, str]":
        """What this machine can load, and where to."""
        import torch

        if not self.quantised:
            return self, "cpu"
        if torch.cuda.is_available():
            return self, "cuda"
        told = "no GPU here: the LLM is loaded in %s, not in %s as in the run: answers may differ"
        log.warning(told, self.held.dtype, self.held.quantisation)
        return replace(self, held=self._unquantised()), "cpu"

    def _unquantised(self) -> LoadedModelConfig:
        return self.held.model_copy(update={"quantisation": "none"})

    def unweighted(self) -> Policy:
        """The same policy for encoding and decoding alone: its weights are never read."""
        held = self._unquantised().model_copy(update={"dtype": "float32"})
        return replace(self, adapter=None, held=held).load("meta")


def trained_part(method: Literal["lora", "full"]) -> str:
    """The folder that training by this method fills."""
    return ADAPTER if method == "lora" else MODEL


def stored_policy(folder: Path) -> StoredPolicy:
    """Policy 0, as the stage of that name left it in `folder`."""
    config = PolicyConfig.model_validate_json((folder / POLICY).read_text())
    return StoredPolicy(_first_weights(folder, config.model), config)


def stored_sft(folder: Path) -> StoredPolicy:
    """The LLM that was fine-tuned to name titles, as the stage sft left it in `folder`."""
    config = SftConfig.model_validate_json((folder / SFT).read_text())
    held = LoadedModelConfig() if config.kind == "bootstrap" else config
    first = _first_weights(folder, config.model)
    return StoredPolicy(first, held, lines=config.format == "history").trained(folder)


def _first_weights(folder: Path, model: str) -> str | Path:
    """Weights that the stage made itself (trained, or converted from GGUF), else those named."""
    return folder / MODEL if (folder / MODEL).is_dir() else source_of(model)
