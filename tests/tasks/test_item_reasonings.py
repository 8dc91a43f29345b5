"""What an LLM writes about items, once, and that the recommender reads it."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from recalign.artifacts.artifact import Draft
from recalign.config import DPO4RecConfig, ItemReasoningsConfig, PolicyConfig, SamplingConfig
from recalign.errors import UserError
from recalign.progress import silent
from recalign.schemas import INTERACTIONS, ITEM_REASONINGS, ITEMS
from tasks.current_reasonings import current_reasonings
from tasks.encoding import item_vectors, open_encoder
from tasks.engine.job import Job
from tasks.engine.stage import Stage
from tasks.interactions import interactions
from tasks.item_reasonings import item_reasonings
from tasks.policy import policy, policy_files
from tasks.reasonings import prompt_files
from tasks.splits import splits
from tests.tasks.llama3_folder import save_llama3
from tests.tasks.tiny_run import CONFIG, direct

ASKED = ItemReasoningsConfig(write=True, max_new_tokens=12, min_words=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    walk = direct(tmp_path_factory.mktemp("about") / "artifacts")
    data = walk(interactions, CONFIG.interactions)
    windows = walk(splits, CONFIG.splits, {"interactions": data})
    folder = tmp_path_factory.mktemp("llm")
    save_llama3(ITEMS.read(walk.artifact("interactions"))["title"].to_list(), folder)
    loaded = PolicyConfig(kind="huggingface", model=str(folder))
    world = {"interactions": data, "splits": windows}
    llm = walk(policy, loaded, world, files=policy_files(loaded))
    inputs = {"interactions": data, "policy": llm}
    walk(item_reasonings, ASKED, inputs, files=prompt_files(ASKED))
    return walk


def test_every_item_has_one_text_and_malformed_ones_are_counted(written):
    made = written.artifact("item_reasonings")
    table, items = ITEM_REASONINGS.read(made), ITEMS.read(written.artifact("interactions"))
    assert table["item_index"].to_list() == items["item_index"].to_list()
    assert made.manifest.rows == items.height
    assert sum(made.manifest.dropped.values()) == table["malformed"].is_not_null().sum() > 0


def test_texts_depend_on_nothing_but_the_item_and_the_llm(written):
    assert set(written.artifact("item_reasonings").manifest.inputs) == {"interactions", "policy"}


def with_an_item_more(walk):
    """Interactions, and their splits, like the walk's but for one item more at the front."""
    old = walk.artifact("interactions")
    config = old.manifest.config | {"min_rating": 0.5}  # a name of its own
    draft = walk.store.draft(replace(old.manifest.identity, config=config), {})
    for name in old.manifest.outputs:
        shutil.copyfile(old.path(name), draft.path(name))
    items = ITEMS.read(old)
    new = items.head(1).with_columns(title=pl.lit("A new one"), item_id=pl.lit("new"))
    items = pl.concat([new, items]).with_columns(
        item_index=pl.int_range(1, items.height + 2).cast(ITEMS["item_index"])
    )
    moved = INTERACTIONS.read(old).with_columns(pl.col("item_index") + 1)
    ITEMS.write(items, draft)
    INTERACTIONS.write(moved, draft)
    draft.manifest.rows = old.manifest.rows
    draft.manifest.figures = old.manifest.figures | {"items": items.height}
    data = walk.store.commit(draft).reference
    return {"interactions": data, "splits": walk(splits, CONFIG.splits, {"interactions": data})}


def test_of_newer_interactions_only_the_new_item_is_written_about(written, tmp_path):
    walk = direct(shutil.copytree(written.store.root, tmp_path / "artifacts"))
    first = written.artifact("item_reasonings")
    n_items = first.manifest.rows
    assert first.manifest.figures["texts_written"] == n_items
    walk.done |= written.done
    loaded = PolicyConfig.model_validate(written.artifact("policy").manifest.config)
    world = with_an_item_more(walk)
    llm = walk(policy, loaded, world, files=policy_files(loaded))
    assert llm != written.done["policy"]
    inputs = {"interactions": world["interactions"], "policy": llm}
    walk(item_reasonings, ASKED, inputs, files=prompt_files(ASKED))
    second = walk.artifact("item_reasonings")
    figures = second.manifest.figures
    assert (figures["texts_written"], figures["texts_kept"]) == (1, n_items)
    about, before = ITEM_REASONINGS.read(second), ITEM_REASONINGS.read(first)
    assert about[1:].drop("item_index").equals(before.drop("item_index"))
    # The texts do not depend on which were kept: a forced stage writes them all, to the letter.
    walk(item_reasonings, ASKED, inputs, files=prompt_files(ASKED), force=True)
    forced = walk.artifact("item_reasonings")
    assert forced.manifest.figures["texts_written"] == n_items + 1
    assert ITEM_REASONINGS.read(forced).equals(about)


