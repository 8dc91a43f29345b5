"""Who is chosen and who is rejected, who gives no pair and why, and the report's figures."""

from collections import Counter

import polars as pl
import pytest

from recalign.config import PairsConfig
from recalign.errors import BadInputError, UserError
from recalign.pairs.describe import flat_pairs
from recalign.pairs.select import BEYOND, SMALL, TIED, TOO_FEW, require_pairs, select_pairs
from recalign.schemas import COMPLETIONS, PROMPTS, REASONINGS, REWARDS, check_table

# user -> list of (sample, text, reward, malformed)
SAMPLES = {
    0: [(0, "War and War", 0.2, None), (1, "Drama", 0.5, None), (2, "Crime", 0.1, None)],
    1: [(0, "bad", 0.0, "too short"), (1, "Comedy fun", 0.4, None), (2, "Horror", 0.3, None),
        (3, "!!", 0.9, "no sentence")],
    2: [(0, "Drama", 0.3, None), (1, "War", 0.3, None)],
    3: [(0, "Drama", 0.3, None), (1, "Drama", 0.7, None), (2, "bad", 0.1, "too short")],
    4: [(2, "late", 0.6, None), (1, "early", 0.6, None), (3, "low b", 0.2, None),
        (0, "low a", 0.2, None)],
    5: [(0, "a", 0.30, None), (1, "b", 0.32, None)],
}  # fmt: skip


def tables(samples=SAMPLES):
    rows = [(user, *row) for user, own in samples.items() for row in own]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(
        ["user_index", "sample", "reasoning", "reward", "malformed"])}  # fmt: skip
    whole = pl.DataFrame(columns, schema_overrides={
        "user_index": pl.Int32, "sample": pl.Int16, "malformed": pl.String,
    }).with_columns(
        n_tokens=pl.lit(5, pl.Int32), ndcg_full=pl.col("reward"), ndcg_at_k=pl.lit(0.0),
        log_prob=pl.lit(-1.0),
    )  # fmt: skip
    users = sorted(samples)
    prompts = pl.DataFrame(
        {
            "user_index": users,
            "cutoff": [20] * len(users),
            "first_position": [8] * len(users),
            "items": [[1, 2]] * len(users),
            "prompt": [f"prompt of {user}" for user in users],
        },
        schema=PROMPTS,
    )
    return (
        check_table(whole, REWARDS, "rewards"), check_table(whole, REASONINGS, "reasonings"),
        prompts,
    )  # fmt: skip


def select(config=None, samples=SAMPLES):
    rewards, reasonings, prompts = tables(samples)
    return select_pairs(rewards, reasonings, prompts, config or PairsConfig())


def pair_of(user, **given):
    pairs, _, _ = select(**given)
    return flat_pairs(pairs).filter(user_index=user).row(0, named=True)


def row_of(user):
    return select()[0].filter(user_index=user).row(0, named=True)


def test_best_against_worst():
    assert pair_of(0) == {
        "user_index": 0, "chosen": "Drama", "rejected": "Crime",
        "chosen_reward": 0.5, "rejected_reward": 0.1, "margin": pytest.approx(0.4),
    }  # fmt: skip
    assert dict(select()[0].schema) == COMPLETIONS


def test_a_row_holds_every_usable_text_with_its_sample_number_and_reward():
    assert row_of(0) == {
        "user_index": 0, "position": None, "prompt": "prompt of 0",
        "completions": ["War and War", "Drama", "Crime"], "samples": [0, 1, 2],
        "rewards": [0.2, 0.5, 0.1], "chosen": 1, "rejected": [2], "smoothing": [0.0],
    }  # fmt: skip
    assert row_of(1)["samples"] == [1, 2]  # 0 and 3 are malformed


def test_malformed_texts_are_neither_chosen_nor_rejected():
    pair = pair_of(1)
    assert (pair["chosen"], pair["rejected"]) == ("Comedy fun", "Horror")


def test_among_equal_rewards_the_lowest_sample_number_counts():
    pair, row = pair_of(4), row_of(4)
    assert row["samples"] == [0, 1, 2, 3]
    assert (row["chosen"], row["rejected"]) == (1, [0])
    assert (pair["chosen"], pair["rejected"]) == ("early", "low a")


def test_users_without_a_pair_are_kept_with_the_reason():
    _, skipped, report = select(PairsConfig(min_margin=0.1))
    assert dict(skipped.iter_rows()) == {2: TIED, 3: TOO_FEW, 5: SMALL}
    assert report["skipped"] == {TIED: 1, TOO_FEW: 1, SMALL: 1}


def test_a_margin_of_just_min_margin_makes_no_pair():
    samples = {0: [(0, "a", 0.5, None), (1, "b", 0.25, None)]}
    assert len(select(PairsConfig(min_margin=0.25), samples)[0]) == 0
    assert len(select(PairsConfig(min_margin=0.2499), samples)[0]) == 1


