"""Counter-based streams and inverse-CDF sampling against their definitions."""

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from recalign.config import SamplingConfig
from recalign.llm.generate import Room
from recalign.llm.nucleus import _cut
from recalign.llm.sampling import (
    CACHED,
    logits_at_once,
    sample_tokens,
    splitmix64,
    stream_keys,
    uniforms,
)

ANY = torch.zeros(1, dtype=torch.int64)
PLAIN = SamplingConfig()


def test_splitmix64_gives_the_published_outputs():
    # First outputs of the reference implementation for the seed 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    found = [int(splitmix64(torch.tensor([1234567]), step)) % 2**64 for step in range(3)]
    assert found == published


def test_neighbouring_users_samples_steps_and_names_draw_independently():
    users, samples = torch.arange(400), torch.arange(10)
    grid = torch.cartesian_prod(users, samples)
    keys = stream_keys(7, "a", grid[:, 0], grid[:, 1])
    draws = torch.stack([uniforms(keys, step) for step in range(5)], -1).view(400, 10, 5)
    other = uniforms(stream_keys(7, "b", grid[:, 0], grid[:, 1]), 0).view(400, 10)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 4 * (1 / 12 / draws.numel()) ** 0.5
    centred = (draws - 0.5) * 12**0.5
    pairs = [
        centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1],
        centred[..., 1:] * centred[..., :-1], centred[..., 0] * (other - 0.5) * 12**0.5,
    ]  # fmt: skip
    for product in pairs:
        assert abs(product.mean()) < 4 / product.numel() ** 0.5


def shares(logits, temperature, top_k, top_p, n=20_000):
    """Share of evenly spaced draws that land on each token: the sampled distribution."""
    draws = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    rows = ANY.expand(n)
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    tokens = sample_tokens(logits[None], rows, draws, rows > 0, config)
    return tokens.bincount(minlength=len(logits)) / n


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 5, 1.0), (1.0, 0, 0.6), (2.0, 0, 0.95), (0.8, 40, 0.9)],
)
def test_the_distribution_is_that_of_temperature_top_k_and_top_p(temperature, top_k, top_p):
    logits = torch.randn(200, generator=torch.Generator().manual_seed(0)) * 1.5
    check_distribution(logits, temperature, top_k, top_p)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.3, 0, 0.9), (0.6, 0, 0.8), (1.0, 0, 0.95), (1.0, 40, 0.9), (1.0, 900, 1.0)],
)
def test_a_large_vocabulary_is_sampled_by_the_same_definition(temperature, top_k, top_p):
    # Nuclei of 1 to 4,000 of 6,000 tokens: selected, selected again, and by the histogram.
    logits = torch.randn(6000, generator=torch.Generator().manual_seed(0)) * 1.5
    check_distribution(logits, temperature, top_k, top_p)


def check_distribution(logits, temperature, top_k, top_p):
    warped = TemperatureLogitsWarper(temperature)(ANY, logits[None])
    warped = TopKLogitsWarper(top_k)(ANY, warped) if top_k else warped
    expected = TopPLogitsWarper(top_p)(ANY, warped)[0].softmax(-1) if top_p < 1 else warped[0]
    expected = expected if top_p < 1 else expected.softmax(-1)
    found = shares(logits, temperature, top_k, top_p)
    assert ((found > 0) <= (expected > 0)).all()
    # Each token's interval of draws is met to within one draw at either end.
    assert (found - expected).abs().max() < 2 / 20_000


@pytest.mark.parametrize("scale", [0.01, 1.0, 4.0, 40.0])
@pytest.mark.parametrize("top_p", [0.3, 0.95, 0.9999, 1 - 1e-12])
def test_a_wide_nucleus_is_cut_as_if_all_tokens_were_sorted(scale, top_p):
    # Up to thousands of tokens in one bin of the histogram, and shares too small for any bin.
    logits = torch.randn(4, 6000, generator=torch.Generator().manual_seed(2)) * scale
    shares = logits.softmax(-1)
    cut = _cut(shares, top_p)
    ordered, tokens = shares.double().sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.zeros_like(cut, dtype=torch.bool).scatter(-1, tokens, before < top_p)
    kept &= shares >= 2.0**-64
    assert torch.equal(cut > 0, kept)
    assert torch.allclose(cut / cut.sum(-1, keepdim=True) * (shares * kept).sum(-1, keepdim=True),
                          shares * kept, rtol=1e-5, atol=0)  # fmt: skip


def test_equal_tokens_at_the_edge_of_a_wide_nucleus_are_kept_up_to_its_size():
    found = shares(torch.zeros(6000), 1.0, 0, 0.4999, n=6000)
    assert int((found > 0).sum()) == 3000


def test_a_nucleus_wider_than_the_first_selection_is_sampled_whole():
    # 300 equal tokens: top_p = 0.499 needs 150 of them, more than are looked at first.
    found = shares(torch.zeros(300), 1.0, 0, 0.499)
    assert int((found > 0).sum()) == 150


def test_greedy_rows_take_the_most_probable_token_and_others_do_not_care():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 0.0]])
    rows, draws = torch.tensor([0, 0, 1]), torch.tensor([0.999, 0.999, 0.999]).double()
    tokens = sample_tokens(logits, rows, draws, torch.tensor([True, False, True]), PLAIN)
    assert tokens.tolist() == [1, 2, 0]


def test_impossible_tokens_are_never_drawn_even_at_the_ends_of_the_range():
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    draws = torch.tensor([0.0, 1 - 2.0**-53]).double()
    tokens = sample_tokens(logits, ANY.expand(2), draws, torch.zeros(2) > 0, PLAIN)
    assert tokens.tolist() == [1, 2]


def test_a_gpu_draws_more_at_once_in_a_larger_room_and_leaves_it_that_part():
    assert logits_at_once("cpu", 30.0) == logits_at_once("cpu", 2.0) == CACHED
    large = logits_at_once("cuda", 30.0)
    assert large > 10 * logits_at_once("cuda", 2.0)
    for gigabytes in (10.0, 30.0):
        left = Room(100, gigabytes).beside_scratch("cuda").gigabytes
        assert left + logits_at_once("cuda", gigabytes) * 64 / 1e9 == pytest.approx(gigabytes)
    assert Room(100, 30.0).beside_scratch("cpu") == Room(100, 30.0)


def test_tokens_do_not_depend_on_how_many_are_drawn_at_once():
    drawn = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 50, generator=drawn)
    draws = torch.rand(9, generator=drawn, dtype=torch.float64)
    rows, greedy = torch.arange(9), torch.arange(9) % 4 == 0
    one, all_ = (sample_tokens(logits, rows, draws, greedy, PLAIN, n) for n in (50, 10**6))
    assert torch.equal(one, all_)
