"""Prefect's cache over artifact folders: a record lies inside the folder it speaks of."""

from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from recalign.artifacts.fingerprint import fingerprint
from recalign.artifacts.manifest import Reference
from recalign.artifacts.store import Artifact, Store

RECORD = ".prefect-result.json"


def find_current(
    store: Store, stage: str, key: str, inputs: dict[str, Reference]
) -> Artifact | None:
    """The artifact, if complete, undamaged and made from inputs with this very content."""
    artifact = store.find(stage, key)
    if artifact is None:
        return None
    made_from = artifact.manifest.inputs
    same = all(made_from[name].digest == reference.digest for name, reference in inputs.items())
    return artifact if same else None


class ArtifactCache(CachePolicy):
    """The key of a task run is the place of its record; nothing valid there is a miss."""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str:
        stage, version = task_ctx.task.name, int(task_ctx.task.version or 0)
        references: dict[str, Reference] = inputs["inputs"]
        upstream = {name: reference.fingerprint for name, reference in references.items()}
        key = fingerprint(stage, version, inputs["config"].identity(), upstream, inputs["digests"])
        store = Store(inputs["runtime"].root)
        if find_current(store, stage, key, references) is None:
            # Prefect would say Cached over a folder that is damaged or was made from other content.
            (store.folder(stage, key) / RECORD).unlink(missing_ok=True)
        return f"{stage}/{key}/{RECORD}"
