"""Recommending from a finished run: every user, exact lists, and no text written twice."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
import torch

import tasks.serving
from flows.serving.recommend import chosen, in_words, stages
from recalign.artifacts.digests import file_digest
from recalign.artifacts.kept_rows import KeptRows
from recalign.artifacts.series import SERIES, Generation, Series, SeriesRound
from recalign.chain import Chain, finished_run
from recalign.config import RecommendConfig, ServingConfig
from recalign.errors import UserError
from recalign.oracle.inference import states_of
from recalign.oracle.storage import load_oracle
from recalign.recommender.encoder import SentenceEncoder
from recalign.recommender.storage import load_recommender
from recalign.recommending import Ranker, open_ranker, template_path
from recalign.schemas import INTERACTIONS, ITEMS, REASONINGS, SERVING, UNKNOWN_ITEMS, USERS
from recalign.sequences import Sequences
from recalign.serving import top_lists
from recalign.stored import stored
from tasks.serving import serving
from tests.tasks.tiny_run import direct, made_anew

N_USERS = 60  # of the smallest run


@pytest.fixture(scope="module")
def root(finished, tmp_path_factory):
    """A root of this module's own, whose cache of texts fills as tests go."""
    return shutil.copytree(finished.store.root, tmp_path_factory.mktemp("home") / "artifacts")


def recommended(root, **settings):
    """The walk and the table of one night."""
    walk, config = direct(root), RecommendConfig(**settings)
    made = walk.store.open(stages(walk, config, chosen(walk.store, config)))
    return walk, SERVING.read(made)


def newer(root, path, rows):
    """A file of newer interactions; numbers stand for users and items of the run."""
    made = next(root.glob("interactions/[!.]*"))
    users = pl.read_parquet(made / USERS.file)["user_id"].to_list()
    items = pl.read_parquet(made / ITEMS.file)["item_id"].to_list()
    end = max(pl.read_parquet(made / INTERACTIONS.file)["timestamp"].to_list())
    lines = ["user_id,item_id,timestamp"]
    for place, (user, item) in enumerate(rows):
        named = [users[user] if isinstance(user, int) else user,
                 items[item - 1] if isinstance(item, int) else item]  # fmt: skip
        lines.append(",".join([*named, str(end + 1 + place)]))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def untaken(root, user, n):
    """Item indices that a user of the run has not taken."""
    taken = pl.read_parquet(next(root.glob("interactions/[!.]*")) / INTERACTIONS.file)
    own = taken.filter(user_index=user)["item_index"].to_list()
    return [item for item in range(1, 100) if item not in own][:n]


def test_lists_are_the_recommenders_own_ranking_of_what_was_not_seen(root):
    walk, table = recommended(root, k=7)
    chain = chosen(walk.store, RecommendConfig())
    assert isinstance(chain, Chain)
    world = walk.store.open(chain.interactions)
    items = ITEMS.read(world)
    sequences = Sequences.of(INTERACTIONS.read(world), items.height)
    model, _ = load_oracle(walk.store.open(chain.oracle).folder)
    reader, _ = load_recommender(walk.store.open(chain.recommender).folder)
    texts = REASONINGS.read(walk.artifact("current_reasonings"))
    assert texts["user_index"].to_list() == list(range(N_USERS))
    users = np.arange(N_USERS)
    states = states_of(model, sequences, users, sequences.lengths)
    vectors = torch.from_numpy(SentenceEncoder("minilm").encode(texts["reasoning"].to_list()))
    scores = reader.scores(states, vectors[:, None])[:, 0]
    usable = torch.from_numpy(texts["malformed"].is_null().to_numpy())
    scores = torch.where(usable[:, None], scores, reader.base_scores(states))
    ids = items["item_id"].to_list()
    names = USERS.read(world)["user_id"].to_list()
    for user in users.tolist():
        own = scores[user].clone()
        own[torch.from_numpy(sequences.slice(user, 0, 999))] = -torch.inf
        own[0] = -torch.inf
        best = [ids[item - 1] for item in own.topk(7).indices.tolist()]
        listed = table.filter(user_id=names[user])
        assert listed["item_id"].to_list() == best
        assert listed["rank"].to_list() == list(range(1, 8))
        told = texts["reasoning"][user] if usable[user] else None
        assert listed["reasoning"].to_list() == [told] + [None] * 6


