"""The LLM of an artifact, opened alike whichever stage made it: policy, sft or alignment."""

from collections.abc import Callable

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.roots import open_root
from recalign.embedded.grammar import parse_reasoning
from recalign.llm.storage import StoredPolicy, stored_policy, stored_sft
from recalign.policy import Policy


def open_policy(made: Artifact, root: str, device: str, *, trainable: bool = False) -> Policy:
    """The policy that `made` holds; what an alignment stands on is found under `root`.

    `trainable` keeps an adapter apart from the weights under it, so that it can be trained on.
    """
    return stored(made, root).load(device, trainable=trainable)


def first_of(made: Artifact, root: str) -> Artifact:
    """The policy before any alignment: `made` itself, or what its alignments started from."""
    while made.manifest.stage == "alignment":
        made = _start_of(made, root)
    return made


def grammar_of(made: Artifact, root: str) -> Callable[[str], bool] | None:
    """What tells a good text from a bad one, for the embedded policy; no other has a grammar."""
    kind = first_of(made, root).manifest.config["kind"]
    return is_grammatical if kind == "bootstrap" else None


def is_grammatical(text: str) -> bool:
    """Whether a text of the embedded policy follows the grammar of its demonstrations."""
    return parse_reasoning(text) is not None


def _start_of(alignment: Artifact, root: str) -> Artifact:
    return open_root(root).open(alignment.manifest.inputs["start"])


def stored(made: Artifact, root: str) -> StoredPolicy:
    """How the policy that `made` holds is stored; what it stands on lies under `root`."""
    match made.manifest.stage:
        case "policy":
            return stored_policy(made.folder)
        case "sft":
            return stored_sft(made.folder)
        case "alignment":
            return stored(_start_of(made, root), root).trained(made.folder)
        case other:
            raise ValueError(f"stage {other} makes no policy")
