"""The lists of KAR's protocol as stages open them: proved, and in a sequence model's order."""

from typing import TYPE_CHECKING

from recalign.artifacts.artifact import Artifact
from recalign.config import SplitsConfig
from recalign.lists import Lists
from recalign.schemas import LISTS
from recalign.splits.kar_lists import check_lists
from recalign.splits.phases import Phase
from tasks.tables import Tables

if TYPE_CHECKING:
    from recalign.oracle.sequence_model import SequenceModel
    from recalign.recommender.list_reader import OrderedLists


def read_lists(splits: Artifact, tables: Tables, phase: Phase) -> Lists:
    """The lists of the phase's users, each proved to lie in its user's window."""
    drawn = LISTS.read(splits)
    config = SplitsConfig(**splits.manifest.config)
    check_lists(drawn, tables.interactions, tables.windows, config)
    return Lists.of(drawn, phase.users)


def ordered(model: "SequenceModel", tables: Tables, phase: Phase, lists: Lists) -> "OrderedLists":
    """The lists in the model's order, by what each user took before the window."""
    from recalign.oracle.inference import states_of  # torch: seconds
    from recalign.recommender.list_reader import OrderedLists

    states = states_of(model, tables.sequences, phase.users, phase.starts)
    return OrderedLists.by(lists, states, model.item_matrix(), model.bias)