def test_the_recommender_is_the_refitted_one_and_the_policy_that_of_the_best_round(finished):
    chain = chosen(finished.store, RecommendConfig())
    assert isinstance(chain, Chain)
    assert chain.recommender == finished.artifact("recommender, round 1").reference
    assert chain.policy == finished.artifact("alignment, round 1").reference


def test_seen_items_come_back_when_asked_for(root):
    _, without = recommended(root, k=20)
    _, everything = recommended(root, k=20, exclude_seen=False)
    taken = pl.read_parquet(next(root.glob("interactions/[!.]*")) / INTERACTIONS.file)
    world = next(root.glob("interactions/[!.]*"))
    named = taken.join(pl.read_parquet(world / ITEMS.file), on="item_index").join(
        pl.read_parquet(world / USERS.file), on="user_index"
    )
    pairs = named.select("user_id", "item_id")
    assert without.join(pairs, on=["user_id", "item_id"], how="semi").is_empty()
    assert everything.join(pairs, on=["user_id", "item_id"], how="semi").height > 0


class Watched(Sequences):
    """Sequences that note the shape of every table made of them."""

    shapes: ClassVar[list[tuple[int, ...]]] = []

    def until(self, users, stops, max_length):
        table, lengths = super().until(users, stops, max_length)
        self.shapes.append(table.shape)
        return table, lengths


def test_one_long_history_does_not_pad_those_of_the_whole_shard(finished, monkeypatch):
    chain = chosen(finished.store, RecommendConfig())
    assert isinstance(chain, Chain)
    world, oracle, reader = (finished.store.open(one) for one in
                             (chain.interactions, chain.oracle, chain.recommender))  # fmt: skip
    ranker = open_ranker(world, oracle, reader, SentenceEncoder("minilm"), "cpu")
    own, n_long = ranker.sequences, 5000
    offsets = np.append(own.offsets, own.offsets[-1] + n_long)
    items = np.append(own.items, np.arange(n_long) % 90 + 1)
    ranker = replace(ranker, sequences=Watched(offsets, items, own.n_items))
    users = pl.DataFrame(
        {"user_index": range(N_USERS + 1), "user_id": [str(u) for u in range(N_USERS + 1)],
         "reasoning": [None] * (N_USERS + 1)}, schema_overrides={"reasoning": pl.String},
    )  # fmt: skip
    config = ServingConfig(k=5)
    whole = ranker.rows(users, config)
    assert (N_USERS + 1, n_long) in Watched.shapes  # all users at once: one table
    Watched.shapes.clear()
    monkeypatch.setattr(top_lists, "CHUNK_SCORES", 2 * (own.n_items + 1))
    assert ranker.rows(users, config).drop("score").equals(whole.drop("score"))
    assert [shape for shape in Watched.shapes if shape[1] == n_long] == [(1, n_long)]


def test_a_second_night_writes_texts_only_for_users_whose_history_changed(root, tmp_path):
    _, before = recommended(root)
    active = [3, 17, 40]  # 5 % of the users
    rows = [(user, untaken(root, user, 1)[0]) for user in active]
    second, after = recommended(root, interactions=newer(root, tmp_path / "n.csv", rows))
    figures = second.artifact("current_reasonings").manifest.figures
    assert figures["texts_written"] == len(active)
    assert figures["texts_kept"] == N_USERS - len(active)
    names = USERS.read(second.artifact("histories"))["user_id"]
    changed = set(names.gather(active))
    same = ~pl.col("user_id").is_in(changed)
    assert before.filter(same).equals(after.filter(same))
    third, again = recommended(root, interactions=newer(root, tmp_path / "n.csv", rows))
    assert third.done == second.done
    assert again.equals(after)


