"""What vLLM is asked for, by a stand-in: the real one needs a GPU and another environment."""

from pathlib import Path
from typing import Any

import pytest

from recalign.config import PolicyConfig, SamplingConfig
from recalign.errors import UserError
from recalign.llm.storage import StoredPolicy
from recalign.llm.vllm_writer import MOST_TOKENS, VllmWriter
from recalign.writer import Asked
from tests.llm.test_load_policy import save_model

STAND_IN = """
from types import SimpleNamespace as Of

class SamplingParams:
    def __init__(self, **given):
        self.given = given

class LLM:
    def __init__(self, **given):
        self.given = given

    def generate(self, questions, parameters, **_):
        text = Of(text="now", token_ids=[7, 1], finish_reason="stop")
        return [Of(outputs=[text]) for _ in questions]
"""


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredPolicy:
    """A policy whose LLM has room for 64 tokens, where vLLM can be imported."""
    lora = tmp_path / "vllm" / "lora"
    lora.mkdir(parents=True)
    (tmp_path / "vllm" / "__init__.py").write_text(STAND_IN)
    (lora / "__init__.py").touch()
    (lora / "request.py").write_text("class LoRARequest: pass")
    monkeypatch.syspath_prepend(tmp_path)
    folder = save_model(tmp_path / "model")
    config = PolicyConfig(kind="huggingface", model=str(folder), dtype="bfloat16")
    return StoredPolicy(folder, config)


def asked(max_new_tokens: int) -> Asked:
    return Asked(SamplingConfig(writer="vllm", max_new_tokens=max_new_tokens), 2, greedy=False)


def test_one_engine_takes_all_gpus_and_reserves_no_more_than_texts_need(
    stored: StoredPolicy,
) -> None:
    given: Any = VllmWriter(stored, "cuda", 4).llm
    assert given.given["tensor_parallel_size"] == 4
    assert given.given["max_model_len"] == 64  # the LLM's own
    config = Path(stored.weights) / "config.json"
    config.write_text(config.read_text().replace('embeddings": 64', 'embeddings": 131072'))
    given = VllmWriter(stored, "cuda").llm
    assert given.given["tensor_parallel_size"] == 1
    assert given.given["max_model_len"] == MOST_TOKENS


def test_a_prompt_that_leaves_no_room_is_named(stored: StoredPolicy) -> None:
    writer = VllmWriter(stored, "cuda")
    (texts,) = writer.write(["what now", "War " * 60], [3, 8], asked(4))
    assert {(one.user, one.text, one.n_tokens, one.finished) for one in texts} == {
        (3, "now", 1, True), (8, "now", 1, True)
    }  # fmt: skip
    with pytest.raises(UserError, match=r"user 8 has 60 tokens; with max_new_tokens = 5 .* 64 "):
        list(writer.write(["what now", "War " * 60], [3, 8], asked(5)))
