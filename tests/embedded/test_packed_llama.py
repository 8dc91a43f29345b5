"""Training rows that share their prompt give the numbers of transformers' own forward pass."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from recalign.config import BootstrapConfig
from recalign.embedded.batches import MAX_COMPLETIONS, batches, rows_of
from recalign.embedded.small_llama import first_model, prediction_loss, predictor_states
from recalign.embedded.word_tokenizer import build_tokenizer
from recalign.training.packing import PackedRow, pack

CONFIG = BootstrapConfig(hidden=32, layers=3, heads=2)
ROWS = [
    PackedRow([6, 7, 8, 9], [[10, 11, 2], [12, 2], [10, 2]]),
    PackedRow([9, 6], [[13, 14, 15, 16, 2]]),
]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    tokenizer = build_tokenizer(["a b c ="], ["Enjoys a and b."], max_values=10)
    model = first_model(CONFIG, tokenizer, max_length=64)
    with torch.no_grad():  # norms away from 1, so that leaving one out shows
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)))
    return model.eval()


def test_the_packed_loss_and_its_gradient_equal_those_of_single_texts(
    model: LlamaForCausalLM,
) -> None:
    packed = prediction_loss(model, pack(ROWS))
    texts = [(row.prompt, completion) for row in ROWS for completion in row.completions]
    total = torch.zeros(())
    for prompt, completion in texts:
        ids = torch.tensor([prompt + completion])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        total = total + model(ids, labels=labels).loss * len(completion)
    single = total / sum(len(completion) for _, completion in texts)
    torch.testing.assert_close(packed, single, rtol=1e-5, atol=1e-6)
    weights = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(packed, weights), torch.autograd.grad(single, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_states_are_those_of_the_predicting_columns(model: LlamaForCausalLM) -> None:
    batch = pack(ROWS)
    states = predictor_states(model, batch)
    whole = model.model(torch.tensor([ROWS[0].prompt + ROWS[0].completions[1]])).last_hidden_state
    # row 0 predicts [10 11 2 | 12 2 | 10 2]: columns 3 and 4 are the second completion's
    torch.testing.assert_close(states[0, 3:5], whole[0, 3:5], rtol=1e-5, atol=1e-5)


def test_equal_prompts_share_a_row_up_to_a_limit() -> None:
    rows = rows_of([[1, 2], [3], [1, 2]], [[4], [5], [6]])
    assert [(row.prompt, row.completions) for row in rows] == [([1, 2], [[4], [6]]), ([3], [[5]])]
    many = rows_of([[1]] * (MAX_COMPLETIONS + 3), [[2]] * (MAX_COMPLETIONS + 3))
    assert [len(row.completions) for row in many] == [MAX_COMPLETIONS, 3]


def test_every_row_is_in_one_batch_per_epoch_and_the_order_is_the_epochs_own() -> None:
    rng = np.random.default_rng(0)
    rows = [PackedRow([5] * int(rng.integers(1, 60)), [[1, 2]] * 5) for _ in range(333)]
    first = batches(rows, 40, epoch=0, seed=3)
    assert sorted(np.concatenate(first)) == list(range(333))
    assert max(map(len, first)) == 8  # 8 rows of 5 completions
    again = batches(rows, 40, epoch=0, seed=3)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    second = batches(rows, 40, epoch=1, seed=3)
    assert not all((a == b).all() for a, b in zip(first, second, strict=False) if len(a) == len(b))
    lengths = [np.array([rows[i].n_tokens for i in batch]) for batch in first]
    padding = 1 - sum(map(np.sum, lengths)) / sum(len(one) * one.max() for one in lengths)
    assert padding < 0.05


def test_attention_starts_as_a_copy_and_the_seed_decides_the_weights() -> None:
    tokenizer = build_tokenizer(["a b c ="], ["Enjoys a and b."], max_values=10)
    before = torch.get_rng_state()
    model, again = (first_model(CONFIG, tokenizer, 64) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for layer in model.model.layers:
        product = layer.self_attn.o_proj.weight @ layer.self_attn.v_proj.weight
        torch.testing.assert_close(product, torch.eye(32), rtol=0, atol=1e-5)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    other = first_model(CONFIG.model_copy(update={"seed": 1}), tokenizer, 64)
    assert not torch.equal(model.model.embed_tokens.weight, other.model.embed_tokens.weight)
