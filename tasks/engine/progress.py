"""Progress of a stage, in the terminal as a bar or as log lines, and in the Prefect UI."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect import get_client
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recalign.report.live_page import Point, figure_of, live_page, seconds_left
from tasks.engine.interruption import end_if_interrupted
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
        self._shown_ui = self._shown_log = time.monotonic()
        self._begin(0, 0)

    def _begin(self, done: int, total: int) -> None:
        """Another piece of work: its curve and its speed are its own."""
        self._total, self._since, self._started = total, done, time.monotonic()
        self._curve: list[Point] = []

    def __call__(self, done: int, total: int, note: str = "") -> None:
        end_if_interrupted()
        now = time.monotonic()
        if total != self._total or (self._curve and done < self._curve[-1][0]):
            self._begin(done, total)
        if figure := figure_of(note):
            self._curve.append((done, figure[1]))
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
        elif now - self._shown_log >= LOG_SECONDS:
            log.info("%s: %d of %d %s", self._stage, done, total, note)
            self._shown_log = now
        if now - self._shown_ui >= UI_SECONDS and TaskRunContext.get():
            left = seconds_left(done, total, self._since, now - self._started)
            self._show_in_ui(live_page(done, total, note, left, self._curve))
            self._shown_ui = time.monotonic()

    def finish(self) -> None:
        """Say in the UI that the work is done, where it was shown."""
        if self._artifact is not None:
            self._show_in_ui(live_page(self._total, self._total, "Done.", None, []))

    def _show_in_ui(self, page: str) -> None:
        """One artifact, updated; never fails: a silent server must not cost the stage its work."""
        try:
            if self._artifact is None:
                made = create_markdown_artifact(
                    page, key=f"live-{key_of(self._stage)}", description=f"{self._stage}, live"
                )
                self._artifact = made if isinstance(made, UUID) else None
            else:
                with get_client(sync_client=True) as client:
                    client.update_artifact(self._artifact, ArtifactUpdate(data=page))
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
