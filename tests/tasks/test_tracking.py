"""What a tracker is told of a stage, and that it is told nothing unless asked."""

import os
import sys

import mlflow
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Trainer, TrainingArguments

from recalign.config import PairsConfig, Runtime
from recalign.errors import UserError
from tasks.engine.run import Run
from tasks.engine.stage import Call, Stage
from tasks.engine.tracking import EXPERIMENT, MLFLOW, TENSORBOARD, TRAINERS


def told(job, config):
    """A stage that says where a Trainer would write, and has a figure and a text to tell."""
    job.draft.path("out.txt").write_text(os.environ.get(TRAINERS, ""))
    job.draft.tell({"held_out_loss": 0.25, "why": "because"})
    job.draft.count(1)


class Slope(torch.nn.Module):
    """The smallest thing that a Trainer trains."""

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return {"loss": ((self.slope * x - 1) ** 2).mean()}


def trained(job, config):
    """A stage with a training of three steps in it."""
    arguments = TrainingArguments(
        output_dir=str(job.draft.work), max_steps=3, logging_steps=1, use_cpu=True,
        report_to=job.runtime.report_to, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(Slope(), arguments, train_dataset=[{"x": 1.0}] * 24).train()
    told(job, config)


def made(root, report_to, body=told):
    runtime, stage = Runtime(root=str(root), report_to=report_to), Stage("pairs", 1, body)
    identity = stage.identity(PairsConfig(), {}, {})
    reference = stage.compute(Call(identity, PairsConfig(), {}, {}, runtime))
    return Run(runtime).store.open(reference)


def test_tensorboard_gets_settings_and_figures_of_a_stage_beside_the_trainers(tmp_path):
    artifact = made(tmp_path, "tensorboard")
    (folder,) = (tmp_path / TENSORBOARD).iterdir()
    assert folder.name == f"pairs-{artifact.manifest.fingerprint[:10]}"
    assert artifact.path("out.txt").read_text() == str(folder)
    assert TRAINERS not in os.environ
    events = EventAccumulator(str(folder)).Reload()
    assert events.Tags()["scalars"] == ["figures/held_out_loss"]
    assert events.Scalars("figures/held_out_loss")[0].value == 0.25
    (settings,) = events.Tensors("settings/text_summary")
    assert b"max_pairs" in settings.tensor_proto.string_val[0]


def test_mlflow_gets_settings_figures_and_a_trainers_curve_in_one_run(tmp_path):
    made(tmp_path / "other", "mlflow")  # another root has another database
    artifact = made(tmp_path, "mlflow", trained)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/{MLFLOW}/mlflow.db")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == f"pairs-{artifact.manifest.fingerprint[:10]}"
    assert run.info.status == "FINISHED"
    assert run.data.params["settings.max_pairs"] == str(PairsConfig().max_pairs)
    assert run.data.params["max_steps"] == "3"
    assert run.data.metrics["figures.held_out_loss"] == 0.25
    assert "figures.why" not in run.data.metrics
    curve = client.get_metric_history(run.info.run_id, "loss")
    assert [point.step for point in curve] == [1, 2, 3]
    assert mlflow.active_run() is None
    assert not [name for name in os.environ if name.startswith("MLFLOW")]


def test_a_tracker_that_fails_costs_no_artifact(tmp_path, monkeypatch, caplog):
    def broken(*given):
        raise OSError("the tracker's disk is full")

    monkeypatch.setattr("torch.utils.tensorboard.writer.SummaryWriter.add_scalar", broken)
    assert made(tmp_path, "tensorboard").manifest.figures["held_out_loss"] == 0.25
    assert "the tracker could not be told: the tracker's disk is full" in caplog.text


def test_nothing_is_told_unless_asked_and_the_fingerprint_does_not_know(tmp_path):
    silent, told_of = made(tmp_path / "a", "none"), made(tmp_path / "b", "tensorboard")
    assert not (tmp_path / "a" / TENSORBOARD).exists()
    assert silent.manifest.fingerprint == told_of.manifest.fingerprint
    assert silent.path("out.txt").read_text() == ""


def test_a_tracker_that_is_not_installed_is_told_before_the_stage_computes(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"runtime\.report_to = wandb: install it"):
        made(tmp_path, "wandb")
