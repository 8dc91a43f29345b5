"""What an LLM writes about items, once, and that the recommender reads it."""

import numpy as np
import polars as pl
import pytest

from recalign.artifacts.artifact import Draft
from recalign.config import DPO4RecConfig, ItemReasoningsConfig, PolicyConfig
from recalign.errors import UserError
from recalign.progress import silent
from recalign.schemas import ITEM_REASONINGS, ITEMS
from tasks.encoding import item_vectors, open_encoder
from tasks.engine.job import Job
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
    with pytest.raises(UserError, match="all 1 texts about items are malformed"):
        item_vectors(job, "minilm", items, about.filter(item_index=2))


def test_the_embedded_llm_is_not_asked_about_items():
    with pytest.raises(ValueError, match=r"item_reasonings\.write needs an LLM that knows items"):
        DPO4RecConfig(item_reasonings=ASKED)
