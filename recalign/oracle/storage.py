"""The oracle on disk: weights (and item text) as safetensors, everything else as JSON."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recalign.config.oracle import OracleConfig
from recalign.errors import BadInputError
from recalign.oracle.architecture import new_model
from recalign.oracle.fit import FittedOracle
from recalign.oracle.sequence_model import SequenceModel
from recalign.schemas import CURVE_FILE

WEIGHTS = "oracle.safetensors"
FACTS = "oracle.json"


def save_oracle(folder: Path, fitted: FittedOracle) -> None:
    """Write weights, curve, temperature and calibration into `folder`, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    model = fitted.model
    tensors = {f"model.{name}": value.cpu() for name, value in model.state_dict().items()}
    if model.text is not None:
        tensors["text"] = model.text.cpu()
    save_file(tensors, folder / WEIGHTS)
    facts = {
        "config": model.config.model_dump(mode="json"),
        "n_items": model.n_items,
        "longest": model.longest,
        "temperature": fitted.temperature,
        "calibration": fitted.calibration,
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    # Equal fits leave equal bytes: the time an epoch took belongs to the run, not to the oracle.
    fitted.curve.drop("seconds").write_parquet(folder / CURVE_FILE, compression="zstd")


def load_oracle(folder: Path, device: str = "cpu") -> tuple[SequenceModel, dict[str, Any]]:
    """The frozen model, with scores equal to the bit, and what oracle.json says beside it.

    BadInputError: the folder holds no oracle, or a damaged one.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
        tensors = load_file(folder / WEIGHTS)
        text = tensors.pop("text", None)
        model = new_model(OracleConfig(**facts["config"]), facts["n_items"], text)
        model.load_state_dict({name.removeprefix("model."): tensors[name] for name in tensors})
        model.longest = facts.get("longest", model.longest)  # earlier versions read as many
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadInputError(f"{folder} holds no readable oracle: {error}") from error
    if text is not None:
        model.text = text.clone()  # as saved: standardising it once more would change its last bits
    return model.to(device).requires_grad_(False), facts
