"""Recommending by titles: the LLM's own ranking, SASRec's best ranked anew, nothing done twice."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from flows.rosepo import variants
from flows.serving.recommend import chosen, stages
from recalign.artifacts import shards
from recalign.config import OracleConfig, RecommendConfig, RosePOConfig, TitleServingConfig
from recalign.errors import UserError
from recalign.oracle.inference import states_of
from recalign.oracle.storage import load_oracle
from recalign.schemas import INTERACTIONS, ITEMS, SERVING, USERS
from recalign.sequences import Sequences
from recalign.stored import open_policy
from recalign.title_recommending import open_title_ranker
from recalign.titles.likelihood import TitleScorer
from tasks.engine.stage import Stage
from tasks.oracle import oracle
from tasks.title_serving import title_serving
from tests.tasks.test_recommendations_stage import SHOWN, walk  # noqa: F401
from tests.tasks.tiny_run import CONFIG


def served(walk, label="sft", recalled_by="oracle", **settings):  # noqa: F811
    """The table of the LLM of this label, and the artifact."""
    inputs = {"histories": walk.done["interactions"], "oracle": walk.done[recalled_by],
              "policy": walk.done[label]}  # fmt: skip
    name = f"served {label} {recalled_by} {settings}"
    walk(title_serving, TitleServingConfig(**settings), inputs, label=name)
    return SERVING.read(walk.artifact(name)), walk.artifact(name)


def likelihoods(walk):  # noqa: F811
    """Log-probability of every title after every user's whole history, by a plain pass: [U, I]."""
    policy = open_policy(walk.artifact("sft"), walk.runtime.root, "cpu")
    found = []
    for history in histories(walk):
        ids = [policy.tokenizer.bos_token_id, *(item + 3 for item in history[-SHOWN:])]
        with torch.no_grad():
            logits = policy.model(torch.tensor([ids])).logits[0, -1].double()
        found.append(logits.log_softmax(0)[4:].numpy())  # item i is token i + 3
    return np.array(found)


def histories(walk):  # noqa: F811
    taken = INTERACTIONS.read(walk.artifact("interactions")).sort("user_index", "position")
    return taken.group_by("user_index", maintain_order=True).agg("item_index")["item_index"]


def names(walk):  # noqa: F811
    world = walk.artifact("interactions")
    return USERS.read(world)["user_id"].to_list(), ITEMS.read(world)["item_id"].to_list()


def test_the_llm_ranks_the_whole_catalogue_as_plain_passes_do(walk):  # noqa: F811
    table, _ = served(walk, k=4)
    users, items = names(walk)
    scores = likelihoods(walk)
    for place, history in enumerate(histories(walk)):
        own = scores[place].copy()
        own[[item - 1 for item in history]] = -np.inf
        best = np.argsort(-own, kind="stable")[:4]
        listed = table.filter(user_id=users[place])
        assert listed["item_id"].to_list() == [items[item] for item in best]
        assert listed["score"].to_list() == pytest.approx(own[best].tolist(), abs=1e-4)
    assert table["reasoning"].null_count() == table.height


@pytest.mark.parametrize("architecture", ["sasrec", "gru4rec"])
def test_the_oracles_best_are_ranked_anew_by_the_llm(walk, architecture):  # noqa: F811
    settings = OracleConfig(**dict(CONFIG.oracle) | {"architecture": architecture})
    world = {name: walk.done[name] for name in ("interactions", "splits")}
    walk(oracle, settings, world, label=architecture)
    table, _ = served(walk, recalled_by=architecture, k=3, candidates=9)
    users, items = names(walk)
    world = walk.artifact("interactions")
    sequences = Sequences.of(INTERACTIONS.read(world), len(items))
    model, _ = load_oracle(walk.artifact(architecture).folder)
    assert type(model).__name__.lower() == architecture
    states = states_of(model, sequences, np.arange(len(users)), sequences.lengths)
    ranked = (states @ model.item_matrix().T + model.bias).double().detach().numpy()[:, 1:]
    scores = likelihoods(walk)
    for place, history in enumerate(histories(walk)):
        ranked[place][[item - 1 for item in history]] = -np.inf
        picked = np.argsort(-ranked[place])[:9]
        best = picked[np.argsort(-scores[place][picked])][:3]
        listed = table.filter(user_id=users[place])["item_id"].to_list()
        assert listed == [items[item] for item in best]


def test_more_items_than_the_catalogue_has_are_as_many_as_there_are(walk):  # noqa: F811
    users, items = names(walk)
    left = [len(items) - len(set(history)) for history in histories(walk)]
    for settings in ({"k": 1000}, {"k": 1000, "candidates": 10_000}):
        table, _ = served(walk, **settings)
        found = dict(table.group_by("user_id").len().iter_rows())
        assert [found[user] for user in users] == left
        assert table.group_by("user_id").agg("item_id")["item_id"].list.n_unique().sum() == sum(
            left
        )