def test_new_users_get_lists_and_what_is_unknown_is_counted_and_named(root, tmp_path):
    rows = [
        ("new one", 5),
        ("new one", 9),
        (2, "strange"),
        ("lost", "strange"),
        ("lost", "odd\x1b[2J"),
    ]
    path = newer(root, tmp_path / "n.csv", rows)
    walk, table = recommended(root, interactions=path, k=3)
    assert table.filter(user_id="new one")["rank"].to_list() == [1, 2, 3]
    lost = table.filter(user_id="lost")
    assert lost.select("rank", "item_id", "why_none").rows() == [(None, None, "only unknown items")]
    made = walk.artifact("histories")
    assert UNKNOWN_ITEMS.read(made).rows() == [("strange", 2), ("odd\x1b[2J", 1)]
    assert made.manifest.figures["new_users"] == 1
    assert made.manifest.dropped == {"unknown_item": 3}
    told = in_words(walk.store, walk.artifact("serving").manifest, Path("x.parquet"))
    assert told == (
        "61 of 62 users have recommendations in x.parquet; without recommendations: 1 (only "
        "unknown items); of 5 newer rows 2 are new, by 1 new users; 2 unknown items: strange, "
        r"odd\x1b[2J"  # no id clears the screen
    )


def test_who_took_only_unknown_items_may_be_asked_for_alone(root, tmp_path):
    path = newer(root, tmp_path / "n.csv", [("lost", "strange")])
    (tmp_path / "u.txt").write_text("lost\n")
    _, table = recommended(root, interactions=path, users=str(tmp_path / "u.txt"))
    assert table["why_none"].to_list() == ["only unknown items"]


def test_an_interrupted_night_continues_after_its_last_shard(root, monkeypatch):
    _, whole = recommended(root, k=6)
    monkeypatch.setattr(tasks.serving, "SHARD_USERS", 16)
    rank, ranked = Ranker.rows, []

    def rank_until_an_accident(self, users, config):
        ranked.append(users.height)
        if len(ranked) == 3:
            raise KeyboardInterrupt
        return rank(self, users, config)

    monkeypatch.setattr(Ranker, "rows", rank_until_an_accident)
    shutil.rmtree(root / "serving")
    with pytest.raises(KeyboardInterrupt):
        recommended(root, k=6)
    _, again = recommended(root, k=6)
    assert ranked == [16, 16, 16, 16, N_USERS - 48]
    assert again.equals(whole)


@pytest.mark.parametrize("larger", [1, 3])
def test_a_loaded_llm_writes_on_a_processor_in_short_shards(copy, monkeypatch, larger):
    """Each takes a minute or two, and a killed run loses one; of a larger LLM they are shorter."""
    monkeypatch.setattr("tasks.reasonings.grammar_of", lambda *given: None)  # as of a loaded LLM
    kept, add = [], KeptRows.add

    def noted(self, rows):
        kept.append(rows.height)
        add(self, rows)

    monkeypatch.setattr(KeptRows, "add", noted)
    walk, config = direct(copy), RecommendConfig()
    walk.runtime = walk.runtime.model_copy(update={"shard_users": 50, "shard_tokens": 1000})
    chain = chosen(walk.store, config)
    assert isinstance(chain, Chain)
    held = stored(walk.store.open(chain.policy), walk.runtime.root).unweighted()
    monkeypatch.setattr("tasks.reasonings.USUAL_WEIGHTS", held.model.num_parameters() / larger)
    stages(walk, config, chain)
    prompts = 1000 // larger // (chain.asked.max_new_tokens + 1)  # no prompt is empty
    assert len(kept) > 3
    assert max(kept) <= prompts < 50
    assert sum(kept) > N_USERS - 10  # a few have a text in common


def test_texts_about_other_histories_are_refused(root, tmp_path):
    config = RecommendConfig(interactions=newer(root, tmp_path / "n.csv", [(0, 1)]))
    walk = direct(root)
    chain = chosen(walk.store, config)
    assert isinstance(chain, Chain)
    stages(walk, config, chain)
    given = dict(walk.artifact("serving").manifest.inputs)
    given["histories"] = chain.interactions  # as they were before the newer rows
    with pytest.raises(UserError, match=r"histories is interactions/.*, but reasonings.histories"):
        walk(serving, config.serving, given)


