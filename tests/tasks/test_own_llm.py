"""An LLM of one's own from a local folder: a tiny random Llama through the real stages."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from flows.dpo4rec import stages
from recalign.alignment.reference import reference_log_probs
from recalign.alignment.rows import encode_pairs
from recalign.artifacts import digests
from recalign.artifacts.artifact import Artifact
from recalign.artifacts.identity import Identity
from recalign.artifacts.store import Store
from recalign.config import AlignmentConfig, PolicyConfig, WarmUpConfig
from recalign.errors import UserError
from recalign.llm import load
from recalign.progress import silent
from recalign.schemas import COMPLETIONS, ITEMS, PROMPTS, REASONINGS
from recalign.stored import open_policy
from tasks.alignment import alignment
from tasks.engine.job import Job
from tasks.interactions import interactions
from tasks.models import resolved
from tasks.policy import policy, policy_files
from tasks.reasonings import prompt_files, reasonings
from tasks.splits import splits
from tests.llm.gguf_file import save_gguf
from tests.tasks.tiny_run import CONFIG, direct

CHAT = (
    "{{ bos_token }}{% for m in messages %}<turn> {{ m['role'] }} {{ m['content'] }} <end> "
    "{% endfor %}{% if add_generation_prompt %}<turn> model{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<unk>", "<turn>", "<end>"]
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 4, "micro_batch_size": 4, "allow_worse": True}
WORDS = ["user", "model", "=", ";", "none", "Enjoys", "dark", "bright", "tales", "."]
SAMPLING = CONFIG.reasonings.model_copy(update={"max_new_tokens": 8})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A walk over the tiny world's interactions and splits."""
    walk = direct(tmp_path_factory.mktemp("own") / "artifacts")
    data = walk(interactions, CONFIG.interactions)
    walk(splits, CONFIG.splits, {"interactions": data})
    return walk


def inputs_of(walk):
    return {name: walk.done[name] for name in ("interactions", "splits")}


@pytest.fixture(scope="module")
def save_llm(world, tmp_path_factory):
    """A function that saves the model with a tokenizer that knows the prompts' words."""
    items = ITEMS.read(world.artifact("interactions"))
    attributes = items["attributes"].explode().struct.field("value").unique().sort().to_list()
    known = list(
        dict.fromkeys([*SPECIAL, *WORDS, *(value.replace(" ", "-") for value in attributes)])
    )

    def save(chat):
        folder = tmp_path_factory.mktemp("llm")
        backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, "<unk>"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
            extra_special_tokens=["<turn>", "<end>"],
        )  # fmt: skip
        tokenizer.chat_template = CHAT if chat else None
        torch.manual_seed(1)
        llm = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(known), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=2, max_position_embeddings=256, initializer_range=0.3,
                bos_token_id=0, eos_token_id=1,
            )
        )  # fmt: skip
        llm.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


def own(folder):
    return PolicyConfig(kind="huggingface", model=str(folder))


def make_policy(walk, folder):
    config = own(folder)
    return walk(policy, config, inputs_of(walk), files=policy_files(config))


@pytest.mark.parametrize("chat", [True, False])
def test_a_local_llm_writes_reasonings_from_proved_prompts(world, save_llm, chat, caplog):
    caplog.set_level("INFO", "tasks.engine.stage")
    folder = save_llm(chat)
    first = make_policy(world, folder)
    written = world.store.open(
        world(
            reasonings, SAMPLING.for_phase("reward"), inputs_of(world) | {"policy": first},
            files=prompt_files(SAMPLING),
        )
    )  # fmt: skip
    prompts = PROMPTS.read(written)
    texts = REASONINGS.read(written)
    assert written.manifest.figures["prompts_proved"] == prompts.height == 60
    assert not prompts["prompt"].str.contains("<turn>").any()  # the wrapping is the model's own

    # The greedy texts are what transformers itself generates from the prompt, in a turn or bare.
    llm = LlamaForCausalLM.from_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for user in (0, 31):
        text = prompts.filter(user_index=user)["prompt"].item()
        wrapped = f"<s> <turn> user {text} <end> <turn> model" if chat else text
        ids = torch.tensor([tokenizer(wrapped, add_special_tokens=False)["input_ids"]])
        out = llm.generate(ids, do_sample=False, max_new_tokens=8, pad_token_id=1)
        expected = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
        assert texts.filter(user_index=user, sample=-1)["reasoning"].item() == expected

    dropped = written.manifest.dropped
    counted = texts["malformed"].drop_nulls().value_counts().rows()
    assert dropped == {f"malformed: {reason}": n for reason, n in counted}
    cut = (texts["n_tokens"] == 8) & (texts["malformed"] == "unfinished")
    assert 0 < dropped["malformed: unfinished"] == cut.sum()
    assert f"{cut.sum()} malformed: unfinished" in caplog.text
    assert "malformed: ungrammatical" not in dropped  # the grammar is the embedded policy's alone


