"""A stage: one noun, one version, one function, wrapped as a cached Prefect task."""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import prefect
from filelock import Timeout
from prefect.context import TaskRunContext

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import Stamp, file_digests, stamp
from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import Manifest, Reference, fingerprints
from recalign.artifacts.roots import open_root
from recalign.artifacts.store import Store
from recalign.config import Config, Runtime
from recalign.errors import UserError
from recalign.report.wording import reasons
from tasks.engine.cache import ArtifactCache, find_current
from tasks.engine.device import device_of
from tasks.engine.job import Job, use_threads
from tasks.engine.launch import Order, run_on_devices
from tasks.engine.progress import stage_progress
from tasks.engine.provenance import check_provenance
from tasks.engine.run_page import Sections
from tasks.engine.tracking import Track, tracked
from tasks.engine.trouble import trouble_explained

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """All that one task run is given, as its only parameter.

    Prefect's graph draws each edge once per parameter of the task above it, and its UI draws none
    beyond 500.
    """

    identity: Identity
    config: Config
    inputs: dict[str, Reference]
    files: dict[str, list[Path]]
    runtime: Runtime
    force: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    """What the flow calls the artifacts so far, by fingerprint; no part of the identity."""
    links: list[Reference] = field(default_factory=list)
    """The inputs that the graph draws an edge to."""


