"""Stage reasonings: what the policy writes about each user, for one phase."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.manifest import Reference
from recalign.artifacts.roots import open_root
from recalign.chat_server.server_writer import ServerWriter
from recalign.chat_server.usage import server_used
from recalign.config import AnswersConfig, PhaseConfig, Runtime
from recalign.reasonings.generation import (
    WriteShards,
    generate_reasonings,
    shard_size,
    write_shard,
    write_shards,
)
from recalign.reasonings.prompts import Renderer, render_prompts, template_file
from recalign.reasonings.texts import text_report
from recalign.report.stage_page import table_section
from recalign.schemas import PROMPTS, REASONINGS
from recalign.splits.guard import check_prompts
from recalign.splits.phases import phase_of
from recalign.stored import grammar_of, stored
from recalign.writer import Asked
from tasks.engine.device import wanted_device
from tasks.engine.job import Job
from tasks.engine.spread import is_mapped, map_shards, opened_last, worker_device, worker_runtime
from tasks.engine.stage import stage
from tasks.tables import read_tables
from tasks.writers import open_writer

N_SHOWN = 12  # texts on the run page
USUAL_WEIGHTS = 135_000_000  # of the LLM whose speed runtime.shard_tokens is set for


def prompt_files(config: AnswersConfig) -> dict[str, list[Path]]:
    """The prompt template: its text and file name decide what is computed, its folder does not."""
    return {"template": [template_file(config.template)]}


@stage(version=1)
def reasonings(
    job: Job,
    config: PhaseConfig,
    interactions: Artifact,
    splits: Artifact,
    policy: Artifact,
    files: dict[str, list[Path]],
) -> None:
    """N samples and a greedy text per user, from prompts proved to end before their targets."""
    tables = read_tables(interactions, splits)
    phase = phase_of(tables.windows, config.phase).part(config.part, config.parts)
    render = Renderer(str(files["template"][0]), tables.items)
    prompts = render_prompts(
        render, tables.sequences, phase.users, phase.starts, config.history_items
    )
    proved = check_prompts(
        prompts,
        tables.interactions,
        tables.windows,
        config.phase,
        render,
        protocol=tables.protocol,
    )
    stream = f"reasonings {config.phase}"
    asked = Asked(config, config.n_samples, greedy=True, stream=stream)
    table = written(job, asked, prompts, policy)
    PROMPTS.write(prompts, job.draft)
    REASONINGS.write(table, job.draft)
    report = text_report(table)
    job.draft.count(table.height, {f"malformed: {k}": n for k, n in report["malformed"].items()})
    job.draft.tell(report | {"prompts_proved": proved} | server_used(job.draft.work))


def written(job: Job, asked: Asked, prompts: pl.DataFrame, policy: Artifact) -> pl.DataFrame:
    """What a policy answers to all prompts, in shards of which a killed run keeps those it has."""
    write = shards_by(job, policy, asked, prompts.height)
    size = users_per_shard(job, policy, asked, prompts)
    return generate_reasonings(write, prompts, asked, job.draft.work, size)


def users_per_shard(job: Job, policy: Artifact, asked: Asked, prompts: pl.DataFrame) -> int:
    """`runtime.shard_users`; fewer where the LLM takes long: a killed run loses a shard's texts."""
    size, slow = job.runtime.shard_users, grammar_of(policy, job.runtime.root) is None
    if slow and asked.sampling.writer == "local" and wanted_device(job.runtime) == "cpu":
        n_weights = stored(policy, job.runtime.root).unweighted().model.num_parameters()
        share = min(1.0, USUAL_WEIGHTS / n_weights)
        return shard_size(prompts, asked, size, int(job.runtime.shard_tokens * share))
    return size


def shards_by(job: Job, policy: Artifact, asked: Asked, n_users: int) -> WriteShards:
    """How a policy answers shards of prompts, `n_users` in all: here or, each by a worker."""
    parse = grammar_of(policy, job.runtime.root)

    def here(shards: list[pl.DataFrame]) -> Iterator[tuple[int, pl.DataFrame]]:
        writer = open_writer(
            asked.sampling, policy, job.runtime, lambda: job.device, job.draft.work
        )
        for made in write_shards(writer, shards, asked, parse, n_users, job.progress):
            yield made
            if isinstance(writer, ServerWriter):  # the shard is in its file by now
                writer.keep_usage()

    def by_workers(shards: list[pl.DataFrame]) -> Iterator[tuple[int, pl.DataFrame]]:
        runtime = worker_runtime(job.runtime)
        given = [PromptShard(runtime, asked, policy.reference, one) for one in shards]
        return map_shards(job, write_reasonings, given)

    return by_workers if is_spread(job.runtime, asked.sampling.writer) else here


def is_spread(runtime: Runtime, writer: str) -> bool:
    """Whether workers write: not where a server does, with many requests at once, or vLLM.

    vLLM spreads its own work over GPUs; an engine of each worker would take the first GPU.
    """
    return writer == "local" and is_mapped(runtime)


@dataclass(frozen=True)
class PromptShard:
    """Prompts, and the policy that answers them."""

    runtime: Runtime
    asked: Asked
    policy: Reference
    prompts: pl.DataFrame


def write_reasonings(shard: PromptShard) -> pl.DataFrame:
    """The reasonings of a shard's prompts, written by a worker."""
    store, device = open_root(shard.runtime.root), worker_device(shard.runtime)
    policy, sampling = store.open(shard.policy), shard.asked.sampling
    writer = opened_last(
        (shard.policy, sampling.writer, device),
        lambda: open_writer(sampling, policy, shard.runtime, lambda: device, Path()),
    )
    parse = grammar_of(policy, shard.runtime.root)
    return write_shard(writer, shard.prompts, shard.asked, parse)


@reasonings.shows
def texts_shown(made: Artifact) -> list[str]:
    """The first users' texts."""
    table = REASONINGS.read(made)
    return [table_section("Some texts", table.head(N_SHOWN))]
