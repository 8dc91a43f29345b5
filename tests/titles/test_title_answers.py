"""Free answers, and which title they are."""

from dataclasses import replace

import torch

from recalign.titles import answers as answers_module
from recalign.titles.answers import beginnings, match_titles
from recalign.titles.likelihood import TitleScorer
from recalign.titles.names import normalised
from tests.titles import title_samples as samples


def test_free_answers_are_what_generate_writes_up_to_the_stop():
    policy = samples.pieces_policy()
    policy = replace(policy, eos_ids=list(range(0, 290, 4)))  # else so raw a model hardly stops
    prompts = samples.prompts_of(policy)
    scorer = TitleScorer(policy, samples.title_ids(policy))
    answers = samples.answers(scorer, prompts, 12)
    lengths = set()
    for prompt, answer in zip(prompts, answers, strict=True):
        written = policy.model.generate(  # type: ignore[operator]
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0,
            eos_token_id=policy.eos_ids,
        )  # fmt: skip
        assert answer == written[0, len(prompt) :].tolist()
        lengths.add(len(answer))
    assert len(lengths) > 2  # some stop early, some are cut


def test_the_answer_of_one_token_titles_is_the_likeliest_token_and_decodes_to_its_title():
    policy = samples.single_policy()
    scorer = TitleScorer(policy, samples.title_ids(policy))
    prompts = samples.prompts_of(policy)
    answers = samples.answers(scorer, prompts, scorer.n_answer_tokens)
    with torch.no_grad():
        expected = [int(policy.model(torch.tensor([p])).logits[0, -1].argmax()) for p in prompts]
    assert answers == [[token] for token in expected]
    texts = [policy.decode(ids) for ids in answers]
    items = match_titles(texts, samples.TITLES, normalised)
    assert items.tolist() == [max(0, token - 3) for token in expected]
    assert items.any()


def test_an_answer_that_can_be_no_title_any_more_is_cut_where_enough_is_written(monkeypatch):
    monkeypatch.setattr(answers_module, "ENOUGH", 4)
    policy = samples.pieces_policy()
    prompts = samples.prompts_of(policy)
    scorer = TitleScorer(policy, samples.title_ids(policy))
    whole = samples.answers(scorer, prompts, 12)
    assert {len(ids) for ids in whole} == {12}  # so raw a model does not stop
    one = whole[0]
    cut = scorer.read(prompts).answers(12, lambda ids: ids == one[: len(ids)] and len(ids) < 9)
    assert cut[0] == one[:9]
    assert [ids for ids in cut[1:] if ids[0] != one[0]] == [
        ids[:4] for ids in whole[1:] if ids[0] != one[0]
    ]


def test_what_may_become_a_title_is_told_from_what_cannot():
    begins = beginnings(["", "Alien", "Léon: The Professional"], normalised)
    for text in ("", "A", "alien", "LÉON:  the prof", "Léon: The Professional", "Le"):
        assert begins(text)
    assert begins("Léon: The \ufffd")  # half a letter
    for text in ("Aliens are here", "Leon: The Professional", "Léon: The Professional again"):
        assert not begins(text)


def test_titles_are_matched_whole_and_normalised():
    titles = ["", "Alien", "Aliens", "Léon: The  Professional"]
    texts = ["aliens", "Alien", "Alie", " LÉON: the professional ", "Alien 3", ""]
    assert match_titles(texts, titles, normalised).tolist() == [2, 1, 0, 3, 0, 0]
