"""align after a stop: resumes to the bit, whatever was torn or killed."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Barrier

import numpy as np
import polars as pl
import pytest
from transformers import PreTrainedTokenizerFast

from recalign.alignment.reference import TokenLogProbs
from recalign.alignment.train import Known, align, score_reference
from recalign.policy import Policy
from recalign.progress import Progress, silent
from recalign.training.checkpoints import checkpoints, is_complete, step_of
from recalign.training.resume import claim
from tests.alignment.alignment_samples import (
    CONFIG,
    Fails,
    Run,
    adapter_bytes,
    asked,
    at,
    make_pairs,
    policy,
)


@pytest.fixture(scope="module")
def undisturbed(
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[bytes, pl.DataFrame]:
    """Adapter file and log of a run that nothing stops."""
    place = tmp_path_factory.mktemp("undisturbed")
    result = align(asked(policy(), tokenizer), make_pairs(48), CONFIG, at(place))
    return adapter_bytes(place), result.log


def test_a_stopped_run_resumes_to_the_same_bits(
    run: Run, pairs: pl.DataFrame, tmp_path: Path, undisturbed: tuple[bytes, pl.DataFrame]
) -> None:
    with pytest.raises(KeyboardInterrupt):  # the checkpoints are at 3, 7 and 10: mid-epoch
        run(policy(), pairs, tmp_path, callbacks=(Fails(9),))
    assert [p.name for p in checkpoints(tmp_path / "work")][-1] == "checkpoint-7"
    result = run(policy(), pairs, tmp_path)
    assert adapter_bytes(tmp_path) == undisturbed[0]
    assert result.log.equals(undisturbed[1])


@pytest.mark.parametrize(("stopped", "kept"), [(2, [2]), (6, [3, 6])])
def test_the_clock_saves_between_evaluations_and_changes_no_bit(
    run: Run, pairs: pl.DataFrame, tmp_path: Path, undisturbed: tuple[bytes, pl.DataFrame],
    monkeypatch: pytest.MonkeyPatch, stopped: int, kept: list[int],
) -> None:  # fmt: skip
    """Before the first evaluation, at step 3, and after it: the best and the last are kept."""
    monkeypatch.setattr("recalign.training.schedule.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("recalign.training.schedule.SAVE_SHARE", 0)
    with pytest.raises(KeyboardInterrupt):
        run(policy(), pairs, tmp_path, callbacks=(Fails(stopped),))
    assert [step_of(one) for one in checkpoints(tmp_path / "work")] == kept
    monkeypatch.undo()
    result = run(policy(), pairs, tmp_path)
    assert adapter_bytes(tmp_path) == undisturbed[0]
    assert result.log.equals(undisturbed[1])


def test_a_torn_checkpoint_is_skipped(
    run: Run, pairs: pl.DataFrame, tmp_path: Path, undisturbed: tuple[bytes, pl.DataFrame]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(policy(), pairs, tmp_path, callbacks=(Fails(5),))
    [good] = checkpoints(tmp_path / "work")
    torn = good.with_name("checkpoint-7")
    torn.mkdir()
    for path in good.iterdir():
        (torn / path.name).write_bytes(path.read_bytes())
    optimizer = torn / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    assert is_complete(good)
    assert not is_complete(torn)
    run(policy(), pairs, tmp_path)
    assert adapter_bytes(tmp_path) == undisturbed[0]


def test_a_run_killed_after_its_last_step_is_not_trained_further(
    run: Run, pairs: pl.DataFrame, tmp_path: Path, undisturbed: tuple[bytes, pl.DataFrame]
) -> None:
    run(policy(), pairs, tmp_path)
    (tmp_path / "folder" / "adapter_model.safetensors").unlink()
    result = run(policy(), pairs, tmp_path, callbacks=(Fails(0),))
    assert adapter_bytes(tmp_path) == undisturbed[0]
    assert result.log.equals(undisturbed[1])


def test_what_a_training_on_other_rows_left_is_deleted(
    run: Run,
    pairs: pl.DataFrame,
    tmp_path: Path,
    undisturbed: tuple[bytes, pl.DataFrame],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As many rows, so that the reference's log-probabilities of the others would fit, too."""
    prompts = pairs["prompt"].shuffle(seed=1)
    run(policy(), pairs.with_columns(prompts), tmp_path)
    assert "starts anew" not in caplog.text
    result = run(policy(), pairs, tmp_path)
    assert "alignment starts anew" in caplog.text
    assert adapter_bytes(tmp_path) == undisturbed[0]
    assert result.log.equals(undisturbed[1])