def test_rounding_makes_no_pair():
    samples = {0: [(0, "a", 0.1 + 0.2, None), (1, "b", 0.3, None)]}
    pairs, skipped, _ = select(samples=samples)
    assert len(pairs) == 0
    assert skipped["reason"].to_list() == [TIED]


def test_only_the_largest_margins_are_kept():
    pairs, skipped, _ = select(PairsConfig(max_pairs=2))
    assert pairs["user_index"].to_list() == [0, 4]  # margins .4 and .4; then .1 and .02
    assert dict(skipped.iter_rows()) == {1: BEYOND, 2: TIED, 3: TOO_FEW, 5: BEYOND}


def test_a_difference_that_only_rounding_makes_is_a_tie():
    samples = {
        0: [(0, "Drama. War.", -6.0, None), (1, "War. Drama.", -6.0000003, None)],
        1: [(0, "Drama. War.", -6.0, None), (1, "War. Crime.", -6.001, None)],
    }
    pairs, skipped, report = select(samples=samples)
    assert pairs["user_index"].to_list() == [1]
    assert skipped.rows() == [(0, TIED)]
    assert report["tie_rate"] == 0.5


def test_the_greedy_reasoning_takes_no_part():
    samples = {0: [(-1, "greedy", 9.0, None), (0, "a", 0.5, None), (1, "b", 0.25, None)]}
    pairs, _, report = select(samples=samples)
    assert pairs["completions"].to_list() == [["a", "b"]]
    assert report["n_samples"] == 2


def test_the_order_of_rows_does_not_matter():
    rewards, reasonings, prompts = tables()
    turned = select_pairs(
        rewards.reverse(), reasonings.sample(fraction=1, shuffle=True, seed=0), prompts.reverse(),
        PairsConfig(),
    )  # fmt: skip
    assert turned[0].equals(select()[0])
    assert turned[1].equals(select()[1])
    assert turned[2] == select()[2]


def test_every_user_is_a_pair_or_skipped():
    for config in (PairsConfig(), PairsConfig(max_pairs=1), PairsConfig(min_margin=0.35)):
        pairs, skipped, _ = select(config)
        users = pairs["user_index"].to_list() + skipped["user_index"].to_list()
        assert sorted(users) == sorted(SAMPLES)


def test_the_report_counts_what_was_compared():
    _, _, report = select()
    # Pairs: users 0, 1, 4, 5. Comparable: those and user 2, who ties. 18 samples, 3 malformed; of
    # the 15 others one repeats a text of its user.
    assert report["n_pairs"] == 4
    assert report["n_users"] == 6
    assert report["n_samples"] == 18
    assert report["tie_rate"] == pytest.approx(1 / 5)
    assert report["malformed_rate"] == pytest.approx(3 / 18)
    assert report["duplicate_rate"] == pytest.approx(1 / 15)
    assert report["chosen_words"] == pytest.approx((1 + 2 + 1 + 1) / 4)
    assert report["rejected_words"] == pytest.approx((1 + 1 + 2 + 1) / 4)
    assert report["reward_chosen"] == pytest.approx((0.5 + 0.4 + 0.6 + 0.32) / 4)
    assert report["reward_rejected"] == pytest.approx((0.1 + 0.3 + 0.2 + 0.30) / 4)
    assert report["reward_random"] == pytest.approx((0.8 / 3 + 0.35 + 0.4 + 0.31) / 4)
    margins = [0.02, 0.1, 0.4, 0.4]
    assert report["margin_quantiles"]["0.0"] == pytest.approx(margins[0])
    assert report["margin_quantiles"]["0.5"] == pytest.approx((margins[1] + margins[2]) / 2)
    assert report["margin_quantiles"]["1.0"] == pytest.approx(margins[3])


def test_no_pair_at_all_gives_an_empty_table_and_a_report():
    pairs, skipped, report = select(samples={2: SAMPLES[2]})
    assert len(pairs) == 0
    assert dict(pairs.schema) == COMPLETIONS
    assert len(skipped) == 1
    assert report["tie_rate"] == 1.0
    assert report["reward_chosen"] is None


def test_a_reasoning_without_reward_is_an_error_that_names_it():
    rewards, reasonings, prompts = tables()
    gone = rewards.filter(~((pl.col("user_index") == 1) & (pl.col("sample") == 2)))
    with pytest.raises(BadInputError, match="sample 2 of user_index 1"):
        select_pairs(gone, reasonings, prompts, PairsConfig())


def test_a_reward_that_is_nan_is_an_error():
    rewards, reasonings, prompts = tables()
    broken = rewards.with_columns(reward=pl.lit(float("nan")))
    with pytest.raises(BadInputError, match="no finite reward"):
        select_pairs(broken, reasonings, prompts, PairsConfig())


def test_a_user_needs_exactly_one_prompt():
    rewards, reasonings, prompts = tables()
    with pytest.raises(BadInputError, match="user_index 4 has no prompt"):
        select_pairs(rewards, reasonings, prompts.filter(pl.col("user_index") != 4), PairsConfig())
    with pytest.raises(BadInputError, match="more than one prompt"):
        select_pairs(rewards, reasonings, pl.concat([prompts, prompts]), PairsConfig())


