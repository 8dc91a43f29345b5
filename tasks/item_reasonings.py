"""Stage item_reasonings: what the LLM writes about every item, once."""

from pathlib import Path

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.kept_rows import folder_of
from recalign.chat_server.usage import server_used
from recalign.config import ItemReasoningsConfig
from recalign.reasonings.prompts import Renderer
from recalign.reasonings.texts import text_report
from recalign.report.stage_page import table_section
from recalign.schemas import ITEM_REASONINGS, ITEMS, PROMPTS
from recalign.writer import Asked
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.kept_texts import greedy_texts
from tasks.reasonings import N_SHOWN


@stage(version=1)
def item_reasonings(
    job: Job,
    config: ItemReasoningsConfig,
    interactions: Artifact,
    policy: Artifact,
    files: dict[str, list[Path]],
) -> None:
    """The greedy text about each item, from its title and attributes alone: no user is in it.

    Texts are kept by the content of the LLM, so that other interactions, which make another
    artifact of a loaded LLM, cost the texts of new or changed items alone.
    """
    items = ITEMS.read(interactions)
    render = Renderer(str(files["template"][0]), items)
    numbers = items["item_index"].to_list()
    prompts = pl.DataFrame(
        {
            "user_index": numbers,  # whose text it is: here an item's
            "cutoff": 0,
            "first_position": 0,
            "items": [[number] for number in numbers],
            "prompt": [render([number]) for number in numbers],
        },
        schema=PROMPTS,
    )
    asked = Asked(config, n_samples=0, greedy=True, stream="item reasonings")
    # A folder's weights are no output of policy, whose digest is of its outputs.
    weights = {n: sha for n, sha in policy.manifest.files.items() if n.startswith("model/")}
    made_by = {"settings": config.identity(), "weights": weights}
    llm, version = policy.manifest.digest, job.draft.manifest.version
    folder = folder_of(job.cache, llm, "about-items", made_by, version)
    table, told = greedy_texts(job, asked, prompts, policy, folder)
    report = text_report(table)
    ITEM_REASONINGS.write(
        table.select(pl.col("user_index").alias("item_index"), *list(ITEM_REASONINGS)[1:]),
        job.draft,
    )
    job.draft.count(table.height, {f"malformed: {k}": n for k, n in report["malformed"].items()})
    job.draft.tell(report | told | server_used(job.draft.work))


@item_reasonings.shows
def texts_shown(made: Artifact) -> list[str]:
    """The first items' texts."""
    return [table_section("Some texts", ITEM_REASONINGS.read(made).head(N_SHOWN))]