def test_a_comparisons_row_is_named_after_what_ranks_in_it():
    for architecture, name in (("sasrec", "SASRec"), ("gru4rec", "GRU4Rec")):
        config = RosePOConfig.model_validate({"oracle": {"architecture": architecture}})
        assert [row.label for row in variants(config) if row.kind == "sasrec"] == [name]


@pytest.mark.parametrize("label", ["asked with candidates", "asked for the next line"])
def test_an_llm_of_many_tokens_ranks_too_and_a_wide_beam_finds_the_same(walk, label):  # noqa: F811
    table, _ = served(walk, label, k=2, candidates=5)
    assert table.group_by("user_id").len()["len"].unique().to_list() == [2]
    if label == "asked for the next line":
        whole, _ = served(walk, label, k=2)
        beams, _ = served(walk, label, k=2, beam=len(names(walk)[1]))
        assert beams.drop("score").equals(whole.drop("score"))


def test_titles_are_shown_in_an_order_of_the_history_whoever_has_it(walk):  # noqa: F811
    world, recaller, policy = (
        walk.artifact(name) for name in ("interactions", "oracle", "asked with candidates")
    )
    ranker = open_title_ranker(world, recaller, policy, walk.runtime.root, "cpu")
    one = ranker.sequences.slice(0, 0, 1 << 62)
    same = Sequences(np.arange(4) * len(one), np.tile(one, 3), ranker.sequences.n_items)
    same.items[-1] = same.items[-1] % same.n_items + 1
    picked = np.tile(np.arange(1, 21), (3, 1))
    first, second, other = replace(ranker, sequences=same)._shown(np.arange(3), picked)
    assert first == second != other
    assert sorted(first) == sorted(other) == list(range(1, 21))


def test_lists_of_unchanged_histories_are_kept(walk, tmp_path):  # noqa: F811
    (tmp_path / "u.txt").write_text("\n".join(names(walk)[0][:10]))
    inputs = {"histories": walk.done["interactions"], "oracle": walk.done["oracle"],
              "policy": walk.done["sft"]}  # fmt: skip
    config, some = TitleServingConfig(k=6), {"users": [tmp_path / "u.txt"]}
    walk(title_serving, config, inputs, label="some", files=some)
    assert walk.artifact("some").manifest.figures["lists_made"] == 10
    walk(title_serving, config, inputs, label="all")
    figures = walk.artifact("all").manifest.figures
    assert (figures["lists_made"], figures["lists_kept"]) == (50, 10)
    every, few = (SERVING.read(walk.artifact(label)) for label in ("all", "some"))
    assert few.equals(every.filter(pl.col("user_id").is_in(few["user_id"].implode())))
    raised = Stage(title_serving.name, 2, title_serving.body)
    walk(raised, config, inputs, label="raised", files=some)
    assert walk.artifact("raised").manifest.figures["lists_made"] == 10


@pytest.mark.parametrize("killed", ["while reading", "before a shard's file"])
def test_a_killed_run_keeps_every_batch_and_counts_each_list_once(walk, monkeypatch, killed):  # noqa: F811
    """Also when it goes on with shards of another size."""
    read, write = TitleScorer.read, shards._write
    asked: list[int] = []
    told: list[tuple[int, int, str]] = []
    ahead = [(killed, 6 if killed == "while reading" else 8)]

    def accident(where):
        if ahead == [(where, len(asked))]:
            ahead.clear()
            raise KeyboardInterrupt

    def read_until(self, prompts):
        asked.append(len(prompts))
        accident("while reading")
        return read(self, prompts)

    def write_until(table, path, key):
        accident("before a shard's file")
        write(table, path, key)

    @contextmanager
    def progress_noted(label):
        yield lambda *figures: told.append(figures)

    monkeypatch.setattr(TitleScorer, "read", read_until)
    monkeypatch.setattr(shards, "_write", write_until)
    monkeypatch.setattr("tasks.engine.stage.stage_progress", progress_noted)
    sizes = {"shard_users": 32, "generation_rows": 8}
    monkeypatch.setattr(walk, "runtime", walk.runtime.model_copy(update=sizes))
    k = 5 if killed == "while reading" else 7  # lists of their own
    with pytest.raises(KeyboardInterrupt):
        served(walk, k=k)
    lost = 8 if killed == "while reading" else 0
    places = [8, 16, 24, 32, 32, 40, 48, 56, 60]  # a shard whose file is written is told, too
    assert [done for done, _, _ in told] == places[: 6 if lost else 9]
    sizes = {"shard_users": 20, "generation_rows": 8}
    monkeypatch.setattr(walk, "runtime", walk.runtime.model_copy(update=sizes))
    _, made = served(walk, k=k)
    assert sum(asked) == 60 + lost
    assert told[-1] == (60, 60, "users")
    figures = made.manifest.figures
    assert (figures["lists_made"], figures["lists_kept"]) == (60, 0)


def test_candidates_are_refused_where_no_llm_ranks(finished, copy):
    from tests.tasks.tiny_run import direct

    run, config = direct(copy), RecommendConfig(candidates=100)
    with pytest.raises(UserError, match="candidates: a DPO4Rec run has no LLM that ranks items"):
        stages(run, config, chosen(run.store, config))
