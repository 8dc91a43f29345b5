"""Generation: the model's own distribution, whatever the batch."""

import logging
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from recalign.config import SamplingConfig
from recalign.errors import UserError
from recalign.llm.generate import Room, generate
from recalign.llm.probe import shared_prefix_refusal
from recalign.llm.repeated_cache import RepeatedCache
from recalign.llm.sampling import sample_tokens, stream_keys, uniforms
from recalign.llm.shared_prefix import SharedPrefix, hooked
from recalign.writer import Asked
from tests.titles.title_samples import gemma3

STOP = 2
LENGTHS = [7, 19, 4, 5, 30, 7]
HOOKED = ["llama", "llama-gqa", "qwen2", "gpt-neox"]


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    return [rng.integers(3, 24, length).tolist() for length in LENGTHS]


def sampled(model, prompts, users, config, n_samples, greedy=False, stream="s", **options):
    """All texts, in the order they come."""
    asked = Asked(config, n_samples, greedy, stream)
    options = {"stops": [STOP]} | options
    return [one for batch in generate(model, prompts, users, asked, **options) for one in batch]


def by_sample(generated):
    return {(one.user, one.sample): (one.token_ids, one.finished) for one in generated}


def plain_logits(model, tokens):
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


@pytest.mark.parametrize("name", HOOKED)
@pytest.mark.parametrize("engine", [SharedPrefix, RepeatedCache])
def test_logits_equal_the_ordinary_forward_through_forks_and_drops(
    make_model, prompts, name, engine
):
    model = make_model(name)
    own_implementation = model.config._attn_implementation
    decoder, rng = engine(model), np.random.default_rng(1)
    with torch.inference_mode(), hooked(model) if engine is SharedPrefix else nullcontext():
        seen = list(zip(prompts, decoder.prefill(prompts), strict=True))
        decoder.keep(torch.arange(len(prompts)).repeat_interleave(2))
        texts = [prompt for prompt in prompts for _ in range(2)]
        for step in range(36):  # the samples' room grows several times
            new = rng.integers(3, 24, len(texts))
            texts = [[*text, int(token)] for text, token in zip(texts, new, strict=True)]
            logits = decoder.step(torch.as_tensor(new))
            if step in (0, 9, 35):
                seen += zip(texts, logits, strict=True)
            if step == 9:  # prompts 0 and 4 end, one sample of prompt 1 too
                kept = [row for row in range(12) if row not in (0, 1, 2, 8, 9)]
                decoder.keep(torch.tensor(kept))
                texts = [texts[row] for row in kept]
    assert model.config._attn_implementation == own_implementation
    assert len(seen) == 6 + 12 + 12 + 7
    for text, row in seen:
        assert (plain_logits(model, text)[-1] - row).abs().max() < 1e-4


def test_a_copied_cache_knows_the_positions_under_an_adapter_that_stays_apart(make_model, prompts):
    adapter = LoraConfig(
        r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False
    )
    model: Any = get_peft_model(make_model("gpt2"), adapter).eval()
    decoder = RepeatedCache(model)
    assert "logits_to_keep" in decoder.takes  # else of every token of every prompt
    with torch.inference_mode():
        found = decoder.prefill(prompts)
        decoder.keep(torch.arange(len(prompts)))
        following = decoder.step(torch.full((len(prompts),), 5))
    for prompt, first, second in zip(prompts, found, following, strict=True):
        expected = plain_logits(model, [*prompt, 5])[-2:]
        torch.testing.assert_close(torch.stack([first, second]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (6, 0.9)])
