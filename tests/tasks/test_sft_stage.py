"""Stage sft: the embedded LLM and one of one's own, opened as later stages open them."""

import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from transformers import MistralConfig, MistralForCausalLM

import tasks.sft
from recalign.artifacts.artifact import Draft
from recalign.config import LoadedModelConfig, SftConfig, TitleModelConfig
from recalign.errors import LeakageError, UserError
from recalign.llm.load import load_policy
from recalign.policy import in_lines
from recalign.progress import silent
from recalign.schemas import INTERACTIONS, ITEMS, WINDOWS
from recalign.sequences import Sequences
from recalign.stored import open_policy
from recalign.titles.names import distinct_titles
from recalign.titles.prompts import TitlePrompts
from tasks.engine.job import Job
from tasks.interactions import interactions
from tasks.sft import sft, sft_files
from tasks.splits import splits
from tasks.tables import read_tables
from tests.llm.gguf_file import save_gguf
from tests.tasks.llama3_folder import save_llama3
from tests.tasks.tiny_run import CONFIG, direct

EMBEDDED = SftConfig(
    bootstrap=TitleModelConfig(hidden=16, layers=1, heads=2), history_items=6, epochs=2,
    evaluations=2, n_valid=50,
)  # fmt: skip
ROW = 7  # a user of this world; every one is prompted


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A walk over the tiny world's interactions and splits."""
    walk = direct(tmp_path_factory.mktemp("sft") / "artifacts")
    data = walk(interactions, CONFIG.interactions)
    walk(splits, CONFIG.splits, {"interactions": data})
    return walk


def tune(walk, config):
    inputs = {name: walk.done[name] for name in ("interactions", "splits")}
    return walk.store.open(walk(sft, config, inputs, files=sft_files(config)))


def opened(walk, made, **how):
    return open_policy(made, walk.runtime.root, "cpu", **how)


def tables(walk):
    data, windows = walk.artifact("interactions"), walk.artifact("splits")
    items = ITEMS.read(data)
    taken = INTERACTIONS.read(data)
    return (
        distinct_titles(items), Sequences.of(taken, items.height),
        WINDOWS.read(windows),
    )  # fmt: skip


def test_the_embedded_llm_is_opened_with_the_loss_it_was_kept_for(world):
    made = tune(world, EMBEDDED)
    titles, sequences, windows = tables(world)
    history = windows["fit_start"].to_numpy()
    assert made.manifest.figures["trained_tokens"] == history.sum()
    assert made.manifest.figures["prompts_proved"] == 50
    policy = opened(world, made)
    prompts = TitlePrompts(EMBEDDED.prompt, titles)
    losses = []
    for user in range(50):  # of 60 users the first position of their validation window
        cut = windows["valid_start"][user]
        ids = policy.encode_prompt(prompts.text(sequences.slice(user, 0, cut).tolist()))
        [target] = policy.encode_completion(titles[sequences.slice(user, cut, cut + 1)[0]])
        with torch.no_grad():
            logits = policy.model(torch.tensor([ids])).logits[0, -1]
        losses.append(-float(logits.log_softmax(-1)[target]))
    assert np.mean(losses) == pytest.approx(made.manifest.figures["valid_loss"], abs=1e-5)
    curve = pl.read_parquet(made.path("curve.parquet"))
    assert curve["valid_loss"].drop_nulls().to_list()[0] == pytest.approx(
        np.log(len(titles) + 3), abs=0.2
    )


def test_each_process_of_a_launch_writes_and_reads_a_first_llm_of_its_own(
    world, tmp_path, monkeypatch
):
    draft = Draft(tmp_path, world.artifact("interactions").manifest)  # any will do
    job = Job(draft, world.runtime, silent, lambda: "cpu")
    known = read_tables(*(world.artifact(name) for name in ("interactions", "splits")))
    own = EMBEDDED.bootstrap.model_copy(update={"item_text": False})
    config, titles = EMBEDDED.model_copy(update={"bootstrap": own}), ["", "A", "B"]
    written = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        tasks.sft._first_policy(job, config, known, titles)
        written.append(set(tmp_path.rglob("model.safetensors")))
    first, both = written
    assert len(first) == 1
    assert len(both - first) == 1


