"""Texts with some of another user's sentences."""

import polars as pl
import pytest

from recalign.errors import UserError
from recalign.evaluation.texts.mixed import mixed_across_users
from recalign.evaluation.texts.rows import dpo4rec_rows, mixed_policy, policy_label
from recalign.recommender.sentences import split_sentences
from recalign.schemas import REASONINGS

N_USERS, N_SENTENCES = 12, 4


def reasonings() -> pl.DataFrame:
    """Sentence u.s.i is the i-th of sample s of user u; user 0's sample 1 cannot be read."""
    rows = [
        (user, sample, ". ".join(f"{user}/{sample}/{i}" for i in range(N_SENTENCES)), 9,
         "short" if (user, sample) == (0, 1) else None)
        for user in range(N_USERS) for sample in (-1, 0, 1)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=REASONINGS, orient="row")


def mixed(share: float) -> dict[tuple[int, int], list[tuple[int, ...]]]:
    """Where the sentences of each text come from."""
    table = mixed_across_users(reasonings(), share, lambda text: text.split(". "), seed=2)
    assert len(table) == 2 * N_USERS  # greedy texts are not mixed
    found = {}
    for user, sample, text in table.select("user_index", "sample", "reasoning").iter_rows():
        parts = text.replace(". ", "\n").split("\n")
        found[user, sample] = [tuple(map(int, part.split("/"))) for part in parts]
    return found


@pytest.mark.parametrize(("share", "n_own"), [(0.25, 3), (0.5, 2), (1.0, 0)])
def test_a_share_of_the_sentences_is_one_other_users_of_the_same_sample(share, n_own):
    givers: dict[int, list[int]] = {sample: [] for sample in (0, 1)}
    for (user, sample), sentences in mixed(share).items():
        if (user, sample) == (0, 1):
            assert sentences == [(0, 1, i) for i in range(N_SENTENCES)]
            continue
        own = [one for one in sentences if one[0] == user]
        others = [one for one in sentences if one[0] != user]
        assert (len(own), len(others)) == (n_own, N_SENTENCES - n_own)
        assert {one[1] for one in sentences} == {sample}
        (giver,) = {one[0] for one in others}
        givers[sample].append(giver)
        assert len(set(sentences)) == N_SENTENCES
    assert sorted(givers[0]) == list(range(N_USERS))  # everyone gives once
    assert sorted(givers[1]) == list(range(1, N_USERS))  # but not who has nothing to read


def test_a_larger_share_takes_more_of_the_same_sentences_away():
    little, much = mixed(0.25), mixed(0.5)
    for text, sentences in much.items():
        own = {one for one in sentences if one[0] == text[0]}
        assert own <= set(little[text])
        assert {one[0] for one in sentences} == {one[0] for one in little[text]}


def counts(lengths: tuple[int, int], share: float) -> list[tuple[int, int]]:
    """Own and foreign sentences of 800 texts; even users' have lengths[0], odd ones' lengths[1]."""
    given = [
        (user, 0, "\n".join(f"{user}/{i}" for i in range(lengths[user % 2])), 9, None)
        for user in range(800)
    ]
    table = pl.DataFrame(given, schema=REASONINGS, orient="row")
    mixed_texts = mixed_across_users(table, share, str.splitlines, seed=3)
    found = []
    for user, text in mixed_texts.select("user_index", "reasoning").iter_rows():
        own = [int(line.split("/")[0]) == user for line in text.splitlines()]
        found.append((sum(own), len(own) - sum(own)))
    return found


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("length", [1, 3])
def test_what_is_no_whole_number_of_sentences_is_right_on_average(length, share):
    found = counts((length, length), share)
    assert {own + foreign for own, foreign in found} == {length}
    mean = sum(foreign for _, foreign in found) / len(found)
    assert mean == pytest.approx(share * length, abs=0.06)  # three standard errors at most


def test_between_texts_of_two_lengths_nothing_is_empty_and_all_of_the_other_is_all_of_it():
    half = counts((1, 3), 0.5)
    assert min(own + foreign for own, foreign in half) >= 1
    for part in zip(*half, strict=True):
        assert sum(part) / len(half) == pytest.approx(1.0, abs=0.1)  # half of two on average
    assert {own for own, _ in counts((1, 3), 1.0)} == {0}
    assert {foreign for _, foreign in counts((1, 3), 1.0)} == {1, 3}


def test_each_share_is_a_row_against_the_base_policys_own_texts():
    rows = {row.policy: row for row in dpo4rec_rows([], ["frozen"], "SASRec", [0.25, 1.0])}
    quarter = rows[mixed_policy(0.25)]
    assert quarter.label == "Base reasonings, 25 % another user's"
    assert quarter.base == policy_label("base", "sampled", "frozen")
    assert mixed_policy(1.0) in rows


def test_lines_without_a_full_stop_stay_sentences_of_their_own():
    lists = [(user, 0, f"- Genre: g{user}\n- Era: e{user}", 9, None) for user in range(4)]
    given = pl.DataFrame(lists, schema=REASONINGS, orient="row")
    for text in mixed_across_users(given, 0.5, split_sentences, seed=0)["reasoning"]:
        assert sorted(len(line.split()) for line in split_sentences(text)) == [3, 3]


def test_a_single_user_has_nobody_to_take_from():
    with pytest.raises(UserError, match=r"sample number 0 .* set evaluation\.mixed = \[\]"):
        mixed_across_users(reasonings().filter(user_index=3), 0.5, lambda text: [text], seed=0)
