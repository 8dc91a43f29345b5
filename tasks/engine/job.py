"""What the body of a stage is given to work with."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recalign.artifacts.artifact import Draft
from recalign.artifacts.roots import local_root
from recalign.config import Runtime
from recalign.progress import Progress


@dataclass(frozen=True)
class Job:
    """What a stage's function is given beside its config and inputs."""

    draft: Draft
    runtime: Runtime
    progress: Progress
    take_device: Callable[[], str]
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the flow calls the artifacts of this run, by fingerprint; a report names them so."""
    forced: bool = False
    """Whether the stage was asked to compute anew even what is there."""

    @property
    def device(self) -> str:
        """The device to compute on, this stage's alone from now on; written into the manifest."""
        import torch

        device = self.take_device()
        self.draft.manifest.device = torch.cuda.get_device_name() if device == "cuda" else "cpu"
        return device

    @property
    def rank(self) -> str:
        """The number of this process in a launch; 0 where it is the only one."""
        return os.environ.get("RANK", "0")

    @property
    def leads(self) -> bool:
        """Whether this process writes the outputs; the others of a launch only compute."""
        return self.rank == "0"

    @property
    def cache(self) -> Path:
        """A folder for what may be deleted at any time: encoded sentences, downloads."""
        return local_root(self.runtime.root) / ".cache"


def use_threads(threads: int) -> None:
    """Let torch use this many threads; 0: as many as it finds cores."""
    if threads:
        import torch

        torch.set_num_threads(threads)
