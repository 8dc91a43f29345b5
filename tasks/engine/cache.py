"""Prefect's cache over artifact folders: a record lies inside the folder it speaks of."""

import os
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import write_atomically
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


def renew_record(store: Store, reference: Reference) -> bool:
    """Let the record of a current artifact say what its manifest says, and nothing else.

    False when it does not and cannot: a root that this user may only read.

    Prefect would believe any digest in it, and load it by the serializer that it names itself: with
    pickle it would run code. An artifact that is only at a URL has no record yet.
    """
    path = store.folder(reference.stage, reference.fingerprint) / RECORD
    if path.parent.is_dir():
        place = LocalFileSystem(basepath=str(store.root.resolve()))
        results = ResultStore(result_storage=place, serializer=JSONSerializer())
        key = f"{reference.stage}/{reference.fingerprint}/{RECORD}"
        wanted = results.create_result_record(reference, key).serialize()
        try:
            if not path.exists() or path.read_bytes() != wanted:
                write_atomically(path, wanted.decode())
        except OSError:
            if os.access(path.parent, os.W_OK):
                raise
            return False
    return True


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
