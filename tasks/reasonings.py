"""Stage reasonings: what the policy writes about each user, for one phase."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.manifest import Reference
from recalign.artifacts.roots import open_root
from recalign.config import PhaseConfig, Runtime, SamplingConfig
from recalign.embedded.grammar import parse_reasoning
from recalign.reasonings.prompts import load_template, render_prompts, template_file
from recalign.reasonings.texts import text_report
from recalign.report.stage_page import table_section
from recalign.schemas import PROMPTS, REASONINGS, read_table, write_table
from recalign.splits.guard import check_prompts
from recalign.splits.phases import phase_of
from tasks.engine.job import Job
from tasks.engine.shards import is_mapped, map_shards, opened_last, worker_device, worker_runtime
from tasks.engine.stage import stage
from tasks.policy import open_policy
from tasks.tables import read_tables

N_SHOWN = 12  # texts on the run page


def prompt_files(config: SamplingConfig) -> dict[str, list[Path]]:
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
    alignment: Artifact | None = None,
) -> None:
    """N samples and a greedy text per user, from prompts proved to end before their targets."""
    tables = read_tables(interactions, splits)
    phase = phase_of(tables.windows, config.phase)
    template = load_template(str(files["template"][0]))
    prompts = render_prompts(
        template, tables.items, tables.sequences, phase.users, phase.starts, config.history_items
    )
    proved = check_prompts(
        prompts, tables.interactions, tables.windows, config.phase, template.bind(tables.items),
        protocol=tables.protocol,
    )  # fmt: skip
    table = _written(job, config, prompts, policy, alignment)
    write_table(prompts, job.draft.path("prompts.parquet"), PROMPTS)
    write_table(table, job.draft.path("reasonings.parquet"), REASONINGS)
    report = text_report(table)
    job.draft.count(table.height, {f"malformed: {k}": n for k, n in report["malformed"].items()})
    job.draft.tell(report | {"prompts_proved": proved})


def _written(
    job: Job,
    config: PhaseConfig,
    prompts: pl.DataFrame,
    policy: Artifact,
    alignment: Artifact | None,
) -> pl.DataFrame:
    """The reasonings of all prompts, written here or, in shards, by workers."""
    from recalign.reasonings.shards import collect_shards, generate_in_shards  # seconds to import

    work, shard_users, stream = job.draft.work, job.runtime.shard_users, _stream(config)
    if is_mapped(job.runtime):
        runtime = worker_runtime(job.runtime)
        aligned = alignment.reference if alignment else None

        def spread(missing: list[pl.DataFrame]) -> Iterator[tuple[int, pl.DataFrame]]:
            shards = [PromptShard(runtime, config, policy.reference, aligned, p) for p in missing]
            return map_shards(job, write_reasonings, shards)

        return collect_shards(
            spread, prompts, config, config.n_samples, True, work, shard_users, stream
        )
    writer = open_policy(policy, alignment, job.device)
    return generate_in_shards(
        writer.model, writer.tokenizer, writer.encode_prompt, prompts, config,
        n_samples=config.n_samples, greedy=True, work=work,
        shard_users=shard_users, rows=job.runtime.generation_rows,
        device=job.device, progress=job.progress, parse=_grammar_of(policy), stream=stream,
    )  # fmt: skip


@dataclass(frozen=True)
class PromptShard:
    """Prompts, and which policy is to answer them."""

    runtime: Runtime
    config: PhaseConfig
    policy: Reference
    alignment: Reference | None
    prompts: pl.DataFrame


def write_reasonings(shard: PromptShard) -> pl.DataFrame:
    """The reasonings of a shard's prompts."""
    from recalign.reasonings.shards import write_shard

    store, config = open_root(shard.runtime.root), shard.config
    device = worker_device(shard.runtime)
    policy = store.open(shard.policy)
    aligned = store.open(shard.alignment) if shard.alignment else None
    opened = (shard.policy, shard.alignment, device)
    writer = opened_last(opened, lambda: open_policy(policy, aligned, device))
    return write_shard(
        writer.model, writer.tokenizer, writer.encode_prompt, shard.prompts, config,
        config.n_samples, True, shard.runtime.generation_rows, device,
        parse=_grammar_of(policy), stream=_stream(config),
    )  # fmt: skip


def _stream(config: PhaseConfig) -> str:
    """The name of the phase's random streams."""
    return f"reasonings {config.phase}"


def _grammar_of(policy: Artifact) -> Callable[[str], bool] | None:
    """What tells a good text from a bad one, for the embedded policy; no other has a grammar."""
    return is_grammatical if policy.manifest.config["kind"] == "bootstrap" else None


def is_grammatical(text: str) -> bool:
    """Whether a text of the embedded policy follows the grammar of its demonstrations."""
    return parse_reasoning(text) is not None


@reasonings.shows
def texts_shown(made: Artifact) -> list[str]:
    """The first users' texts."""
    table = read_table(made.path("reasonings.parquet"), REASONINGS)
    return [table_section("Some texts", table.head(N_SHOWN))]
