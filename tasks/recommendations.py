"""Stage recommendations: one row of the comparison, judged on every next item of a phase."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recalign.artifacts.artifact import Artifact
from recalign.config import RecommendationsPhase, TitlePromptConfig
from recalign.evaluation.next_items.cases import Cases, cases_of
from recalign.evaluation.next_items.fixed_lists import DRAWN, fixed_lists, shown_order
from recalign.evaluation.per_user import means_over_users, per_user_table, user_means
from recalign.evaluation.recommended import spread
from recalign.metric_columns import CATALOGUE, Metric
from recalign.policy import Policy
from recalign.schemas import CANDIDATES, PER_USER, RECOMMENDATIONS
from recalign.splits.candidates import history_popularity
from recalign.splits.guard import check_window_prompts
from recalign.splits.phases import NEXT, phase_of
from recalign.stored import open_policy, title_prompt
from recalign.titles.names import distinct_titles, normalised
from recalign.titles.prompts import TitlePrompts
from tasks.encoding import item_vectors
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.tables import Tables, read_tables

if TYPE_CHECKING:
    from recalign.evaluation.next_items.outcomes import Outcomes, Response
    from recalign.titles.likelihood import TitleReading, TitleScorer


@stage(version=2)
def recommendations(
    job: Job,
    config: RecommendationsPhase,
    interactions: Artifact,
    splits: Artifact,
    policy: Artifact | None = None,
    oracle: Artifact | None = None,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """Rank, and let answer, the LLM (of sft or alignment), SASRec, or popularity."""
    import torch

    from recalign.evaluation.next_items.measures import (  # torch: seconds
        bias_measures,
        hallucination_measures,
        nearest_items,
        ranking_measures,
    )
    from recalign.evaluation.next_items.outcomes import by_item, by_states, cases_at_once, judge
    from recalign.oracle.inference import states_of
    from recalign.oracle.storage import load_oracle

    tables = read_tables(interactions, splits)
    phase = phase_of(tables.windows, config.phase)
    cases = cases_of(tables.sequences, phase.users, phase.starts, phase.ends, config.n_cases)
    drawn = CANDIDATES.read(splits)
    lists = {kind: fixed_lists(cases, drawn, kind, config.list_length) for kind in DRAWN}
    popularity = history_popularity(tables.sequences, tables.windows)
    llm, parts = None, None
    given: Callable[[np.ndarray], Response]
    if policy is not None:
        root = job.runtime.root
        settings = title_prompt(policy, root)
        shown = _shown(settings, cases, lists, splits.manifest.config["seed"])
        opened = open_policy(policy, root, job.device)
        llm = _llm(config, opened, settings, tables, cases, shown)
        given = partial(_ask, llm, config, cases, lists)
        longest = [max(asked, key=len) for asked in zip(*llm.prompts.values(), strict=True)]
        rows = min(job.runtime.generation_rows, cases_at_once(cases))
        parts = llm.scorer.batches(longest, rows)
    elif oracle is not None:
        model, _ = load_oracle(oracle.folder, job.device)
        states = states_of(model, tables.sequences, cases.users, cases.positions)
        given = by_states(states, model.item_matrix(), model.bias)
    else:
        given = by_item(torch.from_numpy(popularity).float())
    outcomes = judge(
        given, cases, lists, config.top, job.draft.work, parts=parts, progress=job.progress
    )
    vectors = item_vectors(job, config.encoder, tables.items)
    neighbours = nearest_items(vectors, cases.targets, config.neighbours)
    measures = ranking_measures(outcomes, config.list_length)
    measures |= bias_measures(outcomes, cases, popularity)
    measures |= hallucination_measures(outcomes, cases, neighbours, popularity)
    if llm:
        measures |= _answered(llm, outcomes, cases, lists)
    _write(job, cases, outcomes, measures)
    job.draft.count(len(cases))
    if llm:
        job.draft.tell({"prompts_proved": llm.proved})


def _write(
    job: Job, cases: Cases, outcomes: "Outcomes", measures: dict[Metric, np.ndarray]
) -> None:
    """The tables of the row, and what its figures say of it as a whole."""
    from recalign.evaluation.next_items.measures import AVERAGE_POPULARITY, LONG_TAIL_SHARE

    per_user = per_user_table(*user_means(cases.users, measures))
    PER_USER.write(per_user, job.draft)
    RECOMMENDATIONS.write(outcomes.table(cases), job.draft)
    means = means_over_users(per_user)
    users = per_user["user_index"].n_unique()
    told = {metric.label: mean for metric, mean in means.items()}
    job.draft.tell({"means": told, "users": users})
    if outcomes.recommended is not None:
        popular = {
            "average_popularity": means[AVERAGE_POPULARITY],
            "long_tail_share": means[LONG_TAIL_SHARE],
        }
        held = spread(outcomes.recommended, cases.sequences.n_items) | popular
        job.draft.tell({"recommended": held})


@dataclass(frozen=True)
class _Llm:
    """An LLM, what it is asked per case (list shown, or "catalogue" -> prompts), and its titles."""

    policy: Policy
    scorer: "TitleScorer"
    titles: list[str]
    begins: Callable[[str], bool]
    """Whether a text may yet become a title."""
    prompts: dict[str, list[list[int]]]
    proved: int


def _shown(
    settings: TitlePromptConfig, cases: Cases, lists: dict[str, np.ndarray], seed: int
) -> dict[str, list[list[int]]]:
    """The titles to pick from in each case's prompt, by the list shown; none where none is."""
    if settings.format == "candidates":
        return {kind: shown_order(cases, lists[kind], kind, seed) for kind in DRAWN}
    return {CATALOGUE: [[]] * len(cases)}


