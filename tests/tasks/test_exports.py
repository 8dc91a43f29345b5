"""Exported models: read without recalign they do the same, and no file in them is a pickle."""

import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tokenizers
import torch
from transformers import PreTrainedTokenizerFast

import recalign
import recalign.stored
from flows.cli.inventory import list_artifacts
from flows.cli.takehome import export_model
from flows.cli.upkeep import collect_garbage
from recalign.artifacts.roots import open_root
from recalign.card_facts import facts_of, ranker_card
from recalign.chain import finished_run, policy_of_run
from recalign.config import SamplingConfig, TitlePromptConfig
from recalign.errors import UserError
from recalign.export import llm
from recalign.export.card import CardFacts, model_card, result_table
from recalign.export.examples import llm_example
from recalign.export.place import new_folder
from recalign.exports import export_run
from recalign.llm.local_writer import LocalWriter
from recalign.metric_columns import NDCG_AT_10, Metric
from recalign.oracle.inference import states_of
from recalign.oracle.storage import load_oracle
from recalign.recommender.encoder import SentenceEncoder
from recalign.recommender.storage import load_recommender
from recalign.schemas import COMPLETIONS, ITEMS, RESULTS, USERS
from recalign.sequences import Sequences
from recalign.stored import open_policy
from recalign.titles.prompts import TitlePrompts
from recalign.writer import Asked
from tasks.oracle import oracle
from tasks.splits import splits
from tests.report.sample_pages import cell, table
from tests.tasks.tiny_run import CONFIG, direct, made_anew
from tests.test_docs import FENCED

OWN = "Aligned policy, greedy"


def exported(root, folder, what="policy", *, merge=False):
    store = open_root(str(root))
    return export_run(store, str(root), finished_run(store), folder, what, merge=merge)


def example(folder):
    """The code on the folder's card."""
    [code] = [code for kind, code in FENCED.findall((folder / "README.md").read_text())
              if kind == "python"]  # fmt: skip
    return code


@pytest.fixture
def printed(capsys, monkeypatch):
    """What the code on a folder's card prints, run inside the folder."""

    def run(folder):
        monkeypatch.chdir(folder)
        capsys.readouterr()
        exec(example(folder), {})
        return capsys.readouterr().out.strip()

    return run


def test_an_export_waits_until_garbage_collection_is_done(finished, copy, tmp_path, monkeypatch):
    store, to = open_root(str(copy)), tmp_path / "oracle"
    monkeypatch.setenv("HOME", str(tmp_path))
    export = threading.Thread(
        target=lambda: export_model(Path("~/oracle"), "", "oracle", push="", root=str(copy))
    )
    with store.alone() as free:
        assert free
        export.start()
        export.join(5)
        assert export.is_alive()
        assert not to.exists()
    export.join(120)
    assert (to / "README.md").exists()


@pytest.mark.slow
def test_transformers_alone_writes_the_same_greedy_text(finished, tmp_path):
    script = "import os, sys; sys.modules.update(recalign=None, tasks=None, flows=None)\n"
    for name, merge in (("merged", True), ("adapter", False)):
        told = exported(finished.store.root, tmp_path / name, merge=merge)
        assert "same greedy texts as recalign for 3 of 3" in told
        endings = {path.suffix for path in (tmp_path / name).rglob("*") if path.is_file()}
        assert endings == {".md", ".json", ".safetensors"}
        assert (tmp_path / name / "adapter_config.json").exists() is not merge
        script += f"os.chdir({str(tmp_path / name)!r})\n{example(tmp_path / name)}"
    prompt = COMPLETIONS.read(finished.artifact("pairs, round 1"))["prompt"][0]
    policy = open_policy(finished.artifact("alignment, round 1"), str(finished.store.root), "cpu")
    asked = Asked(SamplingConfig(max_new_tokens=32), n_samples=0)
    [[own]] = LocalWriter(policy).write([prompt], [0], asked)
    alone = [sys.executable, "-c", script]
    done = subprocess.run(alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [own.text.strip()] * 2


def test_a_quantised_llm_leaves_its_adapter_and_recommends_where_no_gpu_is(
    finished, tmp_path, monkeypatch
):
    stored = recalign.stored.stored_policy

    def quantised(folder):
        place = stored(folder)
        return replace(place, held=place.held.model_copy(update={"quantisation": "int8"}))

    root = finished.store.root
    user = USERS.read(finished.artifact("interactions"))["user_id"].to_list()[:1]
    expected = recalign.open(root).latest("dpo4rec").recommend(user)
    monkeypatch.setattr(recalign.stored, "stored_policy", quantised)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="a quantised LLM cannot be merged: export the adapter"):
        exported(root, tmp_path / "merged", merge=True)
    told = exported(root, tmp_path / "adapter")
    assert told.endswith(
        "It read the base unquantised; the run held it in int8, and wrote by that."
    )
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert recalign.open(root).latest("dpo4rec").recommend(user).equals(expected)


