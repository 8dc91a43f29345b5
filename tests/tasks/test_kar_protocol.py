"""DPO4Rec in KAR's protocol: whole users are kept apart, and lists of theirs are re-ranked."""

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from flows.dpo4rec import stages
from flows.serving.recommend import chosen
from recalign.config import DPO4RecConfig, RecommendConfig
from recalign.config.presets import load_settings
from recalign.errors import LeakageError, UserError
from recalign.exports import export_run
from recalign.metric_columns import RERANKED_NDCG, SCORE, metrics_in
from recalign.recommender.model import KnowledgeRecommender
from recalign.recommender.prm import Reranker
from recalign.recommender.storage import load_reader
from recalign.report import PAGE
from recalign.schemas import INTERACTIONS, ITEMS, LISTS, ROWS_PER_USER, SEGMENTS, WINDOWS
from recalign.splits.candidates import history_popularity
from recalign.splits.phases import phase_of
from tasks.engine.run import StoppedAfter
from tasks.report import targets_of
from tasks.tables import read_tables
from tests.tasks.llama3_folder import SPECIAL, save_llama3
from tests.tasks.test_the_future_changes_nothing import Until
from tests.tasks.tiny_run import CONFIG, SMALLEST, direct

LISTED = {
    "interactions": CONFIG.interactions.model_copy(
        update={"synthetic": CONFIG.interactions.synthetic.model_copy(update={"n_users": 180})}
    ).model_dump(),
    "splits": {"protocol": "kar", "reward_users": 0.25, "valid_users": 0.25, "test_users": 0.25,
               "n_negatives": 20},
    "rewards": {"reward": "ndcg_at_k", "k": 5},
    "evaluation": {"cutoffs": [1, 3, 5, 7], "n_resamples": 100},
    "rounds": {"n": 1},
}  # fmt: skip
PRM = SMALLEST["recommender"] | {"kind": "prm"}
FACETS = ["genre", "creator", "mood"]
BEFORE_THE_TEST = [
    "oracle", "policy", "recommender, base", "rewards, round 1", "pairs, round 1",
    "alignment, round 1", "reasonings for valid, base",
]  # fmt: skip


def settings(recommender=PRM, **changes):
    whole = SMALLEST | LISTED | {"recommender": recommender} | changes
    return DPO4RecConfig.model_validate(whole)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    walk = direct(tmp_path_factory.mktemp("kar") / "artifacts")
    stages(walk, settings())
    return walk


def test_a_run_ends_in_a_report_about_re_ranked_lists(finished):
    results = pl.read_parquet(finished.artifact("evaluation").path("results.parquet"))
    assert set(results["lists"]) == {"reranked"}
    assert {"NDCG", "MAP", "MAP by hits"} <= set(results["measure"])
    shown = RERANKED_NDCG.lines(results)
    rows = set(shown["row"])
    assert {"PRM, no reasoning", "SASRec's order", "Aligned policy, greedy, refitted recommender",
            "Base policy, sampled, independent recommender"} <= rows  # fmt: skip
    assert shown["mean"].is_between(0.2, 1.0).all()
    page = finished.artifact("report").path(PAGE).read_text()
    assert "Re-ranked lists" in page
    assert "NDCG@5" in page
    assert finished.artifact("evaluation").manifest.figures[SCORE] > 0


def test_every_phase_has_users_of_its_own_and_lists_behind_their_prompts(finished):
    lists = LISTS.read(finished.artifact("splits"))
    asked: dict[str, set[int]] = {}
    for phase in ("fit", "reward", "valid", "test"):
        prompts = pl.read_parquet(
            finished.artifact(f"reasonings for {phase}, base").path("prompts.parquet")
        )
        asked[phase] = set(prompts["user_index"])
        joined = lists.join(prompts, on="user_index", suffix="_prompt")
        assert joined.height >= len(asked[phase])
        assert (joined["position"] >= joined["cutoff"]).all()
    assert sum(map(len, asked.values())) == len(set.union(*asked.values())) == 180
    rewarded = pl.read_parquet(finished.artifact("rewards, round 1").path("rewards.parquet"))
    assert set(rewarded["user_index"]) == asked["reward"]


