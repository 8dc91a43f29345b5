from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from recalign.config import SplitsConfig
from recalign.errors import LeakageError
from recalign.schemas import INTERACTIONS, PROMPTS
from recalign.sequences import Sequences
from recalign.splits.guard import check_fit, check_prompts, check_window_prompts
from recalign.splits.windows import split_windows

N_USERS, LENGTH = 4, 12
TITLES = [f"Title {item}" for item in range(200)]
SHOWN = 3
CONFIG = SplitsConfig(fit=2, reward=2, valid=1, test=1, min_history=4)  # starts 6 8 10 11
TEMPORAL = SplitsConfig(
    protocol="temporal", fit_share=0.2, reward_share=0.2, valid_share=0.1, test_share=0.1,
    min_history=4,
)  # fmt: skip


def render(items: list[int]) -> str:
    return "History: " + "; ".join(TITLES[item] for item in items)


def make_interactions() -> pl.DataFrame:
    """User u takes items 20u+1, 20u+2, ... at times u, u+10, ...; a last user is too short."""
    rows = [
        (user, 20 * user + position + 1, position, user + 10 * position, None)
        for user in range(N_USERS + 1)
        for position in range(LENGTH if user < N_USERS else 3)
    ]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def make_prompts(interactions: pl.DataFrame, windows: pl.DataFrame, phase: str) -> pl.DataFrame:
    rows = []
    for user, cutoff in (
        windows.filter("prompted").select("user_index", f"{phase}_start").iter_rows()
    ):
        own = interactions.filter(pl.col("user_index") == user)["item_index"].to_list()
        items = own[cutoff - SHOWN : cutoff]
        rows.append((user, cutoff, cutoff - SHOWN, items, render(items)))
    return pl.DataFrame(rows, schema=PROMPTS, orient="row")


def changed(prompts: pl.DataFrame, row: int, **values: object) -> pl.DataFrame:
    rows = prompts.to_dicts()
    rows[row] |= values
    return pl.DataFrame(rows, schema=PROMPTS)


@pytest.mark.parametrize("phase", ["fit", "reward", "valid", "test"])
@pytest.mark.parametrize("config", [CONFIG, TEMPORAL])
def test_honest_prompts_are_proved_in_every_phase_and_protocol(phase, config):
    interactions = make_interactions()
    windows, _ = split_windows(interactions, config)
    prompts = make_prompts(interactions, windows, phase)
    proved = check_prompts(prompts, interactions, windows, phase, render, protocol=config.protocol)
    assert proved == N_USERS


# The reward cut-off is position 8; row 2 is user 2, whose items at positions 5..7 are 46 47 48.
LEAKS: dict[str, tuple[dict[str, object], str]] = {
    "a target in the list": (
        {"items": [46, 47, 49], "prompt": render([46, 47, 49])},
        "shows item 49 at position 7, where the user took item 48; the user took it at position 8,"
        " not below the cut-off 8",
    ),
    "a target in the text only": (
        {"prompt": render([46, 47, 48]) + "; " + TITLES[49]},
        "its text is not what positions 5..7 render to: .*Title 49",
    ),
    "a later cut-off": (
        {"cutoff": 9, "first_position": 6, "items": [47, 48, 49], "prompt": render([47, 48, 49])},
        "its cut-off is position 9, the reward window starts at 8",
    ),
    "one item more than the cut-off allows": (
        {"items": [46, 47, 48, 49], "prompt": render([46, 47, 48, 49])},
        r"lists 4 items for positions 5\.\.7",
    ),
    "shifted by one": (
        {"items": [47, 48, 49], "prompt": render([47, 48, 49])},
        "shows item 47 at position 5",
    ),
    "another user's history": (
        {"items": [6, 7, 8], "prompt": render([6, 7, 8])},
        "shows item 6 at position 5, where the user took item 46; the user never took it",
    ),
    "another order": (
        {"items": [47, 46, 48], "prompt": render([47, 46, 48])},
        "shows item 47 at position 5, .*; the user took it at position 6",
    ),
    "another user's last item in front": (
        {"first_position": -1, "items": [32, *range(41, 49)]},
        "lists 9 items for positions -1..7",
    ),
    "no items": ({"items": None}, "lists 0 items"),
    "no item": ({"items": [46, None, 48]}, "shows item -1 at position 6"),
}  # fmt: skip


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_refused_by_row_user_and_what_was_seen(leak):
    values, message = LEAKS[leak]
    interactions = make_interactions()
    windows, _ = split_windows(interactions, CONFIG)
    prompts = make_prompts(interactions, windows, "reward")
    with pytest.raises(LeakageError, match=f"prompts, row 2, user 2: {message}"):
        check_prompts(changed(prompts, 2, **values), interactions, windows, "reward", render)