def test_an_llm_that_alignment_could_not_train_is_refused_at_once(world, save_llm):
    folder = save_llm(True)
    known = LlamaForCausalLM.from_pretrained(folder).config
    looks_back_two = MistralConfig(
        vocab_size=known.vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, initializer_range=0.3, sliding_window=2,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    MistralForCausalLM(looks_back_two).save_pretrained(folder)
    with pytest.raises(UserError, match="MistralForCausalLM does not keep completions"):
        make_policy(world, folder)


def test_other_weights_in_the_same_folder_are_another_policy(world, save_llm):
    folder = save_llm(False)
    before = make_policy(world, folder)
    llm = LlamaForCausalLM.from_pretrained(folder)
    llm.lm_head.weight.data[0, 0] += 1
    llm.save_pretrained(folder)
    assert make_policy(world, folder).fingerprint != before.fingerprint


def test_an_llm_that_was_retrained_in_its_folder_is_not_read_as_the_one_that_was_aligned(
    world, save_llm, monkeypatch
):
    folder, root = save_llm(False), world.runtime.root
    first = make_policy(world, folder)
    pairs = hand_made_pairs(world.store, [f"dark tales ; bright {w} =" for w in WORDS[:8]])
    told = {"start": first, "completions": pairs.reference}
    adapted, whole = (
        world.store.open(world(alignment, AlignmentConfig(method=method, **QUICK), told))
        for method in ("lora", "full")
    )
    with monkeypatch.context() as patched:
        patched.setattr(digests, "file_digest", lambda path: pytest.fail(f"{path} was hashed"))
        open_policy(adapted, root, "cpu")
    llm = LlamaForCausalLM.from_pretrained(folder)
    llm.lm_head.weight.data[0, 0] += 1
    llm.save_pretrained(folder)
    for made in (world.store.open(first), adapted):
        changed = rf"model\.safetensors is not as it was when {first.name} was made"
        with pytest.raises(UserError, match=changed):
            open_policy(made, root, "cpu")
    assert open_policy(whole, root, "cpu").model  # its weights are its own


def test_two_processes_of_a_launch_find_the_same_revision(world, monkeypatch):
    job = Job(
        world.store.draft(Identity("policy", 1, {"two": "processes"}, {}, {}), {}),
        world.runtime, silent, lambda: "cpu",
    )  # fmt: skip
    asked, answered, revisions = threading.Event(), threading.Event(), iter(["old", "new"])

    def newest(config):
        found = next(revisions)
        if found == "old":
            asked.set()
            answered.wait(2)
        return found

    monkeypatch.setattr(load, "resolve_revision", newest)
    found = []
    slow = threading.Thread(target=lambda: found.append(resolved(job, own("me/llm")).revision))
    slow.start()
    assert asked.wait(30)
    found.append(resolved(job, own("me/llm")).revision)
    answered.set()
    slow.join(30)
    assert found == ["old", "old"]


def test_habits_in_the_models_generation_config_change_no_text_and_no_training(world, save_llm):
    plain, with_habits = save_llm(False), save_llm(False)
    habits = {"temperature": 0.01, "top_k": 1, "repetition_penalty": 9.0, "max_new_tokens": 2}
    file = with_habits / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | habits))
    pairs = hand_made_pairs(world.store, [f"dark tales ; bright {w} =" for w in WORDS[:8]])
    training = AlignmentConfig(method="full", epochs=1, batch_size=4, micro_batch_size=4)
    found = []
    for folder in (plain, with_habits):
        first = make_policy(world, folder)
        made = world(
            reasonings, SAMPLING.for_phase("reward"), inputs_of(world) | {"policy": first},
            files=prompt_files(SAMPLING),
        )  # fmt: skip
        told = {"start": first, "completions": pairs.reference}
        aligned = world.store.open(world(alignment, training, told))
        weights = aligned.path("model/model.safetensors").read_bytes()
        found.append((REASONINGS.read(world.store.open(made)).to_dicts(), weights))
    assert found[0] == found[1]


