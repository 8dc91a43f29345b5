"""A model named by its folder is known by its content, wherever the folder lies."""

import pytest

from flows.dpo4rec import stages
from flows.session import plan
from recalign.artifacts.digests import file_digest, file_digests, local_files
from recalign.artifacts.identity import Identity
from recalign.artifacts.store import Store
from recalign.config import PolicyConfig, Runtime
from recalign.errors import UserError
from recalign.llm.storage import POLICY
from recalign.stored import stored
from tasks.engine.run import Run
from tasks.models import model_files
from tests.tasks.tiny_run import CONFIG


def fingerprints(config, root):
    steps = plan(Run(Runtime(root=str(root))), lambda run: stages(run, config))
    return {step.label: step.reference.fingerprint for step in steps}


def test_a_packaged_name_or_hub_id_has_no_local_files(tmp_path):
    assert local_files("encoder", "minilm") == {}
    assert local_files("encoder", str(tmp_path)) == {}


def test_no_name_is_not_the_folder_that_the_run_was_started_in():
    with pytest.raises(UserError, match="encoder has no name"):
        local_files("encoder", "")


@pytest.mark.parametrize("stage", ["oracle", "recommender"])
def test_other_weights_in_the_same_folder_are_another_encoder(tmp_path, stage):
    folder = tmp_path / "encoder"
    (folder / "nested").mkdir(parents=True)
    (folder / "nested" / "weights").write_text("one")
    named = getattr(CONFIG, stage).model_copy(update={"encoder": str(folder)})
    config = CONFIG.model_copy(update={stage: named})
    before = fingerprints(config, tmp_path / "root")
    (folder / "nested" / "weights").write_text("two, in place")
    after = fingerprints(config, tmp_path / "root")
    changed = {label.split(",")[0] for label in before if before[label] != after[label]}
    assert stage in changed
    assert not changed & {"interactions", "splits", "policy"}


NOTED = (".git/FETCH_HEAD", ".cache/huggingface/download/config.json.metadata", ".gitattributes")
"""What git and the hub's client leave beside a model, and write again."""


@pytest.fixture
def cloned(tmp_path):
    """A model's folder below a hidden one, with what git and the hub's client note in it."""
    folder = tmp_path / ".models" / "llm"
    for name in ("config.json", "model.safetensors", "onnx/config.json", *NOTED):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}, today")
    return folder


def note_again(folder):
    for name in NOTED:
        (folder / name).write_text(f"{name}, tomorrow")
    (folder / ".git" / "more").touch()


def test_what_git_and_downloads_note_beside_a_model_is_no_part_of_it(cloned):
    config = PolicyConfig(kind="huggingface", model=str(cloned))
    before = file_digests(model_files(config), file_digest)
    assert list(before) == ["model/config.json", "model/model.safetensors", "model/config.json (2)"]
    note_again(cloned)
    assert file_digests(model_files(config), file_digest) == before
    (cloned / "model.safetensors").write_text("other weights")
    assert file_digests(model_files(config), file_digest) != before


@pytest.mark.parametrize("version", ["this", "earlier"])
def test_an_llm_is_still_read_when_only_that_has_changed(cloned, tmp_path, version):
    """Also by what an earlier version made of it, which counted hidden files, while they stay."""
    config = PolicyConfig(kind="huggingface", model=str(cloned))
    files = local_files("model", str(cloned), hidden=version == "earlier")
    store = Store(tmp_path / "root")
    digests = file_digests(files, file_digest)
    draft = store.draft(Identity("policy", 1, config.identity(), {}, digests), {})
    draft.path(POLICY).write_text(config.model_dump_json())
    made = store.commit(draft)
    if version == "this":
        note_again(cloned)
    assert stored(made, str(store.root)).weights == str(cloned)
    (cloned / "model.safetensors").write_text("other weights")
    with pytest.raises(UserError, match="is not as it was when policy/"):
        stored(made, str(store.root))
