"""Stage evaluation: every row of the result table, on validation or test targets."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.manifest import Reference
from recalign.config import EvaluationPhase, OracleConfig
from recalign.embedded.grammar import parse_reasoning
from recalign.embedded.reasoners import REASONERS, Reasoner, facets_of, reasonings_by_rule
from recalign.evaluation.per_user import per_user_table, rows_per_user
from recalign.evaluation.recommended import described, recommended_table
from recalign.evaluation.result_table import ResultRow, resample
from recalign.evaluation.texts.mixed import mixed_across_users
from recalign.evaluation.texts.quality import (
    DECODINGS,
    facet_quality,
    liked_values,
    text_quality,
    text_sets,
)
from recalign.evaluation.texts.rows import dpo4rec_rows, mixed_policy
from recalign.metric_columns import SCORE, Metric, primary_of, told_intervals
from recalign.recommender.sentences import split_sentences
from recalign.report.forest import forest
from recalign.report.result_lines import headline_metrics
from recalign.report.stage_page import picture, result_table
from recalign.report.wording import TOO_FEW, interval, signed
from recalign.schemas import (
    FACETS,
    REASONINGS,
    RECOMMENDED,
    RESULTS,
    ROWS_PER_USER,
    TEXTS,
    TRUTH,
    read_table,
)
from recalign.splits.candidates import history_popularity
from recalign.splits.phases import phase_of
from tasks.encoding import open_fitted_encoder
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.ranking import Ranked, open_ranking
from tasks.tables import Tables, read_tables

if TYPE_CHECKING:
    from recalign.evaluation.texts.encoded import EncodedTexts
    from recalign.evaluation.texts.evaluate import Evaluated
    from recalign.recommender.encoder import SentenceEncoder
    from tasks.engine.run import Run


def validation_score(run: "Run", validation: Reference) -> float | None:
    """What rounds are compared by: the aligned policy's mean full-depth NDCG on validation.

    Sampled reasonings, frozen recommender: what alignment optimises, read by one fixed yardstick.
    """
    made = run.told(validation)
    return made.figures[SCORE] if made else None


def unconfirmed(run: "Run", validation: Reference) -> str:
    """Why rewards may be noise after all, in a sentence; empty where validation says otherwise.

    The guard of the recommender looks at held-out users of the fit; here the base policy's sampled
    texts about validation users have to rank better than texts about other users.
    """
    if run.plan_only:
        return ""
    results = told_intervals(RESULTS.read(run.store.open(validation)))
    lines = headline_metrics(results, primary_of(results), primary_of(results).lists)[0]
    line = lines.lines(results).row(by_predicate=pl.col("policy") == "shuffled", named=True)
    low, high = line["difference_low"], line["difference_high"]
    bounds = TOO_FEW if low is None else interval(-high, -low, with_sign=True)
    if high is not None and high < 0:
        return ""
    return (
        "validation does not confirm that the texts help: users' own texts change "
        f"{lines.name} by {signed(-line['difference'])} {bounds} against texts about other users "
        f"({line['n_users']} users)"
    )


@stage(version=2)
def evaluation(
    job: Job,
    config: EvaluationPhase,
    interactions: Artifact,
    splits: Artifact,
    oracle: Artifact,
    recommender: Artifact,
    base: Artifact,
    aligned: Artifact,
    refitted: Artifact | None = None,
    independent_oracle: Artifact | None = None,
    independent: Artifact | None = None,
) -> None:
    """Rank the phase's targets with every row's reasonings; keep per-user values and intervals."""
    import torch

    from recalign.evaluation.texts.encoded import encoded_texts  # torch: seconds
    from recalign.evaluation.texts.kept import evaluated_once
    from recalign.evaluation.texts.scores import scores_of

    tables = read_tables(interactions, splits)
    phase = phase_of(tables.windows, config.phase)
    written = {"base": REASONINGS.read(base), "aligned": REASONINGS.read(aligned)}
    encoder = open_fitted_encoder(job, recommender)
    texts = {
        (name, decoding): encoded_texts(table, phase.users, greedy, encoder.encode_unique)
        for name, table in written.items()
        for decoding, greedy in DECODINGS.items()
    }
    described_items = tables.items["attributes"].list.len().sum()
    reasoners: list[Reasoner] = []
    if config.phase == "test" and described_items:
        reasoners += REASONERS
    texts |= _reasoner_texts(reasoners, tables, config, base, encoder)
    for share in config.mixed:
        worse = mixed_across_users(written["base"], share, split_sentences, config.seed)
        read = encoded_texts(worse, phase.users, False, encoder.encode_unique)
        texts[mixed_policy(share), "sampled"] = read
    popularity = torch.from_numpy(history_popularity(tables.sequences, tables.windows)).float()
    given = {
        "frozen": (oracle, recommender),
        "refitted": (oracle, refitted),
        "independent": (independent_oracle, independent),
    }
    ranking = open_ranking(Ranked(job, config, splits, tables, popularity, given))
    named = OracleConfig(**oracle.manifest.config).name
    kind = recommender.manifest.config.get("kind", "sasrec")
    rows = dpo4rec_rows(list(reasoners), ranking.recommenders, named, config.mixed, kind)
    scores = scores_of(rows, ranking.plain, texts, ranking.recommenders, config.seed)
    evaluated = {
        name: evaluated_once(job.draft.work / f"row-{n}.npz", partial(ranking.evaluate, one))
        for n, (name, one) in enumerate(scores.items())
    }
    results = _write(job, config, rows, phase.users, evaluated)
    held = {n: described(one.recommended, popularity.numpy()) for n, one in evaluated.items()}
    RECOMMENDED.write(recommended_table(held), job.draft)
    _write_text_quality(job, interactions, tables, config, written)
    aligned_ndcg = Metric(primary_of(results).lists, "NDCG").lines(results).filter(policy="aligned")
    score = aligned_ndcg.filter(decoding="sampled", recommender="frozen")
    job.draft.count(len(rows) * len(phase.users))
    job.draft.tell({SCORE: score["mean"].item(), "users": len(phase.users)})


def _write(
    job: Job,
    config: EvaluationPhase,
    rows: list[ResultRow],
    users: np.ndarray,
    evaluated: "dict[str, Evaluated]",
) -> pl.DataFrame:
    """Keep every user's values; RESULTS of the rows, kept as well."""
    per_user = rows_per_user(
        {label: per_user_table(users, one.values) for label, one in evaluated.items()}
    )
    results = resample(per_user, config.n_resamples, config.seed).results(rows)
    ROWS_PER_USER.write(per_user, job.draft)
    RESULTS.write(results, job.draft)
    return results


