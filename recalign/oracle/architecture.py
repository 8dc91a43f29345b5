"""Which sequential recommender a configuration asks for."""

from torch import Tensor

from recalign.config.oracle import OracleConfig
from recalign.oracle.gru4rec import GRU4Rec
from recalign.oracle.sasrec import SASRec
from recalign.oracle.sequence_model import SequenceModel


def new_model(config: OracleConfig, n_items: int, item_text: Tensor | None) -> SequenceModel:
    """The model with its first random weights; item_text [n_items + 1, e], None: not used."""
    match config.architecture:
        case "sasrec":
            return SASRec(config, n_items, item_text)
        case "gru4rec":
            return GRU4Rec(config, n_items, item_text)
