"""Stage policy: the LLM before alignment, trained from scratch or named."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.config import PolicyConfig, WarmUpConfig
from recalign.embedded.demonstrations import (
    build_demonstrations,
    choose_histories,
    choose_prefixes,
)
from recalign.embedded.reasoners import facets_of, strongest_values
from recalign.llm.storage import ADAPTER, MODEL, POLICY, POLICY_CURVE
from recalign.reasonings.prompts import Renderer, template_file
from recalign.report.plots import bootstrap_curve
from recalign.report.stage_page import picture
from recalign.schemas import CURVE_FILE
from recalign.sft.examples import Examples
from recalign.training.run import TrainingRun
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.models import first_weights, model_files, resolved
from tasks.tables import Tables, read_tables

if TYPE_CHECKING:
    from recalign.policy import Policy

MIN_PREFIX = 3  # items a demonstration's history has at least


def policy_files(config: PolicyConfig) -> dict[str, list[Path]]:
    """What decides policy 0 beside its config: templates of what it is taught, a local model."""
    if config.kind == "bootstrap":
        return {"template": [template_file(config.bootstrap.template)]}
    warm_up, files = config.warm_up, model_files(config)
    if warm_up.n_prompts:
        files["template"] = [template_file(name) for name in (warm_up.template, warm_up.text)]
    return files


@stage(version=1)
def policy(
    job: Job,
    config: PolicyConfig,
    interactions: Artifact,
    splits: Artifact,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """Train the embedded LLM on demonstrations, or convert the named LLM and warm it up."""
    from recalign.llm.load import load_policy  # slow: not in a plan

    if config.kind == "bootstrap":
        _bootstrap(job, config, interactions, splits)
    else:
        config = resolved(config, job.device)
        warm_up = config.warm_up.n_prompts > 0
        folder = job.draft.work / "first" if warm_up else job.draft.path(MODEL)
        opened = load_policy(first_weights(job, config, folder), config, None, job.device)
        if warm_up:
            _warm_up(job, config.warm_up, opened, read_tables(interactions, splits))
    loaded_with = config.model_dump_json(indent=1, exclude={"warm_up"})  # which is in the weights
    job.draft.path(POLICY).write_text(loaded_with)


def _bootstrap(job: Job, config: PolicyConfig, interactions: Artifact, splits: Artifact) -> None:
    from recalign.embedded.bootstrap import train_bootstrap

    settings = config.bootstrap
    tables = read_tables(interactions, splits)
    seen = tables.before("policy", tables.windows["fit_start"].to_numpy())
    histories = choose_histories(seen, settings, MIN_PREFIX)
    render = Renderer(settings.template, tables.items)
    demonstrations = build_demonstrations(tables.items, histories, render, settings.seed)
    run = TrainingRun("policy", job.draft.work, job.draft.path(MODEL), job.progress, job.device)
    figures = train_bootstrap(settings, demonstrations, run)
    n_left_out = settings.n_prompts - len(set(demonstrations.prompts))
    job.draft.count(len(demonstrations.prompts), {"history without attributes": n_left_out})
    job.draft.tell(figures)


def _warm_up(job: Job, config: WarmUpConfig, first: "Policy", tables: Tables) -> None:
    """Train `first` on texts by rule about the history windows; keep all its weights."""
    from recalign.sft.train import train_sft
    from recalign.training.adapters import save_policy

    fitted, kept_aside = _demonstrated(config, first, tables)
    work, folder = job.draft.work / "training", job.draft.path(MODEL)
    kept = folder if config.method == "full" else job.draft.work / ADAPTER
    run = TrainingRun("policy.warm_up", work, kept, job.progress, job.device)
    tuned = train_sft(first, fitted, kept_aside, config, run)
    if config.method == "lora":
        merged = tuned.model.merge_and_unload()  # type: ignore[operator]
        save_policy(merged, first.tokenizer, folder)
    log = tuned.log.rename({"valid_loss": "held_out_loss"})
    log.write_parquet(job.draft.path(f"{MODEL}/{CURVE_FILE}"), compression="zstd")
    job.draft.count(len(fitted), {"too long": fitted.left_out + kept_aside.left_out})
    job.draft.tell(tuned.figures)


def _demonstrated(config: WarmUpConfig, llm: "Policy", tables: Tables) -> tuple[Examples, Examples]:
    """Prompts with the texts that the template writes: to train on, and of held-out users."""
    from recalign.alignment.rows import held_out  # torch: seconds

    seen = tables.before("policy", tables.windows["fit_start"].to_numpy())
    users, cutoffs = choose_prefixes(seen.lengths - 1, config.n_prompts, MIN_PREFIX, config.seed)
    firsts = np.maximum(cutoffs - config.history_items, 0)
    histories = seen.slices(users, firsts, cutoffs)
    following = seen.slices(users, cutoffs, cutoffs + 1)
    liked: list[dict[str, list[str]]] = [{} for _ in histories]
    if tables.items["attributes"].list.len().sum():
        liked = strongest_values(facets_of(tables.items), histories, config.n_liked)
    ask, tell = (Renderer(name, tables.items) for name in (config.template, config.text))
    held = held_out(users, config.held_out, config.seed)
    made: dict[bool, tuple[list[list[int]], list[int]]] = {False: ([], []), True: ([], [])}
    for row, history in enumerate(histories):
        taken = tell.items[int(following[row][0])]
        text = tell(history.tolist(), liked=liked[row], next=taken)
        prompt = llm.encode_prompt(ask(history.tolist()))
        ids, first = made[bool(held[row])]
        ids.append(prompt + llm.encode_completion(text))
        first.append(len(prompt))
    fitted, kept_aside = (
        Examples(*pair).no_longer_than(config.max_length) for pair in made.values()
    )
    return fitted, kept_aside


@policy.shows
def curve_shown(made: Artifact) -> list[str]:
    """Loss by step, of a policy that was trained here."""
    curve = made.path(POLICY_CURVE)
    return [picture(bootstrap_curve(pl.read_parquet(curve)))] if curve.exists() else []