def _llm(
    config: RecommendationsPhase,
    policy: Policy,
    settings: TitlePromptConfig,
    tables: Tables,
    cases: Cases,
    shown: dict[str, list[list[int]]],
) -> _Llm:
    """The LLM with its prompts, each proved to end right before its target."""
    from recalign.titles.answers import beginnings  # torch, transformers: seconds
    from recalign.titles.likelihood import TitleScorer

    titles = distinct_titles(tables.items)
    title_ids = [[], *(policy.encode_completion(title) for title in titles[1:])]
    written = TitlePrompts(settings, titles)
    bounds = (f"{config.phase}_start", NEXT[config.phase])
    prompts: dict[str, list[list[int]]] = {}
    proved = 0
    for kind, candidates in shown.items():
        write = partial(_prompt, written, candidates)
        table = cases.prompts(settings.history_items, write)
        proved += check_window_prompts(
            table, tables.interactions, tables.windows, bounds, write, protocol=tables.protocol
        )
        prompts[kind] = [policy.encode_prompt(text) for text in table["prompt"]]
    scorer = TitleScorer(policy, title_ids, mean=config.likelihood == "mean")
    return _Llm(policy, scorer, titles, beginnings(titles, normalised), prompts, proved)


def _prompt(prompts: TitlePrompts, candidates: list[list[int]], case: int, items: list[int]) -> str:
    return prompts.text(items, candidates[case])


def _ask(
    llm: _Llm,
    config: RecommendationsPhase,
    cases: Cases,
    lists: dict[str, np.ndarray],
    where: np.ndarray,
) -> "Response":
    """Every question about some cases; each prompt is read once.

    A prompt that shows a list asks for a choice from it: with such prompts the catalogue is not
    ranked, which would only measure how well the LLM keeps to the list.
    """
    from recalign.evaluation.next_items.outcomes import Response

    asked = {kind: [ids[case] for case in where] for kind, ids in llm.prompts.items()}
    readings = {kind: llm.scorer.read(prompts) for kind, prompts in asked.items()}
    answers = {kind: _texts(llm, reading) for kind, reading in readings.items()}
    if CATALOGUE not in readings:
        scored = {kind: one.candidates(lists[kind][where]) for kind, one in readings.items()}
        return Response(lists=scored, answers=answers)
    reading = readings[CATALOGUE]
    if not config.beam:
        return Response(scores=reading.catalogue(), answers=answers)
    best, _ = reading.beam(config.beam, list(cases.seen(where)))
    scored = {kind: reading.candidates(lists[kind][where]) for kind in DRAWN}
    return Response(best=best, lists=scored, answers=answers)


def _texts(llm: _Llm, reading: "TitleReading") -> list[str]:
    answers = reading.answers(
        llm.scorer.n_answer_tokens, lambda ids: llm.begins(llm.policy.decode(ids))
    )
    return [llm.policy.decode(ids).strip() for ids in answers]


def _answered(
    llm: _Llm, outcomes: "Outcomes", cases: Cases, lists: dict[str, np.ndarray]
) -> dict[Metric, np.ndarray]:
    """Measures of the free answers, by exact normalised title."""
    from recalign.evaluation.next_items.measures import answer_measures
    from recalign.titles.answers import match_titles

    table: dict[Metric, np.ndarray] = {}
    for kind in llm.prompts:
        texts = [normalised(text) for text in outcomes.answers[kind]]
        items = match_titles(texts, llm.titles, normalised)
        table |= answer_measures(kind, items, texts, cases, lists.get(kind))
    return table
