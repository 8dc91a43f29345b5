"""Runs stage reasonings on a server, in a process that a test can kill."""

import sys
from pathlib import Path

from recalign.artifacts.manifest import Reference
from recalign.config import ChatServerConfig, PolicyConfig, ReasoningsConfig, Runtime
from tasks.interactions import interactions
from tasks.policy import policy, policy_files
from tasks.reasonings import prompt_files, reasonings
from tasks.splits import splits
from tests.tasks.tiny_run import CONFIG, Direct

SHARD_USERS = 10
SAMPLING = CONFIG.reasonings.model_copy(update={"writer": "openai", "max_new_tokens": 6})


def walk_over(root: Path, url: str) -> Direct:
    """A walk whose texts come from the server at `url`."""
    server = ChatServerConfig(url=url, requests=4, timeout=60)
    return Direct(
        Runtime(root=str(root), device="cpu", threads=1, shard_users=SHARD_USERS, server=server)
    )


def prepare(walk: Direct, llm: Path) -> dict[str, Reference]:
    """What the reasonings stand on: the tiny world and the LLM in this folder."""
    data = walk(interactions, CONFIG.interactions)
    walk(splits, CONFIG.splits, {"interactions": data})
    config = PolicyConfig(kind="huggingface", model=str(llm))
    inputs = {name: walk.done[name] for name in ("interactions", "splits")}
    return inputs | {"policy": walk(policy, config, inputs, files=policy_files(config))}


def write(
    walk: Direct, inputs: dict[str, Reference], sampling: ReasoningsConfig = SAMPLING
) -> Reference:
    """The reasonings of the fit phase."""
    return walk(reasonings, sampling.for_phase("fit"), inputs, files=prompt_files(sampling))


if __name__ == "__main__":
    walking = walk_over(Path(sys.argv[1]), sys.argv[2])
    write(walking, prepare(walking, Path(sys.argv[3])))