def test_cold_and_warm_are_cut_by_the_items_that_belong_first_and_by_no_others(finished):
    tables = read_tables(finished.artifact("interactions"), finished.artifact("splits"))
    phase = phase_of(tables.windows, "test")
    logs = np.log1p(history_popularity(tables.sequences, tables.windows))
    lists = LISTS.read(finished.artifact("splits"))
    first = (
        lists.explode("items", "positive").filter("positive").group_by("user_index").agg("items")
    )
    by_user = dict(first.iter_rows())
    told = SEGMENTS.read(finished.artifact("report")).filter(kind="targets")
    values = metrics_in(told)[0].lines(ROWS_PER_USER.read(finished.artifact("evaluation")))
    worth = dict(values.filter(row="Popularity").select("user_index", "value").iter_rows())
    ours = told.filter(row="Popularity").select("segment", "n_users", "mean").rows()

    def cut(judged):
        """What should be told where users are judged by these items."""
        users = [user for user, items in judged.items() if len(items)]
        means = np.array([logs[judged[user]].mean() for user in users])
        parts = {"cold": means <= np.median(means), "warm": means > np.median(means)}
        held = {name: [worth[user] for user in np.array(users)[own]] for name, own in parts.items()}
        return [(name, len(one), pytest.approx(np.mean(one))) for name, one in held.items()]

    assert ours == cut({user: by_user.get(user, []) for user in phase.users.tolist()})
    assert ours != cut(dict(zip(phase.users.tolist(), targets_of(tables, phase), strict=True)))


def test_the_order_of_the_lists_is_that_of_the_given_backbone(finished):
    results = pl.read_parquet(finished.artifact("evaluation").path("results.parquet"))
    values = dict(RERANKED_NDCG.lines(results).select("row", "mean").iter_rows())
    assert len({values["Popularity"], values["SASRec's order"], values["PRM, no reasoning"]}) == 3


def test_the_judge_that_gave_no_reward_is_no_prm(finished):
    readers = {name: finished.artifact(f"recommender, {name}") for name in ("base", "independent")}
    opened = {name: load_reader(made.folder, "cpu")[0] for name, made in readers.items()}
    assert isinstance(opened["base"], Reranker)
    assert isinstance(opened["independent"], KnowledgeRecommender)
    read = {name: made.manifest.inputs["oracle"] for name, made in readers.items()}
    assert read["independent"] == finished.done["oracle, independent"] != read["base"]
    values = RERANKED_NDCG.lines(ROWS_PER_USER.read(finished.artifact("evaluation")))
    both = [values.filter(row=f"Base policy, greedy{by}").sort("user_index")["value"]
            for by in ("", ", independent recommender")]  # fmt: skip
    assert (both[0] != both[1]).sum() > len(both[0]) / 2
    config = settings(PRM | {"gate": 0.0}).recommender.independent()
    assert (config.kind, config.gate) == ("sasrec", 0.1)  # an adapter has to read the text
    adapter = settings(SMALLEST["recommender"]).recommender
    assert adapter.independent() == adapter


def test_the_frozen_sequence_model_with_an_adapter_ranks_the_same_lists(finished):
    walk = direct(finished.store.root)
    stages(walk, settings(SMALLEST["recommender"]))
    results = RERANKED_NDCG.lines(
        pl.read_parquet(walk.artifact("evaluation").path("results.parquet"))
    )
    ours = dict(results.select("row", "mean").iter_rows())
    first = pl.read_parquet(finished.artifact("evaluation").path("results.parquet"))
    theirs = dict(RERANKED_NDCG.lines(first).select("row", "mean").iter_rows())
    assert ours["SASRec, no reasoning"] == pytest.approx(theirs["SASRec's order"])
    assert ours["Popularity"] == theirs["Popularity"]
    assert walk.done["oracle"] == finished.done["oracle"]


def test_what_test_users_take_later_changes_nothing_before_the_test(finished, tmp_path):
    made = {}
    for name, turned in (("as it was", False), ("turned", True)):
        source = as_files(finished, tmp_path / name, turned)
        root = str(tmp_path / name / "artifacts")
        walk = Until(finished.runtime.model_copy(update={"root": root}), last="alignment, round 1")
        with pytest.raises(StoppedAfter):
            stages(walk, settings(interactions=source))
        made[name] = walk
    for label in BEFORE_THE_TEST:
        ours, theirs = (walk.artifact(label).manifest.outputs for walk in made.values())
        assert ours == theirs, label
    first, second = (LISTS.read(walk.artifact("splits")) for walk in made.values())
    assert first.height == second.height
    assert not first.equals(second)