def test_it_trains_on_as_many_windows_as_asked_and_counts_the_others(world):
    short = EMBEDDED.model_copy(update={"epochs": 1, "evaluations": 1})
    every, some = (
        tune(world, short.model_copy(update={"max_windows": n})).manifest for n in (0, 40)
    )
    assert every.rows > 40
    assert "over_max_windows" not in every.dropped
    assert (some.rows, some.dropped["over_max_windows"]) == (40, every.rows - 40)


@pytest.fixture(scope="module")
def llama3(world, tmp_path_factory):
    """The shrunken Llama-3, whose tokenizer has read the titles."""
    folder = tmp_path_factory.mktemp("llama3")
    save_llama3(tables(world)[0][1:], folder)
    return str(folder)


def questions(folder, **changes):
    return SftConfig.model_validate(
        {
            "kind": "huggingface", "model": folder, "format": "candidates", "method": "lora",
            "n_candidates": 4, "history_items": 4, "n_examples": 40, "n_valid": 16, "epochs": 2,
            "evaluations": 2, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 5e-2,
            "lora_rank": 4, "max_length": 1024,
        } | changes
    )  # fmt: skip


def test_a_llama_3_learns_to_answer_questions_in_its_chat_template(world, llama3):
    config = questions(llama3)
    made = tune(world, config)
    figures = made.manifest.figures
    assert figures["valid_loss"] < figures["valid_loss_start"] - 0.1
    policy = opened(world, made)
    titles = tables(world)[0]
    prompt = policy.encode_prompt(TitlePrompts(config.prompt, titles).text([1, 2], [3, 4]))
    text = policy.tokenizer.decode(prompt)
    assert isinstance(text, str)
    assert text.startswith("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n")
    assert text.endswith("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
    answer = policy.encode_completion(titles[3])
    assert policy.tokenizer.decode(answer) == f"{titles[3]}<|eot_id|>"
    assert answer[-1] in policy.eos_ids

    def log_prob(which):
        with torch.no_grad():
            logits = which.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        return float(logits.log_softmax(-1)[range(len(answer)), answer].sum())

    trainable = opened(world, made, trainable=True)
    assert isinstance(trainable.model, PeftModel)
    tuned = log_prob(trainable)
    assert tuned == pytest.approx(log_prob(policy), abs=1e-3)
    with trainable.model.disable_adapter():
        assert tuned > log_prob(trainable) + 0.2


def test_only_the_answer_is_trained_on(world, llama3):
    """Answers are a few tokens each, prompts some hundred."""
    made = tune(world, questions(llama3, epochs=1, evaluations=1))
    titles = tables(world)[0]
    policy = opened(world, made)
    longest = max(len(policy.encode_completion(title)) for title in titles[1:])
    assert 40 * 2 <= made.manifest.figures["trained_tokens"] <= 40 * longest


@pytest.mark.parametrize("format", ["history", "candidates"])
def test_an_llm_that_later_stages_could_not_ask_is_refused_before_training(
    world, llama3, tmp_path, format
):
    folder = shutil.copytree(llama3, tmp_path / "mistral")
    looks_back_four = MistralConfig(
        vocab_size=600, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, initializer_range=0.3, sliding_window=4,
    )  # fmt: skip
    MistralForCausalLM(looks_back_four).save_pretrained(folder)
    with pytest.raises(UserError, match="MistralForCausalLM does not keep completions"):
        tune(world, questions(str(folder), format=format))


def with_room(folder, place, n_tokens):
    """The LLM of a folder, which reads no more than so many tokens."""
    folder = shutil.copytree(folder, place)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"max_position_embeddings": n_tokens}))
    return str(folder)


def test_an_llm_without_room_for_the_tests_longest_prompt_is_refused_before_training(
    world, llama3, tmp_path
):
    titles, sequences, windows = tables(world)
    policy = in_lines(load_policy(llama3, LoadedModelConfig()))
    prompts = [
        "".join(f"{titles[item]}\n" for item in sequences.slice(user, start - 4, start))
        for user, start in windows.select("user_index", "test_start").iter_rows()
    ]
    answer = max(len(policy.encode_completion(title)) for title in titles[1:])
    needed = max(len(policy.encode_prompt(text)) for text in prompts) + 2 * answer
    config = {"format": "history", "max_windows": 20, "epochs": 1, "evaluations": 1}
    tight = with_room(llama3, tmp_path / "tight", needed - 1)
    with pytest.raises(UserError, match=f"need {needed} tokens, LlamaForCausalLM takes"):
        tune(world, questions(tight, **config))
    tune(world, questions(with_room(llama3, tmp_path / "fits", needed), **config))


