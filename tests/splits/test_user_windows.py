import numpy as np
import polars as pl
import pytest

from recalign.config import SplitsConfig
from recalign.errors import BadInputError
from recalign.schemas import INTERACTIONS
from recalign.splits.phases import phase_of
from recalign.splits.windows import MIN_USERS, refuse_few_users, split_windows

STARTS = ["fit_start", "reward_start", "valid_start", "test_start", "end"]


def interactions(times: list[list[int]]) -> pl.DataFrame:
    """One user per list; the item of position p is p + 1."""
    rows = [
        (user, position + 1, position, time, None)
        for user, own in enumerate(times)
        for position, time in enumerate(own)
    ]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def starts(windows: pl.DataFrame) -> list[tuple[int, ...]]:
    return windows.select(STARTS).rows()


def test_per_user_windows_are_counted_from_the_end():
    config = SplitsConfig(fit=2, reward=3, valid=1, test=2, min_history=4)
    windows, counts = split_windows(interactions([list(range(12)), list(range(20))]), config)
    assert starts(windows) == [(4, 6, 9, 10, 12), (12, 14, 17, 18, 20)]
    assert windows["prompted"].to_list() == [True, True]
    assert counts == {}


def test_short_users_keep_their_whole_sequence_as_history_and_are_counted_by_reason():
    config = SplitsConfig(fit=2, reward=3, valid=1, test=2, min_history=4)
    windows, counts = split_windows(
        interactions([list(range(12)), list(range(11)), list(range(7)), list(range(3))]), config
    )
    assert starts(windows) == [(4, 6, 9, 10, 12), (11,) * 5, (7,) * 5, (3,) * 5]
    assert windows["prompted"].to_list() == [True, False, False, False]
    assert counts == {"short_history": 1, "short_sequence": 2}


def test_windows_that_are_not_asked_for_are_empty_and_not_counted():
    config = SplitsConfig(fit=0, reward=0, valid=1, test=1, min_history=1)
    windows, counts = split_windows(interactions([[1, 2, 3]]), config)
    assert starts(windows) == [(1, 1, 1, 2, 3)]
    assert counts == {}


TEMPORAL = SplitsConfig(
    protocol="temporal", fit_share=0.2, reward_share=0.1, valid_share=0.1, test_share=0.1,
    min_history=2,
)  # fmt: skip


def test_temporal_windows_start_at_the_same_moments_for_all_users():
    # 20 interactions at times 0..19: history 0-9, fit 10-13, reward 14-15, valid 16-17, test 18-19
    times = [list(range(0, 20, 2)), list(range(1, 20, 2))]
    windows, counts = split_windows(interactions(times), TEMPORAL)
    assert starts(windows) == [(5, 7, 8, 9, 10), (5, 7, 8, 9, 10)]
    assert counts == {}


def test_temporal_users_may_lack_windows_and_short_ones_keep_true_boundaries():
    first = [0, 1, 2, 3, 4, 5, 6, 7, 8]  # before the fit moment 10: nothing but history
    second = [9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]  # one interaction before it
    windows, counts = split_windows(interactions([first, second, list(range(20))]), TEMPORAL)
    assert starts(windows) == [(9, 9, 9, 9, 9), (1, 5, 7, 9, 11), (10, 14, 16, 18, 20)]
    assert windows["prompted"].to_list() == [True, False, True]
    assert counts == {"short_history": 1, "no_fit": 1, "no_reward": 1, "no_valid": 1, "no_test": 1}


def test_temporal_users_are_drawn_among_those_who_come_back():
    gone, back = list(range(9)), [*range(9), *range(20, 60)]
    two_come_back = [gone] * 8 + [back] * 2
    config = TEMPORAL.model_copy(update={"max_users": 1, "fit_share": 0.1})
    windows, counts = split_windows(interactions(two_come_back), config)
    assert sum(windows["prompted"]) == sum(windows["prompted"][8:]) == 1
    # The eight lack windows whoever is drawn: of the two alone one was too many.
    without = {f"no_{window}": 8 for window in ("fit", "reward", "valid", "test")}
    assert counts == {"over_max_users": 1} | without