def as_files(finished, folder, turned):
    """The run's interactions as files; test users' windows the other way round, if `turned`."""
    folder.mkdir()
    world = finished.artifact("interactions")
    starts = WINDOWS.read(finished.artifact("splits")).select("user_index", "test_start")
    table = INTERACTIONS.read(world).join(starts, on="user_index", maintain_order="left")
    if turned:
        later = pl.col("position") >= pl.col("test_start")
        mirrored = pl.col("item_index").reverse().over("user_index", later)
        table = table.with_columns(item_index=pl.when(later).then(mirrored).otherwise("item_index"))
    table.select(user_id="user_index", item_id="item_index", timestamp="timestamp").write_csv(
        folder / "taken.csv"
    )
    items = ITEMS.read(world)
    named = items.select("item_index", "attributes").explode("attributes").unnest("attributes")
    first = named.filter(pl.col("name").is_in(FACETS)).group_by("item_index", "name").first()
    wide = first.pivot("name", index="item_index", values="value")
    items.select("item_index", "title").join(wide, on="item_index").rename(
        {"item_index": "item_id"}
    ).write_csv(folder / "items.csv")
    files = {"interactions": str(folder / "taken.csv"), "items": str(folder / "items.csv"),
             "attribute_columns": FACETS}  # fmt: skip
    return {"source": "files", "files": files, "k_core": 0}


def test_a_list_that_reaches_into_the_history_stops_the_run(finished, monkeypatch):
    drawn = LISTS.read(finished.artifact("splits"))
    early = drawn.with_columns(pl.col("position") - 4)
    monkeypatch.setattr("tasks.splits.draw_lists", lambda *a: (early, 0))
    walk = direct(finished.store.root)
    with pytest.raises(LeakageError, match="lists, row 0, user 0: its block at position"):
        stages(walk, settings(splits=LISTED["splits"] | {"seed": 7}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"splits": SMALLEST["splits"]}, "recommender.kind = prm re-ranks lists"),
        ({"recommender": PRM | {"hidden": 10}}, "hidden must be a multiple of 4"),
        ({"splits": {"protocol": "kar", "reward_users": 0.9}}, "must leave users to fit"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        settings(**changes)


def test_the_papers_preset_runs_on_a_shrunken_llama_3(finished, tmp_path):
    folder = tmp_path / "llm"
    titles = pl.read_parquet(finished.artifact("interactions").path("items.parquet"))["title"]
    save_llama3(titles.to_list(), folder)
    soon_done(folder)
    shrunk = [
        f"policy.model={folder}", "recommender.encoder=minilm", "recommender.epochs=1",
        "recommender.guard=false", "reasonings.n_samples=8", "reasonings.max_new_tokens=24",
        "reasonings.min_words=1", "alignment.epochs=1", "alignment.evaluations=1",
        "alignment.max_length=1024", "policy.dtype=float32", "rounds.n=1",
        "item_reasonings.max_new_tokens=24", "item_reasonings.min_words=1",
        "evaluation.n_resamples=100",
    ]  # fmt: skip
    config = load_settings(DPO4RecConfig, "paper", shrunk)
    small = settings()
    config = config.model_copy(
        update={
            "interactions": small.interactions,
            "oracle": small.oracle,
            "splits": config.splits.model_copy(
                update=dict.fromkeys(("reward_users", "valid_users", "test_users"), 0.2)
            ),
        }
    )
    walk = direct(tmp_path / "artifacts")
    stages(walk, config)
    assert walk.artifact("report").path(PAGE).is_file()
    about = pl.read_parquet(walk.artifact("item_reasonings").path("item_reasonings.parquet"))
    assert about["item_index"].to_list() == list(range(1, len(titles) + 1))
    assert "item_reasonings" in walk.artifact("recommender, base").manifest.inputs


def test_the_sequence_model_is_validated_on_the_first_block_alone():
    windows = pl.DataFrame([(0, 5, 20, 20, 20, 20, True)], schema=WINDOWS, orient="row")
    fit = phase_of(windows, "fit").first(4)
    assert (fit.starts.tolist(), fit.ends.tolist()) == ([5], [9])
    assert phase_of(windows, "fit").first(40).ends.tolist() == [20]


def soon_done(folder):
    """A random LLM hardly ever ends: let this one want to in every other place."""
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][SPECIAL.index("<|eot_id|>")] *= 10
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_who_can_only_re_rank_lists_is_not_asked_for_recommendations(finished, tmp_path):
    report = finished.artifact("report").manifest
    asked = RecommendConfig(run=report.reference.name, output=str(tmp_path / "lists.parquet"))
    told = "is PRM, which re-ranks lists and cannot rank a whole catalogue"
    with pytest.raises(UserError, match=told):
        chosen(finished.store, asked)
    with pytest.raises(UserError, match=told):
        export_run(finished.store, "", report, tmp_path / "taken home", "recommender")
    assert not (tmp_path / "taken home").exists()