def test_an_llm_without_room_for_questions_is_refused_before_training(world, llama3, tmp_path):
    tight = with_room(llama3, tmp_path / "tight", 100)
    with pytest.raises(UserError, match="takes 100: show fewer items"):
        tune(world, questions(tight))


def test_windows_of_titles_that_are_too_long_are_told_before_training(world, caplog):
    full = EMBEDDED.model_copy(update={"max_length": 7})  # the start and six titles, no answer
    with pytest.raises(UserError, match="no validation example fits"):
        tune(world, full)
    told = r"sft.max_length: (\d+) of (\d+) {} examples are left out, as they have more than 7 tok"
    [(n_long, n)] = re.findall(told.format("training"), caplog.text)
    assert 0 < int(n_long) < int(n)
    assert re.findall(told.format("validation"), caplog.text) == [("50", "50")]


def test_titles_that_the_tokenizer_cannot_tell_apart_are_refused_before_training(
    world, llama3, tmp_path
):
    folder = shutil.copytree(llama3, tmp_path / "letters")
    tokenizer = folder / "tokenizer.json"
    told = json.loads(tokenizer.read_text())
    told["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[^\n]+"}, "content": "A"}
    tokenizer.write_text(json.dumps(told))
    told = r"writes the titles '[A-Z].+' and '[A-Z].+' with the same tokens: they cannot be told"
    with pytest.raises(UserError, match=told):
        tune(world, questions(str(folder), format="history"))


def test_all_weights_of_an_own_llm_are_trained_on_plain_histories(world, llama3):
    config = questions(
        llama3, format="history", method="full", learning_rate=1e-3, epochs=1, evaluations=1
    )
    made = tune(world, config)
    assert made.manifest.figures["valid_loss"] < made.manifest.figures["valid_loss_start"]
    policy = opened(world, made)
    titles = tables(world)[0]
    assert policy.tokenizer.decode(policy.encode_completion(titles[5])) == titles[5] + "\n"


def cut_too_late(before, sequences, stops):
    return before(sequences, stops + (np.arange(len(stops)) == ROW))


def test_a_fit_that_sees_one_item_too_many_stops_the_run(world, monkeypatch):
    before = Sequences.before
    monkeypatch.setattr(Sequences, "before", lambda *a: cut_too_late(before, *a))
    with pytest.raises(LeakageError, match=f"sft, row {ROW}, user {ROW}: was fitted on positions"):
        tune(world, EMBEDDED.model_copy(update={"seed": 5}))


def test_a_validation_prompt_that_reaches_into_the_test_stops_the_run(world, monkeypatch):
    drawn = tasks.sft.positions_from
    monkeypatch.setattr(tasks.sft, "positions_from", lambda s, e, n: drawn(s, e + 1, 10**6))
    with pytest.raises(LeakageError) as caught:
        tune(world, EMBEDDED.model_copy(update={"seed": 6}))
    assert re.search(
        r"its cut-off is position \d+, outside valid_start to test_start", str(caught.value)
    )


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_gguf_file_is_fine_tuned_and_opened_without_the_file(world, tmp_path, method):
    file = save_gguf(tmp_path / "model.gguf")
    config = SftConfig(
        kind="huggingface", model=str(file), method=method, lora_rank=2, history_items=2, epochs=1,
        evaluations=1, n_valid=10, batch_size=64, micro_batch_size=64,
    )  # fmt: skip
    made = tune(world, config)
    file.unlink()
    folders = {path.name for path in made.folder.iterdir() if path.is_dir()}
    assert folders == ({"model", "adapter"} if method == "lora" else {"model"})
    policy = opened(world, made)
    titles, *_ = tables(world)
    assert policy.tokenizer.decode(policy.encode_completion(titles[5])) == titles[5] + "\n"