def test_prompts_of_another_phase_are_refused():
    interactions = make_interactions()
    windows, _ = split_windows(interactions, CONFIG)
    prompts = make_prompts(interactions, windows, "test")
    with pytest.raises(LeakageError, match="row 0, user 0: its cut-off is position 11"):
        check_prompts(prompts, interactions, windows, "valid", render)


def test_users_that_are_too_short_or_unknown_are_refused():
    interactions = make_interactions()
    windows, _ = split_windows(interactions, CONFIG)
    prompts = make_prompts(interactions, windows, "reward")
    for user, message in ((N_USERS, "is not prompted"), (99, "has no windows"), (-1, "no windows")):
        wrong = changed(prompts, 1, user_index=user, cutoff=3, first_position=0)
        with pytest.raises(LeakageError, match=f"row 1, user {user}: .*{message}"):
            check_prompts(wrong, interactions, windows, "reward", render)


def test_interactions_out_of_order_prove_nothing():
    interactions = make_interactions()
    windows, _ = split_windows(interactions, CONFIG)
    prompts = make_prompts(interactions, windows, "reward")
    rows = interactions.to_dicts()
    rows[LENGTH + 7]["timestamp"] = 10**6  # user 1 took the item of position 7 after its targets
    late = pl.DataFrame(rows, schema=INTERACTIONS)
    with pytest.raises(LeakageError, match=r"row 20, user 1: item 29 is of time 81, earlier"):
        check_prompts(prompts, late, windows, "reward", render)
    with pytest.raises(LeakageError, match="row 1, user 0: item 3 is at position 2 instead of 1"):
        check_prompts(prompts, interactions[[0, 2, 1, *range(3, 51)]], windows, "reward", render)


@pytest.mark.parametrize(
    "values", [{"reward_start": 12}, {"end": 13}, {"fit_start": -1}, {"test_start": 9}]
)
def test_windows_that_do_not_fit_the_sequence_are_refused(values):
    interactions = make_interactions()
    windows, _ = split_windows(interactions, CONFIG)
    prompts = make_prompts(interactions, windows, "valid")
    rows = windows.to_dicts()
    rows[3] |= values
    wrong = pl.DataFrame(rows, schema=windows.schema)
    with pytest.raises(LeakageError, match="windows, row 3, user 3"):
        check_prompts(prompts, interactions, wrong, "valid", render)
    with pytest.raises(LeakageError, match="not one row for each user"):
        check_prompts(prompts, interactions, windows.reverse(), "valid", render)


def test_a_temporal_window_that_starts_after_the_common_moment_is_refused():
    interactions = make_interactions()
    windows, _ = split_windows(interactions, TEMPORAL)
    rows = windows.to_dicts()
    rows[2]["valid_start"] += 1  # one item of the moment others are validated on becomes history
    shifted = pl.DataFrame(rows, schema=windows.schema)
    prompts = make_prompts(interactions, shifted, "valid")
    place = rows[2]["valid_start"] - 1
    message = f"user 2: item {40 + place + 1} is of time {2 + 10 * place} .* valid_start, while"
    with pytest.raises(LeakageError, match=message):
        check_prompts(prompts, interactions, shifted, "valid", render, protocol="temporal")
    assert check_prompts(prompts, interactions, shifted, "valid", render) == N_USERS


def test_an_empty_table_of_prompts_proves_no_row():
    interactions = make_interactions()
    windows, _ = split_windows(interactions, CONFIG)
    nothing = pl.DataFrame(schema=PROMPTS)
    assert check_prompts(nothing, interactions, windows, "fit", render) == 0


