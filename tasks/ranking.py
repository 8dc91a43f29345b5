"""What an evaluation ranks, the whole catalogue or lists, and all that ranks it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.config import EvaluationPhase
from recalign.schemas import CANDIDATES
from recalign.sequences import Before, padded_items
from recalign.splits.phases import phase_of
from tasks.engine.job import Job
from tasks.kar_lists import ordered, read_lists
from tasks.tables import Tables

if TYPE_CHECKING:
    import torch

    from recalign.evaluation.texts.evaluate import Evaluated, UserTargets
    from recalign.evaluation.texts.scores import ScoreCases, TextRecommender
    from recalign.oracle.sequence_model import SequenceModel
    from recalign.recommender.model import KnowledgeRecommender
    from recalign.recommender.prm import Reranker

Recommenders = Mapping[str, tuple[Artifact | None, Artifact | None]]
"""By name: an oracle, and the recommender that reads texts on it; None where there is none."""


@dataclass(frozen=True)
class Ranking:
    """What ranks the cases of a phase, and how a ranking becomes values per user."""

    plain: "dict[str, ScoreCases]"
    """What reads no text, by `ResultRow.recommender`."""
    recommenders: "dict[str, TextRecommender]"
    evaluate: "Callable[[ScoreCases], Evaluated]"


@dataclass(frozen=True)
class Ranked:
    """What is to be ranked, and by whom."""

    job: Job
    config: EvaluationPhase
    splits: Artifact
    tables: Tables
    popularity: "torch.Tensor"
    """[I+1]."""
    given: Recommenders


def open_ranking(asked: Ranked) -> Ranking:
    """The catalogue for every user of the phase, or, in KAR's protocol, the users' lists."""
    return _lists(asked) if asked.tables.protocol == "kar" else _catalogue(asked)


def _catalogue(asked: Ranked) -> Ranking:
    from recalign.evaluation.texts.evaluate import evaluate_row
    from recalign.evaluation.texts.scores import (
        Backbone,
        TextRecommender,
        same_for_all,
        without_reasoning,
    )
    from recalign.oracle.inference import states_of

    tables, config = asked.tables, asked.config
    phase = phase_of(tables.windows, config.phase)
    found, backbones = {}, dict[str, Backbone]()
    for name, key, model, reader in _opened(asked.given, asked.job.device):
        if key not in backbones:
            states = states_of(model, tables.sequences, phase.users, phase.starts)
            backbones[key] = Backbone(states, model.item_matrix(), model.bias)
        own = backbones[key]
        found[name] = TextRecommender(own.states, reader.scores, without_reasoning(own))  # type: ignore[arg-type]
    plain = {"popularity": same_for_all(asked.popularity), "sasrec": found["frozen"].alone}
    targets = _targets(asked.splits, tables, config)
    return Ranking(plain, found, lambda scores: evaluate_row(scores, targets, config.cutoffs))


def _lists(asked: Ranked) -> Ranking:
    import torch

    from recalign.evaluation.texts.reranked import RerankedLists, padded, read_padded
    from recalign.evaluation.texts.scores import TextRecommender
    from recalign.recommender.list_reader import ListReader, OrderedLists

    tables, config = asked.tables, asked.config
    phase = phase_of(tables.windows, config.phase)
    ranked = RerankedLists.of(phase.users, read_lists(asked.splits, tables, phase))
    numbers, owners = torch.arange(len(ranked.lists)), torch.from_numpy(ranked.lists.owners)
    found, orders = {}, dict[str, OrderedLists]()
    for name, key, model, reader in _opened(asked.given, asked.job.device):
        if key not in orders:
            orders[key] = ordered(model, tables, phase, ranked.lists)
        own = ListReader(reader, orders[key])
        read, alone = read_padded(own.read), padded(own.alone)
        found[name] = TextRecommender(numbers, read, alone, owners)
    first = orders[_key(asked.given["frozen"][0])].scores
    plain = {
        "popularity": ranked.plain(asked.popularity),
        "prm": found["frozen"].alone,
        "sasrec": padded(lambda where: first[where][:, None]),
    }
    return Ranking(plain, found, lambda scores: ranked.evaluate(scores, config.cutoffs))


def _opened(
    given: Recommenders, device: str
) -> "Iterator[tuple[str, str, SequenceModel, KnowledgeRecommender | Reranker]]":
    """Those given whole: name, fingerprint of the oracle, the oracle, and what reads texts."""
    from recalign.oracle.storage import load_oracle
    from recalign.recommender.storage import load_reader

    for name, (oracle, reader) in given.items():
        if oracle is not None and reader is not None:
            model, _ = load_oracle(oracle.folder, device)
            yield name, _key(oracle), model, load_reader(reader.folder, device)[0]


def _key(oracle: Artifact | None) -> str:
    return oracle.manifest.fingerprint if oracle else ""


def _targets(splits: Artifact, tables: Tables, config: EvaluationPhase) -> "UserTargets":
    """Users, targets, what they had seen, and their fixed candidate lists."""
    import torch

    from recalign.evaluation.candidate_lists import candidate_lists
    from recalign.evaluation.texts.evaluate import UserTargets

    phase = phase_of(tables.windows, config.phase)
    drawn = CANDIDATES.read(splits)
    drawn = drawn.filter(kind=config.lists).filter(pl.col("user_index").is_in(phase.users.tolist()))
    negatives = padded_items([n.to_numpy() for n in drawn.sort("user_index")["negatives"]])
    targets = torch.from_numpy(phase.targets(tables.sequences))
    seen = Before(tables.sequences, phase.users, phase.starts)
    lists = candidate_lists(
        targets, torch.from_numpy(negatives), config.list_targets, config.list_length
    )
    return UserTargets(phase.users, targets, seen, lists, config.lists)
