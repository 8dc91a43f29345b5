"""Likelihoods of titles against plain passes over every full sequence."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from recalign.errors import UserError
from recalign.titles import likelihood, packed
from recalign.titles.likelihood import TitleScorer
from recalign.titles.reading import Reading
from tests.titles import title_samples as samples

CANDIDATES = np.array(
    [[1, 2, 3, 14], [9, 6, 4, 0], [5, 0, 0, 0], [10, 11, 12, 13], [7, 1, 2, 8], [14, 3, 2, 1]]
)


def scorer(policy, **options) -> TitleScorer:
    return TitleScorer(policy, samples.title_ids(policy), **options)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_titles_score_as_every_full_sequence_does(attention):
    policy = samples.pieces_policy(attention=attention)
    assert max(map(len, samples.title_ids(policy))) >= 4  # else nothing would be shared or masked
    expected = samples.all_alone(policy)
    assert np.ptp(expected[:, 1:]) > 5  # nats: agreement is no accident
    found = scorer(policy).catalogue(samples.prompts_of(policy))
    assert found[:, 0].tolist() == [-np.inf] * 6
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], atol=1e-4)
    some = scorer(policy).candidates(samples.prompts_of(policy), CANDIDATES)
    np.testing.assert_allclose(some, np.take_along_axis(expected, CANDIDATES, 1), atol=1e-4)


def test_one_token_titles_score_as_full_sequences_do():
    policy = samples.single_policy()
    expected = samples.all_alone(policy)
    found = scorer(policy).catalogue(samples.prompts_of(policy))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    some = scorer(policy).candidates(samples.prompts_of(policy), CANDIDATES)
    np.testing.assert_allclose(some, np.take_along_axis(expected, CANDIDATES, 1), atol=1e-4)


@pytest.mark.parametrize("make", [samples.pieces_policy, samples.single_policy])
def test_batches_and_chunks_change_nothing(make, monkeypatch):
    policy = make()
    prompts = samples.prompts_of(policy)
    whole = scorer(policy).catalogue(prompts)
    monkeypatch.setattr(likelihood, "FED", 8)  # a few titles of the catalogue at a time
    small = scorer(policy)
    assert small.single or len(small.chunks(small.fed_at_once(1))) > 3
    np.testing.assert_allclose(small.catalogue(prompts, rows=1), whole, atol=1e-4)
    turned = small.catalogue(prompts[::-1], rows=4)[::-1]
    np.testing.assert_allclose(turned, whole, atol=1e-4)
    some = small.candidates(prompts, CANDIDATES, rows=2)
    np.testing.assert_allclose(some, np.take_along_axis(whole, CANDIDATES, 1), atol=1e-4)


def test_a_long_prompt_takes_no_room_from_the_others(monkeypatch):
    monkeypatch.setitem(likelihood.TOKENS, "cpu", 12)
    prompts = [[5] * n for n in (3, 12, 2, 4, 1)]
    own = scorer(samples.pieces_policy())
    assert [b.tolist() for b in own.batches(prompts, 99)] == [[1], [3, 0, 2], [4]]
    assert [b.tolist() for b in own.batches(prompts, 2)] == [[1], [3, 0], [2, 4]]


def test_more_prompts_at_once_have_fewer_title_tokens_fed_behind_each(monkeypatch):
    policy = samples.pieces_policy()
    prompts, whole = samples.prompts_of(policy), scorer(policy)
    expected = whole.catalogue(prompts)
    held = 24 * policy.model.config.vocab_size  # logits of 24 tokens
    monkeypatch.setitem(likelihood.LOGITS, "cpu", held)
    monkeypatch.setattr(packed, "NORMALISED", 1)
    tight = scorer(policy)
    assert tight.fed_at_once(1) == 24
    assert tight.fed_at_once(6) == 4
    assert len(tight.chunks(4)) > len(tight.chunks(24))
    assert tight.rows_at_once(prompts, 99) == 24
    passed: list[int] = []
    extend = Reading.extend

    def counted(self: Reading, tokens: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        passed.append(tokens.numel())
        return extend(self, tokens, *rest)

    monkeypatch.setattr(Reading, "extend", counted)
    np.testing.assert_allclose(tight.catalogue(prompts), expected, atol=1e-4)
    some = tight.candidates(prompts, CANDIDATES)
    np.testing.assert_allclose(some, np.take_along_axis(expected, CANDIDATES, 1), atol=1e-4)
    assert max(passed) <= 24 + 6 * tight.longest  # a title is never cut


def test_a_reading_answers_several_questions_without_one_changing_the_next():
    policy = samples.pieces_policy()
    reading = scorer(policy).read(samples.prompts_of(policy))
    before = reading.catalogue()
    reading.answers(5)
    reading.beam(2, [np.array([], dtype=int)] * 6)
    some = reading.candidates(CANDIDATES)
    assert torch.equal(reading.catalogue(), before)
    expected = np.take_along_axis(before.numpy(), CANDIDATES, 1)
    np.testing.assert_allclose(some, expected, atol=1e-4)


def test_the_mean_per_token_is_the_sum_over_the_number_of_tokens():
    policy = samples.pieces_policy()
    sums = scorer(policy).catalogue(samples.prompts_of(policy))
    means = scorer(policy, mean=True).catalogue(samples.prompts_of(policy))
    lengths = np.array([len(ids) for ids in samples.title_ids(policy)[1:]])
    np.testing.assert_allclose(means[:, 1:], sums[:, 1:] / lengths, rtol=1e-6)


def test_titles_are_a_distribution_whose_answers_end():
    # Lines that are titles cannot be more likely than all lines together.
    policy = samples.pieces_policy()
    total = np.exp(scorer(policy).catalogue(samples.prompts_of(policy)).astype(float)).sum(1)
    assert ((total > 0) & (total < 1)).all()


def test_a_prompt_too_long_for_the_model_is_told():
    policy = samples.pieces_policy()
    with pytest.raises(UserError, match="LlamaForCausalLM takes 256: show fewer items"):
        scorer(policy).catalogue([[5] * 250])


def test_room_for_free_answers_is_needed_only_where_they_are_asked_for():
    policy = samples.pieces_policy()
    asked = scorer(policy)
    fits = 256 - asked.longest
    reading = asked.read([[5] * fits])
    assert np.isfinite(reading.catalogue()[0, 1:]).all()
    with pytest.raises(UserError, match=f"need {fits + asked.n_answer_tokens} tokens"):
        reading.answers(asked.n_answer_tokens)
    asked.require_room(256 - asked.n_answer_tokens)
    with pytest.raises(UserError, match="need 257 tokens"):
        asked.require_room(257 - asked.n_answer_tokens)
    with pytest.raises(UserError, match="need 257 tokens"):
        asked.read([[5] * (fits + 1)])


@pytest.mark.parametrize("layers", [None, ["sliding_attention", "full_attention"]])
def test_a_model_with_a_window_shorter_than_the_prompt_is_refused(layers):
    policy = samples.pieces_policy()
    policy.model.config.layer_types = layers
    policy.model.config.sliding_window = 100
    assert np.isfinite(scorer(policy).catalogue([[5] * 20])[0, 1:]).all()
    policy.model.config.sliding_window = 30
    with pytest.raises(UserError, match="need full attention"):
        scorer(policy).catalogue([[5] * 20])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_llm_with_an_eye_is_scored_and_refused_by_its_text_part(attention):
    policy = samples.pieces_policy()
    model = samples.gemma3(len(policy.tokenizer))
    model.set_attn_implementation(attention)
    assert not hasattr(model.config, "vocab_size")
    policy = replace(policy, model=model)
    found = scorer(policy).catalogue(samples.prompts_of(policy))
    expected = samples.all_alone(policy)
    assert np.ptp(expected[:, 1:]) > 5  # nats
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], atol=1e-4)
    with pytest.raises(UserError, match=r"\(window 100\): .* need full attention"):
        scorer(policy).catalogue([[5] * 90])
    with pytest.raises(UserError, match="takes 256: show fewer items"):
        scorer(policy).catalogue([[5] * 250])


def test_an_adapter_that_stays_apart_is_scored_too():
    policy = samples.pieces_policy()
    plain = scorer(policy).catalogue(samples.prompts_of(policy))
    adapted = get_peft_model(policy.model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    wrapped: Any = adapted.eval()  # a policy is typed by the model inside
    policy = replace(policy, model=wrapped)
    found = scorer(policy).catalogue(samples.prompts_of(policy))
    np.testing.assert_allclose(found, samples.all_alone(policy), atol=1e-4)
    assert np.abs(found[:, 1:] - plain[:, 1:]).max() > 0.1


def test_titles_without_tokens_are_refused():
    with pytest.raises(ValueError, match="every other title has some"):
        TitleScorer(samples.pieces_policy(), [[], [3], []])