class Stage:
    """A function `body(job, config, **artifacts)` that fills a draft, made a cached task.

    `version` is raised by hand when the stage's output means something new. Files that the body
    reads beside artifacts arrive as `files`: their digests belong to the fingerprint. A stage that
    `trains` runs its body once per device of `runtime.devices`, in processes of their own.
    """

    def __init__(self, name: str, version: int, body: Callable[..., None], *, trains: bool = False):
        self.name = name
        self.version = version
        self.body = body
        self.trains = trains
        self.__module__ = body.__module__
        self.doc = inspect.getdoc(body) or ""
        self.sections: Sections = lambda made: []
        self.task = prefect.Task(
            fn=self.compute,
            name=name,
            description=self.doc,
            version=str(version),
            cache_policy=ArtifactCache(),
            persist_result=True,
            result_serializer="json",
            cache_result_in_memory=False,
        )

    def __reduce__(self) -> str:
        """Pickled by name, as functions are: other processes import the stage."""
        return self.name

    def shows(self, sections: Sections) -> Sections:
        """Decorator: what the run page shows of this stage's artifacts beside counts and settings.

        `sections` draws Markdown texts from the artifact's own files alone.
        """
        self.sections = sections
        return sections

    def identity(
        self, config: Config, inputs: dict[str, Reference], digests: dict[str, str]
    ) -> Identity:
        """The identity of this stage's output for these settings, inputs and files."""
        return Identity(self.name, self.version, config.identity(), fingerprints(inputs), digests)

    def compute(self, call: Call) -> Reference:
        """Compute the artifact, once among all processes that want it; resume a killed draft.

        UserError where its inputs do not belong together.
        """
        store, key = open_root(call.runtime.root), call.identity.fingerprint
        check_provenance(call.runtime.root, call.identity, call.inputs)
        with trouble_explained(self.name, store.root, call.config):
            # Without the lock first: at a URL, what is reused is fetched, by many machines at once.
            current = None if call.force else find_current(store, self.name, key, call.inputs)
            return in_own_words(current.reference if current else self._made(store, call))

    def _made(self, store: Store, call: Call) -> Reference:
        """The artifact made now, unless another run is making it: then that one."""
        runtime, key = call.runtime, call.identity.fingerprint
        with self._alone(store, key) as made_meanwhile:
            current = find_current(store, self.name, key, call.inputs)
            if current is not None and (made_meanwhile or not call.force):
                return current.reference
            if whole := self._left_whole(store, call):
                return whole.reference
            draft = store.draft(call.identity, call.inputs)
            taking = device_of(runtime, self._label(), runtime.devices)
            track = tracked(runtime, self._label(), key)
            with stage_progress(self._label()) as progress, taking as device, track as tell:
                artifacts = {name: store.open(one) for name, one in call.inputs.items()}
                job = Job(draft, runtime, progress, device, call.labels, call.force)
                with unchanged(call.files, call.identity.files, store.digests.digest):
                    self._fill(job, call, artifacts)
                for one in call.inputs.values():  # forced anew while its files were read?
                    store.told(one)
                made = store.commit(draft)
                _tell(tell, made.manifest, self._label())
            if left_out := reasons(made.manifest.dropped):
                log.info("%s left out: %s", self._label(), left_out)
            return made.reference

    def _left_whole(self, store: Store, call: Call) -> Artifact | None:
        """The artifact where a killed run had computed all of it, and was about to rename it."""
        whole = store.finish(call.identity, call.inputs)
        if whole:
            log.info("%s was done when its run was killed: it is taken as it is", self._label())
            with tracked(call.runtime, self._label(), call.identity.fingerprint) as tell:
                _tell(tell, whole.manifest, self._label())
        return whole

    def _label(self) -> str:
        """What the flow calls this run of the stage; its name where no task runs."""
        context = TaskRunContext.get()
        return context.task_run.name if context else self.name

    @contextmanager
    def _alone(self, store: Store, key: str) -> Iterator[bool]:
        """Hold the artifact's lock; yields whether another run made it anew meanwhile."""
        lock = store.lock(self.name, key)
        before = store.manifest(self.name, key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("%s is being computed by another run: waiting for it", self._label())
            lock.acquire()
        try:
            yield store.manifest(self.name, key) != before
        finally:
            lock.release()

    def _fill(self, job: Job, call: Call, artifacts: dict[str, Artifact]) -> None:
        config = call.config.settled()  # no body reads a setting that does not count
        extra: dict[str, Any] = {"files": call.files} if call.files else {}
        if self.trains and job.runtime.devices > 1:
            runtime = job.runtime.model_copy(update={"device": job.device})
            order = Order(self, job.draft, runtime, config, artifacts | extra)
            job.draft.manifest = run_on_devices(order, job.progress)
            return
        use_threads(job.runtime.threads)
        self.body(job, config, **artifacts, **extra)


def in_own_words(reference: Reference) -> Reference:
    """The same reference, whose stage is no text that any other object holds.

    Prefect draws an edge to the task that returned an object last, texts inside of it included: all
    that reads an artifact would seem to stand on the newest artifact of the same stage.
    """
    return reference.model_copy(update={"stage": "".join(list(reference.stage))})


@contextmanager
def unchanged(
    files: dict[str, list[Path]], digests: Mapping[str, str], digest_of: Callable[[Path], str]
) -> Iterator[None]:
    """UserError unless these files have these digests before the block, and are untouched by it.

    Else the artifact would bear the name of content that it does not hold.
    """
    paths = [path for several in files.values() for path in several]
    stamps = _stamps(paths)
    same = None not in stamps and file_digests(files, digest_of) == digests
    if same:
        yield
        same = _stamps(paths) == stamps and file_digests(files, digest_of) == digests
    if not same:
        names = ", ".join(str(path) for path in paths)
        which = f"one of {names}" if len(paths) > 1 else names
        raise UserError(f"{which} changed while it was read: run again when it is whole")


def _stamps(paths: list[Path]) -> list[Stamp | None]:
    """None for what is not there."""
    return [stamp(path) if path.exists() else None for path in paths]


def _tell(track: Track, manifest: Manifest, label: str) -> None:
    """Tell the tracker of a stage that is done: what it makes of it must not fail the run."""
    try:
        track(manifest)
    except Exception as error:
        log.warning("%s: the tracker could not be told: %s", label, error)


def stage(version: int, *, trains: bool = False) -> Callable[[Callable[..., None]], Stage]:
    """Make the decorated function a stage that bears its name."""
    return lambda body: Stage(body.__name__, version, body, trains=trains)
