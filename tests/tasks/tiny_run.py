"""DPO4Rec at its very smallest, stage by stage in this process: no Prefect server, no cache."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.dpo4rec import stages
from recalign.artifacts.artifact import Artifact
from recalign.artifacts.manifest import Reference
from recalign.artifacts.store import Store
from recalign.config import Config, DPO4RecConfig, Runtime
from tasks.engine.run import Run
from tasks.engine.stage import Call, Stage

SMALLEST: dict[str, Any] = {
    "splits": {"fit": 2, "reward": 3, "valid": 2, "test": 2, "n_negatives": 20},
    "oracle": {"hidden": 16, "blocks": 1, "epochs": 2, "max_length": 20},
    "policy": {
        "bootstrap": {
            "hidden": 32, "layers": 1, "heads": 2, "n_prompts": 200, "epochs": 4,
            "batch_size": 16, "learning_rate": 1e-2, "history_items": 6,
        }
    },
    "reasonings": {"history_items": 6, "n_samples": 4, "n_fit_samples": 2, "n_eval_samples": 2},
    "recommender": {"hidden": 8, "epochs": 2, "guard": False},
    "alignment": {"lora_rank": 4, "epochs": 1, "evaluations": 2},
    "evaluation": {"list_length": 10, "n_resamples": 100},
}  # fmt: skip
"""Settings of every stage behind the data, as small as they still mean something."""

CONFIG = DPO4RecConfig.model_validate(
    SMALLEST
    | {
        "interactions": {
            "synthetic": {
                "n_users": 60, "n_items": 120, "n_genres": 6, "n_creators": 10, "n_eras": 3,
                "n_moods": 4, "min_length": 16, "max_length": 20,
            }
        },
        "rounds": {"n": 1},
        "report": {"n_examples": 2},
    }
)  # fmt: skip


@dataclass
class Direct(Run):
    """A walk that calls every stage's own `compute`; `done` tells what has been made, in order."""

    done: dict[str, Reference] = field(default_factory=dict)

    def __call__(
        self,
        stage: Stage,
        config: Config,
        inputs: dict[str, Reference] | None = None,
        *,
        label: str = "",
        files: dict[str, list[Path]] | None = None,
        force: bool = False,
    ) -> Reference:
        """The artifact of this stage, computed here and now unless the root has it."""
        files = files or {}
        digests = {
            f"{role}/{path.name}": self.store.digests.digest(path)
            for role, paths in files.items()
            for path in paths
        }
        identity = stage.identity(config, inputs or {}, digests)
        labels = {reference.fingerprint: label for label, reference in self.done.items()}
        call = Call(identity, config, inputs or {}, files, self.runtime, force, labels)
        made = self.done[label or stage.name] = stage.compute(call)
        return made

    def artifact(self, label: str) -> Artifact:
        """What the stage run of this label made."""
        return self.store.open(self.done[label])


def direct(root: Path) -> Direct:
    """A walk over artifacts under `root`, on one thread of the processor."""
    return Direct(Runtime(root=str(root), device="cpu", threads=1))


def made_anew(store: Store, reference: Reference) -> Artifact:
    """The artifact as another machine computes it: of the same name, and with other bytes."""
    old = store.open(reference)
    draft = store.draft(old.manifest.identity, old.manifest.inputs)
    for name in old.manifest.outputs:
        shutil.copyfile(old.path(name), draft.path(name))
    draft.path("other.txt").write_text("bytes")
    draft.manifest.figures, draft.manifest.rows = old.manifest.figures, old.manifest.rows
    return store.commit(draft)


def run_all(root: Path, **changes: Any) -> Direct:
    """The whole method, from interactions to report."""
    walk = direct(root)
    stages(walk, CONFIG.model_copy(update=changes))
    return walk
