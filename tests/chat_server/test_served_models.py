"""The policy behind a server: known, loaded while it runs, or told what to start."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from recalign.errors import UserError
from recalign.llm.local_writer import LocalWriter
from tests.chat_server.asking import greedy, texts_of


def adapted(folder, tmp_path):
    """An adapter on the served LLM that changes its texts, and the merged weights."""
    from peft import LoraConfig, get_peft_model

    llm = LlamaForCausalLM.from_pretrained(folder)
    torch.manual_seed(3)
    config = LoraConfig(r=2, init_lora_weights=False, target_modules="all-linear")
    model: Any = get_peft_model(llm, config)
    model.save_pretrained(str(tmp_path / "adapter"))
    merged = shutil.copytree(folder, tmp_path / "merged")
    model.merge_and_unload().save_pretrained(merged)
    return tmp_path / "adapter", merged


def test_an_adapter_is_loaded_while_the_server_runs_or_it_is_said_what_to_start(
    open_writer, between, stored, llm_folder, here, tmp_path
):
    adapter, merged = adapted(llm_folder, tmp_path)
    with pytest.raises(UserError, match=f"--lora-modules recalign-1={adapter}"):
        open_writer("recalign-1", adapter)
    with pytest.raises(UserError, match=f"vllm serve {merged} --served-model-name recalign-1"):
        open_writer("recalign-1", merged)
    between.load_adapter = {str(adapter): merged}.__getitem__
    texts = texts_of(open_writer("recalign-1", adapter))
    aligned = texts_of(LocalWriter(replace(stored, adapter=adapter).load("cpu")))
    assert greedy(texts) == greedy(aligned) != greedy(here)


def test_a_model_that_the_server_lists_is_not_loaded_again(open_writer, between, llm_folder):
    between.owner = "unheard-of"
    between.models = {"recalign-1": str(llm_folder)}
    writer = open_writer("recalign-1", llm_folder)
    assert writer.engine == "unknown"
    assert "of the server's own may apply" in writer.usage.not_promised[1]
    assert len(texts_of(writer)) == 9


@pytest.fixture
def adapter(tmp_path):
    """A folder that looks like an adapter's, and that only the server opens."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("owner", ["vllm", "unheard-of"])
def test_an_adapter_whose_answer_was_lost_is_loaded_once(open_writer, between, adapter, owner):
    between.owner, between.load_adapter, between.lost_loads = owner, Path, 1
    open_writer("recalign-1", adapter)
    assert between.loads == [str(adapter)] * 2  # the second was answered with 400
    assert between.models == {"recalign-1": str(adapter)}


def test_an_adapter_that_the_server_cannot_read_is_told_in_its_words(open_writer, between, adapter):
    def elsewhere(folder):
        raise FileNotFoundError(folder)

    between.owner, between.load_adapter = "vllm", elsewhere
    with pytest.raises(UserError) as caught:
        open_writer("recalign-1", adapter)
    told = str(caught.value)
    assert f"the adapter {adapter} is not loaded: either the server does not see this" in told
    assert 'answers 404: {"error": {"message": "Loading lora recalign-1 failed' in told
    assert f"No adapter found for {adapter}" in told
    assert len(told.splitlines()) == 1


def test_an_adapter_that_the_server_refuses_is_told_in_its_words(open_writer, between, adapter):
    between.owner, between.load_adapter = "vllm", Path
    between.no_load = "LoRA rank 16 is greater than max_lora_rank 8."
    with pytest.raises(UserError, match=r"server answers 400 .*LoRA rank 16 is greater"):
        open_writer("recalign-1", adapter)


def test_the_server_is_told_the_whole_path_of_a_folder(
    open_writer, between, adapter, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"--lora-modules recalign-1={adapter}"):
        open_writer("recalign-1", Path("adapter"))
    with pytest.raises(UserError, match=f"vllm serve {tmp_path} --served-model-name recalign-1"):
        open_writer("recalign-1", Path())
    between.load_adapter = Path
    open_writer("recalign-1", Path("adapter"))
    assert between.loads == [str(adapter)]
