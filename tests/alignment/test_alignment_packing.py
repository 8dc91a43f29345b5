"""Rows that share their prompt give the log-probabilities of separate sequences."""

from typing import Any

import pytest
import torch
from transformers import (
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from recalign.alignment.forward import PackedCollator, completion_log_probs
from recalign.alignment.rows import Rows, encode_pairs
from recalign.alignment.support import check_packed_rows
from recalign.errors import UserError
from recalign.policy import Policy
from tests.alignment.alignment_samples import WORDS, llama, make_pairs


def make_rows(n: int, n_rejected: int, plain: Policy) -> Rows:
    return encode_pairs(make_pairs(n, n_rejected), plain, 64)


def alone(model: PreTrainedModel, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """Sum of log softmax over the completion, token by token, from one plain sequence."""
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].double()
    table = logits - logits.exp().sum(-1, keepdim=True).log()
    return sum(
        (table[len(prompt) + t - 1, token] for t, token in enumerate(completion)),
        start=torch.zeros((), dtype=torch.float64),
    )


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("n_rejected", [1, 3])
def test_packed_log_probs_equal_those_of_plain_sequences(
    any_model: PreTrainedModel,
    implementation: str,
    n_rejected: int,
    plain: Policy,
) -> None:
    rows = make_rows(5, n_rejected, plain)
    any_model.set_attn_implementation(implementation)
    batch = PackedCollator(0)(rows.records(range(5)))
    found, n_tokens = completion_log_probs(any_model, batch)
    for i in range(5):
        completions = [rows.chosen[i], *rows.rejected[i]]
        expected = [alone(any_model, rows.prompts[i], c).item() for c in completions]
        assert found[i].tolist() == pytest.approx(expected, abs=1e-4)
        assert n_tokens[i].tolist() == [len(c) for c in completions]


def test_packed_gradients_equal_those_of_plain_sequences(
    any_model: PreTrainedModel, plain: Policy
) -> None:
    rows = make_rows(3, 2, plain)
    weights = torch.tensor([[1.0, -0.5, 2.0], [0.3, 1.0, -1.0], [-2.0, 0.7, 0.1]])
    found, _ = completion_log_probs(any_model, PackedCollator(0)(rows.records(range(3))))
    (found * weights).sum().backward()
    packed = {
        name: p.grad.clone() for name, p in any_model.named_parameters() if p.grad is not None
    }
    any_model.zero_grad()
    for i in range(3):
        for completion, weight in zip([rows.chosen[i], *rows.rejected[i]], weights[i], strict=True):
            (weight * alone(any_model, rows.prompts[i], completion)).backward()
    for name, parameter in any_model.named_parameters():
        torch.testing.assert_close(packed[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_a_row_does_not_depend_on_its_batch(plain: Policy) -> None:
    model, rows = llama().eval(), make_rows(8, 1, plain)
    together, _ = completion_log_probs(model, PackedCollator(0)(rows.records(range(8))))
    for i in range(8):
        single, _ = completion_log_probs(model, PackedCollator(0)(rows.records([i])))
        torch.testing.assert_close(single[0], together[i], rtol=0, atol=2e-5)


def test_the_head_runs_only_where_a_completion_token_is_predicted(plain: Policy) -> None:
    model, rows = llama().eval(), make_rows(4, 2, plain)
    seen = []
    model.lm_head.register_forward_hook(lambda module, given, result: seen.append(given[0].shape))
    completion_log_probs(model, PackedCollator(0)(rows.records(range(4))))
    predicting = sum(
        1 + sum(len(c) - 1 for c in [rows.chosen[i], *rows.rejected[i]]) for i in range(4)
    )
    assert seen == [(predicting, 32)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_whose_window_is_shorter_than_a_row_is_refused(
    plain: Policy, dtype: torch.dtype
) -> None:
    def mistral(window: int) -> PreTrainedModel:
        torch.manual_seed(0)
        model: Any = MistralForCausalLM(
            MistralConfig(
                vocab_size=len(WORDS),
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                initializer_range=0.3,
                sliding_window=window,
            )
        )
        return model.to(dtype)

    rows = make_rows(4, 1, plain)
    check_packed_rows(mistral(64), rows, 0)
    with pytest.raises(UserError, match="MistralForCausalLM does not keep completions"):
        check_packed_rows(mistral(4), rows, 0)


def test_rounding_of_short_completions_is_no_refusal(plain: Policy) -> None:
    # Logits as large as a real LLM's: in bfloat16 they are rounded to an eighth of a nat.
    model: Any = llama()
    model = model.to(torch.bfloat16)
    with torch.no_grad():
        model.lm_head.weight.mul_(6)
    pairs = make_pairs(60, 1)
    for place in range(60):
        check_packed_rows(model, encode_pairs(pairs[place], plain, 64), 0)


def test_a_model_without_attention_is_refused(plain: Policy) -> None:
    config = MambaConfig(vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=1, state_size=4)
    rows = make_rows(4, 1, plain)
    with pytest.raises(UserError, match="MambaForCausalLM"):
        check_packed_rows(MambaForCausalLM(config), rows, 0)


def test_an_attention_that_takes_no_free_mask_is_refused(plain: Policy) -> None:
    model = llama()
    model.set_attn_implementation("flex_attention")
    with pytest.raises(UserError, match="attn_implementation='sdpa'"):
        check_packed_rows(model, make_rows(2, 1, plain), 0)


def test_a_full_memory_is_not_taken_for_a_refusal(
    plain: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = llama()
    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        check_packed_rows(model, make_rows(2, 1, plain), 0)
