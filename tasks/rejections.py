"""Stage rejections: items taken, and the items rejected for them."""

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import local_files
from recalign.config import RejectionsStage
from recalign.policy import Policy
from recalign.rejections.collect import reject_in_shards
from recalign.rejections.describe import describe_rejections
from recalign.rejections.draft import ScoreTitles, Sources
from recalign.rejections.draws import unit_vectors
from recalign.rejections.positions import draw_positions, fresh_positions
from recalign.rejections.reject import reject
from recalign.schemas import REJECTIONS
from recalign.splits.candidates import history_popularity
from recalign.splits.guard import check_window_prompts
from recalign.splits.rejected import check_rejections
from recalign.stored import open_policy
from recalign.titles.names import distinct_titles
from recalign.titles.prompts import TitlePrompts, template_file
from tasks.encoding import item_vectors
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.tables import Tables, read_tables, true_smoothing


def rejection_files(config: RejectionsStage) -> dict[str, list[Path]]:
    """What decides the pairs beside the config: a local encoder, the question's template."""
    asks = config.prompt.format == "candidates"
    template = {"template": [template_file(config.prompt.template)]} if asks else {}
    return local_files("encoder", config.encoder) | template


@stage(version=3)
def rejections(
    job: Job,
    config: RejectionsStage,
    interactions: Artifact,
    splits: Artifact,
    sft: Artifact | None = None,
    matched: Artifact | None = None,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """K rejected for each item taken in the reward window.

    With `matched`, other rejections, for as many items as these hold, none of them drawn before.
    """
    tables = read_tables(interactions, splits)
    titles = distinct_titles(tables.items)
    prompts = TitlePrompts(config.prompt, titles)
    sources = Sources(
        tables.sequences,
        history_popularity(tables.sequences, tables.windows),
        unit_vectors(item_vectors(job, config.encoder, tables.items)),
        prompts.text,
        _sft_model(job, sft, titles) if sft else None,
    )
    drawing = tables.windows, config.n_pairs, config.seed
    if matched is None:
        users, positions = draw_positions(*drawing)
    else:
        users, positions = fresh_positions(
            *drawing, REJECTIONS.read(matched)["user_index"].to_numpy()
        )
    make, step = partial(reject, config, sources), job.runtime.shard_users
    table, left_out = reject_in_shards(make, users, positions, job.draft.work, step, job.progress)
    proved = _prove(table, tables, prompts)
    truth = true_smoothing(interactions, tables.items, table)
    described = describe_rejections(
        table, tables.sequences, sources.popularity, sources.vectors, truth
    )
    REJECTIONS.write(table, job.draft)
    described.write_parquet(job.draft.path("describe.parquet"), compression="zstd")
    job.draft.count(table.height, left_out)
    job.draft.tell({"pairs_proved": proved, "users": table["user_index"].n_unique()})
    job.draft.tell({"strategies": described.to_dicts()})


def _sft_model(job: Job, sft: Artifact, titles: list[str]) -> ScoreTitles:
    policy = open_policy(sft, job.runtime.root, job.device)
    return score_titles(policy, titles, job.runtime.generation_rows)


def score_titles(policy: Policy, titles: list[str], rows: int) -> ScoreTitles:
    """The SFT model as the callable that rejects: texts in, log-probabilities of titles out.

    At most `rows` prompts are read at once.
    """
    from recalign.titles.likelihood import ROWS, TitleScorer  # slow: not in a plan

    title_ids = [[], *(policy.encode_completion(title) for title in titles[1:])]
    scorer, rows = TitleScorer(policy, title_ids), min(rows, ROWS)

    def score(prompts: list[str], pools: np.ndarray | None) -> np.ndarray:
        encoded = [policy.encode_prompt(text) for text in prompts]
        if pools is None:
            return scorer.catalogue(encoded, rows=rows)
        return scorer.candidates(encoded, pools, rows=rows)

    return score


def _prove(table: pl.DataFrame, tables: Tables, prompts: TitlePrompts) -> int:
    """Prompts end before the chosen item; nothing rejected was taken by then."""
    candidates, bounds = table["candidates"].to_list(), ("fit_start", "valid_start")
    shown = table.select(
        "user_index", "first_position", "prompt", cutoff="position", items="history"
    )

    def write(row: int, items: list[int]) -> str:
        return prompts.text(items, candidates[row])

    check_window_prompts(
        shown, tables.interactions, tables.windows, bounds, write, protocol=tables.protocol
    )
    return check_rejections(table, tables.interactions)
