"""Stage policy: the LLM before alignment, trained from scratch or named."""

from pathlib import Path

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.config import PolicyConfig
from recalign.embedded.demonstrations import build_demonstrations, choose_histories
from recalign.llm.storage import MODEL, POLICY, POLICY_CURVE
from recalign.reasonings.prompts import Renderer, template_file
from recalign.report.plots import bootstrap_curve
from recalign.report.stage_page import picture
from recalign.training.run import TrainingRun
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.models import first_weights, model_files, resolved
from tasks.tables import read_tables

MIN_PREFIX = 3  # items a demonstration's history has at least


def policy_files(config: PolicyConfig) -> dict[str, list[Path]]:
    """What decides policy 0 beside its config: the demonstrations' template, or a local model."""
    if config.kind == "bootstrap":
        return {"template": [template_file(config.bootstrap.template)]}
    return model_files(config)


@stage(version=1)
def policy(
    job: Job,
    config: PolicyConfig,
    interactions: Artifact,
    splits: Artifact,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """Train the embedded LLM on demonstrations, or convert the named LLM and see it opens."""
    from recalign.llm.load import load_policy  # slow: not in a plan

    if config.kind == "bootstrap":
        _bootstrap(job, config, interactions, splits)
    else:
        config = resolved(config, job.device)
        weights = first_weights(job, config, job.draft.path(MODEL))
        load_policy(weights, config, None, job.device)
    job.draft.path(POLICY).write_text(config.model_dump_json(indent=1))


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


@policy.shows
def curve_shown(made: Artifact) -> list[str]:
    """Loss by step, of a policy that was trained here."""
    curve = made.path(POLICY_CURVE)
    return [picture(bootstrap_curve(pl.read_parquet(curve)))] if curve.exists() else []
