"""A finished RosePO run with its own template: whoever recommends by it later, or exports it."""

import json
import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import recalign
import recalign.llm.load
import recalign.stored
from flows.rosepo import stages, variants
from flows.serving import recommend
from recalign.artifacts.digests import file_digest
from recalign.artifacts.roots import open_root
from recalign.chain import TitleChain, finished_run, title_chain_of_run
from recalign.config import RecommendConfig, RosePOConfig
from recalign.errors import UserError
from recalign.exports import export_run
from recalign.llm.storage import TEMPLATES
from recalign.schemas import ITEMS, SERVING, USERS
from recalign.stored import open_policy
from recalign.titles.names import distinct_titles
from recalign.titles.prompts import template_file
from tasks.interactions import interactions
from tasks.title_serving import title_serving
from tests.tasks.llama3_folder import save_llama3
from tests.tasks.test_recommendations_stage import walk  # noqa: F401
from tests.tasks.tiny_run import CONFIG, direct

QUESTION = "After {{ history | join('; ') }}: which of {{ candidates | join('; ') }}?\n"
OTHER = "Not after {{ history | join('; ') }}: which of {{ candidates | join('; ') }}?\n"
SMALL: dict[str, Any] = {
    "sft": {
        "kind": "huggingface", "format": "candidates", "template": "mine.txt", "method": "lora",
        "n_candidates": 4, "history_items": 4, "n_examples": 24, "n_valid": 10, "epochs": 1,
        "evaluations": 1, "batch_size": 8, "micro_batch_size": 8, "lora_rank": 4,
        "max_length": 1024,
    },
    "rejections": {"n_pairs": 16, "strategy": "random"},
    "alignment": {
        "method": "lora", "lora_rank": 4, "epochs": 1, "evaluations": 1, "batch_size": 8,
        "micro_batch_size": 4, "max_length": 1024,
    },
    "recommendations": {"n_resamples": 100, "list_length": 8, "top": 5},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The root of a finished run, started in the folder of its template."""
    home = tmp_path_factory.mktemp("titles")
    (home / "mine.txt").write_text(QUESTION)
    method = direct(home / "artifacts")
    method(interactions, CONFIG.interactions)
    titles = ITEMS.read(method.artifact("interactions"))["title"].to_list()
    save_llama3(titles, home / "llama3")
    small = {name: getattr(CONFIG, name) for name in ("interactions", "splits", "oracle")}
    config = RosePOConfig.model_validate(
        SMALL | {"sft": {**SMALL["sft"], "model": str(home / "llama3")}}
    ).model_copy(update=small)
    wanted = [row for row in variants(config) if row.estimator in ("", "pairwise")]
    with chdir(home):
        stages(method, config, wanted)
    return str(home / "artifacts")


def recommended(root, **settings):
    """The artifact of lists, as `recalign recommend` makes it."""
    asked, config = direct(root), RecommendConfig(k=3, **settings)
    chain = recommend.chosen(asked.store, config)
    return asked.store.open(recommend.stages(asked, config, chain))


def test_the_runs_own_template_asks_wherever_and_whenever_one_recommends(
    run, tmp_path, monkeypatch
):
    home = Path(run).parent
    monkeypatch.chdir(home)
    lists = recommended(run)
    assert lists.manifest.files == {"template/mine.txt": file_digest(Path("mine.txt"))}
    monkeypatch.chdir(tmp_path)
    assert recommended(run).reference == lists.reference, "asked by the copy beside the LLM"
    assert recommended(run, template=str(home / "mine.txt")).reference == lists.reference
    (tmp_path / "mine.txt").write_text(QUESTION)
    assert recommended(run).reference == lists.reference
    (tmp_path / "mine.txt").rename(tmp_path / "kept.txt")
    by_name = recommended(run, template="kept.txt")
    assert SERVING.read(by_name).equals(SERVING.read(lists))


def test_a_packaged_template_is_no_file_of_the_lists_and_no_other_is_taken_for_it(walk):  # noqa: F811
    names = ("interactions", "oracle", "asked with candidates")
    world, sasrec, picking = (walk.done[name] for name in names)
    asked = file_digest(template_file("next_item"))
    chain = TitleChain(world, sasrec, picking, judged={}, template_digest=asked)
    for given in ("", "next_item", str(template_file("next_item"))):
        assert recommend.own_questions(walk, chain, given) == {}
    with pytest.raises(UserError, match="no such file, or it has other content than the run's"):
        recommend.own_questions(walk, chain, "next_items")
    in_lines = TitleChain(world, sasrec, walk.done["sft"], judged={})
    assert recommend.own_questions(walk, in_lines, "") == {}
    with pytest.raises(UserError, match="template: this LLM continues a list of titles; leave it"):
        recommend.own_questions(walk, in_lines, "next_item")


def test_a_template_that_was_edited_since_never_asks(run, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(run).parent)
    users = USERS.read(open_root(run).open(title_chain(run).interactions))["user_id"].to_list()[:3]
    before = recalign.open(run).latest("rosepo").recommend(users, k=3)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text(OTHER)
    with pytest.raises(UserError, match=r"other content than the run's template mine.txt"):
        recommended(run, template="mine.txt")
    assert recalign.open(run).latest("rosepo").recommend(users, k=3).equals(before)


def test_an_llm_of_an_older_run_is_asked_where_its_template_still_lies(run, tmp_path, monkeypatch):
    """Such a run has kept no copy of it."""
    home = Path(run).parent
    tuned = open_root(run).open(title_chain(run).policy)
    first = recalign.stored.first_of(tuned, run)
    older = replace(first, folder=tmp_path / "older")
    copied = shutil.copytree(first.folder, older.folder)
    shutil.rmtree(copied / TEMPLATES)
    monkeypatch.chdir(home)
    assert recalign.stored.title_prompt(older, run).template == "mine.txt"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"mine.txt: there is no such file, or .* --template") as no:
        recalign.stored.title_prompt(older, run)
    assert "\n" not in str(no.value)
    (tmp_path / "mine.txt").write_text(OTHER)
    with pytest.raises(UserError, match=r"other content than the run's template mine.txt"):
        recalign.stored.title_prompt(older, run)


def test_lists_that_were_kept_without_a_word_of_the_template_are_made_anew(run, monkeypatch):
    monkeypatch.chdir(Path(run).parent)
    asked, chain = direct(run), title_chain(run)
    ranked_by = {"histories": chain.interactions, "oracle": chain.oracle, "policy": chain.policy}
    config = recommend.TitleServingConfig(k=2, **chain.judged)
    figures = []
    for files in ({}, recommend.own_questions(asked, chain, "")):
        asked(title_serving, config, ranked_by, files=files)
        figures.append(asked.artifact("title_serving").manifest.figures["lists_made"])
    assert figures == [60, 60]


def title_chain(root):
    """What the run recommends with."""
    store = open_root(root)
    return title_chain_of_run(store, finished_run(store, method="rosepo"))


def exported(root, folder, *, merge=False):
    store = open_root(root)
    return export_run(store, root, finished_run(store), folder, "policy", merge=merge)


def test_an_exported_llm_has_room_for_the_longest_title(run, tmp_path):
    exported(run, tmp_path / "llm")
    store = open_root(run)
    policy = open_policy(store.open(title_chain(run).policy), run, "cpu")
    titles = distinct_titles(ITEMS.read(store.open(title_chain(run).interactions)))[1:]
    longest = max(len(policy.encode_completion(title)) for title in titles)
    settings = json.loads((tmp_path / "llm" / "generation_config.json").read_text())
    assert settings["max_new_tokens"] == 2 * longest != 32


def test_its_card_says_which_row_it_is_and_shows_a_metric_that_this_row_has(run, tmp_path):
    exported(run, tmp_path / "llm")
    card = (tmp_path / "llm" / "README.md").read_text()
    assert '1 round of RosePO (2410.12519); this model is the row "random, eps"' in card
    assert "\n| random, eps |" in card
    settings = json.loads(card.rpartition("```json")[2].partition("```")[0])
    assert settings["row"] == {"strategy": "random", "estimator": "pairwise"}


@pytest.fixture
def quantised(monkeypatch):
    """The run's LLM, as if it had been held in four bits."""
    change_stored(monkeypatch, quantisation="nf4")


def change_stored(monkeypatch, weights=None, **held):
    """The LLM is stored with other settings, and elsewhere, than it was."""
    stored = recalign.stored.stored_sft

    def changed(folder):
        place = stored(folder)
        place = replace(place, held=place.held.model_copy(update=held))
        return replace(place, weights=weights) if weights else place

    monkeypatch.setattr(recalign.stored, "stored_sft", changed)


def test_without_a_gpu_a_quantised_llm_is_exported_and_opened_unquantised(
    run, tmp_path, monkeypatch, quantised, caplog
):
    monkeypatch.chdir(Path(run).parent)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="a quantised LLM cannot be merged: export the adapter"):
        exported(run, tmp_path / "merged", merge=True)
    told = exported(run, tmp_path / "llm")
    assert "read the base unquantised; the run held it in nf4" in told
    assert told in (tmp_path / "llm" / "README.md").read_text()
    assert (tmp_path / "llm" / "adapter_config.json").exists()
    assert "no GPU here: the LLM is loaded in float32, not in nf4 as in the run" in caplog.text
    opened = recalign.open(run).latest("rosepo")
    assert opened.policy().model.device.type == "cpu"
    user = USERS.read(open_root(run).open(title_chain(run).interactions))["user_id"].to_list()[:1]
    assert opened.recommend(user, k=3).height == 3