def fit_inputs(stop: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    users = np.arange(N_USERS)
    seen = [np.arange(20 * user + 1, 20 * user + 1 + stop) for user in users]
    return users, np.full(N_USERS, stop), seen


def proved(users: np.ndarray, stops: np.ndarray, seen: list[np.ndarray]) -> int:
    """Users whose items seen are below their stop, which may be 6 at most."""
    flat = Sequences(np.cumsum([0, *map(len, seen)]), np.concatenate(seen), 200)
    return check_fit("oracle", users, stops, flat, make_interactions(), np.full(len(users), 6))


def test_an_honest_fit_is_proved():
    users, stops, seen = fit_inputs(6)
    assert proved(users, stops, seen) == N_USERS
    assert proved(users, stops - 2, [own[:4] for own in seen]) == N_USERS


def beyond(users, stops, seen):
    return users, stops + 1, [np.append(own, own[-1] + 1) for own in seen]


def one_more(users, stops, seen):
    seen[1] = np.append(seen[1], 27)
    return users, stops, seen


def swapped(users, stops, seen):
    seen[1][5] = 29
    return users, stops, seen


def stranger(users, stops, seen):
    users[1] = 77
    return users, stops, seen


@pytest.mark.parametrize(
    ("leak", "message"),
    [
        (beyond, "row 0, user 0: was fitted on positions below 7, allowed are below 6"),
        (one_more, "row 1, user 1: saw 7 items instead of 6, the last of them item 27"),
        (
            swapped,
            "row 1, user 1: saw item 29 at position 5, where the user took item 26; "
            "the user took it at position 8, not below the cut-off 6",
        ),
        (stranger, "row 1, user 77: has no interactions"),
    ],
)
def test_a_fit_that_saw_its_future_is_refused(leak: Callable[..., tuple], message: str):
    leaked = leak(*fit_inputs(6))
    with pytest.raises(LeakageError, match=f"oracle, {message}"):
        proved(*leaked)


def window_prompts(cutoffs: list[int], candidates: list[list[int]]) -> pl.DataFrame:
    """Prompts of user 2 (items 41, 42, ...) that end at these cut-offs."""
    rows = []
    for row, cutoff in enumerate(cutoffs):
        items = list(range(41 + cutoff - SHOWN, 41 + cutoff))
        text = render_with(candidates)(row, items)
        rows.append((2, cutoff, cutoff - SHOWN, items, text))
    return pl.DataFrame(rows, schema=PROMPTS, orient="row")


def render_with(candidates: list[list[int]]) -> Callable[[int, list[int]], str]:
    return lambda row, items: f"{render(items)} Candidates: {candidates[row]}"


def test_prompts_inside_windows_are_proved_with_what_belongs_to_their_rows():
    interactions = make_interactions()
    windows, _ = split_windows(interactions, CONFIG)
    bounds, candidates = ("fit_start", "valid_start"), [[1, 2], [3, 4]]
    honest = window_prompts([6, 9], candidates)
    proved = check_window_prompts(honest, interactions, windows, bounds, render_with(candidates))
    assert proved == 2
    with pytest.raises(LeakageError, match="row 1, user 2: its text is not what positions 6"):
        check_window_prompts(honest, interactions, windows, bounds, render_with([[1, 2], [3, 5]]))
    with pytest.raises(LeakageError, match="row 0, user 2: shows item 49 at position 7"):
        check_window_prompts(
            changed(honest.slice(1), 0, items=[47, 49, 49]), interactions, windows, bounds,
            render_with([[3, 4]]),
        )  # fmt: skip


@pytest.mark.parametrize("cutoff", [5, 10])
def test_a_prompt_outside_its_windows_is_refused(cutoff):
    interactions = make_interactions()
    windows, _ = split_windows(interactions, CONFIG)
    with pytest.raises(LeakageError, match=f"position {cutoff}, outside .* positions 6..9"):
        check_window_prompts(
            window_prompts([cutoff], [[]]), interactions, windows, ("fit_start", "valid_start"),
            render_with([[]]),
        )  # fmt: skip
