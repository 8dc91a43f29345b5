"""What Prefect's run page shows of a run: a page per stage, cached ones too, and the results."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect.artifacts import MarkdownArtifact, TableArtifact
from prefect.context import FlowRunContext
from prefect.utilities.engine import get_state_for_result

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import write_atomically
from recalign.artifacts.manifest import Reference
from recalign.artifacts.store import Store
from recalign.report.result_lines import result_lines
from recalign.report.stage_page import stage_page
from recalign.schemas import RESULTS

log = logging.getLogger(__name__)

PAGE = ".page.md"  # beside the artifact's files, so that a cached stage draws nothing anew
Sections = Callable[[Artifact], list[str]]


def show_stage(label: str, store: Store, reference: Reference, sections: Sections) -> None:
    """Put an artifact's page on the pages of this flow run and of the task run that returned it.

    Never fails: a run is worth more than its pictures. Outside a flow run there is no page.
    """
    manifest = store.manifest(reference.stage, reference.fingerprint)
    if manifest is None or FlowRunContext.get() is None:
        return
    artifact = Artifact(store.folder(reference.stage, reference.fingerprint), manifest)
    try:
        page = MarkdownArtifact(
            key=key_of(label),
            markdown=page_of_stage(artifact, sections),
            description=label,
            task_run_id=_task_run_of(reference),
        )
        page.create(_sync=True)  # type: ignore[call-arg]
    except Exception:
        log.warning("%s: its page cannot be shown", label, exc_info=True)


def show_results(evaluation: Artifact) -> None:
    """The result table, with intervals, as an artifact of the flow run; never fails."""
    try:
        table: list[dict[str, Any]] = result_lines(RESULTS.read(evaluation))
        TableArtifact(key="results", table=table, description="# Results").create(_sync=True)  # type: ignore[call-arg]
    except Exception:
        log.warning("the results cannot be shown", exc_info=True)


def page_of_stage(artifact: Artifact, sections: Sections) -> str:
    """The Markdown page of an artifact, drawn once and kept in its folder.

    An artifact at a URL that nothing has fetched yet tells only what its manifest says.
    """
    if not artifact.folder.is_dir():
        return stage_page(artifact.manifest, [])
    kept = artifact.path(PAGE)
    with suppress(OSError, UnicodeDecodeError):  # garbled: drawn anew
        return kept.read_text(encoding="utf-8")
    page = stage_page(artifact.manifest, sections(artifact))
    try:
        write_atomically(kept, page)
    except OSError as error:
        log.info("%s is not kept: %s", kept, error)
    return page


def key_of(label: str) -> str:
    """A stage label as an artifact's key, which Prefect wants in lower case with dashes."""
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in label.lower())
    return "-".join(words.split())


def _task_run_of(reference: Reference) -> UUID | None:
    """The task run that returned this very object, as Prefect remembers it for the graph."""
    known = get_state_for_result(reference)
    return known[0].state_details.task_run_id if known else None
