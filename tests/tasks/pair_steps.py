"""RosePO's stages up to smoothed pairs, on the world of the smallest run."""

from recalign.config import RejectionsConfig, SmoothingConfig, TitlePromptConfig
from recalign.schemas import COMPLETIONS, REJECTIONS
from tasks.fold_oracles import fold_oracles
from tasks.interactions import interactions
from tasks.oracle import oracle
from tasks.rejections import rejection_files, rejections
from tasks.smoothing import smoothing
from tasks.splits import splits
from tasks.tables import read_tables
from tests.tasks.tiny_run import CONFIG, direct

PLAIN = TitlePromptConfig()


def started(root):
    """A walk whose world and oracle are made."""
    walk = direct(root)
    data = walk(interactions, CONFIG.interactions)
    windows = walk(splits, CONFIG.splits, {"interactions": data})
    walk(oracle, CONFIG.oracle, {"interactions": data, "splits": windows})
    return walk


def world(walk):
    return {name: walk.done[name] for name in ("interactions", "splits")}


def tables(walk):
    return read_tables(*(walk.artifact(name) for name in ("interactions", "splits")))


def rejected(walk, prompt=PLAIN, sft=None, matched=None, **settings):
    """The artifact of 150 pairs, or of as many fresh ones as `matched`, and its table."""
    config = RejectionsConfig(**{"strategy": "random", "n_pairs": 150} | settings)
    stage = config.asked_as(prompt)
    inputs = world(walk) | ({"sft": sft} if sft else {})
    inputs |= {"matched": matched} if matched else {}
    made = walk(rejections, stage, inputs, files=rejection_files(stage))
    return made, REJECTIONS.read(walk.store.open(made))


def smoothed(walk, pairs, judge=None, **settings):
    """The opened artifact of the pairs' smoothing, and its table."""
    inputs = world(walk) | {"rejections": pairs} | ({"oracle": judge} if judge else {})
    opened = walk.store.open(walk(smoothing, SmoothingConfig(**settings), inputs))
    return opened, COMPLETIONS.read(opened)


def folded(walk):
    """The oracles of all folds."""
    inputs = world(walk) | {"oracle": walk.done["oracle"]}
    return walk(fold_oracles, SmoothingConfig().folding, inputs)
