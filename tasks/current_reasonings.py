"""Stage current_reasonings: what the policy writes about every user now, from whole histories."""

from pathlib import Path

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.kept_rows import folder_of
from recalign.chat_server.usage import server_used
from recalign.config import SamplingConfig
from recalign.reasonings.prompts import Renderer, render_prompts
from recalign.report.stage_page import table_section
from recalign.schemas import INTERACTIONS, ITEMS, REASONINGS
from recalign.sequences import Sequences
from recalign.writer import Asked
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.kept_texts import greedy_texts
from tasks.reasonings import N_SHOWN
from tasks.tables import read_asked_users


@stage(version=1)
def current_reasonings(
    job: Job,
    config: SamplingConfig,
    histories: Artifact,
    policy: Artifact,
    files: dict[str, list[Path]],
) -> None:
    """The greedy text about each user asked for; prompts that were answered before are not again.

    Prompts end at the newest interaction: there is no target behind them, hence no guard.
    """
    users = read_asked_users(histories, files)["user_index"].drop_nulls().to_numpy()
    items = ITEMS.read(histories)
    sequences = Sequences.of(INTERACTIONS.read(histories), items.height)
    render = Renderer(str(files["template"][0]), items)
    stops = sequences.lengths[users]
    prompts = render_prompts(render, sequences, users, stops, config.history_items)
    made_by = {"policy": policy.manifest.digest, "settings": config.identity()}
    llm, version = policy.reference.fingerprint, job.draft.manifest.version
    folder = folder_of(job.cache, llm, "texts", made_by, version)
    asked = Asked(config, n_samples=0, greedy=True)
    table, told = greedy_texts(job, asked, prompts, policy, folder)
    REASONINGS.write(table, job.draft)
    reasons = table["malformed"].drop_nulls().value_counts().sort("malformed").rows()
    job.draft.count(table.height, {f"malformed: {reason}": n for reason, n in reasons})
    job.draft.tell(told | server_used(job.draft.work))


@current_reasonings.shows
def texts_shown(made: Artifact) -> list[str]:
    """The first users' texts."""
    return [table_section("Some texts", REASONINGS.read(made).head(N_SHOWN))]