def test_a_list_of_users_limits_texts_and_rows_and_keeps_its_order(root, tmp_path):
    names = pl.read_parquet(next(root.glob("interactions/[!.]*")) / USERS.file)["user_id"]
    (tmp_path / "u.txt").write_text(f"{names[9]}\nnobody\n{names[4]}\n")
    walk, table = recommended(root, users=str(tmp_path / "u.txt"), k=2)
    assert table["user_id"].to_list() == [names[9]] * 2 + [names[4]] * 2 + ["nobody"]
    assert table["why_none"].to_list() == [None] * 4 + ["no history"]
    assert REASONINGS.read(walk.artifact("current_reasonings"))["user_index"].to_list() == [4, 9]


def test_a_series_recommends_by_its_best_round(finished, copy):
    walk = direct(copy)
    made = {label: one.model_copy(update={"digest": ""}) for label, one in finished.done.items()}
    now = datetime.now(UTC)
    at = {"run": "r", "started": now, "finished": now}
    first = SeriesRound(number=0, validation=0.0, **at)
    best = SeriesRound(number=1, validation=1.0, alignment=made["alignment, round 1"], **at)
    told = Generation(began=now, reason="the first", rounds=[first, best], stages=made)
    series = Series(name="mine", generations=[told])
    SERIES.write(walk.store, series)
    by_series = chosen(walk.store, RecommendConfig(series="mine"))
    assert by_series == chosen(walk.store, RecommendConfig())
    with pytest.raises(UserError, match="there is no series other, or none"):
        chosen(walk.store, RecommendConfig(series="other"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"run": "oracle"}, "no artifact 'oracle'"),
        ({"users": "nowhere.txt"}, "nowhere.txt: there is no such file of users"),
        ({"interactions": "n.csv"}, "n.csv: there is no such file of newer interactions"),
        ({"template": "movies"}, "other content than the run's template attributes.txt"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_computed(root, settings, message):
    with pytest.raises(UserError, match=message) as told:
        recommended(root, **settings)
    assert "\n" not in str(told.value)


def test_a_newer_file_with_other_columns_is_told_in_a_line(root, tmp_path):
    (tmp_path / "n.csv").write_text("who,what,when\na,b,1\n")
    with pytest.raises(UserError, match=r"n.csv: has no column user_id, item_id, .*") as told:
        recommended(root, interactions=str(tmp_path / "n.csv"))
    assert "\n" not in str(told.value)


def test_a_list_without_any_known_user_is_refused(root, tmp_path):
    (tmp_path / "u.csv").write_text("user_id\nx\ny\n")
    with pytest.raises(UserError, match=r"u.csv: none of its 2 ids is a user of this run: .* 'x'"):
        recommended(root, users=str(tmp_path / "u.csv"))


def test_a_template_of_ones_own_is_found_in_the_working_folder(finished, tmp_path, monkeypatch):
    chain = chosen(finished.store, RecommendConfig())
    assert isinstance(chain, Chain)
    monkeypatch.chdir(tmp_path)
    (tmp_path / chain.template).write_text("another text of that name")
    assert template_path(chain) != Path(chain.template)  # the packaged one is the run's
    (tmp_path / "mine.txt").write_text("{{ history[-1].title }} =")
    digest = file_digest(tmp_path / "mine.txt")
    own = replace(chain, template="mine.txt", template_digest=digest)
    assert template_path(own) == Path("mine.txt")
    (tmp_path / "mine.txt").write_text("changed")
    with pytest.raises(UserError, match="mine"):
        template_path(own)


def test_a_root_without_a_finished_run_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no finished run at .* yet; `recalign run dpo4rec`"):
        chosen(direct(tmp_path / "new").store, RecommendConfig())


@pytest.mark.parametrize("anew", ["aligned", "evaluation"])
def test_a_run_whose_parts_were_computed_anew_recommends_nothing(finished, copy, anew):
    store = direct(copy).store
    one = finished_run(store).inputs[anew]
    made_anew(store, one)
    with pytest.raises(UserError, match=f"{one.name} was computed anew since"):
        chosen(store, RecommendConfig())
