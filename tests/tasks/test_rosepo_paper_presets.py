"""The presets of RosePO's own setting run from end to end on a shrunken, random Llama 3."""

import polars as pl
import pytest

from flows.rosepo import stages, variants
from recalign.config import RosePOConfig, ShownCell
from recalign.config.presets import load_settings
from recalign.errors import UserError
from recalign.metric_columns import Metric
from recalign.report.result_lines import result_lines
from tasks.interactions import interactions
from tasks.leaderboard import judge
from tests.tasks.llama3_folder import save_llama3
from tests.tasks.tiny_run import CONFIG, direct

SHRUNK = [  # data, counts and the LLM's folder; how it is asked, trained and judged is the preset's
    "sft.n_examples=24", "sft.n_valid=10", "sft.epochs=1", "sft.evaluations=1", "sft.batch_size=8",
    "rejections.n_pairs=16", "alignment.batch_size=8", "alignment.micro_batch_size=1",
    "alignment.evaluations=1", "recommendations.n_resamples=100", "recommendations.list_length=10",
]  # fmt: skip


def settings(preset, folder, *more):
    config = load_settings(RosePOConfig, preset, [*SHRUNK, f"sft.model={folder}", *more])
    small = {name: getattr(CONFIG, name) for name in ("interactions", "splits", "oracle")}
    return config.model_copy(update=small)


@pytest.fixture(scope="module")
def llama3(tmp_path_factory):
    """A walk that has ingested the tiny world, and a shrunken Llama 3 that knows its letters."""
    walk = direct(tmp_path_factory.mktemp("paper") / "artifacts")
    walk(interactions, CONFIG.interactions)
    folder = tmp_path_factory.mktemp("llama3")
    titles = pl.read_parquet(walk.artifact("interactions").path("items.parquet"))["title"].to_list()
    save_llama3(titles, folder)
    return walk.runtime.root, folder


@pytest.mark.parametrize("preset", ["paper", "paper-24gb"])
def test_the_preset_runs_on_a_shrunken_llama_3(llama3, preset):
    root, folder = llama3
    walk = direct(root)
    config = settings(preset, folder, "sft.quantisation=none")  # nf4 needs a GPU
    wanted = [row for row in variants(config) if row.estimator in ("", "pairwise")]
    stages(walk, config, wanted)
    tuned = walk.artifact("sft")
    assert tuned.manifest.figures["steps"] == 3  # 24 questions, 8 at a time
    assert tuned.path("adapter").is_dir() == (preset == "paper-24gb")
    pairs = pl.read_parquet(walk.artifact("rejections, self_hard").path("rejections.parquet"))
    assert set(pairs["candidates"].list.len()) == {20}
    results = pl.read_parquet(walk.artifact("comparison").path("results.parquet"))
    told = Metric("uniform", "valid").lines(results)
    assert set(told["row"]) == {row.label for row in wanted} - {"SASRec", "Popularity"}
    assert Metric("uniform", "HR", 1).lines(results)["row"].n_unique() == len(wanted)
    assert [line["row"] for line in result_lines(results)] == [row.label for row in wanted]
    assert_one_metric_is_chosen_by(walk, wanted)


def assert_one_metric_is_chosen_by(walk, rows):
    """The list NDCG, since the LLM ranks no catalogue, though SASRec and popularity do."""
    made = walk.artifact("comparison")
    inputs = made.manifest.inputs
    means = [walk.store.open(inputs[f"valid_{n}"]).manifest.figures["means"]
             for n in range(len(rows))]  # fmt: skip
    assert ["NDCG@10" in one for one in means].count(True) == 2
    assert made.manifest.figures["validation"] == {
        row.label: one["list NDCG@10"] for row, one in zip(rows, means, strict=True)
    }
    assert "Validation NDCG@10 (list)" in made.path("report.html").read_text()
    cell = judge(walk.store, ShownCell(setting="", seed=0), made)
    assert cell.validated_by.label == "list NDCG@10"
    assert cell.validation == made.manifest.figures["validation"][cell.row]


def test_four_bits_without_a_gpu_are_refused_in_one_line(llama3):
    root, folder = llama3
    walk = direct(root)
    config = settings("paper-24gb", folder)
    with pytest.raises(UserError, match="quantisation = nf4 needs a GPU"):
        stages(walk, config, variants(config))
