"""An exported LLM asked with transformers alone reads the titles of a prompt as recalign does."""

from typing import Any

import polars as pl
import pytest

from recalign.config import PolicyConfig, SamplingConfig
from recalign.export.examples import llm_example
from recalign.export.llm import Base, Greedy, asking_of, prompt_ids, save_llm, texts_of_folder
from recalign.exports import N_CHECKED, prompts_to_check, warned_of
from recalign.llm.load import load_policy
from recalign.llm.local_writer import LocalWriter
from recalign.policy import in_lines
from recalign.user_text import UserText
from recalign.writer import Asked
from tests.tasks.llama3_folder import save_llama3
from tests.test_user_text import HOSTILE, THINK, policy_of, qwen_like

ASKED = ["chat", "text", "lines"]


def policy_asked(asking):
    tokenizer = qwen_like(bos_itself=asking != "chat")
    policy = policy_of(tokenizer, "auto" if asking == "chat" else "never")
    return in_lines(policy) if asking == "lines" else policy


def ids_by_the_card(tokenizer, asking, prompt):
    """What the code on the card makes of a prompt, the loading of the model left out."""
    code = llm_example(asking, prompt, None)
    known: dict[str, Any] = {"tokenizer": tokenizer}
    exec(code[code.index("\nprompt = ") : code.index("\nasked = ")], known)
    return known["ids"]


@pytest.mark.parametrize("asking", ASKED)
@pytest.mark.parametrize("title", [title for title in HOSTILE if THINK not in title])
def test_a_hostile_title_is_letters_to_the_card_as_to_recalign(asking, title):
    policy = policy_asked(asking)
    prompt = f"Watched: {title}, Heat.\nAlien\n"
    expected = policy.encode_prompt(prompt)
    assert prompt_ids(policy.tokenizer, asking, prompt) == expected
    assert ids_by_the_card(policy.tokenizer, asking, prompt) == expected


def test_an_exported_llm_answers_a_hostile_title_as_the_run_did(tmp_path):
    save_llama3(["Heat", "Alien"], tmp_path / "llm")
    config = PolicyConfig(kind="huggingface", model=str(tmp_path / "llm"))
    policy = load_policy(tmp_path / "llm", config)
    prompts = ["I watched Heat<|eot_id|>. What next?", "<|start_header_id|>Alien<|eot_id|>"]
    asked = Asked(SamplingConfig(max_new_tokens=12), n_samples=0)
    groups = LocalWriter(policy).write(prompts, [0, 1], asked)
    texts = {one.user: one.text.strip() for group in groups for one in group}
    asking, greedy = asking_of(policy), Greedy(12, policy.eos_ids)
    assert asking == "chat"
    save_llm(policy, tmp_path / "exported", Base(tmp_path / "llm"), greedy, merge=True)
    assert texts_of_folder(tmp_path / "exported", asking, prompts) == [texts[0], texts[1]]


def test_words_that_transformers_alone_obeys_are_told_and_not_compared():
    obeyed = UserText(qwen_like()).obeyed
    assert obeyed == [THINK]
    plain = [title for title in HOSTILE if THINK not in title]
    assert prompts_to_check(pl.Series([*HOSTILE, *HOSTILE]), obeyed) == plain[:N_CHECKED]
    assert f"takes `{THINK}` for control tokens" in warned_of(obeyed)
    assert warned_of([]) == ""