def test_pairs_of_fewer_than_two_users_are_refused_with_the_reasons_of_the_others():
    pairs, skipped, _ = select()
    require_pairs(pairs, skipped)
    pairs, skipped, _ = select(samples={user: SAMPLES[user] for user in (0, 2, 3)})
    told = f"there are 1 .*(1 x {TIED}|1 x {TOO_FEW})"
    with pytest.raises(UserError, match=told):
        require_pairs(pairs, skipped)


RANKED = {7: [(s, text, reward, None) for s, text, reward in (
    (0, "third", 0.3), (1, "best", 0.9), (2, "worst", 0.1), (3, "second", 0.6), (4, "also", 0.3),
)]}  # fmt: skip


def compared(samples=RANKED, **settings):
    pairs, _, _ = select(PairsConfig(**settings), samples)
    return [tuple(pair) for pair in flat_pairs(pairs).select("chosen", "rejected").iter_rows()]


def test_every_two_texts_whose_rewards_differ_enough_make_a_pair():
    # Margins: best .3 .6 .6 .8, second .3 .3 .5, third and also .2 each over the worst.
    assert len(compared(select="all_above_margin")) == 9
    assert sorted(compared(select="all_above_margin", min_margin=0.45)) == [
        ("best", "also"), ("best", "third"), ("best", "worst"), ("second", "worst"),
    ]  # fmt: skip


def test_the_largest_margins_of_all_pairs_are_kept():
    assert compared(select="all_above_margin", max_pairs=1) == [("best", "worst")]


def test_the_best_k_meet_the_worst_k():
    assert sorted(compared(select="top_bottom_k")) == [("best", "worst"), ("second", "third")]
    # The third best is the middle one, which does not meet itself.
    assert sorted(compared(select="top_bottom_k", k=9)) == [("best", "worst"), ("second", "third")]


def test_the_best_meets_a_worse_one_drawn_for_each_user():
    rewards = (0.5, 0.9, 0.1, 0.6, 0.9)
    samples = {
        user: [(s, f"text {s}", reward, None) for s, reward in enumerate(rewards)]
        for user in range(200)
    }
    drawn = compared(samples, select="best_random")
    assert {chosen for chosen, _ in drawn} == {"text 1"}
    counts = Counter(rejected for _, rejected in drawn)
    assert counts.keys() == {"text 0", "text 2", "text 3"}  # text 4 is as good
    assert min(counts.values()) > 40  # 67 expected, standard deviation 6.7
    few = {user: samples[user] for user in range(100, 200)}
    assert compared(few, select="best_random") == drawn[100:]
    assert compared(samples, select="best_random", seed=1) != drawn


@pytest.mark.parametrize("selected", ["best_random", "all_above_margin", "top_bottom_k"])
def test_who_gives_no_pair_is_told_however_pairs_are_selected(selected):
    pairs, skipped, report = select(PairsConfig(select=selected, min_margin=0.05))
    assert dict(skipped.iter_rows()) == {2: TIED, 3: TOO_FEW, 5: SMALL}
    assert set(pairs["user_index"]) == {0, 1, 4}
    assert report["n_pairs"] == len(pairs)


def test_rewards_are_means_over_users_however_many_pairs_each_gives():
    samples = {
        0: [(s, f"text {s}", reward, None) for s, reward in enumerate((0.9, 0.8, 0.2, 0.1))],
        1: [(0, "a", 0.4, None), (1, "b", 0.3, None)],
    }
    report = select(PairsConfig(select="top_bottom_k", k=2), samples)[2]
    assert report["n_pairs"] == 3
    assert report["reward_chosen"] == pytest.approx((0.85 + 0.4) / 2)
    assert report["reward_rejected"] == pytest.approx((0.15 + 0.3) / 2)
    assert report["reward_random"] == pytest.approx((0.5 + 0.35) / 2)


def test_repeated_texts_count_as_so_many_samples_when_asked_for():
    samples = {0: [(0, "a", 0.5, None), (1, "b", 0.1, None), (2, "a", 0.5, None)]}
    for repeats, expected in ((False, ["a", "b"]), (True, ["a", "b", "a"])):
        pairs, _, report = select(PairsConfig(repeats=repeats), samples)
        assert pairs["completions"].to_list() == [expected]
        assert report["duplicate_rate"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("n_users", "warned"), [(2, True), (19, True), (20, False)])
def test_pairs_of_a_few_users_are_a_warning_before_anything_is_aligned(n_users, warned, caplog):
    some = {user: [(0, "a", 0.5, None), (1, "b", 0.1, None)] for user in range(n_users)}
    pairs, skipped, _ = select(samples=some)
    require_pairs(pairs, skipped)
    assert (f"pairs: of {n_users} users only" in caplog.text) == warned
