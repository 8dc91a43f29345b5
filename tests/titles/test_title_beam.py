"""Beam search over a catalogue, against the likelihood of every title."""

import numpy as np
import pytest

from recalign.errors import UserError
from recalign.titles.likelihood import TitleScorer
from recalign.titles.reading import Reading
from recalign.titles.trie import catalogue_of, trie_of
from tests.titles import title_samples as samples

NOTHING = np.array([], dtype=np.int64)
N_ITEMS = len(samples.TITLES) - 1


@pytest.mark.parametrize("make", [samples.pieces_policy, samples.single_policy])
@pytest.mark.parametrize("width", [N_ITEMS, N_ITEMS + 6])
def test_a_beam_as_wide_as_the_catalogue_is_the_exact_ranking(make, width):
    policy = make()
    prompts = samples.prompts_of(policy)
    scorer = TitleScorer(policy, samples.title_ids(policy))
    forbidden = [np.array([1, 2]), NOTHING, np.array([7]), NOTHING, np.arange(1, 10), NOTHING]
    items, scores = samples.beam(scorer, prompts, width, forbidden)
    exact = scorer.catalogue(prompts)
    for row, banned in enumerate(forbidden):
        exact[row, banned] = -np.inf
        best = np.argsort(-exact[row], kind="stable")[: N_ITEMS - len(banned)]
        assert items[row].tolist() == [*best.tolist(), *[0] * (width - len(best))]
        np.testing.assert_allclose(scores[row, : len(best)], exact[row, best], atol=1e-4)
        assert (scores[row, len(best) :] == -np.inf).all()


def test_a_narrow_beam_gives_true_log_probabilities_of_catalogue_titles_best_first():
    policy = samples.pieces_policy()
    prompts = samples.prompts_of(policy)
    scorer = TitleScorer(policy, samples.title_ids(policy))
    items, scores = samples.beam(scorer, prompts, 3, [NOTHING] * len(prompts))
    assert (items > 0).all()
    np.testing.assert_allclose(
        scores, np.take_along_axis(scorer.catalogue(prompts), items, 1), atol=1e-4
    )
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(row)) == 3 for row in items.tolist())


def test_a_beam_of_one_is_greedy_among_titles_and_so_may_miss_the_best():
    policy = samples.pieces_policy()
    ids = samples.title_ids(policy)
    prompts = samples.prompts_of(policy)
    found, _ = samples.beam(TitleScorer(policy, ids), prompts, 1, [NOTHING] * len(prompts))
    for prompt, item in zip(prompts, found[:, 0].tolist(), strict=True):
        written: list[int] = []
        while written not in ids[1:]:
            rest = {
                title[len(written)] for title in ids if title[: len(written)] == written != title
            }
            written.append(max(rest, key=lambda t: samples.alone(policy, prompt + written, [t])))
        assert ids[item] == written
    best = TitleScorer(policy, ids).catalogue(prompts).argmax(1)
    assert (best != found[:, 0]).any()


def test_means_are_ordered_by_the_mean():
    policy = samples.pieces_policy()
    prompts = samples.prompts_of(policy)
    scorer = TitleScorer(policy, samples.title_ids(policy), mean=True)
    items, scores = samples.beam(scorer, prompts, N_ITEMS, [NOTHING] * len(prompts))
    exact = scorer.catalogue(prompts)
    assert items.tolist() == np.argsort(-exact, axis=1, kind="stable")[:, :N_ITEMS].tolist()
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :N_ITEMS], atol=1e-4)


def test_a_title_that_begins_another_ends_and_goes_on():
    # 3 4 | 3 4 5 | 3 6: node 1 is [3], 2 [3 4], 3 [3 4 5], 4 [3 6].
    tree = catalogue_of([[], [3, 4, 5], [3, 4], [3, 6]])
    assert tree.order.tolist() == [2, 1, 3]
    assert tree.items.tolist() == [0, 0, 2, 1, 3]
    assert tree.lows.tolist() == [0, 0, 0, 1, 2]
    assert tree.highs.tolist() == [3, 3, 2, 2, 3]
    policy = samples.pieces_policy()
    ids = [[], [20, 30, 40], [20, 30], [20, 50], [60]]
    scorer = TitleScorer(policy, ids)
    expected = [samples.alone(policy, [5, 6], title) for title in ids[1:]]
    np.testing.assert_allclose(scorer.catalogue([[5, 6]])[0, 1:], expected, atol=1e-4)
    items, _ = samples.beam(
        scorer, [[5, 6]], 4, [np.array([2])]
    )  # forbidden, but what begins with it not
    allowed = [expected[0], -np.inf, expected[2], expected[3]]
    assert items[0].tolist() == [*(1 + np.argsort(allowed)[::-1][:3]).tolist(), 0]


def test_a_tree_feeds_shared_tokens_once_and_last_ones_never():
    tree = trie_of([[3, 4, 5], [3, 4, 7], [8], []])
    assert tree.tokens.tolist() == [0, 3, 4, 5, 7, 8]
    assert tree.parents.tolist() == [0, 0, 1, 2, 2, 0]
    assert tree.depths.tolist() == [-1, 0, 1, 2, 2, 0]
    assert tree.inner.tolist() == [1, 2]
    assert tree.sees.tolist() == [[True, False], [True, True]]
    assert tree.paths.tolist() == [[1, 2, 3], [1, 2, 4], [5, 0, 0], [0, 0, 0]]


def test_titles_of_the_same_tokens_are_told_apart_or_refused():
    with pytest.raises(UserError, match="items 2 and 3 with the same tokens"):
        catalogue_of([[], [3], [4], [4]])
    with pytest.raises(UserError, match="the titles 'Heat' and 'The Heat' with the same tokens"):
        catalogue_of([[], [3], [4], [4]], ["", "Up", "Heat", "The Heat"])


def test_finished_titles_are_fed_no_more(monkeypatch):
    fed = []
    extend = Reading.extend

    def noted(self, tokens, depths, sees):
        fed.append(tokens.shape)
        return extend(self, tokens, depths, sees)

    monkeypatch.setattr(Reading, "extend", noted)
    ids = [[], [20, 30, 40], [50], [60]]
    samples.beam(TitleScorer(samples.pieces_policy(), ids), [[5, 6]], 3, [NOTHING])
    assert fed == [(1, 1), (1, 1)]  # of three hypotheses, the one of three tokens
