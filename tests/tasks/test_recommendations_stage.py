"""The recommendations stage on a tiny world: untrained LLMs, SASRec, popularity, recomputed."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import tasks.recommendations
from recalign.config import RecommendationsConfig, SftConfig
from recalign.embedded.title_tokenizer import title_tokenizer
from recalign.errors import LeakageError
from recalign.llm.storage import SFT
from recalign.metric_columns import MEASURES, Metric
from recalign.schemas import (
    CANDIDATES,
    INTERACTIONS,
    ITEMS,
    PER_USER,
    RECOMMENDATIONS,
    WINDOWS,
)
from recalign.stored import open_policy
from recalign.titles.names import distinct_titles
from recalign.titles.prompts import TitlePrompts, template_file
from tasks.engine.stage import Call, stage
from tasks.interactions import interactions
from tasks.oracle import oracle
from tasks.recommendations import recommendations
from tasks.splits import splits
from tests.tasks.tiny_run import CONFIG, direct

JUDGED = RecommendationsConfig(list_length=8, top=5, neighbours=5)
SHOWN = 6


def llama(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=1024, initializer_range=0.3,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip


def pieces(titles: list[str]) -> PreTrainedTokenizerFast:
    """Byte pairs learned from the titles: a few tokens each."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator([f"{title}\n" for title in titles], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