def test_the_recommenders_card_loads_it_and_ranks_as_the_run_does(finished, tmp_path, printed):
    exported(finished.store.root, tmp_path / "ranker", "recommender")
    shown = eval(printed(tmp_path / "ranker"))
    card = (tmp_path / "ranker" / "README.md").read_text()
    text = eval(card.partition("[3, 1, 2], ")[2].partition("  #")[0])
    items = ITEMS.read(finished.artifact("interactions"))
    oracle, _ = load_oracle(finished.artifact("oracle").folder)
    reader, _ = load_recommender(finished.artifact("recommender, round 1").folder)
    sequences = Sequences(np.array([0, 3]), np.array([3, 1, 2]), items.height)
    state = states_of(oracle, sequences, np.array([0]), np.array([3]))
    vector = torch.from_numpy(SentenceEncoder("minilm").encode([text]))
    scores = reader.scores(state, vector[:, None])[0, 0]
    scores[:4] = -torch.inf
    titles = dict(items.select("item_index", "title").iter_rows())
    assert shown == [titles[item] for item in scores.topk(5).indices.tolist()]
    assert {path.name for path in (tmp_path / "ranker").iterdir()} == {
        "README.md", "items.parquet", "oracle.json", "oracle.safetensors", "recommender.json",
        "recommender.safetensors",
    }  # fmt: skip


def test_the_oracles_card_loads_it(finished, tmp_path, printed):
    exported(finished.store.root, tmp_path / "oracle", "oracle")
    titles = pl.read_parquet(tmp_path / "oracle" / ITEMS.file)["title"].to_list()
    shown = eval(printed(tmp_path / "oracle"))
    assert len(shown) == 5
    assert set(shown) <= set(titles)


@pytest.mark.parametrize("what", ["oracle", "recommender"])
def test_the_card_of_an_oracle_that_was_not_validated_has_no_figure_of_it(finished, copy, what):
    walk = direct(copy)
    world = {"interactions": finished.done["interactions"]}
    world["splits"] = walk(splits, CONFIG.splits.model_copy(update={"fit": 0}), world)
    fitted = walk(oracle, CONFIG.oracle, world)
    assert walk.store.open(fitted).manifest.figures["best_valid_ndcg_at_10"] is None
    report = finished_run(walk.store)
    told = report.model_copy(update={"inputs": report.inputs | {"oracle": fitted}})
    assert "Validation NDCG@10" in ranker_card(walk.store, report, what, "")
    assert "Validation NDCG@10" not in ranker_card(walk.store, told, what, "")