def test_every_token_is_what_its_stream_draws_from_the_models_distribution(
    make_model, prompts, top_k, top_p
):
    model = make_model("llama-gqa")
    config = SamplingConfig(max_new_tokens=40, temperature=0.8, top_k=top_k, top_p=top_p, seed=3)
    users = np.arange(len(prompts)) + 50
    found = sampled(model, prompts, users, config, 4, True, room=Room(11))
    assert sorted((one.user, one.sample) for one in found) == [
        (user, sample) for user in users for sample in range(-1, 4)
    ]
    assert len({len(one.token_ids) for one in found}) > 3  # rows were dropped along the way
    for one in found:
        prompt = prompts[one.user - 50]
        written = one.token_ids + [STOP] * one.finished
        logits = plain_logits(model, prompt + written)[len(prompt) - 1 : -1]
        key = stream_keys(3, "s", torch.tensor([one.user]), torch.tensor([one.sample]))
        draws = torch.cat([uniforms(key, step) for step in range(len(written))])
        rows = torch.arange(len(written))
        greedy = torch.full((len(written),), one.sample < 0)
        drawn = sample_tokens(logits, rows, draws, greedy, config)
        assert drawn.tolist() == written


def test_texts_do_not_depend_on_batch_size_order_or_company(make_model, prompts):
    model = make_model("llama-gqa")
    config = SamplingConfig(max_new_tokens=24)
    users = np.arange(len(prompts))
    expected = by_sample(sampled(model, prompts, users, config, 5, True))
    for rows in (1, 13, 30):
        found = sampled(model, prompts, users, config, 5, True, room=Room(rows))
        assert by_sample(found) == expected
    order = np.array([4, 1, 5, 0, 3, 2])
    shuffled = [prompts[i] for i in order]
    assert by_sample(sampled(model, shuffled, order, config, 5, True)) == expected
    fewer = by_sample(sampled(model, prompts[2:4], users[2:4], config, 3))
    assert fewer == {key: expected[key] for key in fewer}
    assert len(fewer) == 6


def test_other_seeds_streams_and_users_write_other_texts(make_model, prompts):
    model = make_model("llama")

    def texts(seed, stream, user):
        config = SamplingConfig(max_new_tokens=12, seed=seed)
        found = sampled(model, prompts[:1], [user], config, 3, stream=stream)
        return [tuple(one.token_ids) for one in found]

    written = [texts(0, "a", 0), texts(1, "a", 0), texts(0, "b", 0), texts(0, "a", 1)]
    assert len({text for texts in written for text in texts}) == 12


@pytest.mark.parametrize("name", [*HOOKED, "mistral", "bloom"])
def test_greedy_texts_equal_transformers_own(make_model, prompts, name, caplog):
    model = make_model(name)
    config = SamplingConfig(max_new_tokens=10)
    with caplog.at_level(logging.WARNING, logger="recalign"):
        found = sampled(model, prompts, range(len(prompts)), config, 2, True)
    for one in found:
        if one.sample < 0:
            prompt = torch.tensor([prompts[one.user]])
            expected = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=10, do_sample=False
            )[0, prompt.shape[1] :].tolist()
            assert one.token_ids + [STOP] * one.finished == expected
    reason = {"mistral": "sliding window of 16", "bloom": "attention interface"}.get(name)
    assert (reason is None and not caplog.records) or reason in caplog.text


def test_samples_follow_the_models_probabilities(make_model, prompts):
    """Chi-square of 20,000 first-two-token draws against the exact joint distribution."""
    model = make_model("llama-gqa")
    prompt = prompts[0]
    n_users = 100
    config = SamplingConfig(max_new_tokens=2)
    found = sampled(model, [prompt] * n_users, range(n_users), config, 200)
    first = plain_logits(model, prompt)[-1].softmax(-1)
    second = torch.stack([plain_logits(model, [*prompt, t])[-1].softmax(-1) for t in range(24)])
    joint = first[:, None] * second
    joint[STOP] = 0
    joint[STOP, STOP] = first[STOP]
    counts = torch.zeros(24, 24)
    for one in found:
        pair = [*one.token_ids, STOP, STOP][:2]
        counts[pair[0], pair[1]] += 1
    expected = joint * len(found)
    common = expected >= 5
    cells = torch.cat([counts[common], counts[~common].sum()[None]])
    means = torch.cat([expected[common], expected[~common].sum()[None]])
    freedom = len(cells) - 1
    assert freedom > 50
    chi_square = float(((cells - means) ** 2 / means).sum())
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_any_stop_token_ends_a_text_and_a_cut_text_says_so(make_model, prompts):
    model, config, ends = make_model("llama"), SamplingConfig(max_new_tokens=8), [STOP, 5, 9]
    found = sampled(model, prompts, range(6), config, 20, stops=ends)
    endless = sampled(model, prompts, range(6), config, 20, stops=[])
    for one, whole in zip(found, endless, strict=True):
        assert not whole.finished
        stop = next((i for i, token in enumerate(whole.token_ids) if token in ends), None)
        assert one.finished == (stop is not None)
        assert one.token_ids == whole.token_ids[:stop]
    assert {one.finished for one in found} == {True, False}


