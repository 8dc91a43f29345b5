"""Prefect's cache over artifact folders: a record lies inside the folder it speaks of."""

from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.store import Store

RECORD = ".prefect-result.json"


def find_current(
    store: Store, stage: str, key: str, inputs: dict[str, Reference]
) -> Artifact | None:
    """The artifact, if complete, undamaged and made from inputs with this very content."""
    artifact = store.find(stage, key)
    return artifact if artifact and is_current(artifact.manifest, inputs) else None


def is_current(manifest: Manifest, inputs: dict[str, Reference]) -> bool:
    """Whether an artifact was made from inputs with this very content."""
    made_from = manifest.inputs
    return all(made_from[name].digest == reference.digest for name, reference in inputs.items())


def forget_record(store: Store, stage: str, key: str) -> None:
    """Keep Prefect from saying Cached of what is damaged or was made from other content."""
    (store.folder(stage, key) / RECORD).unlink(missing_ok=True)


class ArtifactCache(CachePolicy):
    """The key of a task run is the place of its record.

    It touches no file: Prefect only logs what a key function raises, and then runs the task without
    its cache. Whoever calls the task first removes the record of what is not current.
    """

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str:
        identity = inputs["call"].identity
        return f"{identity.stage}/{identity.fingerprint}/{RECORD}"
