"""A fitted recommender on disk: weights in safetensors, sizes and figures in JSON."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recalign.errors import BadInputError
from recalign.recommender.model import KnowledgeRecommender, Shape

WEIGHTS = "recommender.safetensors"
SETTINGS = "recommender.json"


def save_recommender(
    folder: Path, model: KnowledgeRecommender, figures: dict[str, float | int | bool]
) -> None:
    """Write the model and the guard's figures into `folder`, which exists."""
    weights = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS)
    settings = {"shape": asdict(model.shape), "figures": figures}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def load_recommender(
    folder: Path, device: str = "cpu"
) -> tuple[KnowledgeRecommender, dict[str, float | int | bool]]:
    """The model, ready to score, and the guard's figures; BadInputError when unreadable."""
    try:
        settings = json.loads((folder / SETTINGS).read_text())
        model = KnowledgeRecommender(Shape(**settings["shape"]), dropout=0.0)
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadInputError(f"{folder}: not a readable recommender ({error})") from error
    return model.to(device).eval(), settings["figures"]
