"""A model in llama.cpp's format becomes a folder of safetensors, once."""

import gguf
import numpy as np
import pytest
import torch

from recalign.config import PolicyConfig, SftConfig
from recalign.errors import UserError
from recalign.llm.convert_gguf import converted
from recalign.llm.load import load_policy
from tests.llm.gguf_file import save_gguf


def test_a_gguf_becomes_a_folder_that_loads_and_is_made_once(tmp_path):
    file = save_gguf(tmp_path / "model.gguf")
    (tmp_path / "work").mkdir()
    folder = converted(file, tmp_path / "model", tmp_path / "work", torch.float32)
    policy = load_policy(folder, PolicyConfig(kind="huggingface", model=str(folder)))
    assert policy.tokenizer.decode(policy.encode_prompt("cab")) == "cab"
    assert policy.eos_ids == [1]
    # The quantised weights themselves, to the last bit.
    tensors = {one.name: one for one in gguf.GGUFReader(file).tensors}
    embedding = tensors["token_embd.weight"]
    expected = gguf.quants.dequantize(embedding.data, embedding.tensor_type)
    found = policy.model.state_dict()["model.embed_tokens.weight"].numpy()
    np.testing.assert_array_equal(found, expected)
    file.write_bytes(b"")  # what is there is not converted again
    assert converted(file, folder, tmp_path / "work", torch.float32) == folder


def test_an_unknown_architecture_is_one_line(tmp_path):
    strange = save_gguf(tmp_path / "strange.gguf", architecture="strange")
    with pytest.raises(UserError, match="architecture strange") as told:
        converted(strange, tmp_path / "model", tmp_path, torch.float32)
    assert "\n" not in str(told.value)


def test_a_file_is_one_line_wherever_it_was_cut_off(tmp_path):
    cut = save_gguf(tmp_path / "cut.gguf")
    whole = cut.read_bytes()
    for n in [*range(40), *range(40, len(whole), 997), len(whole) - 1]:
        cut.write_bytes(whole[:n])
        with pytest.raises(UserError) as told:
            converted(cut, tmp_path / "model", tmp_path, torch.float32)
        assert str(told.value) == f"{cut}: no whole GGUF file: download it again", n
    assert not (tmp_path / "model").exists()


def test_a_gguf_file_counts_by_its_name_and_content_not_its_folder():
    for kind in (PolicyConfig, SftConfig):
        here, there, other = (
            kind(kind="huggingface", model=name).identity()
            for name in ("/a/model.gguf", "~/b/model.gguf", "/a/other.gguf")
        )
        assert here == there != other
    folder = PolicyConfig(kind="huggingface", model="/a/model").identity()
    assert folder["model"] == "/a/model"
