"""What each strategy rejects, and that no accident rejects what the user took."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest

import recalign.rejections.reject
from recalign.config import (
    MixConfig,
    RejectionsConfig,
    RejectionsStage,
    Strategy,
    TitlePromptConfig,
)
from recalign.errors import UserError
from recalign.rejections.collect import reject_in_shards
from recalign.rejections.describe import describe_rejections
from recalign.rejections.draft import TOO_FEW, Sources
from recalign.rejections.draws import largest, popularity_weights, successive, unit_vectors
from recalign.rejections.reject import reject
from recalign.rejections.strategies import NOT_ABOVE
from recalign.sequences import Sequences

N_USERS, LENGTH, N_ITEMS = 30, 12, 40
HISTORY = TitlePromptConfig(history_items=4)
QUESTION = TitlePromptConfig(format="candidates", history_items=4, n_candidates=8)


def world() -> tuple[Sequences, np.ndarray, np.ndarray]:
    """Users with LENGTH different items each; popularity [I+1]; unit vectors [I+1, 3]."""
    random = np.random.default_rng(5)
    items = np.concatenate([random.permutation(N_ITEMS)[:LENGTH] + 1 for _ in range(N_USERS)])
    vectors = random.normal(size=(N_ITEMS + 1, 3))
    vectors[0] = 0
    popularity = np.arange(N_ITEMS + 1) ** 2
    return (
        Sequences(np.arange(N_USERS + 1) * LENGTH, items, N_ITEMS),
        popularity,
        unit_vectors(vectors),
    )


SEQUENCES, POPULARITY, VECTORS = world()
USERS = np.repeat(np.arange(N_USERS), 3)
POSITIONS = np.tile([7, 8, 9], N_USERS)


def render(history: Sequence[int], candidates: Sequence[int]) -> str:
    return f"{list(history)} {list(candidates)}".replace(" []", "")


def score(prompts: list[str], pools: np.ndarray | None) -> np.ndarray:
    """A model whose log-probability of an item depends on the item and on the last item shown."""
    last = np.array([int(prompt.split("]")[0].split(",")[-1].strip(" [")) for prompt in prompts])
    items = np.tile(np.arange(N_ITEMS + 1), (len(last), 1)) if pools is None else pools
    found = -(((items * 7 + last[:, None] * 3) % 41) / 4.0)
    return np.where(items > 0, found, -np.inf)


def stage_config(settings: dict[str, Any], prompt: TitlePromptConfig) -> RejectionsStage:
    """The model scores the whole catalogue unless the settings say otherwise."""
    return RejectionsConfig.model_validate({"pool": 0} | settings).asked_as(prompt)


def rejected(
    prompt: TitlePromptConfig = HISTORY,
    users: np.ndarray = USERS,
    positions: np.ndarray = POSITIONS,
    sequences: Sequences = SEQUENCES,
    **settings: Any,
) -> pl.DataFrame:
    config = stage_config(settings, prompt)
    sources = Sources(sequences, POPULARITY, VECTORS, render, score)
    return reject(config, sources, users, positions)


EVERY: list[dict[str, Any]] = [
    {"strategy": "random", "n_rejected": 3},
    {"strategy": "popularity", "n_rejected": 3},
    {"strategy": "semantic", "n_rejected": 3, "neighbours": 5},
    {"strategy": "self_hard", "n_rejected": 3},
    {"strategy": "self_hard", "n_rejected": 3, "pool": 9},
    {"strategy": "self_softmax", "n_rejected": 3, "temperature": 2.0},
    {
        "strategy": "mix", "n_rejected": 3,
        "mix": {"self_hard": 1, "self_softmax": 1, "semantic": 1, "popularity": 1, "random": 1},
    },
]  # fmt: skip


@pytest.mark.parametrize("prompt", [HISTORY, QUESTION], ids=["history", "candidates"])
@pytest.mark.parametrize("settings", EVERY, ids=lambda s: f"{s['strategy']}{s.get('pool', '')}")
def test_nothing_taken_up_to_the_position_is_rejected_and_nothing_twice(settings, prompt):
    kept = rejected(prompt, **settings).filter(pl.col("left_out").is_null())
    assert len(kept) > 30
    for row in kept.iter_rows(named=True):
        own = SEQUENCES.slice(row["user_index"], 0, LENGTH).tolist()
        taken = own[: row["position"] + 1]
        assert row["chosen"] == taken[-1]
        assert row["history"] == taken[row["first_position"] : -1]
        assert len(set(row["rejected"]) - set(taken) - {0}) == 3
        assert len(row["strategies"]) == len(row["scores"]) == 3
        if prompt is QUESTION:
            assert len(set(row["candidates"])) == 8
            assert {row["chosen"], *row["rejected"]} <= set(row["candidates"])
            assert not set(row["candidates"]) & set(taken[:-1])
        else:
            assert row["candidates"] == []
        assert row["prompt"] == render(row["history"], row["candidates"])


@pytest.mark.parametrize("settings", EVERY, ids=lambda s: f"{s['strategy']}{s.get('pool', '')}")
def test_a_row_does_not_depend_on_the_others_or_on_its_batch(settings, tmp_path: Path):
    together = rejected(**settings)
    order = np.random.default_rng(0).permutation(len(USERS))[:40]
    shuffled = rejected(users=USERS[order], positions=POSITIONS[order], **settings)
    assert shuffled.equals(together[order.tolist()])
    config = stage_config(settings, HISTORY)
    sources = Sources(SEQUENCES, POPULARITY, VECTORS, render, score)
    some = partial(reject, config, sources)
    table, left_out = reject_in_shards(some, USERS, POSITIONS, tmp_path, shard_rows=7)
    assert table.equals(together.filter(pl.col("left_out").is_null()).drop("left_out"))
    assert len(table) + sum(left_out.values()) == len(USERS)


@pytest.mark.parametrize("settings", EVERY, ids=lambda s: f"{s['strategy']}{s.get('pool', '')}")
def test_of_a_large_catalogue_few_rows_are_in_hand_at_once_and_are_the_same(settings, monkeypatch):
    together, asked = rejected(**settings), []

    def watch(prompts: list[str], pools: np.ndarray | None) -> np.ndarray:
        asked.append(len(prompts))
        return score(prompts, pools)

    monkeypatch.setattr(recalign.rejections.reject, "PLACES", 4 * (N_ITEMS + 1) + 1)
    config = stage_config(settings, HISTORY)
    sources = Sources(SEQUENCES, POPULARITY, VECTORS, render, watch)
    assert reject(config, sources, USERS, POSITIONS).equals(together)
    assert max(asked, default=0) <= 4
    assert bool(asked) == config.needs_sft


def test_what_the_user_takes_later_may_be_rejected_for_the_draw_does_not_look_ahead():
    later = SEQUENCES.items.reshape(N_USERS, LENGTH).copy()
    later[:, 10:] = later[:, :9:-1]
    moved = Sequences(SEQUENCES.offsets, later.ravel(), N_ITEMS)
    for settings in EVERY:
        assert rejected(sequences=moved, **settings).equals(rejected(**settings))
    table = rejected(strategy="random", n_rejected=20)
    described = describe_rejections(table.drop("left_out"), SEQUENCES, POPULARITY, VECTORS)
    # of 40 items 8, 9 or 10 are excluded and 4, 3 or 2 come later
    expected = np.mean([4 / 32, 3 / 31, 2 / 30])
    assert described["taken_later"].item() == pytest.approx(expected, abs=0.02)


def test_self_hard_takes_the_best_wrong_items_and_leaves_out_rows_without_an_error():
    table = rejected(strategy="self_hard", n_rejected=2)
    n_left_out = 0
    for row in table.iter_rows(named=True):
        taken = SEQUENCES.slice(row["user_index"], 0, row["position"] + 1)
        scores = score([row["prompt"]], None)[0]
        wrong = [item for item in range(1, N_ITEMS + 1) if item not in taken]
        best = sorted(wrong, key=lambda item: (-scores[item], item))[:2]
        assert row["rejected"] == best
        assert row["scores"] == scores[best].tolist()
        assert row["chosen_score"] == scores[row["chosen"]]
        above = scores[best[0]] > scores[row["chosen"]]
        assert row["left_out"] == (None if above else NOT_ABOVE)
        n_left_out += not above
    assert 0 < n_left_out < len(table)


def test_a_pool_limits_what_the_model_may_prefer_and_always_holds_the_truth():
    seen = []

    def watch(prompts: list[str], pools: np.ndarray | None) -> np.ndarray:
        assert pools is not None
        seen.extend(pools.tolist())
        return score(prompts, pools)

    config = RejectionsConfig(strategy="self_hard", pool=6).asked_as(HISTORY)
    table = reject(config, Sources(SEQUENCES, POPULARITY, VECTORS, render, watch), USERS, POSITIONS)
    for row, pool in zip(table.iter_rows(named=True), seen, strict=True):
        assert len(set(pool)) == 6
        assert row["chosen"] in pool
        assert set(row["rejected"]) < set(pool)


def test_self_softmax_draws_by_the_models_tempered_probabilities():
    position, n = 8, 4000
    own = SEQUENCES.slice(0, 0, position + 1)
    longer = Sequences(np.arange(n + 1) * len(own), np.tile(own, n), N_ITEMS)
    users, positions = np.arange(n), np.full(n, position)
    table = rejected(
        users=users, positions=positions, sequences=longer, strategy="self_softmax", temperature=2.0
    )
    logits = score([table["prompt"][0]], None)[0] / 2.0
    logits[own] = -np.inf
    expected = np.exp(logits) / np.exp(logits).sum()
    counts = np.bincount(table["rejected"].explode().to_numpy(), minlength=N_ITEMS + 1) / n
    assert np.abs(counts - expected).max() < 4 * np.sqrt(expected.max() / n)


def test_popularity_draws_in_proportion_to_a_power_of_popularity():
    weights = np.arange(6) * np.log(2.0)  # 1, 2, 4, ... 32
    random = np.random.default_rng(2)
    free = np.array([False, True, True, False, True, True])
    first = Counter(int(successive(weights, free, 1, random)[0]) for _ in range(6000))
    for place, weight in ((1, 2), (2, 4), (4, 16), (5, 32)):
        assert first[place] / 6000 == pytest.approx(weight / 54, abs=0.025)
    assert sorted(successive(weights, free, 9, random).tolist()) == [1, 2, 4, 5]


def test_what_nobody_took_is_rejected_when_nothing_else_is_left_whatever_the_power():
    counts, random = np.repeat([0, 1], 50), np.random.default_rng(3)
    every = np.ones(100, dtype=bool)
    for alpha in (0.1, 1.0):
        weights = popularity_weights(counts, alpha)
        first = [int(successive(weights, every, 1, random)[0]) for _ in range(2000)]
        assert min(first) >= 50
        assert set(successive(weights, every, 51, random)[:50]) == set(range(50, 100))
    assert not popularity_weights(counts, 0).any()


def test_semantic_rejects_near_neighbours_of_the_target_or_of_the_history():
    for to in ("target", "history"):
        table = rejected(strategy="semantic", neighbours=3, semantic_to=to)
        for row in table.iter_rows(named=True):
            own = SEQUENCES.slice(row["user_index"], 0, row["position"] + 1)
            mean = VECTORS[row["history"]].mean(0)
            anchor = VECTORS[row["chosen"]] if to == "target" else mean / np.linalg.norm(mean)
            similarity = VECTORS @ anchor
            free = np.setdiff1d(np.arange(1, N_ITEMS + 1), own)
            near = free[np.argsort(-similarity[free])[:3]]
            assert row["rejected"][0] in near
            assert row["scores"][0] == pytest.approx(similarity[row["rejected"][0]])


def test_a_mix_weighs_every_strategy():
    named = dict.fromkeys(get_args(Strategy), 1.0)
    assert MixConfig(**named).weights() == named
    assert set(MixConfig.model_fields) == set(named)


def test_a_mix_gives_each_strategy_its_share():
    mix = {"self_hard": 0, "semantic": 1, "popularity": 3, "random": 0}
    table = rejected(strategy="mix", n_rejected=4, mix=mix)
    shares = Counter(table["strategies"].explode())
    assert set(shares) == {"semantic", "popularity"}
    assert shares["popularity"] / shares.total() == pytest.approx(0.75, abs=0.06)


def test_rows_with_too_few_items_left_are_left_out_and_counted(tmp_path: Path):
    config = RejectionsConfig(strategy="random", n_rejected=32).asked_as(HISTORY)
    sources = Sources(SEQUENCES, POPULARITY, VECTORS, render)
    table, left_out = reject_in_shards(partial(reject, config, sources), USERS, POSITIONS, tmp_path)
    assert left_out == {TOO_FEW: 2 * N_USERS}  # 32 items are free at position 7, 31 and 30 later
    assert set(table["position"]) == {7}


def test_that_no_pair_can_be_made_is_told_with_what_would_make_some(tmp_path: Path):
    config = RejectionsConfig(strategy="random", n_rejected=33).asked_as(HISTORY)
    make = partial(reject, config, Sources(SEQUENCES, POPULARITY, VECTORS, render))
    told = r"lower rejections\.n_rejected, raise rejections\.neighbours \(semantic\), or choose"
    with pytest.raises(UserError, match=told):
        reject_in_shards(make, USERS, POSITIONS, tmp_path)


def test_a_mix_that_draws_few_neighbours_needs_no_more_of_them_than_it_draws():
    mix = {"self_hard": 0, "semantic": 1, "popularity": 2, "random": 2}
    table = rejected(strategy="mix", n_rejected=6, neighbours=5, mix=mix)  # one or two of six
    assert table["left_out"].is_null().all()


def test_finished_shards_are_read_and_not_made_again(tmp_path: Path):
    config = RejectionsConfig(strategy="self_hard").asked_as(HISTORY)
    asked: list[int] = []

    def count(prompts: list[str], pools: np.ndarray | None) -> np.ndarray:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return score(prompts, pools)

    killed = partial(reject, config, Sources(SEQUENCES, POPULARITY, VECTORS, render, count))
    with pytest.raises(KeyboardInterrupt):
        reject_in_shards(killed, USERS, POSITIONS, tmp_path, shard_rows=30)
    asked.pop()
    reject_in_shards(killed, USERS, POSITIONS, tmp_path, shard_rows=30)
    assert asked == [30, 30]  # one shard was left to make


def test_the_description_is_what_the_tables_say():
    table = rejected(strategy="self_hard", n_rejected=2).drop("left_out")
    truth = np.linspace(0, 1, 2 * len(table)).reshape(-1, 2)
    row = describe_rejections(table, SEQUENCES, POPULARITY, VECTORS, truth).row(0, named=True)
    items = table["rejected"].explode().to_numpy()
    assert (row["strategy"], row["rejected"]) == ("self_hard", len(items))
    assert row["distinct"] == len(set(items.tolist()))
    assert row["log_popularity"] == pytest.approx(np.log1p(POPULARITY[items]).mean())
    chosen = np.repeat(table["chosen"].to_numpy(), 2)
    assert row["log_popularity_chosen"] == pytest.approx(np.log1p(POPULARITY[chosen]).mean())
    expected = np.mean([VECTORS[a] @ VECTORS[b] for a, b in zip(items, chosen, strict=True)])
    assert row["cosine_target"] == pytest.approx(expected, abs=1e-6)
    above = [
        s > c
        for s, c in zip(table["scores"].explode(), np.repeat(table["chosen_score"], 2), strict=True)
    ]
    assert row["above_truth"] == pytest.approx(np.mean(above))
    assert row["false_negatives"] == pytest.approx(0.5)


def test_a_mix_is_described_by_strategy_and_as_a_whole():
    mix = {"self_hard": 1, "semantic": 1, "popularity": 1}
    table = rejected(strategy="mix", n_rejected=3, mix=mix).drop("left_out")
    described = describe_rejections(table, SEQUENCES, POPULARITY, VECTORS)
    assert described["strategy"].to_list() == ["popularity", "self_hard", "semantic", "all"]
    assert described["rejected"][-1] == described["rejected"][:-1].sum() == 3 * len(table)
    assert described["false_negatives"].null_count() == 4


def test_the_largest_values_come_first_and_lower_places_before_equal_ones():
    assert largest(np.array([1.0, 3.0, 2.0, 3.0, 3.0]), 3).tolist() == [1, 3, 4]
    assert largest(np.array([1.0, 3.0]), 5).tolist() == [1, 0]
    assert largest(np.zeros(0), 2).tolist() == []
