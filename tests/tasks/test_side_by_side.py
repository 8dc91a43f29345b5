"""Earlier runs side by side: what pairs their users, and which of them share a training seed."""

import re

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
    said = capsys.readouterr().out
    assert "difference: second - first, paired by user\n" in said
    assert "over users alone: another training seed may change more" in said
    line = next(line for line in said.splitlines() if line.startswith("Aligned policy, sampled"))
    bounds = line[line.rindex("[") :]
    assert re.fullmatch(r"\[[+−]0\.\d{4}, [+−]0\.\d{4}\] *", bounds)


def test_of_two_leaderboards_no_results_are_told(copy, finished, capsys):
    """The nearest would be those of one of its cells."""
    store, cell = Store(copy), finished.artifact("report").manifest
    ends = [made(store, "leaderboard", {"title": one}, cell_0=cell).reference for one in "ab"]
    diff_artifacts(ends[0].name, ends[1].name, root=str(copy))
    said = capsys.readouterr().out
    assert "leaderboard.title: a -> b" in said
    assert "95 % intervals" not in said


def test_other_candidate_lists_leave_ranks_in_the_whole_catalogue_paired(finished, copy, capsys):
    walk = direct(copy)
    inputs = finished.artifact("validation, base").manifest.inputs
    shorter = CONFIG.evaluation.model_copy(update={"list_length": 5}).for_phase("valid")
    other = walk(evaluation, shorter, inputs)
    diff_artifacts(finished.done["validation, base"].name, other.name, root=str(copy))
    said = capsys.readouterr().out
    assert "NDCG@10, with 95 % intervals over users" in said
    assert "difference: second - first, paired by user" in said


@pytest.mark.parametrize("changed", [{"list_length": 10}, {"n_cases": 1}, {"n_cases": None}])
def test_rosepos_runs_that_judge_other_cases_are_not_set_side_by_side(store, changed):
    usual = {"phase": "test", "n_cases": 0, "list_length": 20}
    other = {name: value for name, value in (usual | changed).items() if value is not None}
    judged = [made(store, "recommendations", one) for one in (usual, other)]
    ends = [made(store, "comparison", {"rows": []}, row_0=one).reference.name for one in judged]
    for order in (ends, ends[::-1]):
        with pytest.raises(UserError, match="only runs of the same data, windows and cases"):
            compare_runs(order, root=str(store.root))


def test_runs_of_two_methods_are_told_so(store):
    ends = [made(store, stage, {}).reference.name for stage in ("report", "comparison")]
    with pytest.raises(UserError, match="are runs of two methods"):
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


def test_seeds_keep_their_numbers_in_whatever_order_runs_are_named(store):
    settings: list[dict[str, object]]
    settings = [{"beta": beta, "seed": seed} for beta in (0.1, 0.2) for seed in (2, 1)]
    told = [("alignment.beta=0.1", 2), ("alignment.beta=0.1", 1),
            ("alignment.beta=0.2", 2), ("alignment.beta=0.2", 1)]  # fmt: skip
    assert shown(store, *settings) == told
    assert shown(store, *settings[::-1]) == told[::-1]


def rosepo_ends(store: Store, *seeds: tuple[int, int]) -> list[Manifest]:
    """A report for each pair of seeds, of drawing rejections and of alignment, on one SFT model."""
    sft, ends = made(store, "sft", {"seed": 0}), []
    for drawn, aligned in seeds:
        pairs = made(store, "rejections", {"seed": drawn}, sft=sft)
        policy = made(store, "alignment", {"seed": aligned}, pairs=pairs)
        ends.append(made(store, "report", {}, alignment=policy))
    return ends


def test_seeds_that_never_change_or_are_shared_are_told(store):
    apart = shown_runs(store, rosepo_ends(store, (1, 1), (2, 2)))
    assert apart.notes == [
        "The same in all runs, so that intervals do not hold for others: sft.seed = 0"
    ]
    assert [cell.seed for cell in apart.cells] == [1, 2]
    crossed = shown_runs(store, rosepo_ends(store, (1, 0), (0, 1), (0, 0)))
    assert crossed.notes[1:] == [
        "Some runs of one setting share alignment.seed, rejections.seed: they count as drawn apart"
        " all the same, which makes intervals too narrow"
    ]
    assert [cell.seed for cell in crossed.cells] == [1, 2, 0]


def rounds_end(
    store: Store, seed: int, n: int, *, cumulative: bool = False, template: str = "a"
) -> Manifest:
    """A report of so many rounds; what decides it beside the stages' settings."""
    start, earlier, ends = made(store, "policy", {}), dict[str, Manifest](), dict[str, Manifest]()
    for number in range(1, n + 1):
        above = {"policy": start.reference}
        identity = Identity("reasonings", 1, {}, fingerprints(above), {"template": template * 64})
        texts = store.commit(store.draft(identity, above)).manifest
        pairs = made(store, "pairs", {}, reasonings=texts)
        inputs = {"start": start, "completions": pairs} | (earlier if cumulative else {})
        start = made(store, "alignment", {"seed": seed}, **inputs)
        earlier[f"pairs_{number}"] = pairs
        ends |= {f"pairs_{number}": pairs, f"alignment_{number}": start, "aligned": start}
    return made(store, "report", {}, **ends)


def test_runs_are_one_setting_only_where_they_differ_in_seeds_all_the_way_up(store):
    first = rounds_end(store, 0, 2)
    for other in (rounds_end(store, 1, 2, cumulative=True), rounds_end(store, 1, 2, template="b")):
        settings = [cell.setting for cell in shown_runs(store, [first, other]).cells]
        assert settings == [first.reference.name, other.reference.name]
    fewer = rounds_end(store, 1, 1)  # its rounds ended earlier, for all that one can tell
    cells = [(cell.setting, cell.seed) for cell in shown_runs(store, [first, fewer]).cells]
    assert cells == [("same settings", 0), ("same settings", 1)]


@pytest.mark.parametrize("stage", ["evaluation", "oracle", "smoothing"])
def test_a_seed_that_trains_no_policy_is_a_setting_like_others(store, stage):
    ends = []
    for seed, trained in ((0, 0), (1, 0), (1, 5)):
        drawn = made(store, stage, {"seed": seed})
        aligned = made(store, "alignment", {"seed": trained}, drawn=drawn)
        ends.append(made(store, "report", {}, alignment=aligned))
    cells = [(cell.setting, cell.seed) for cell in shown_runs(store, ends).cells]
    assert cells == [(f"{stage}.seed=0", 0), (f"{stage}.seed=1", 0), (f"{stage}.seed=1", 5)]
