"""What a server was asked for and what it could not promise, for the manifest."""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from recalign.artifacts.digests import write_atomically

FILE = "server.json"  # in the work folder, so that a resumed run goes on counting


class Usage(BaseModel):
    """Counts over all finished shards; of a shard that a kill ended, nothing is counted."""

    engine: str = ""
    model: str = ""  # as the server calls it
    requests: int = 0  # answered ones
    retries: int = 0
    prompt_tokens: int = 0  # as the server counts them
    completion_tokens: int = 0
    samples_per_request: int = 1  # the most that one answer held
    prompts_with_control_tokens: int = 0  # broken up by a space before they were sent
    not_promised: list[str] = []

    @classmethod
    def load(cls, work: Path) -> Self:
        """What earlier processes have counted in this work folder."""
        path = work / FILE
        return cls.model_validate_json(path.read_text()) if path.exists() else cls()

    def save(self, work: Path) -> None:
        """Keep the counts for the process that goes on after a kill."""
        write_atomically(work / FILE, self.model_dump_json(indent=1))


def server_used(work: Path) -> dict[str, Any]:
    """The figure `server` of a stage whose work folder this is; none where no server was asked."""
    usage = Usage.load(work)
    return {"server": usage.model_dump()} if usage.requests else {}
