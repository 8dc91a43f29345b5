"""Stage recommender: what reads reasonings, beside a frozen SASRec or over the lists it orders."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import local_files
from recalign.artifacts.manifest import Reference
from recalign.config import AnswersConfig, RecommenderConfig, SplitsConfig
from recalign.errors import UserError
from recalign.reasonings.prompts import template_file
from recalign.reasonings.texts import check_text
from recalign.recommender.required import described, require_signal
from recalign.recommender.sentences import ENCODER_WEIGHTS
from recalign.schemas import CURVE_FILE, ITEM_REASONINGS, REASONINGS
from recalign.splits.phases import Phase, phase_of
from recalign.templates import names_read
from tasks.encoding import item_vectors, open_encoder
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.kar_lists import ordered, read_lists
from tasks.rule_texts import rule_texts
from tasks.tables import Tables, read_tables

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from recalign.recommender.fit import FittedRecommender
    from tasks.engine.run import Run


def recommender_files(config: RecommenderConfig, splits: SplitsConfig) -> dict[str, list[Path]]:
    """What decides a recommender beside its config: a local encoder, the template of rules."""
    text = {"text": [_others_template(config.others_text)]} if splits.others_fit else {}
    return local_files("encoder", config.encoder) | text


def _others_template(name: str) -> Path:
    """The file of that template; UserError where it tells what a user took next."""
    path = template_file(name)
    if "next" in names_read(path):
        raise UserError(
            f"recommender.others_text: {name} uses `next`, the item that the recommender is to"
            " predict: take likes, or another template without `next`"
        )
    return path


@stage(version=1)
def recommender(
    job: Job,
    config: RecommenderConfig,
    interactions: Artifact,
    splits: Artifact,
    oracle: Artifact,
    reasonings: Artifact,
    item_reasonings: Artifact | None = None,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """Fit the recommender that reads texts; record whether real reasonings beat shuffled ones."""
    from recalign.recommender.storage import save_recommender  # torch: seconds

    about = None if item_reasonings is None else ITEM_REASONINGS.read(item_reasonings)
    tables, written = read_tables(interactions, splits), REASONINGS.read(reasonings)
    fit = _fit_on_lists if config.kind == "prm" else _fit_on_targets
    asked = reasonings.manifest.config
    shown, least = asked["history_items"], asked["min_words"]
    text = str((files or {}).get("text", [""])[0])
    given = FitInputs(splits, tables, oracle, written, about, shown, least, text)
    fitted, n_examples, left_out = fit(job, config, given)
    save_recommender(job.draft.folder, fitted.model, fitted.figures)
    fitted.curve.drop("seconds").write_parquet(job.draft.path(CURVE_FILE), compression="zstd")
    job.draft.count(n_examples, left_out)
    job.draft.tell(fitted.figures | {ENCODER_WEIGHTS: open_encoder(job, config.encoder).digest})
    log.info("%s", described(fitted.figures))


def check_signal(run: "Run", made: Reference) -> None:
    """NoSignalError unless this recommender tells users' own reasonings from those of others."""
    run.require(made, require_signal)


@dataclass(frozen=True)
class FitInputs:
    """What a recommender is fitted from."""

    splits: Artifact
    tables: Tables
    oracle: Artifact
    written: pl.DataFrame
    """REASONINGS of the fit window."""
    about: pl.DataFrame | None
    """ITEM_REASONINGS, if the LLM wrote about items."""
    history_items: int
    """Most items that a prompt showed."""
    min_words: int
    """Fewest words of a text that the LLM may have written, and so of one by rule."""
    others_text: str
    """The template of texts by rule."""


def _fit_on_targets(
    job: Job, config: RecommenderConfig, given: FitInputs
) -> "tuple[FittedRecommender, int, dict[str, int]]":
    """The adapter beside the frozen sequence model; how many examples, and users left out."""
    from recalign.oracle.inference import states_of
    from recalign.oracle.storage import load_oracle
    from recalign.recommender.examples import ItemVectors
    from recalign.recommender.fit import fit_recommender
    from recalign.recommender.window import fit_examples

    tables, written = given.tables, given.written
    seen = tables.before("recommender", tables.windows["reward_start"].to_numpy())
    phase = phase_of(tables.windows, "fit")
    asked = phase.users
    if tables.protocol == "kar":  # windows are long there: the first list's worth of targets
        phase = phase.first(given.splits.manifest.config["block"])
    if given.splits.manifest.config.get("others_fit"):
        others = phase_of(tables.windows, "fit", prompted=False)
        written = pl.concat([written, _by_rule(given, others)])
        phase = phase.beside(others)
    model, _ = load_oracle(given.oracle.folder, job.device)
    encoder = open_encoder(job, config.encoder)
    examples, n_without_text = fit_examples(
        written,
        phase.users,
        phase.starts,
        phase.targets(seen),
        lambda texts: encoder.encode_unique(texts, job.progress),
        partial(states_of, model, seen),
        seen,
    )
    item_text = item_vectors(job, config.encoder, tables.items, given.about)
    items = ItemVectors(model.item_matrix(), model.bias, item_text)
    fitted = fit_recommender(config, examples, items, job.progress, judged=asked)
    return fitted, len(examples.targets), {"user without a usable reasoning": n_without_text}


def _by_rule(given: FitInputs, others: Phase) -> pl.DataFrame:
    """REASONINGS of the users whom the LLM is not asked about, from as long a history."""
    first = others.starts - given.history_items
    histories = given.tables.sequences.slices(others.users, first, others.starts)
    texts = rule_texts(given.others_text, given.tables.items, histories)
    words = AnswersConfig(min_words=given.min_words)
    problems = [check_text(text, True, words) for text in texts]
    told = {"user_index": others.users, "sample": -1, "reasoning": texts, "malformed": problems}
    return pl.DataFrame(told | {"n_tokens": None}, schema=REASONINGS)


def _fit_on_lists(
    job: Job, config: RecommenderConfig, given: FitInputs
) -> "tuple[FittedRecommender, int, dict[str, int]]":
    """PRM on the lists of the users to fit on; how many lists, and what is left out."""
    from recalign.oracle.storage import load_oracle
    from recalign.recommender.rerank import attribute_numbers, fit_reranker
    from recalign.recommender.window import list_examples

    tables = given.tables
    phase = phase_of(tables.windows, "fit")
    lists = read_lists(given.splits, tables, phase)
    model, _ = load_oracle(given.oracle.folder, job.device)
    places = ordered(model, tables, phase, lists).places
    encoder = open_encoder(job, config.encoder)
    examples, left_out = list_examples(
        given.written,
        phase.users,
        lists,
        places.cpu().numpy(),
        lambda texts: encoder.encode_unique(texts, job.progress),
        places.device,
    )
    item_text = item_vectors(job, config.encoder, tables.items, given.about)
    numbers = attribute_numbers(tables.items)
    fitted = fit_reranker(config, examples, item_text, numbers, job.progress)
    return fitted, len(examples.items), left_out