def test_batches_come_when_they_are_done_and_between_them_the_model_is_its_own(make_model, prompts):
    model = make_model("llama")
    own_implementation = model.config._attn_implementation
    asked = Asked(SamplingConfig(max_new_tokens=2), 2, greedy=False)
    batches = generate(model, prompts, range(6), asked, [STOP], Room(4))
    users = []
    for batch in batches:
        assert model.config._attn_implementation == own_implementation
        users.append([one.user for one in batch])
    assert users == [[2, 2, 3, 3], [0, 0, 5, 5], [1, 1, 4, 4]]  # of 4, 5; 7, 7; 19, 30 tokens


@pytest.mark.parametrize(
    "copies", [1, 2]
)  # of a prompt's cache: one for all its texts, or one each
def test_no_batch_takes_more_memory_than_there_is_room_for(
    make_model, prompts, copies, monkeypatch
):
    if copies == 2:
        refused = "recalign.llm.generate.shared_prefix_refusal"
        monkeypatch.setattr(refused, lambda *_: "as asked")
    model, asked = make_model("llama-gqa"), Asked(SamplingConfig(max_new_tokens=8), 2, greedy=False)
    # float32 keys and values of 2 layers, 2 heads of width 8; logits of 24 words, twice.
    per_token, logits = 2 * 2 * 2 * 8 * 4, 2 * 24 * 4
    taken = [copies * length * per_token + 2 * (8 * per_token + logits) for length in LENGTHS]
    for room in (1.0, max(taken), 2.5 * max(taken), 1e9):
        users = [
            [one.user for one in batch if one.sample == 0]
            for batch in generate(model, prompts, range(6), asked, [STOP], Room(100, room / 1e9))
        ]
        assert sorted(user for batch in users for user in batch) == list(range(6))
        for batch in users:
            assert len(batch) == 1 or sum(taken[user] for user in batch) <= room
    assert users == [[2, 3, 0, 5, 1, 4]]


def test_a_model_whose_attention_is_hooked_passes_the_trial_and_others_say_why(make_model, prompts):
    with torch.inference_mode():
        assert shared_prefix_refusal(make_model("qwen2"), prompts, 10) is None
        refusal = shared_prefix_refusal(make_model("mistral"), prompts, 10)
        assert refusal is not None
        assert "window of 16" in refusal
        assert shared_prefix_refusal(make_model("mistral"), [prompts[2]], 10) is None


def test_bad_prompts_are_named(make_model):
    model, config = make_model("llama"), SamplingConfig(max_new_tokens=28)
    with pytest.raises(UserError, match="user 8 is empty"):
        sampled(model, [[3], []], [7, 8], config, 2)
    with pytest.raises(UserError, match=r"user 7 has 101 tokens.*more than the model's 128"):
        sampled(model, [[3] * 101], [7], config, 2)
    with pytest.raises(UserError, match=r"user 7 has 240 tokens.*more than the model's 256"):
        sampled(gemma3(64), [[3] * 240], [7], config, 2)
