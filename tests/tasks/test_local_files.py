"""A model named by its folder is known by its content, wherever the folder lies."""

import pytest

from flows.dpo4rec import stages
from flows.session import plan
from recalign.artifacts.digests import local_files
from recalign.config import Runtime
from recalign.errors import UserError
from tasks.engine.run import Run
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