@stage(version=1)
def sft(job, config, interactions, splits, files=None):
    """An LLM as the stage of this name leaves it, but untrained."""
    titles = distinct_titles(ITEMS.read(interactions))
    tokenizer = title_tokenizer(titles) if config.kind == "bootstrap" else pieces(titles)
    folder = job.draft.path("model")
    llama(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    job.draft.path(SFT).write_text(config.model_dump_json())


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """The tiny world, its splits, an oracle, and an untrained LLM."""
    made = direct(tmp_path_factory.mktemp("recommended") / "artifacts")
    data = made(interactions, CONFIG.interactions)
    world = {"interactions": data, "splits": made(splits, CONFIG.splits, {"interactions": data})}
    made(oracle, CONFIG.oracle, world)
    made(sft, SftConfig(history_items=SHOWN), world)
    other = SftConfig(kind="huggingface", model="x", format="candidates", history_items=SHOWN)
    made(sft, other, world, label="asked with candidates", files=sft_template(other))
    made(
        sft, other.model_copy(update={"format": "history"}), world, label="asked for the next line"
    )
    return made


def sft_template(config: SftConfig) -> dict[str, list[Path]]:
    """As the stage of this name is given it."""
    return {"template": [template_file(config.template)]}


def judge(walk, config=JUDGED, phase="test", **judged):
    world = {name: walk.done[name] for name in ("interactions", "splits")}
    judged = {name: walk.done[label] for name, label in judged.items()}
    label = f"{judged} {config} {phase}"
    walk(recommendations, config.for_phase(phase), world | judged, label=label)
    return walk.artifact(label)


def values(artifact) -> dict[str, dict[int, float]]:
    """Label of a metric -> user -> value."""
    table = PER_USER.read(artifact)
    found: dict[str, dict[int, float]] = {}
    for user, *metric, value in table.iter_rows():
        found.setdefault(Metric(*metric).label, {})[user] = value
    return found


def cases(walk) -> pl.DataFrame:
    """One row per test position: user, items before, target, by plain joins of the tables."""
    taken = INTERACTIONS.read(walk.artifact("interactions"))
    windows = WINDOWS.read(walk.artifact("splits"))
    rows = []
    for user, start, end in windows.filter("prompted")["user_index", "test_start", "end"].rows():
        items = taken.filter(user_index=user).sort("position")["item_index"].to_list()
        rows += [(user, items[:stop], items[stop]) for stop in range(start, end)]
    return pl.DataFrame(rows, schema=["user", "before", "target"], orient="row")


def drawn(walk, kind: str) -> dict[int, list[int]]:
    table = CANDIDATES.read(walk.artifact("splits"))
    return dict(table.filter(kind=kind).select("user_index", "negatives").iter_rows())


def test_an_llm_of_one_token_titles_is_judged_as_plain_passes_judge_it(walk):
    row = judge(walk, policy="sft")
    policy = open_policy(walk.artifact("sft"), walk.runtime.root, "cpu")
    found = values(row)
    negatives = drawn(walk, "popularity")
    hits: dict[int, list[tuple[float, ...]]] = {}
    shown = RECOMMENDATIONS.read(row)
    titles = distinct_titles(ITEMS.read(walk.artifact("interactions")))
    for case, (user, before, target) in enumerate(cases(walk).iter_rows()):
        ids = [policy.tokenizer.bos_token_id, *(item + 3 for item in before[-SHOWN:])]
        with torch.no_grad():
            logits = policy.model(torch.tensor([ids])).logits[0, -1].double()
        scores = logits[3:]  # item i is token i + 3
        allowed = [i for i in range(1, len(titles)) if i not in before or i == target]
        rank = sum(bool(scores[i] >= scores[target]) for i in allowed)
        number = len(hits.get(user, []))
        block = negatives[user][7 * number : 7 * number + 7]
        in_list = 1 + sum(bool(scores[i] >= scores[target]) for i in block)
        answer = int(logits.argmax()) - 3
        hits.setdefault(user, []).append(
            (rank <= 10, 1 / rank, in_list == 1, 1 / in_list, answer == target, answer in before)
        )
        best = sorted(allowed, key=lambda i: -scores[i])[:5]
        assert shown.row(case, named=True)["recommended"] == best
        assert shown.row(case, named=True)["answer"] == (titles[answer] if answer > 0 else "")
    names = ["HR@10", "MRR", "popular list HR@1", "popular list MRR", "answer HR@1", "already seen"]
    for user, own in hits.items():
        expected = np.mean(own, axis=0)
        assert [found[name][user] for name in names] == pytest.approx(expected.tolist())
    figures = row.manifest.figures
    assert figures["prompts_proved"] == len(shown) == sum(map(len, hits.values()))
    assert figures["means"]["NDCG@10"] == pytest.approx(np.mean(list(found["NDCG@10"].values())))
    assert found["valid"].keys() == hits.keys()
    assert figures["means"]["MRR"] == pytest.approx(
        np.mean([np.mean(own, axis=0)[1] for own in hits.values()])
    )


def test_batches_of_a_run_change_nothing(walk):
    whole = judge(walk, policy="sft")
    expected = whole.path("per_user.parquet").read_bytes()
    runtime = walk.runtime.model_copy(update={"generation_rows": 7})
    inputs = {name: walk.done[name] for name in ("interactions", "splits")}
    inputs["policy"] = walk.done["sft"]
    settings = JUDGED.for_phase("test")
    identity = recommendations.identity(settings, inputs, {})
    made = recommendations.compute(Call(identity, settings, inputs, {}, runtime, force=True))
    found = pl.read_parquet(walk.store.open(made).path("per_user.parquet"))
    before = pl.read_parquet(expected)
    assert found.drop("value").equals(before.drop("value"))
    np.testing.assert_allclose(found["value"].to_numpy(), before["value"].to_numpy(), atol=1e-9)


def test_baselines_are_ranked_and_asked_nothing(walk):
    sasrec, popularity = judge(walk, oracle="oracle"), judge(walk)
    names = {"HR@1", "NDCG@10", "list HR@5", "popular list MRR", "long-tail share"}
    for row in (sasrec, popularity):
        found = values(row)
        assert names <= found.keys()
        assert not {"valid", "answer HR@1", "already seen", "repeated"} & found.keys()
        assert pl.read_parquet(row.path("recommendations.parquet"))["answer"].is_null().all()
        assert 0 < row.manifest.figures["recommended"]["coverage"] <= 1
    # Popularity recommends the same head to everyone who has not seen it; SASRec does not.
    spread = [one.manifest.figures["recommended"]["gini"] for one in (popularity, sasrec)]
    assert spread[0] > spread[1]
    assert np.mean(list(values(popularity)["popularity lift"].values())) > 0


def test_a_beam_over_the_whole_catalogue_judges_as_the_likelihood_does(walk):
    config = JUDGED.model_copy(update={"n_cases": 1})
    scored = judge(walk, config, policy="asked for the next line")
    searched = judge(
        walk, config.model_copy(update={"beam": 120}), policy="asked for the next line"
    )
    expected, found = values(scored), values(searched)
    assert expected.keys() == found.keys()
    for name in expected:
        assert list(found[name].values()) == pytest.approx(list(expected[name].values())), name
    assert len(expected["HR@1"]) == scored.manifest.rows  # one case per user


@pytest.mark.parametrize("label", ["sft", "asked with candidates"])
def test_every_measure_is_explained(walk, label):
    row = judge(walk, JUDGED.model_copy(update={"n_cases": 1}), policy=label)
    found = set(PER_USER.read(row)["measure"])
    assert found <= set(MEASURES)
    assert "popular error" in found


def test_titles_are_scored_by_their_mean_where_asked(walk):
    config = JUDGED.model_copy(update={"n_cases": 1})
    means = judge(
        walk, config.model_copy(update={"likelihood": "mean"}), policy="asked for the next line"
    )
    sums = judge(walk, config, policy="asked for the next line")
    assert values(means)["MRR"] != values(sums)["MRR"]
    assert values(means)["valid"] == values(sums)["valid"]


def test_with_candidates_in_the_prompt_only_lists_are_ranked(walk, monkeypatch):
    asked: list[list[int]] = []

    class Noting(TitlePrompts):
        def text(self, history, candidates=()):
            asked.append(sorted(candidates))
            return super().text(history, candidates)

    monkeypatch.setattr(tasks.recommendations, "TitlePrompts", Noting)
    config = JUDGED.model_copy(update={"n_cases": 1, "top": 4})  # no other test's artifact
    row = judge(walk, config, policy="asked with candidates")
    found = values(row)
    assert {"list HR@1", "popular list HR@1", "list in candidates", "popular list valid"} <= set(
        found
    )
    assert not {"HR@1", "valid", "popularity lift"} & found.keys()
    told = row.manifest.figures["means"]
    assert told["list NDCG@10"] == pytest.approx(np.mean(list(found["list NDCG@10"].values())))
    assert "NDCG@10" not in told
    first = cases(walk).unique("user", keep="first", maintain_order=True)
    for kind in ("uniform", "popularity"):
        lists = drawn(walk, kind)
        for user, _, target in first.iter_rows():
            assert sorted([target, *lists[user][:7]]) in asked
    assert row.manifest.figures["prompts_proved"] == 2 * len(first)


def test_a_prompt_that_shows_its_target_stops_the_stage(walk, monkeypatch):
    made = tasks.recommendations.Cases.prompts

    def late(self, n_shown, write):
        """The fourth case claims the right cut-off, but lists its target."""
        table = made(self, n_shown, write)
        items = table["items"].to_list()
        items[3] = [*items[3][1:], int(self.targets[3])]
        return table.with_columns(pl.Series("items", items, dtype=pl.List(pl.Int32)))

    monkeypatch.setattr(tasks.recommendations.Cases, "prompts", late)
    config = JUDGED.model_copy(update={"n_cases": 2})
    with pytest.raises(LeakageError, match=r"prompts, row 3, user 1: shows item \d+ at position"):
        judge(walk, config, policy="sft")