def test_another_llm_in_the_same_folder_writes_anew(written, tmp_path):
    walk = direct(shutil.copytree(written.store.root, tmp_path / "artifacts"))
    walk.done |= written.done
    first = written.artifact("item_reasonings").manifest
    loaded = PolicyConfig.model_validate(written.artifact("policy").manifest.config)
    weights = Path(loaded.model) / "model.safetensors"
    before, tensors = weights.read_bytes(), load_file(weights)
    try:
        save_file({n: t.flip(0) for n, t in tensors.items()}, weights, {"format": "pt"})
        world = {name: written.done[name] for name in ("interactions", "splits")}
        llm = walk(policy, loaded, world, files=policy_files(loaded))
        assert llm.digest == written.done["policy"].digest  # its outputs name the folder alone
        inputs = {"interactions": world["interactions"], "policy": llm}
        walk(item_reasonings, ASKED, inputs, files=prompt_files(ASKED))
    finally:
        weights.write_bytes(before)
    figures = walk.artifact("item_reasonings").manifest.figures
    assert (figures["texts_written"], figures["texts_kept"]) == (first.rows, 0)


@pytest.mark.parametrize("about", ["items", "users"])
def test_a_stage_of_a_new_version_writes_anew_what_its_earlier_one_has_kept(
    written, tmp_path, about
):
    walk = direct(shutil.copytree(written.store.root, tmp_path / "artifacts"))
    data, llm = written.done["interactions"], written.done["policy"]
    config: SamplingConfig | ItemReasoningsConfig = ASKED
    if about == "items":
        stage, inputs = item_reasonings, {"interactions": data, "policy": llm}
    else:
        stage, inputs = current_reasonings, {"histories": data, "policy": llm}
        config = SamplingConfig(max_new_tokens=4, min_words=1)
    told = []
    for version in (1, 2, 2):
        raised = Stage(stage.name, version, stage.body)
        walk(raised, config, inputs, files=prompt_files(config), force=version == 1)
        made = walk.artifact(stage.name)
        figures = made.manifest.figures
        told.append((figures["texts_written"] > 0, figures["texts_kept"] > 0))
        walk.store.discard(stage.name, made.manifest.fingerprint)
    assert told == [(True, False), (True, False), (False, True)]


def test_usable_texts_are_read_beside_title_and_attributes(written, tmp_path):
    items = ITEMS.read(written.artifact("interactions")).head(3)
    rows = [(1, "Gentle tales of the sea.", 6, None), (2, "No.", 1, "short"), (3, "Loud.", 1, None)]
    about = pl.DataFrame(rows, schema=ITEM_REASONINGS, orient="row")
    manifest = written.artifact("interactions").manifest
    job = Job(Draft(tmp_path, manifest), written.runtime, silent, lambda: "cpu")
    alone, both = item_vectors(job, "minilm", items), item_vectors(job, "minilm", items, about)
    told = open_encoder(job, "minilm").encode(["Gentle tales of the sea.", "Loud."])
    expected = alone[1:] + np.stack([told[0], told.mean(0), told[1]])
    assert np.allclose(both[1:], expected, atol=1e-6)
    assert not both[0].any()
    with pytest.raises(
        UserError, match=r"all 1 .* malformed \(1 short\): .* item_reasonings\.min_words"
    ):
        item_vectors(job, "minilm", items, about.filter(item_index=2))


def test_the_embedded_llm_is_not_asked_about_items():
    with pytest.raises(ValueError, match=r"item_reasonings\.write needs an LLM that knows items"):
        DPO4RecConfig(item_reasonings=ASKED)
