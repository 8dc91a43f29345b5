"""A run that is killed inside a long stage continues there and ends with the same artifact."""

import json
import shutil

import pytest

from recalign.llm.storage import MODEL
from tests.pipeline.roots import digest_of, kill_at_work, manifests

RUN = ("run", "dpo4rec", "--preset", "tiny")
LABELS = {
    "oracle": "oracle",
    "policy": "policy",
    "reasonings": "reasonings for reward, base",
    "alignment": "alignment, round 1",
}


def first_fingerprint(root, stage):
    """The stage's artifact that a run up to LABELS[stage] makes."""
    found = [json.loads(p.read_text()) for p in root.glob(f"{stage}/[!.]*/manifest.json")]
    wanted = [
        m for m in found
        if all(one["stage"] != "alignment" for one in m["inputs"].values())
        and m["config"].get("phase", "reward") == "reward"
        and m["config"].get("architecture", "sasrec") == "sasrec"
    ]  # fmt: skip
    assert len(wanted) == 1
    return wanted[0]["fingerprint"]


@pytest.mark.parametrize("stage", list(LABELS))
def test_sigkill_loses_no_finished_work(recalign, finished, tmp_path, stage):
    fingerprint = first_fingerprint(finished, stage)
    root = shutil.copytree(finished, tmp_path / "artifacts")
    shutil.rmtree(root / stage / fingerprint)
    command = (*RUN, "--root", str(root), "--stop-after", LABELS[stage],
               "--set", "runtime.shard_users=24")  # fmt: skip
    kill_at_work(recalign, root, stage, fingerprint, command)
    recalign(*command)
    assert digest_of(root, stage, fingerprint) == digest_of(finished, stage, fingerprint)
    assert not list(root.glob("*/.draft-*"))


def test_two_runs_at_once_compute_each_stage_once(recalign, finished, tmp_path):
    root = tmp_path / "artifacts"
    command = (*RUN, "--root", str(root), "--stop-after", "oracle")
    both = [recalign.start(*command) for _ in range(2)]
    assert [process.wait(600) for process in both] == [0, 0]
    for stage in ("interactions", "splits", "oracle"):
        assert len(list(root.glob(f"{stage}/*"))) == 1
    fingerprint = first_fingerprint(finished, "oracle")
    assert digest_of(root, "oracle", fingerprint) == digest_of(finished, "oracle", fingerprint)


def test_a_warm_up_that_is_killed_ends_with_the_same_weights(recalign, finished, tmp_path):
    llm = finished / "policy" / first_fingerprint(finished, "policy") / MODEL
    settings = {
        "kind": "huggingface", "model": llm, "warm_up.n_prompts": 200, "warm_up.epochs": 8,
        "warm_up.template": "attributes", "warm_up.evaluations": 20, "warm_up.patience": 20,
    }  # fmt: skip
    changed = [f"--set=policy.{name}={value}" for name, value in settings.items()]
    digests: list[str] = []
    for name in ("killed", "whole"):
        root = shutil.copytree(finished, tmp_path / name)
        known = set(manifests(root))
        command = (*RUN, "--root", str(root), "--stop-after", "policy", *changed)
        if not digests:
            kill_at_work(recalign, root, "policy", "*", command)
        recalign(*command)
        (made,) = set(manifests(root)) - known
        digests.append(digest_of(root, *made))
    assert digests[0] == digests[1]
