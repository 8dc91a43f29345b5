"""DPO4Rec end to end: what a second run, a change, a forced stage and damage recompute."""

import shutil

import pytest

from tests.pipeline.roots import manifests

RUN = ("run", "dpo4rec", "--preset", "tiny")
PLAN = ("plan", "dpo4rec", "--preset", "tiny")
ALIGNED_ON = {"alignment", "reasonings", "recommender", "rewards", "pairs", "evaluation", "report"}


def planned(recalign, root, *options):
    """Labels of the stages that would be reused, and of those that would be computed."""
    lines = recalign(*PLAN, "--root", str(root), *options).stdout.splitlines()[1:-1]
    reused = [line for line in lines if " reused" in line]
    computed = [line for line in lines if " computed" in line]
    assert reused or computed
    return reused, computed


def test_the_run_leaves_one_artifact_per_stage_and_a_report(finished):
    stages = {stage for stage, _ in manifests(finished)}
    assert stages == ALIGNED_ON | {"interactions", "splits", "oracle", "policy"}
    pages = list(finished.glob("report/*/report.html"))
    assert len(pages) == 1
    assert "<svg" in pages[0].read_text()
    assert not list(finished.glob("*/.draft-*"))


def test_a_second_run_computes_nothing(recalign, copy):
    before = manifests(copy)
    reused, computed = planned(recalign, copy)
    assert not computed
    assert len(reused) > 15
    recalign(*RUN, "--root", str(copy))
    assert manifests(copy) == before


def test_with_nothing_to_compute_and_no_service_a_run_names_its_report_and_starts_no_server(
    recalign, copy
):
    done = recalign.alone(*RUN, "--root", str(copy))
    first, last = done.stdout.splitlines()
    reused, _ = planned(recalign, copy)
    assert first == f"nothing to do: {len(reused)} steps: {len(reused)} reused, 0 to do"
    assert last == f"report: {next(copy.glob('report/*/report.html'))}"
    assert "temporary server" not in done.stderr


def test_another_beta_recomputes_alignment_and_what_follows_and_nothing_else(recalign, copy):
    options = ("--set", "alignment.beta=0.2", "--stop-after", "alignment, round 1")
    _, computed = planned(recalign, copy, *options)
    assert len(computed) == 1
    assert "config.beta: 0.1 -> 0.2" in " ".join(computed[0].split())
    before = manifests(copy)
    recalign(*RUN, "--root", str(copy), *options)
    new = set(manifests(copy)) - set(before)
    assert [stage for stage, _ in new] == ["alignment"]
    _, follow = planned(recalign, copy, "--set", "alignment.beta=0.2")
    assert not any(line.startswith(("oracle", "policy", "rewards, round 1")) for line in follow)
    assert any(line.startswith("evaluation") for line in follow)


def test_a_changed_prompt_template_recomputes_from_reasonings_on(recalign, copy, tmp_path):
    template = tmp_path / "other.txt"
    template.write_text("{% for item in history %}{{ item.words }} ; {% endfor %} =\n")
    reused, computed = planned(recalign, copy, "--set", f"reasonings.template={template}")
    labels = " ".join(line.split(",")[0].split()[0] for line in reused)
    assert labels.split() == ["interactions", "splits", "oracle", "policy", "oracle"]
    assert computed[0].startswith("reasonings")


def test_more_rounds_compute_only_the_new_ones(recalign, copy):
    _, computed = planned(recalign, copy, "--set", "rounds.n=3", "--set", "rounds.patience=5")
    assert not any("round 1" in line and "reasonings" in line for line in computed)
    assert any("alignment, round 3" in line for line in computed)


def test_a_forced_stage_is_computed_again_and_ends_the_same(recalign, copy):
    before = manifests(copy)
    recalign(*RUN, "--root", str(copy), "--force", "pairs", "--stop-after", "pairs, round 1")
    after = manifests(copy)
    changed = {key for key in after if after[key] != before[key]}
    assert [stage for stage, _ in changed] == ["pairs"]
    assert {k: digest for k, (digest, _) in after.items()} == {
        k: digest for k, (digest, _) in before.items()
    }


@pytest.mark.parametrize("stage", ["interactions", "splits", "oracle", "rewards"])
def test_a_damaged_stage_is_computed_again_and_no_later_one_fails(recalign, copy, stage):
    before = manifests(copy)
    for number, path in enumerate(sorted(copy.glob(f"{stage}/[!.]*/*.parquet"))):
        path.unlink() if number % 2 else path.write_bytes(path.read_bytes()[:-9] + b"corrupted")
    recalign(*RUN, "--root", str(copy))
    after = manifests(copy)
    changed = {key for key in before if after[key] != before[key]}
    assert {key[0] for key in changed} == {stage}
    assert {k: digest for k, (digest, _) in after.items()} == {
        k: digest for k, (digest, _) in before.items()
    }


def test_the_inventory_commands_tell_what_there_is(recalign, copy):
    listed = recalign("ls", "--root", str(copy)).stdout
    assert len(listed.splitlines()) == len(manifests(copy)) + 1
    alignments = [fingerprint for stage, fingerprint in manifests(copy) if stage == "alignment"]
    assert (
        '"beta": 0.1' in recalign("show", f"alignment/{alignments[0]}", "--root", str(copy)).stdout
    )
    difference = recalign("diff", *alignments[:2], "--root", str(copy)).stdout
    assert "inputs.completions" in difference
    assert recalign("report", "--root", str(copy)).stdout.strip().endswith("report.html")
    assert "0 damaged" in recalign("verify", "--root", str(copy)).stdout
    victim = next(copy.glob("oracle/*/oracle.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    damaged = recalign("verify", "--root", str(copy), check=False)
    assert damaged.returncode == 3
    assert "oracle.safetensors has other content" in damaged.stdout


def test_garbage_collection_keeps_an_unfinished_run_until_another_has_its_report(recalign, copy):
    before = manifests(copy)
    stray = next(copy.glob("pairs/[!.]*"))
    llm = next(copy.glob("policy/[!.]*"))
    known = [llm.name, before["policy", llm.name][0]]
    texts = {llm: copy / ".cache" / "by-llm" / llm for llm in (*known, "of-a-policy-that-is-gone")}
    for folder in texts.values():
        folder.mkdir(parents=True)
    shutil.copytree(stray, copy / "pairs" / ".draft-abandoned").touch()
    recalign(*RUN, "--root", str(copy), "--set", "pairs.max_pairs=20",
             "--stop-after", "pairs, round 1")  # fmt: skip
    unfinished = manifests(copy)
    assert len(unfinished) == len(before) + 1
    told = recalign("gc", "--keep", "1", "--root", str(copy)).stdout
    assert "kept for a run without a report yet: 1 artifacts" in told
    assert manifests(copy) == unfinished
    assert list(copy.glob("*/.draft-*"))
    assert [llm for llm, folder in texts.items() if folder.exists()] == known
    recalign(*RUN, "--root", str(copy), "--force", "report")
    recalign("gc", "--keep", "1", "--root", str(copy))
    assert manifests(copy).keys() == before.keys()
    assert not list(copy.glob("*/.draft-*"))