def test_a_gguf_file_is_converted_into_the_artifact_and_found_wherever_it_lies(world, tmp_path):
    file = save_gguf(tmp_path / "model.gguf")
    first = make_policy(world, file)
    moved = tmp_path / "elsewhere" / "model.gguf"
    moved.parent.mkdir()
    file.rename(moved)
    assert make_policy(world, moved).fingerprint == first.fingerprint
    opened = open_policy(world.store.open(first), world.runtime.root, "cpu")  # not from the file
    assert opened.decode(opened.encode_prompt("Enjoys War.")) == "Enjoys War."
    content = bytearray(moved.read_bytes())
    content[-1] ^= 1
    moved.write_bytes(content)
    assert make_policy(world, moved).fingerprint != first.fingerprint
    with pytest.raises(UserError, match=r"nowhere\.gguf: there is no such file"):
        make_policy(world, tmp_path / "nowhere.gguf")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("/no/such/folder", "folder"),
        ("./no-such-folder", "folder"),
        ("nobody/no-such-model-4711", "the model is not on this machine and the hub cannot be"),
    ],
)
def test_a_model_that_is_not_there_is_told_in_one_sentence(world, model, told):
    with pytest.raises(UserError) as caught:
        make_policy(world, model)
    message = str(caught.value)
    assert message.startswith(f"{model}: ")
    assert told in message
    assert len(message.splitlines()) == 1
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    manifests = [m for m in world.store.manifests("policy") if m.config["model"] == model]
    assert not manifests


def test_a_folder_below_the_home_folder_may_be_named_with_a_tilde(world, save_llm, monkeypatch):
    folder = save_llm(False)
    monkeypatch.setenv("HOME", str(folder.parent))
    first = world.store.open(make_policy(world, f"~/{folder.name}"))
    assert open_policy(first, world.runtime.root, "cpu").model.config.hidden_size == 32


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_warm_up_teaches_what_the_template_says_and_is_part_of_the_weights(
    world, save_llm, method
):
    warm_up = WarmUpConfig(
        n_prompts=120, template="attributes", history_items=4, longest_text=64,
        method=method, epochs=4,
        learning_rate=2e-2 if method == "lora" else 3e-3, batch_size=8, micro_batch_size=8,
    )  # fmt: skip
    folder = save_llm(True)
    config = own(folder).model_copy(update={"warm_up": warm_up})
    first = world(policy, config, inputs_of(world), files=policy_files(config))
    made = world.store.open(first)
    figures = made.manifest.figures
    assert figures["valid_loss"] < figures["valid_loss_start"] - 1
    assert made.manifest.rows == figures["examples"]
    used = figures["examples"] + figures["valid_examples"]
    assert used == 120 - sum(made.manifest.dropped.values()) > 100
    opened = open_policy(made, world.runtime.root, "cpu", trainable=True)
    assert not isinstance(opened.model, PeftModel)  # an alignment's adapter will be the only one
    before = LlamaForCausalLM.from_pretrained(folder).state_dict()
    after = opened.model.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert first.fingerprint != make_policy(world, folder).fingerprint


def taught(text: Path, n_prompts: int) -> WarmUpConfig:
    """A warm-up on what this template writes."""
    return WarmUpConfig(
        n_prompts=n_prompts, template="attributes", text=str(text), history_items=4,
        longest_text=30, batch_size=8, micro_batch_size=8,
    )  # fmt: skip


