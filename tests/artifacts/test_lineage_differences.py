"""What is told of a lineage: the settings in which two differ, each once, and what one cost."""

import pytest

from recalign.artifacts.identity import Identity
from recalign.artifacts.lineage import cost_of, upwards
from recalign.artifacts.lineage_differences import settings_between
from recalign.artifacts.manifest import fingerprints
from recalign.artifacts.store import Store
from tests.report.sample_pages import manifest


@pytest.fixture
def between(tmp_path):
    """between(old, new): the lines between two reports, by their stages' settings."""
    store = Store(tmp_path)

    def commit(stage, config, **inputs):
        draft = store.draft(Identity(stage, 1, config, fingerprints(inputs), {}), inputs)
        draft.path("table.txt").write_text(str(config))
        return store.commit(draft).reference

    def lineage(n_negatives, epochs, guarded=True):
        windows = commit("splits", {"n_negatives": n_negatives})
        oracle = commit("oracle", {"epochs": epochs, "hidden": 8}, splits=windows)
        guard = {"guard": commit("splits", {"n_negatives": 0})} if guarded else {}
        report = commit("report", {}, oracle=oracle, splits=windows, **guard)
        manifest = store.manifest(report.stage, report.fingerprint)
        assert manifest
        return dict(upwards(store, [manifest]))

    return lambda old, new: settings_between(lineage(*old), lineage(*new))


def test_settings_of_every_stage_above_are_told_once_and_nothing_that_follows_from_them(between):
    lines = between((20, 4), (30, 5))
    own, above = lines[:2], lines[2:]
    assert [line.partition(": ")[0] for line in own] == [
        "report.inputs.oracle", "report.inputs.splits",
    ]  # fmt: skip
    assert sorted(above) == ["oracle.epochs: 4 -> 5", "splits.n_negatives: 20 -> 30"]
    assert between((20, 4), (20, 4)) == []


def test_what_only_one_of_them_stands_on_is_named(between):
    lines = between((20, 4, True), (20, 4, False))
    assert lines[-1] == "only in the first: report.guard"
    assert not [line for line in lines if "n_negatives" in line]


def test_pairs_of_held_out_users_and_pairs_left_out_were_not_aligned_on():
    figures = {"pairs": 80, "held_out_pairs": 8}, {"prompts": 50, "held_out_prompts": 5}
    made = {
        name: manifest("alignment", name * 32, rows=100, figures=one)
        for name, one in zip("ab", figures, strict=True)
    }
    made["c"] = manifest("sft", "c" * 32, rows=400)
    assert cost_of(made).pairs == 72 + 45