def test_a_card_tells_data_rounds_results_licences_and_limits(finished, tmp_path):
    exported(finished.store.root, tmp_path / "llm", merge=True)
    card = (tmp_path / "llm" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "1 round of DPO4Rec" in card
    assert '"template": "attributes.txt"' in card
    assert "synthetic: 60 users" in card
    assert "takes `<pad>`, `<s>`, `</s>` for control tokens" in card
    aligned = next(
        line for line in card.splitlines() if line.startswith("| Aligned policy, greedy")
    )
    results = finished.artifact("evaluation").path("results.parquet")
    table = pl.read_parquet(results).filter(row="Aligned policy, greedy", k=10, measure="NDCG")
    line = table.filter(lists="catalogue").to_dicts()[0]
    for number in (f"{line['mean']:.4f}", f"{line['low']:.4f}", f"{line['difference_high']:+.4f}"):
        assert number in aligned
    for heading in ("## Data", "## Licences", "## Limits", "## Settings"):
        assert heading in card


def test_a_card_gives_no_interval_where_too_few_users_were_tested(finished):
    results = RESULTS.read(finished.artifact("evaluation"))
    few = results.with_columns(n_users=pl.lit(5, pl.Int64))
    for line, known in zip(result_table(few, OWN)[2:], result_table(results, OWN)[2:], strict=True):
        cells, others = line.split("|"), known.split("|")
        assert cells[3].strip() == "too few users"
        assert cells[5].strip() == ("too few users" if others[5].strip() else "")
        assert (cells[2], cells[4]) == (others[2], others[4])


def test_a_card_says_which_row_of_its_results_the_model_is_and_any_doubt_of_it(finished, tmp_path):
    store, report = finished.store, finished_run(finished.store)
    made = store.open(policy_of_run(store, report))
    facts = facts_of(store, str(store.root), report, made, "", "")
    assert facts.row in RESULTS.read(finished.artifact("evaluation"))["row"]
    told = model_card(replace(facts, doubt="it is no better"))
    assert 'of DPO4Rec (arXiv 2410.05939); this model is the row "Aligned policy, greedy"' in told
    assert "Mind: it is no better." in told
    assert "Mind" not in model_card(replace(facts, doubt=""))


def test_a_card_shows_a_metric_that_the_model_itself_has():
    listed = Metric("uniform", "HR", 1)
    others = [cell("Popularity", one, 0.1) for one in (NDCG_AT_10, listed)]
    lines = result_table(table(*others, cell("hard, eps", listed, 0.2)), "hard, eps")
    assert "list HR@1" in lines[0]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["Popularity", "hard, eps"]


def test_the_exported_llm_is_read_once_the_runs_own_is_out_of_memory(
    finished, tmp_path, monkeypatch
):
    save, read, kept = llm.save_llm, llm.texts_of_folder, []

    def saved(policy, *args, **how):
        kept.append(weakref.ref(policy.model))
        save(policy, *args, **how)

    def texts(*args):
        assert kept[0]() is None
        return read(*args)

    monkeypatch.setattr(llm, "save_llm", saved)
    monkeypatch.setattr(llm, "texts_of_folder", texts)
    exported(finished.store.root, tmp_path / "llm")
    assert len(kept) == 1


def test_the_code_on_the_card_of_an_llm_of_lines_asks_as_it_was_trained():
    """Of a tokenizer that keeps line breaks, unlike that of the embedded titles."""
    words = {word: n for n, word in enumerate(["[UNK]", "<s>", "A", "B", "\n"])}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>")
    prompt = TitlePrompts(TitlePromptConfig(), ["", "A", "B"]).text([1, 2])
    _, _, asking = llm_example("lines", prompt, None).partition("(folder)\nmodel")
    known: dict[str, Any] = {"tokenizer": tokenizer}
    exec(asking.partition("\n")[2].partition("\nasked")[0], known)
    assert known["ids"] == [1, 2, 4, 3, 4]
    assert llm.prompt_ids(tokenizer, "lines", prompt) == [1, 2, 4, 3, 4]


def test_an_empty_folder_is_filled_also_where_one_stands_in_it(finished, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    exported(finished.store.root, Path("."), "oracle")
    assert (tmp_path / "here" / "oracle.safetensors").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="inside cannot be written: Not a directory"):
        exported(finished.store.root, tmp_path / "file" / "inside", "oracle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "here"]


def test_an_export_never_replaces_a_folder_and_leaves_no_half_one(copy, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(UserError, match="there is there already"):
        exported(copy, tmp_path / "there", "oracle")
    for weights in copy.glob("policy/[!.]*/model/model.safetensors"):
        weights.unlink()  # the base model is gone
    with pytest.raises(UserError, match=r"policy/.* is missing or damaged") as told:
        exported(copy, tmp_path / "gone")
    assert "\n" not in str(told.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "there"]


def test_of_two_exports_to_one_folder_the_second_is_refused_and_leftovers_go(tmp_path):
    (tmp_path / ".llm.draft").mkdir()  # of a killed export
    (tmp_path / ".llm.draft" / "half.safetensors").touch()
    with new_folder(tmp_path / "llm") as draft:
        (draft / "whole.safetensors").touch()
        second = new_folder(tmp_path / "llm")
        with pytest.raises(UserError, match="another export is making it"), second:
            pytest.fail("two at once")
    assert [path.name for path in tmp_path.rglob("*")] == ["llm", "whole.safetensors"]


def test_what_somebody_puts_there_while_an_export_is_made_is_not_replaced(tmp_path):
    (tmp_path / "llm").mkdir()
    export = new_folder(tmp_path / "llm")
    with pytest.raises(UserError, match="llm is there already"), export:
        (tmp_path / "llm" / "mine").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["llm", "mine"]


@pytest.mark.parametrize("anew", ["policy", "alignment, round 1", "oracle"])
def test_a_run_whose_base_was_computed_anew_is_not_exported_as_if_it_still_fitted(
    finished, copy, tmp_path, anew
):
    made_anew(open_root(str(copy)), finished.done[anew])
    what = "oracle" if anew == "oracle" else "policy"
    with pytest.raises(UserError, match=f"{finished.done[anew].name} was computed anew since"):
        exported(copy, tmp_path / "mixed", what)
    run = recalign.open(copy).latest("dpo4rec")
    with pytest.raises(UserError, match=f"{finished.done[anew].name} was computed anew since"):
        run.recommend(USERS.read(finished.artifact("interactions"))["user_id"].to_list()[:1])
    list_artifacts("", root=str(copy))
    collect_garbage(keep=1, dry_run=True, root=str(copy))


def test_a_push_without_a_token_is_told_in_a_line(tmp_path, monkeypatch):
    from recalign.export.place import upload

    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError, match="--push me/model needs a token of the hub in the variable"):
        upload(tmp_path, "me/model")


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("someone/some-llm", "base_model: someone/some-llm"),
        ("models/some-llm.gguf", ""),
        ("my-llm", ""),
        ("./some/llm", ""),
    ],
)
def test_the_hub_is_told_of_a_base_model_that_is_on_the_hub(base, told):
    results, told_of = pl.DataFrame(schema=RESULTS), ("1 round", "row", "", "", "")
    facts = CardFacts("t", base, "d", "", "", 1, 1, 1, {}, results, *told_of)
    assert next((one for one in model_card(facts).split("\n") if "base_model" in one), "") == told
