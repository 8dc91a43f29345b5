"""Stage reasonings: what the policy writes about each user, for one phase."""

from pathlib import Path

from recalign.artifacts.store import Artifact
from recalign.config import PhaseConfig, SamplingConfig
from recalign.policy.grammar import parse_reasoning
from recalign.reasonings.prompts import load_template, render_prompts, template_file
from recalign.reasonings.texts import text_report
from recalign.report.stage_page import table_section
from recalign.schemas import PROMPTS, REASONINGS, read_table, write_table
from recalign.splits.guard import check_prompts
from recalign.splits.phases import phase_of
from tasks.policy import open_policy
from tasks.stage import Job, stage
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
    from recalign.reasonings.shards import generate_in_shards  # seconds: a plan needs it not

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
    writer = open_policy(policy, alignment, job.device)
    embedded = policy.manifest.config["kind"] == "bootstrap"
    table = generate_in_shards(
        writer.model, writer.tokenizer, writer.encode_prompt, prompts, config,
        n_samples=config.n_samples, greedy=True, work=job.draft.work,
        shard_users=job.runtime.shard_users, rows=job.runtime.generation_rows,
        device=job.device, progress=job.progress,
        parse=is_grammatical if embedded else None, stream=f"reasonings {config.phase}",
    )  # fmt: skip
    write_table(prompts, job.draft.path("prompts.parquet"), PROMPTS)
    write_table(table, job.draft.path("reasonings.parquet"), REASONINGS)
    report = text_report(table)
    job.draft.count(table.height, {f"malformed: {k}": n for k, n in report["malformed"].items()})
    job.draft.tell(report | {"prompts_proved": proved})


def is_grammatical(text: str) -> bool:
    """Whether a text of the embedded policy follows the grammar of its demonstrations."""
    return parse_reasoning(text) is not None


@reasonings.shows
def texts_shown(made: Artifact) -> list[str]:
    """The first users' texts."""
    table = read_table(made.path("reasonings.parquet"), REASONINGS)
    return [table_section("Some texts", table.head(N_SHOWN))]