def test_with_a_gpu_a_quantised_llm_is_read_there(run, monkeypatch, quantised):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = []

    class Loaded(Exception):
        pass

    def load(weights, held, adapter, device, **how):
        asked.append((held.quantisation, device, how))
        raise Loaded

    monkeypatch.setattr(recalign.llm.load, "load_policy", load)
    opened = recalign.open(run).latest("rosepo")
    with pytest.raises(Loaded):
        opened.policy()
    with pytest.raises(Loaded):
        exported(run, Path(run).parent / "never")
    assert asked == [("nf4", "cuda", {"trainable": trained}) for trained in (False, True)]


def test_an_exported_adapter_names_the_commit_of_its_base(run, tmp_path, monkeypatch):
    change_stored(monkeypatch, weights="me/llm", revision="0a1b2c")
    asked = []
    for kind in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer):
        read = kind.from_pretrained

        def from_hub(name, *args, read=read, **how):
            if str(name) == "me/llm":
                asked.append(how.pop("revision", None))
                name = Path(run).parent / "llama3"
            return read(name, *args, **how)

        monkeypatch.setattr(kind, "from_pretrained", from_hub)
    exported(run, tmp_path / "llm")
    settings = json.loads((tmp_path / "llm" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "me/llm"
    assert settings["revision"] == "0a1b2c"
    card = (tmp_path / "llm" / "README.md").read_text()
    assert "from_pretrained('me/llm', revision='0a1b2c')" in card
    assert asked == ["0a1b2c"] * 3  # model and tokenizer for recalign, the model for the check
