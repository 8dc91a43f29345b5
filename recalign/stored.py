"""The LLM of an artifact, opened alike whichever stage made it: policy, sft or alignment."""

from collections.abc import Callable
from pathlib import Path

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import file_digests, local_files
from recalign.artifacts.roots import open_root
from recalign.config import SftConfig, TitlePromptConfig
from recalign.embedded.grammar import parse_reasoning
from recalign.errors import UserError
from recalign.llm.storage import SFT, TEMPLATES, StoredPolicy, stored_policy, stored_sft
from recalign.policy import Policy
from recalign.templates import template_read
from recalign.titles.prompts import same_template


def open_policy(made: Artifact, root: str, device: str, *, trainable: bool = False) -> Policy:
    """The policy that `made` holds; what an alignment stands on is found under `root`.

    An empty `device` is what this machine has for it, see `StoredPolicy.load`. `trainable` keeps an
    adapter apart from the weights under it, so that it can be trained on.
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


def title_prompt(made: Artifact, root: str, template: str = "") -> TitlePromptConfig:
    """How the LLM of titles that `made` holds was taught to be asked, with its very template.

    The template is looked for at the path `template` or, where that is empty, where the run had it,
    in the working folder, and among the files of the stage that taught it (of older ones it has
    none). UserError where it is not found, or has other content now.
    """
    first = first_of(made, root)
    asked = SftConfig.model_validate_json(first.path(SFT).read_text()).prompt
    name, digest = template_read(first.manifest.files)
    if asked.format == "history":
        if template:
            raise UserError("template: this LLM continues a list of titles; leave it out")
        return asked
    kept = str(first.path(TEMPLATES) / name)
    path = same_template([template] if template else [asked.template, name, kept], name, digest)
    return asked.model_copy(update={"template": str(path)})


def _start_of(alignment: Artifact, root: str) -> Artifact:
    return open_root(root).open(alignment.manifest.inputs["start"])


def stored(made: Artifact, root: str) -> StoredPolicy:
    """How the policy that `made` holds is stored; what it stands on lies under `root`.

    UserError where it reads its weights from a folder of the user's, and other files lie there now.
    """
    place = _place(made, root)
    folder = place.weights if isinstance(place.weights, str) else ""  # "": the embedded LLM's
    if folder and Path(folder).is_dir():
        _refuse_changed(folder, first_of(made, root), root)
    return place


def _refuse_changed(folder: str, first: Artifact, root: str) -> None:
    read = {name: one for name, one in first.manifest.files.items() if name.startswith("model/")}
    # Remembered by the root: nothing is hashed again unless it was written again.
    digest_of = open_root(root).digests.digest
    found = file_digests(local_files("model", folder), digest_of)
    differ = sorted(name for name, _ in read.items() ^ found.items())
    # Earlier versions counted hidden files, too.
    if differ and read != file_digests(local_files("model", folder, hidden=True), digest_of):
        raise UserError(
            f"{folder}: {differ[0].partition('/')[2]} is not as it was when "
            f"{first.manifest.reference.name} was made of this LLM: put the old files back, or run "
            "the method again with the new ones"
        )


def _place(made: Artifact, root: str) -> StoredPolicy:
    match made.manifest.stage:
        case "policy":
            return stored_policy(made.folder)
        case "sft":
            return stored_sft(made.folder)
        case "alignment":
            return _place(_start_of(made, root), root).trained(made.folder)
        case other:
            raise ValueError(f"stage {other} makes no policy")
