"""What a tracker is told of a stage, and that it is told nothing unless asked."""

import os

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recalign.config import PairsConfig, Runtime
from tasks.engine.run import Run
from tasks.engine.stage import Call, Stage
from tasks.engine.tracking import FOLDER, TRAINERS


def told(job, config):
    """A stage that says where a Trainer would write, and has a figure and a text to tell."""
    job.draft.path("out.txt").write_text(os.environ.get(TRAINERS, ""))
    job.draft.tell({"held_out_loss": 0.25, "why": "because"})
    job.draft.count(1)


def made(root, report_to):
    runtime, stage = Runtime(root=str(root), report_to=report_to), Stage("pairs", 1, told)
    identity = stage.identity(PairsConfig(), {}, {})
    reference = stage.compute(Call(identity, PairsConfig(), {}, {}, runtime))
    return Run(runtime).store.open(reference)


def test_tensorboard_gets_settings_and_figures_of_a_stage_beside_the_trainers(tmp_path):
    artifact = made(tmp_path, "tensorboard")
    (folder,) = (tmp_path / FOLDER).iterdir()
    assert folder.name == f"pairs-{artifact.manifest.fingerprint[:10]}"
    assert artifact.path("out.txt").read_text() == str(folder)
    assert TRAINERS not in os.environ
    events = EventAccumulator(str(folder)).Reload()
    assert events.Tags()["scalars"] == ["figures/held_out_loss"]
    assert events.Scalars("figures/held_out_loss")[0].value == 0.25
    (settings,) = events.Tensors("settings/text_summary")
    assert b"max_pairs" in settings.tensor_proto.string_val[0]


def test_nothing_is_told_unless_asked_and_the_fingerprint_does_not_know(tmp_path):
    silent, told_of = made(tmp_path / "a", "none"), made(tmp_path / "b", "tensorboard")
    assert not (tmp_path / "a" / FOLDER).exists()
    assert silent.manifest.fingerprint == told_of.manifest.fingerprint
    assert silent.path("out.txt").read_text() == ""