@pytest.mark.parametrize("optimiser", ["pairs", "listwise"])
@pytest.mark.parametrize("killed", [True, False])
def test_a_reference_scored_on_other_rows_is_not_taken_for_theirs(
    pairs: pl.DataFrame, plain: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, optimiser: str, killed: bool,
) -> None:  # fmt: skip
    """As many rows of as many tokens; whole, or as a killed pass has left them."""
    config = CONFIG.model_copy(update={"optimiser": optimiser})
    others = pairs.with_columns(pairs["prompt"].str.replace_all("w9", "w8"))

    def score(table: pl.DataFrame, place: str, progress: Progress = silent) -> Known:
        return score_reference(lambda: plain, table, config, tmp_path / place, progress)

    def kill(done: int, total: int, note: str = "") -> None:
        if killed and 2 * done >= total:
            raise KeyboardInterrupt

    monkeypatch.setattr("recalign.alignment.reference.SAVE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt) if killed else nullcontext():
        score(others, "work.npz", kill)
    found, whole = score(pairs, "work.npz"), score(pairs, "fresh.npz")
    assert "of other rows are deleted" in caplog.text
    assert [one.tolist() for one in arrays(found)] == [one.tolist() for one in arrays(whole)]

    def fail(done: int, total: int, note: str = "") -> None:
        raise AssertionError("what is kept is scored again")

    score(pairs, "work.npz", fail)


def arrays(scored: Known) -> list[np.ndarray]:
    assert not isinstance(scored, str)
    return scored.rows if isinstance(scored, TokenLogProbs) else [scored.chosen, scored.rejected]


def test_processes_that_are_let_go_at_once_share_one_claim(tmp_path: Path) -> None:
    """Process 0 of a launch claims the folder first, the others then all together."""
    claim(tmp_path, "rows", "alignment")
    together = Barrier(8)

    def claim_together(_: int) -> None:
        for _ in range(200):
            together.wait(30)
            claim(tmp_path, "rows", "alignment")

    with ThreadPoolExecutor(8) as others:
        list(others.map(claim_together, range(8)))
    assert [path.name for path in tmp_path.iterdir()] == ["run.txt"]


@pytest.mark.slow
def test_a_process_killed_while_saving_resumes_to_the_same_bits(
    run: Run,
    pairs: pl.DataFrame,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    undisturbed: tuple[bytes, pl.DataFrame],
) -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import torch
from tests.alignment import alignment_samples as samples
from pathlib import Path
from recalign.alignment.train import align
from recalign.alignment.trainer import SharedPromptDPOTrainer
from recalign.config import AlignmentConfig
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({str(tmp_path / "tokenizer")!r})
save = SharedPromptDPOTrainer._save_optimizer_and_scheduler
def kill(self, output_dir):
    if self.state.global_step > 3:
        os.kill(os.getpid(), signal.SIGKILL)  # weights are written, the rest is not
    save(self, output_dir)
SharedPromptDPOTrainer._save_optimizer_and_scheduler = kill
align(samples.asked(samples.policy(), tokenizer), samples.make_pairs(48),
      AlignmentConfig.model_validate_json({CONFIG.model_dump_json()!r}),
      samples.at(Path({str(tmp_path)!r})))
"""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    killed = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    names = [path.name for path in checkpoints(tmp_path / "work")]
    assert names == ["checkpoint-3", "checkpoint-7"]
    run(policy(), pairs, tmp_path)
    assert adapter_bytes(tmp_path) == undisturbed[0]
