"""What the recommender computes, written out by hand, and that it survives disk and batching."""

import math

import numpy as np
import pytest
import torch

from recalign.config import RecommenderConfig
from recalign.errors import BadInputError
from recalign.recommender.examples import ItemVectors
from recalign.recommender.model import start_model
from recalign.recommender.storage import load_recommender, save_recommender
from recalign.recommender.zscores import CLIP

WIDTH, STATE, N_ITEMS = 6, 3, 9


TEXTS = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(5)) * 3 + 1


@pytest.fixture(params=["gated", "experts"])
def model(request):
    return make_model(request.param)


def make_model(adapter, texts=TEXTS):
    draw = torch.Generator().manual_seed(0)
    config = RecommenderConfig(adapter=adapter, hidden=4, gate=0.5)
    model = start_model(
        config,
        ItemVectors(
            torch.randn(N_ITEMS + 1, STATE, generator=draw),
            torch.randn(N_ITEMS + 1, generator=draw),
            torch.randn(N_ITEMS + 1, WIDTH, generator=draw).numpy(),
        ),
        texts,
    )
    with torch.no_grad():
        model.component.copy_(torch.tensor([1.0, 0.5, 2.0, -1.0]))
    return model.eval()


def test_the_spread_of_many_texts_and_items_needs_no_matrix_of_them(monkeypatch):
    exact = make_model("gated").user_map.detach()
    monkeypatch.setattr("recalign.recommender.knowledge.MANY", 10)
    by_moments = make_model("gated").user_map.detach()
    torch.testing.assert_close(by_moments, exact, rtol=1e-5, atol=0)
    assert not torch.equal(by_moments, exact)  # or the matrix was made


def by_hand(model, state, text):
    """s.V + b + gate * (z P + A(z)).((z_i W) * c), one item after the other in float64."""
    part = {name: value.detach().double().numpy() for name, value in model.state_dict().items()}
    z = np.clip((text - part["text_mean"]) / part["text_std"], -CLIP, CLIP)
    adapted = model.adapter(torch.tensor(z, dtype=torch.float32)).detach().double().numpy()
    k_u = z @ part["user_map"] + adapted
    scores = []
    for item in range(N_ITEMS + 1):
        k_i = (part["item_text"][item] @ part["item_map"]) * part["component"]
        base = state @ part["item_matrix"][item] + part["item_bias"][item]
        scores.append(base + part["gate"] * (k_u @ k_i))
    return np.array(scores)


def gelu(x):
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def test_scores_are_those_of_the_formula(model):
    rng = np.random.default_rng(1)
    states, texts = rng.normal(size=(2, STATE)), rng.normal(size=(2, 3, WIDTH)) * 3
    scores = model.scores(torch.tensor(states).float(), torch.tensor(texts).float())
    for user in range(2):
        for sample in range(3):
            expected = by_hand(model, states[user], texts[user, sample])
            np.testing.assert_allclose(scores[user, sample].numpy(), expected, atol=1e-4)


def test_the_gated_adapter_is_its_formula():
    model = make_model("gated")
    z = np.linspace(-1, 1, WIDTH)
    part = {
        name: value.detach().double().numpy() for name, value in model.adapter.named_parameters()
    }
    inner = part["inner.weight"] @ z + part["inner.bias"]
    opened = 1 / (1 + np.exp(-(part["gate.weight"] @ z + part["gate.bias"])))
    expected = part["outer.weight"] @ (np.array([gelu(x) for x in inner]) * opened)
    found = model.adapter(torch.tensor(z).float()).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_experts_are_mixed_by_the_softmax_of_the_text():
    model = make_model("experts")
    z = np.linspace(-1, 1, WIDTH)
    part = {
        name: value.detach().double().numpy() for name, value in model.adapter.named_parameters()
    }
    inner = (part["inner.weight"] @ z + part["inner.bias"]).reshape(len(part["outer"]), -1)
    logits = part["mixture.weight"] @ z + part["mixture.bias"]
    shares = np.exp(logits) / np.exp(logits).sum()
    expected = sum(
        share * np.array([gelu(x) for x in own]) @ weights
        for share, own, weights in zip(shares, inner, part["outer"], strict=True)
    )
    found = model.adapter(torch.tensor(z).float()).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_knowledge_term_starts_alive_and_with_unit_spread():
    draw = torch.Generator().manual_seed(3)
    texts = torch.randn(500, 20, generator=draw) * 0.02 + 1
    items = torch.randn(301, 20, generator=draw)
    config = RecommenderConfig(hidden=16)
    model = start_model(
        config, ItemVectors(torch.zeros(301, 2), torch.zeros(301), items.numpy()), texts
    )
    knowledge = model.user_knowledge(texts) @ model.item_knowledge()[1:].T
    assert float(knowledge.detach().std()) == pytest.approx(config.gate, rel=0.05)


def test_the_fit_texts_end_up_with_mean_zero_and_deviation_one(model):
    z = (TEXTS - model.text_mean) / model.text_std
    np.testing.assert_allclose(z.mean(0), np.zeros(WIDTH), atol=1e-5)
    np.testing.assert_allclose(z.std(0, correction=0), np.ones(WIDTH), atol=1e-5)


def test_a_text_dimension_that_never_varies_changes_nothing():
    texts = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    texts[:, 1] = 0.3
    items = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    model = start_model(
        RecommenderConfig(hidden=4),
        ItemVectors(torch.zeros(6, 2), torch.zeros(6), items.numpy()),
        texts,
    )
    assert torch.isfinite(model.scores(torch.zeros(1, 2), texts[None, :5])).all()


@pytest.mark.parametrize("adapter", ["gated", "experts"])
def test_where_all_texts_are_alike_another_one_does_not_drown_the_sequence_model(adapter):
    model = make_model(adapter, TEXTS[:1].repeat(201, 1))
    knowledge = model.user_knowledge(TEXTS) @ model.item_knowledge().T
    assert knowledge.isfinite().all()
    assert knowledge.abs().max() < 200


def test_scores_do_not_depend_on_the_batch(model):
    rng = np.random.default_rng(2)
    states = torch.tensor(rng.normal(size=(40, STATE))).float()
    texts = torch.tensor(rng.normal(size=(40, 4, WIDTH))).float()
    together = model.scores(states, texts)
    alone = torch.stack([model.scores(states[[row]], texts[[row]])[0] for row in range(40)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_weights_changed_by_training_are_seen_by_the_next_scores(model):
    states, texts = torch.zeros(1, STATE), torch.ones(1, 1, WIDTH)
    before = model.scores(states, texts)
    model.train()
    with torch.no_grad():
        model.gate.mul_(2)
    base = model.base_scores(states)
    torch.testing.assert_close(model.scores(states, texts) - base, 2 * (before - base))


def test_a_saved_recommender_scores_as_before(model, tmp_path):
    save_recommender(tmp_path, model, {"signal": True, "log_prob_difference": 0.25})
    loaded, figures = load_recommender(tmp_path)
    states, texts = torch.ones(2, STATE), torch.ones(2, 3, WIDTH)
    assert torch.equal(loaded.scores(states, texts), model.scores(states, texts))
    assert figures == {"signal": True, "log_prob_difference": 0.25}


def test_a_damaged_file_is_named(model, tmp_path):
    save_recommender(tmp_path, model, {})
    weights = tmp_path / "recommender.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(BadInputError, match=str(tmp_path)):
        load_recommender(tmp_path)