def test_texts_that_reasonings_would_not_use_are_not_taught_and_counted(world, save_llm, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("{{ 'A good tale. ' * (4 if history | length == 3 else 1) }}{{ next.title }}.")
    warm_up = taught(text, 80)
    config = own(save_llm(False)).model_copy(update={"warm_up": warm_up})
    made = world.store.open(world(policy, config, inputs_of(world), files=policy_files(config)))
    assert 0 < made.manifest.dropped["malformed: repetition"] < 80
    wrong = warm_up.model_copy(update={"longest_text": 1})
    config = config.model_copy(update={"warm_up": wrong})
    told = "0 can be trained on and 0 held out.*unfinished.*reasonings.max_new_tokens"
    with pytest.raises(UserError, match=told):
        world(policy, config, inputs_of(world), files=policy_files(config))


def test_texts_without_blanks_are_taught_where_one_word_is_enough(world, save_llm, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("{{ history[-1].title | replace(' ', '') }}")
    warm_up, llm = taught(text, 40), own(save_llm(False))
    usual = llm.model_copy(update={"warm_up": warm_up})
    with pytest.raises(
        UserError, match=r"40 malformed: short.*below 3 words.*reasonings\.min_words"
    ):
        world(policy, usual, inputs_of(world), files=policy_files(usual))
    one_word = warm_up.model_copy(update={"min_words": 1})
    config = llm.model_copy(update={"warm_up": one_word})
    made = world.store.open(world(policy, config, inputs_of(world), files=policy_files(config)))
    assert not made.manifest.dropped
    assert made.manifest.rows > 30


def test_a_text_and_a_prompt_that_change_places_make_another_policy(save_llm):
    config = own(save_llm(False))
    ways = [WarmUpConfig(n_prompts=9, template=a, text=b) for a, b in
            (("recent", "movies"), ("movies", "recent"))]  # fmt: skip
    files = [policy_files(config.model_copy(update={"warm_up": way})) for way in ways]
    assert files[0]["template"] == files[1]["text"] != files[0]["text"]


def test_a_killed_stage_goes_on_with_the_number_format_it_found_first(world, save_llm, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    config = own(save_llm(False)).model_copy(update={"dtype": "auto"})
    monkeypatch.setattr("recalign.llm.precision.resolved_dtype", lambda *_: "bfloat16")
    with monkeypatch.context() as patched:
        patched.setattr("recalign.llm.load.load_policy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            world(policy, config, inputs_of(world), files=policy_files(config))
    monkeypatch.setattr("recalign.llm.precision.resolved_dtype", lambda *_: "float32")
    made = world.store.open(world(policy, config, inputs_of(world), files=policy_files(config)))
    assert json.loads(made.path("policy.json").read_text())["dtype"] == "bfloat16"


def test_the_settings_of_a_warm_up_that_is_not_done_make_no_other_policy(world, save_llm):
    folder = save_llm(False)
    idle = own(folder).model_copy(update={"warm_up": WarmUpConfig(epochs=7, text="likes_next")})
    made = world(policy, idle, inputs_of(world), files=policy_files(idle))
    assert made.fingerprint == make_policy(world, folder).fingerprint


def hand_made_pairs(store: Store, prompt_texts: list[str]) -> Artifact:
    """An artifact as stage pairs commits it: everyone prefers dark tales to bright ones."""
    draft = store.draft(Identity("pairs", 1, {"by": "hand", "prompts": prompt_texts}, {}, {}), {})
    rows = [
        {
            "user_index": user, "prompt": text, "samples": [0, 1], "rewards": [0.2, 0.6],
            "completions": ["Enjoys bright tales .", "Enjoys dark tales ."],
            "chosen": 1, "rejected": [0], "smoothing": [0.0],
        }
        for user, text in enumerate(prompt_texts)
    ]  # fmt: skip
    COMPLETIONS.write(pl.DataFrame(rows, schema=COMPLETIONS), draft)
    return store.commit(draft)


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_alignment_of_a_local_llm_is_really_loaded(world, save_llm, method, chat):
    first = make_policy(world, save_llm(chat))
    pairs = hand_made_pairs(world.store, [f"dark tales ; bright {w} =" for w in WORDS[:8]])
    config = AlignmentConfig(
        method=method, lora_rank=2, epochs=6, batch_size=4, micro_batch_size=4, evaluations=2,
        learning_rate=2e-2 if method == "lora" else 2e-3, held_out=0.2,
    )  # fmt: skip
    inputs = {"start": first, "completions": pairs.reference}
    aligned = world.store.open(world(alignment, config, inputs))
    policy_0 = world.store.open(first)
    assert aligned.manifest.rows == 8
    table = COMPLETIONS.read(pairs)

    def log_probs(opened):
        return reference_log_probs(opened, encode_pairs(table, opened, 512), config)

    root = world.runtime.root
    before, after = (log_probs(open_policy(which, root, "cpu")) for which in (policy_0, aligned))
    gained = (after.chosen - after.rejected[:, 0]) - (before.chosen - before.rejected[:, 0])
    assert (gained > 0.1).all()
    if method == "lora":
        trainable = open_policy(aligned, root, "cpu", trainable=True)
        assert isinstance(trainable.model, PeftModel)
        wanting = {name for name, p in trainable.model.named_parameters() if p.requires_grad}
        assert wanting
        assert wanting == {n for n, _ in trainable.model.named_parameters() if "lora_" in n}
        np.testing.assert_allclose(log_probs(trainable).chosen, after.chosen, atol=1e-3)
        assert np.abs(after.chosen - before.chosen).min() > 0.01


def test_several_questions_are_taught_asked_and_learned_from_one_by_one(world, save_llm, tmp_path):
    asks, tells = tmp_path / "asks.txt", tmp_path / "tells.txt"
    asks.write_text("{{ history[-1].words }} ; dark ={{ next_question }}{{ history[-1].words }} =")
    tells.write_text(
        "{% set shown = history[-1].attributes.values() | map('first') | list %}"
        "Enjoys {{ shown[0] }} tales .{{ next_question }}Enjoys bright {{ shown[1] }} ."
    )
    warm_up = WarmUpConfig(
        n_prompts=240, text=str(tells), method="full", epochs=6, learning_rate=5e-3, batch_size=8,
        micro_batch_size=8,
    )  # fmt: skip
    sampling = CONFIG.reasonings.model_copy(update={"template": str(asks), "max_new_tokens": 12})
    llm = own(save_llm(True)).model_copy(update={"warm_up": warm_up})
    walk = direct(tmp_path / "artifacts")
    stages(walk, CONFIG.model_copy(update={"policy": llm, "reasonings": sampling}))
    texts = REASONINGS.read(walk.artifact("reasonings for reward, base"))
    usable = texts.filter(pl.col("malformed").is_null())
    assert usable.height > 200
    assert usable["reasoning"].str.count_matches("\n").unique().to_list() == [1]
    assert (
        usable["reasoning"].str.split("\n").list.last().str.contains("bright").sum()
        > 0.9 * usable.height
    )
    learned = COMPLETIONS.read(walk.artifact("pairs, round 1"))
    assert walk.artifact("pairs, round 1").manifest.rows == learned.height
    assert learned["prompt"].str.ends_with("; dark =").sum() == learned.height / 2
    both = learned.group_by("user_index").agg(pl.col("rewards").first(), n=pl.len())
    assert both["n"].unique().to_list() == [2]
    figures = walk.artifact("alignment, round 1").manifest.figures
    assert figures["pairs"] + figures["left_out"]["same_tokens"] == learned.height
    wrong = {"text": "likes", "template": str(asks), "history_items": 6, "longest_text": 12}
    config = llm.model_copy(update={"warm_up": warm_up.model_copy(update=wrong)})
    with pytest.raises(UserError, match="asks 2 questions, and text likes gives 1 answers"):
        world(policy, config, inputs_of(world), files=policy_files(config))
