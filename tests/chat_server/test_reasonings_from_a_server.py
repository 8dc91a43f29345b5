"""Stage reasonings on a server: a kill costs one shard, an aligned policy is served by its name."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import polars as pl
import pytest
from peft import PeftModel
from transformers import LlamaForCausalLM

from recalign.artifacts.identity import Identity
from recalign.chat_server.client import KEY
from recalign.config import AlignmentConfig, PolicyConfig
from recalign.errors import UserError
from recalign.llm.storage import POLICY
from recalign.schemas import COMPLETIONS, PROMPTS, REASONINGS
from tasks.alignment import alignment
from tests.chat_server.one_stage import SAMPLING, SHARD_USERS, prepare, walk_over, write

pytestmark = pytest.mark.slow
START_SECONDS = 120


def kill_at_work(between, root, llm, n_prompts):
    """Run the stage in a process of its own, until so many prompts have been asked."""
    command = [
        sys.executable,
        "-m",
        "tests.chat_server.one_stage",
        str(root),
        between.url,
        str(llm),
    ]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while len(between.asked) < 3 * n_prompts:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_killed_run_asks_for_no_text_of_a_finished_shard_again(
    between, llm_folder, tmp_path, monkeypatch
):
    between.key = "secret-4711"
    monkeypatch.setenv(KEY, between.key)
    root = tmp_path / "artifacts"
    kill_at_work(between, root, llm_folder, n_prompts=25)
    time.sleep(1)  # what was under way is answered, to nobody
    n_finished = len(list(root.glob("reasonings/.draft-*/work/shard-*.parquet")))
    assert 0 < n_finished < 6
    between.asked.clear()
    between.troubles = ["503", "dropped"]

    walk = walk_over(root, between.url)
    made = walk.store.open(write(walk, prepare(walk, llm_folder)))
    prompts = PROMPTS.read(made).sort("user_index")["prompt"].to_list()
    asked = {body["messages"][0]["content"] for body in between.asked}
    assert asked == set(prompts[n_finished * SHARD_USERS :])
    assert len(between.asked) == 3 * len(asked) + 2  # greedy, two samples, and two that failed
    assert REASONINGS.read(made).height == 3 * len(prompts) == 180

    told = made.manifest.figures["server"]
    assert (told["requests"], told["retries"]) == (180, 2)
    assert told["engine"] == "transformers"
    assert told["not_promised"]
    written = made.path("manifest.json").read_text()
    assert "4711" not in written
    assert between.url not in written
    assert "url" not in json.dumps(made.manifest.config)


def test_the_questions_of_a_shard_that_was_not_finished_are_counted_once(
    between, llm_folder, tmp_path
):
    template = tmp_path / "two.j2"
    titles = "Titles: {{ history[-1].title }}."
    template.write_text(f"{titles} Which genres?{{{{ next_question }}}}{titles} Which mood?\n")
    sampling = SAMPLING.model_copy(update={"template": str(template)})
    walk = walk_over(tmp_path / "artifacts", between.url)
    inputs = prepare(walk, llm_folder)
    first_question = 3 * SHARD_USERS  # a greedy text and two samples each
    between.troubles = [""] * (first_question + 3) + ["404"]
    with pytest.raises(UserError, match="the server answers 404"):
        write(walk, inputs, sampling)
    assert len(between.asked) > first_question
    made = walk.store.open(write(walk, inputs, sampling))
    n_users = PROMPTS.read(made).height
    assert made.manifest.figures["server"]["requests"] == 2 * 3 * n_users


def test_an_aligned_policy_is_served_under_a_name_of_its_own(between, llm_folder, tmp_path):
    walk = walk_over(tmp_path / "artifacts", between.url)
    inputs = prepare(walk, llm_folder)
    config = AlignmentConfig(
        lora_rank=2, epochs=6, batch_size=4, micro_batch_size=4, learning_rate=2e-2, held_out=0.2
    )
    start = {"start": inputs["policy"], "completions": preferences(walk.store).reference}
    aligned = walk(alignment, config, start)
    inputs |= {"policy": aligned}

    def merged(adapter):
        llm = LlamaForCausalLM.from_pretrained(llm_folder)
        model: Any = PeftModel.from_pretrained(llm, adapter)
        folder = tmp_path / "merged"
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes((llm_folder / name).read_bytes())
        model.merge_and_unload().save_pretrained(folder)
        return folder

    between.load_adapter = merged
    served = REASONINGS.read(walk.store.open(write(walk, inputs)))
    assert between.models.keys() == {f"recalign-{aligned.digest[:10]}"}
    here = SAMPLING.model_copy(update={"writer": "local"})
    local = REASONINGS.read(walk.store.open(write(walk, inputs, here)))
    greedy = pl.col("sample") == -1
    assert served.filter(greedy).equals(local.filter(greedy))


def preferences(store):
    """Pairs as stage pairs commits them: everyone prefers one title."""
    draft = store.draft(Identity("pairs", 1, {"by": "hand"}, {}, {}), {})
    rows = [
        {
            "user_index": user, "prompt": f"Titles: {user}", "samples": [0, 1],
            "rewards": [0.2, 0.6], "completions": ["The Matrix", "Alien"], "chosen": 1,
            "rejected": [0], "smoothing": [0.0],
        }
        for user in range(8)
    ]  # fmt: skip
    COMPLETIONS.write(pl.DataFrame(rows, schema=COMPLETIONS), draft)
    return store.commit(draft)


def test_the_embedded_llm_is_not_looked_for_on_a_server(between, llm_folder, tmp_path):
    walk = walk_over(tmp_path / "artifacts", between.url)
    inputs = prepare(walk, llm_folder)
    draft = walk.store.draft(Identity("policy", 1, PolicyConfig().identity(), {}, {}), {})
    draft.path(POLICY).write_text(PolicyConfig().model_dump_json())
    embedded = walk.store.commit(draft).reference
    with pytest.raises(UserError, match="cannot write for the embedded LLM; use local"):
        write(walk, inputs | {"policy": embedded})
    assert not between.asked