def _reasoner_texts(
    names: list[Reasoner],
    tables: Tables,
    config: EvaluationPhase,
    base: Artifact,
    encoder: "SentenceEncoder",
) -> "dict[tuple[str, str], EncodedTexts]":
    """What the reasoners write about the very history the policy was shown."""
    if not names:
        return {}
    from recalign.evaluation.texts.encoded import encoded_lines

    phase = phase_of(tables.windows, config.phase)
    first = phase.starts - base.manifest.config["history_items"]
    histories = tables.sequences.slices(phase.users, first, phase.starts)
    facets = facets_of(tables.items)
    written = {name: reasonings_by_rule(name, facets, histories, config.seed) for name in names}
    return {(n, "none"): encoded_lines(t, encoder.encode_unique) for n, t in written.items()}


def _write_text_quality(
    job: Job,
    interactions: Artifact,
    tables: Tables,
    config: EvaluationPhase,
    written: dict[str, pl.DataFrame],
) -> None:
    """Form of the texts, and, where the truth is known, what they get right."""
    sets = text_sets(written)
    quality = pl.concat([text_quality(label, table) for label, table in sets.items()])
    TEXTS.write(quality, job.draft)
    truth = interactions.path(TRUTH.file)
    if truth.exists():
        cutoffs = tables.windows.select("user_index", cutoff=f"{config.phase}_start")
        liked = liked_values(read_table(truth, TRUTH), cutoffs)
        facets = [facet_quality(n, t, liked, parse_reasoning) for n, t in sets.items()]
        FACETS.write(pl.concat(facets), job.draft)


@evaluation.shows
def results_shown(made: Artifact) -> list[str]:
    """The differences as a forest plot, and the result table."""
    results = RESULTS.read(made)
    primary = primary_of(results)
    name = headline_metrics(results, primary, primary.lists)[0]
    plot = forest(told_intervals(results), name)
    return [*([picture(plot)] if plot else []), result_table(results, [name])]