def test_equal_times_are_never_parted_by_a_temporal_boundary():
    generator = np.random.default_rng(0)
    times = [sorted(generator.integers(0, 25, 40).tolist()) for _ in range(30)]
    table = interactions(times)
    windows, _ = split_windows(table, TEMPORAL)
    joined = table.join(windows, on="user_index")
    for start in STARTS[:-1]:
        before = joined.filter(pl.col("position") < pl.col(start))["timestamp"].to_list()
        after = joined.filter(pl.col("position") >= pl.col(start))["timestamp"].to_list()
        assert max(before) < min(after)
    shares = (windows["end"] - windows["test_start"]).sum() / table.height
    assert 0.1 <= shares <= 0.1 + 1 / 25 + 0.03  # at most one day's interactions more than asked


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SplitsConfig(), "none of 2 users has a valid window .*windows take 24"),
        (TEMPORAL, r"none of 2 users has a valid window .*splits\.protocol = per_user"),
    ],
)
def test_windows_that_nobody_has_are_refused_with_what_to_change(config, message):
    with pytest.raises(BadInputError, match=message):
        split_windows(interactions([[7, 7, 7], [7, 7]]), config)


def drawn(table: pl.DataFrame, config: SplitsConfig) -> np.ndarray:
    windows, counts = split_windows(table, config)
    assert counts["over_max_users"] == windows.height - windows["prompted"].sum()
    return windows.filter("prompted")["user_index"].to_numpy()


def test_at_most_max_users_are_prompted_and_their_histories_are_as_long_as_everybodys():
    lengths = np.random.default_rng(0).geometric(0.02, 400) + 8
    table = interactions([list(range(n)) for n in lengths])
    some = SplitsConfig(fit=2, reward=3, valid=1, test=1, min_history=1, max_users=40)
    users = drawn(table, some)
    assert len(users) == 40
    # One of each fortieth of the users by length: every share of them is met to within one user.
    for bound in np.quantile(lengths, [0.1, 0.25, 0.5, 0.75, 0.9]):
        shares = (lengths[users] < bound).mean(), (lengths < bound).mean()
        assert abs(shares[0] - shares[1]) <= 1 / 40 + 1e-9
    other = drawn(table, some.model_copy(update={"seed": 1}))
    assert len(np.intersect1d(users, other)) < 20  # of 40, one in ten each: 4 by chance
    assert (drawn(table, some) == users).all()


def test_users_that_are_not_drawn_train_the_oracle_with_all_they_have():
    times = [list(range(12)) for _ in range(6)]
    config = SplitsConfig(fit=2, reward=3, valid=1, test=2, min_history=4, max_users=2)
    windows, counts = split_windows(interactions(times), config)
    kept = windows["prompted"].to_list()
    assert starts(windows) == [(4, 6, 9, 10, 12) if one else (12,) * 5 for one in kept]
    assert sum(kept) == 2
    assert counts == {"over_max_users": 4}


def test_the_last_items_of_others_are_for_the_recommender_where_that_is_asked_for():
    times = [list(range(12)) for _ in range(6)] + [list(range(5))]
    config = SplitsConfig(fit=2, reward=3, valid=1, test=2, min_history=4, max_users=2)
    asked = config.model_copy(update={"others_fit": True})
    windows, counts = split_windows(interactions(times), asked)
    kept = windows["prompted"].to_list()
    expected = [(4, 6, 9, 10, 12) if one else (10, 12, 12, 12, 12) for one in kept[:6]]
    assert starts(windows) == [*expected, (5,) * 5]  # five items are too few: all are history
    as_before, _ = split_windows(interactions(times), config)
    assert windows["prompted"].equals(as_before["prompted"])
    assert counts == {"over_max_users": 4, "short_sequence": 1}
    others = phase_of(windows, "fit", prompted=False)
    assert len(others.users) == 4
    assert not set(others.users) & set(phase_of(windows, "fit").users)
    assert "others_fit" not in config.identity()
    with pytest.raises(ValueError, match="others_fit needs protocol = per_user and a max_users"):
        SplitsConfig(others_fit=True)


def test_a_max_users_that_nobody_reaches_changes_nothing_and_unset_is_no_part_of_the_identity():
    table = interactions([list(range(12)), list(range(20))])
    config = SplitsConfig(fit=2, reward=3, valid=1, test=2, min_history=4)
    more = config.model_copy(update={"max_users": 2})
    assert split_windows(table, config)[0].equals(split_windows(table, more)[0])
    assert "max_users" not in config.identity()
    assert more.identity()["max_users"] == 2


@pytest.mark.parametrize("n", [MIN_USERS - 1, MIN_USERS])
def test_a_temporal_window_of_too_few_users_is_refused_and_a_count_for_each_user_is_not(n):
    early, late = [list(range(10))] * 100, [list(range(0, 20, 2))] * n
    windows, _ = split_windows(interactions(early + late), TEMPORAL)
    refuse_few_users(windows, SplitsConfig())
    if n >= MIN_USERS:
        refuse_few_users(windows, TEMPORAL)
        return
    message = r"only 29 of 129 users have a \w+ window after a history.*protocol = per_user"
    with pytest.raises(BadInputError, match=message):
        refuse_few_users(windows, TEMPORAL)
