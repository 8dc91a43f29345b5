"""A fitted recommender on disk: weights in safetensors, sizes and figures in JSON."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recalign.errors import BadInputError, UserError
from recalign.recommender.model import KnowledgeRecommender, Shape
from recalign.recommender.prm import PRMShape, Reranker
from recalign.recommender.signal import Figures

WEIGHTS = "recommender.safetensors"
SETTINGS = "recommender.json"


KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    "sasrec": (KnowledgeRecommender, Shape),
    "prm": (Reranker, PRMShape),
}


def save_recommender(
    folder: Path, model: KnowledgeRecommender | Reranker, figures: Figures
) -> None:
    """Write a model of KINDS and the guard's figures into `folder`, which exists."""
    weights = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS)
    settings: dict[str, Any] = {"shape": asdict(model.shape), "figures": figures}
    if isinstance(model, Reranker):
        settings["kind"] = "prm"
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def load_recommender(folder: Path, device: str = "cpu") -> tuple[KnowledgeRecommender, Figures]:
    """The model, ready to score, and the guard's figures; BadInputError when unreadable.

    UserError where it is a re-ranker, which cannot rank a catalogue.
    """
    model, figures = load_reader(folder, device)
    if not isinstance(model, KnowledgeRecommender):
        raise UserError(
            f"{folder}: the recommender is PRM, which re-ranks lists and cannot rank a whole "
            "catalogue; use a run with recommender.kind = sasrec"
        )
    return model, figures


def load_reader(
    folder: Path, device: str = "cpu"
) -> tuple[KnowledgeRecommender | Reranker, Figures]:
    """The model of either kind, ready to score, and the guard's figures; BadInputError as above."""
    try:
        settings = json.loads((folder / SETTINGS).read_text())
        kind, shape = KINDS[settings.get("kind", "sasrec")]
        model = kind(shape(**settings["shape"]), dropout=0.0)
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadInputError(f"{folder}: not a readable recommender ({error})") from error
    return model.to(device).eval(), settings["figures"]
