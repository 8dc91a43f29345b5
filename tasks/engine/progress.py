"""Progress of a stage, in the terminal as a bar or as log lines, and in the Prefect UI."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tasks.engine.run_page import key_of

log = logging.getLogger(__name__)

UI_SECONDS = 3.0  # between updates of the Prefect artifact
LOG_SECONDS = 15.0  # between log lines where there is no terminal


class StageProgress:
    """Shows `done / total` of the stage's current long work; made for one stage run."""

    def __init__(self, stage: str, bar: Progress | None):
        self._stage = stage
        self._bar = bar
        self._task = bar.add_task(stage, total=None, note="") if bar else None
        self._artifact: UUID | None = None
        self._shown_ui = time.monotonic()
        self._shown_log = time.monotonic()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
        elif now - self._shown_log >= LOG_SECONDS:
            log.info("%s: %d of %d %s", self._stage, done, total, note)
            self._shown_log = now
        if now - self._shown_ui >= UI_SECONDS and TaskRunContext.get():
            self._show_in_ui(100 * done / max(total, 1), f"{done} of {total} {note}".strip())
            self._shown_ui = time.monotonic()

    def finish(self) -> None:
        """Leave a full bar behind in the UI, where there is one."""
        if self._artifact is not None:
            self._show_in_ui(100, "done")

    def _show_in_ui(self, percent: float, note: str) -> None:
        """Never fails: a server that does not answer must not cost the stage its work."""
        try:
            if self._artifact is None:
                key = key_of(f"progress {self._stage}")
                made = create_progress_artifact(percent, key=key, description=note)
                self._artifact = made if isinstance(made, UUID) else None
            else:
                update_progress_artifact(self._artifact, progress=percent, description=note)
        except Exception as error:
            log.warning("%s: its progress cannot be shown: %s", self._stage, error)


@contextmanager
def stage_progress(stage: str) -> Iterator[StageProgress]:
    """The progress display of one stage run; the bar vanishes when the stage is done."""
    if not sys.stderr.isatty():
        shown = StageProgress(stage, None)
        yield shown
        shown.finish()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[note]}"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = StageProgress(stage, bar)
        yield shown
        shown.finish()
