"""Earlier runs side by side: what pairs their users, and which of them share a training seed."""

import pytest

from flows.cli.comparing import diff_artifacts
from flows.cli.side_by_side import shown_runs
from flows.cli.sweeps import compare_runs
from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import Manifest, fingerprints
from recalign.artifacts.store import Store
from recalign.errors import UserError
from tasks.evaluation import evaluation
from tests.tasks.tiny_run import CONFIG, direct


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def made(store: Store, stage: str, config, **inputs: Manifest) -> Manifest:
    """An artifact without files."""
    above = {name: one.reference for name, one in inputs.items()}
    identity = Identity(stage, 1, config, fingerprints(above), {})
    return store.commit(store.draft(identity, above)).manifest


def test_results_for_other_targets_are_not_paired_by_user(finished, capsys):
    valid = finished.done["validation, base"].name
    test = finished.done["evaluation"].name
    diff_artifacts(valid, test, root=str(finished.store.root))
    assert "difference: second - first, not told: phase valid and test\n" in capsys.readouterr().out
    other = finished.done["validation, round 1"].name
    diff_artifacts(valid, other, root=str(finished.store.root))
    assert "difference: second - first, paired by user\n" in capsys.readouterr().out


def test_other_candidate_lists_leave_ranks_in_the_whole_catalogue_paired(finished, copy, capsys):
    walk = direct(copy)
    inputs = finished.artifact("validation, base").manifest.inputs
    shorter = CONFIG.evaluation.model_copy(update={"list_length": 5}).for_phase("valid")
    other = walk(evaluation, shorter, inputs)
    diff_artifacts(finished.done["validation, base"].name, other.name, root=str(copy))
    assert "NDCG@10, with 95 % intervals; difference: second - first, paired by user" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("changed", [{"list_length": 10}, {"n_cases": 1}])
def test_rosepos_runs_that_judge_other_cases_are_not_set_side_by_side(store, changed):
    usual = {"phase": "test", "n_cases": 0, "list_length": 20}
    judged = [made(store, "recommendations", one) for one in (usual, usual | changed)]
    ends = [made(store, "comparison", {"rows": []}, row_0=one).reference.name for one in judged]
    with pytest.raises(UserError, match="only runs of the same data, windows and cases"):
        compare_runs(ends, root=str(store.root))


def shown(store: Store, *settings: dict[str, object]):
    """Label and number of the seed, of a report for each of these settings of an alignment."""
    ends = [made(store, "report", {}, alignment=made(store, "alignment", one)) for one in settings]
    return [(cell.setting, cell.seed) for cell in shown_runs(store, ends).cells]


def test_a_seed_that_does_not_count_in_one_setting_keeps_no_run_from_sharing_another(store):
    settings: list[dict[str, object]]
    settings = [{"kind": kind, "seed": seed} for kind in ("a", "b") for seed in (0, 1)]
    settings[2] |= {"warm_up.seed": 7}
    settings[3] |= {"warm_up.seed": 7}
    assert [seed for _, seed in shown(store, *settings)] == [0, 1, 0, 1]


def test_runs_that_differ_in_such_a_seed_alone_are_still_told_apart(store):
    own: list[dict[str, object]] = [{"kind": "b", "seed": 0, "own.seed": n} for n in (1, 2)]
    cells = shown(store, {"kind": "a", "seed": 0}, *own)
    assert len(set(cells)) == 3
    assert {label for label, _ in cells} == {"alignment.kind=a", "alignment.kind=b"}
