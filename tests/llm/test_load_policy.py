"""Opening a causal LM from a folder or hub id, and what is said when that cannot work."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recalign.config import PolicyConfig
from recalign.errors import UserError
from recalign.llm.hub_errors import explained
from recalign.llm.load import load_policy, resolve_revision

WORDS = ["<s>", "</s>", "<turn>", "<end>", "user", "model", "what", "now", "?", "War", "."]
CHAT = (
    "{{ bos_token }}{% for m in messages %}<turn> user {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<turn> model{% endif %}"
)
CONFIG = PolicyConfig(kind="huggingface", model="here")


def save_model(
    folder: Path, chat: bool = False, pad: bool = False, bos_itself: bool = False
) -> Path:
    """A tiny random Llama with two end-of-text tokens, as downloaded models look."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos_itself:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>",
        pad_token="." if pad else None, extra_special_tokens=["<turn>", "<end>"],
    )  # fmt: skip
    if chat:
        tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=[3, 1],
        )
    )  # fmt: skip
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=[3, 1])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def words(ids: list[int]) -> str:
    return " ".join(WORDS[i] for i in ids)


def test_a_chat_template_wraps_the_prompt_unless_told_never(tmp_path: Path) -> None:
    folder = save_model(tmp_path, chat=True)
    policy = load_policy(folder, CONFIG)
    assert (
        words(policy.encode_prompt("what now ?")) == "<s> <turn> user what now ? <end> <turn> model"
    )
    assert words(policy.encode_completion("War .")) == "War . <end>", "as its turns end"
    plain = load_policy(folder, CONFIG.model_copy(update={"chat_template": "never"}))
    assert words(plain.encode_prompt("what now ?")) == "what now ?"
    assert words(plain.encode_completion("War .")) == "War . </s>"


def test_a_turn_that_ends_in_no_end_of_text_is_ended_by_that_of_the_tokenizer(
    tmp_path: Path,
) -> None:
    folder = save_model(tmp_path, chat=True)
    for old, new in (("<end>", "now"), ("m['content']", "m['content'] if loop.first else ''")):
        (folder / "chat_template.jinja").write_text(CHAT.replace(old, new))
        policy = load_policy(folder, CONFIG)
        assert words(policy.encode_completion("War .")) == "War . </s>"


def test_without_a_template_the_prompt_is_plain_text_as_the_tokenizer_begins_it(
    tmp_path: Path,
) -> None:
    policy = load_policy(save_model(tmp_path / "bare"), CONFIG)
    assert words(policy.encode_prompt("what now ?")) == "what now ?"
    policy = load_policy(save_model(tmp_path / "bos", bos_itself=True), CONFIG)
    assert words(policy.encode_prompt("what now ?")) == "<s> what now ?"  # its </s> is taken off


def test_all_ends_of_text_are_known_and_a_missing_pad_token_is_replaced(tmp_path: Path) -> None:
    policy = load_policy(save_model(tmp_path / "no_pad"), CONFIG)
    assert policy.eos_ids == [3, 1]
    assert policy.pad_id == 3
    assert policy.tokenizer.pad_token_id == 3
    assert load_policy(save_model(tmp_path / "pad", pad=True), CONFIG).pad_id == WORDS.index(".")


def test_decoding_leaves_out_special_tokens(tmp_path: Path) -> None:
    policy = load_policy(save_model(tmp_path), CONFIG)
    assert policy.decode([WORDS.index("War"), WORDS.index("?"), 3, 1]) == "War ?"


def test_weights_have_the_configured_type_and_the_model_is_in_evaluation_mode(
    tmp_path: Path,
) -> None:
    folder = save_model(tmp_path)
    assert not load_policy(folder, CONFIG).model.training
    half = load_policy(folder, CONFIG.model_copy(update={"dtype": "bfloat16"})).model
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}


def adapter_on(folder: Path, out: Path) -> torch.Tensor:
    """Save a LoRA adapter with non-zero weights; the adapted model's logits."""
    torch.manual_seed(1)
    model = get_peft_model(
        LlamaForCausalLM.from_pretrained(folder),
        LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False),
    ).eval()
    model.save_pretrained(str(out))
    with torch.no_grad():
        return model(torch.tensor([[4, 5, 6, 7]])).logits


def test_an_adapter_is_merged_in_float32_and_stays_apart_otherwise(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    expected = adapter_on(folder, tmp_path / "adapter")
    ids = torch.tensor([[4, 5, 6, 7]])
    with torch.no_grad():
        bare = load_policy(folder, CONFIG).model(ids).logits
        policy = load_policy(folder, CONFIG, tmp_path / "adapter")
        torch.testing.assert_close(policy.model(ids).logits, expected)
    assert (bare - expected).abs().max() > 0.01
    assert isinstance(policy.model, LlamaForCausalLM)
    trainable = load_policy(folder, CONFIG, tmp_path / "adapter", trainable=True).model
    assert {name.split(".")[-3] for name, w in trainable.named_parameters() if w.requires_grad} == {
        "lora_A", "lora_B"
    }  # fmt: skip
    half = CONFIG.model_copy(update={"dtype": "bfloat16"})
    apart = load_policy(folder, half, tmp_path / "adapter").model
    assert {w.dtype for name, w in apart.named_parameters() if "lora" in name} == {torch.bfloat16}
    trained = load_policy(folder, half, tmp_path / "adapter", trainable=True).model
    assert {w.dtype for w in trained.parameters() if w.requires_grad} == {torch.float32}


def test_an_adapter_is_read_onto_the_models_device_and_not_onto_any_gpu_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tmp_path / "model")
    adapter_on(folder, tmp_path / "adapter")
    # What PEFT finds on a machine with a GPU; to read onto it fails here.
    monkeypatch.setattr("peft.peft_model.infer_device", lambda: "cuda")
    for trainable in (False, True):
        model = load_policy(folder, CONFIG, tmp_path / "adapter", trainable=trainable).model
        assert {weight.device.type for weight in model.parameters()} == {"cpu"}


def test_a_wrong_adapter_folder_is_named(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    with pytest.raises(UserError, match=r"nowhere: no adapter here"):
        load_policy(folder, CONFIG, tmp_path / "nowhere")
    adapter_on(folder, tmp_path / "adapter")
    settings = tmp_path / "adapter" / "adapter_config.json"
    settings.write_text(settings.read_text().replace("v_proj", "no_such_layer"))
    with pytest.raises(UserError, match="the adapter does not fit the model"):
        load_policy(folder, CONFIG, tmp_path / "adapter")


def test_folders_without_a_complete_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_policy(tmp_path / "nowhere", CONFIG)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load_policy(tmp_path / "empty", CONFIG)

    cut = save_model(tmp_path / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(UserError, match="the weights cannot be read"):
        load_policy(cut.parent, CONFIG)

    grown = save_model(tmp_path / "grown")
    settings = json.loads((grown / "config.json").read_text())
    (grown / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 2}))
    with pytest.raises(UserError, match="9 weights are missing"):
        load_policy(grown, CONFIG)

    unknown = save_model(tmp_path / "unknown")
    (unknown / "config.json").write_text('{"model_type": "no_such_type"}')
    with pytest.raises(UserError, match="no causal LM could be loaded"):
        load_policy(unknown, CONFIG)


def test_a_tokenizer_that_cannot_end_a_text_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    (folder / "generation_config.json").unlink()
    for name, key in (("config.json", "eos_token_id"), ("tokenizer_config.json", "eos_token")):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | {key: None}))
    with pytest.raises(UserError, match="end-of-text"):
        load_policy(folder, CONFIG)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_quantisation_without_a_gpu_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    save_model(tmp_path)
    for kind in ("int8", "nf4"):
        with pytest.raises(UserError, match=f"quantisation = {kind} needs a GPU"):
            load_policy(tmp_path, CONFIG.model_copy(update={"quantisation": kind}))


def test_a_hub_model_that_cannot_be_reached_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    config = CONFIG.model_copy(update={"model": "no-such-owner/no-such-model"})
    for call in (lambda: load_policy(config.model, config), lambda: resolve_revision(config)):
        with pytest.raises(UserError, match="the hub cannot be reached") as caught:
            call()
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "words_said"),
    [
        (GatedRepoError, "gated; accept its licence .* `hf auth login`"),
        (RepositoryNotFoundError, "no such model, or it is private"),
        (RevisionNotFoundError, "no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses_is_explained(kind: type[HfHubHTTPError], words_said: str) -> None:
    response: Any = httpx.Response(403, request=httpx.Request("GET", "https://example.org"))

    def load() -> None:
        try:
            raise kind("no", response=response)
        except kind as error:  # transformers wraps the hub's error so
            raise OSError("You are trying to access a gated repo.\nLong text") from error

    with pytest.raises(UserError, match=words_said), explained("owner/model", "v9"):
        load()


def test_a_download_that_the_network_ends_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"timed out.*run again"), explained("owner/model", "main"):
        raise huggingface_hub.errors.HTTPError("the read operation timed out")


def test_an_absent_file_in_the_cache_counts_as_out_of_reach() -> None:
    with pytest.raises(UserError, match="cannot be reached"), explained("owner/model", "main"):
        raise LocalEntryNotFoundError("no")


def test_a_local_folder_needs_no_revision(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    config = CONFIG.model_copy(update={"model": str(folder), "revision": "v9"})
    assert resolve_revision(config) == "v9"
    assert load_policy(folder, config).eos_ids == [3, 1]
    shutil.rmtree(folder)


def add_code(folder: Path, name: str, classes: dict[str, Any], **more: str) -> Path:
    """Let the folder's settings name a Python file in it, which leaves a mark when it is run."""
    settings = json.loads((folder / name).read_text()) | {"auto_map": classes} | more
    (folder / name).write_text(json.dumps(settings))
    mark = folder.parent / "executed"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').write('x')\n")
    return mark


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_code_in_a_model_folder_is_refused_without_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    folder = save_model(tmp_path / "model")
    asked: list[str] = []

    def agree(text: str = "") -> str:
        asked.append(text)
        return "y"

    monkeypatch.setattr("builtins.input", agree)
    if part == "model":
        classes: dict[str, Any] = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
        mark = add_code(folder, "config.json", classes, model_type="its-own")
    else:
        classes = {"AutoTokenizer": [None, "own.Tokenizer"]}
        mark = add_code(folder, "tokenizer_config.json", classes, tokenizer_class="ItsOwn")
    with pytest.raises(UserError, match="Python code of its own, which is never run") as told:
        load_policy(folder, CONFIG)
    assert "\n" not in str(told.value)
    assert str(folder) in str(told.value)
    assert not asked
    assert not mark.exists()


def test_pickled_weights_are_refused_in_one_line_and_beside_safetensors_not_read(
    tmp_path: Path,
) -> None:
    folder = save_model(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    assert load_policy(folder, CONFIG).eos_ids == [3, 1]
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"pytorch_model\.bin: pickled weights can run code"
    ) as told:
        load_policy(folder, CONFIG)
    assert "\n" not in str(told.value)


def test_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    model = get_peft_model(
        LlamaForCausalLM.from_pretrained(folder),
        LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
    )
    model.save_pretrained(str(tmp_path / "adapter"))
    assert load_policy(folder, CONFIG, tmp_path / "adapter").eos_ids == [3, 1]
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter_model.st")
    torch.save({}, tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin: pickled weights can run code"):
        load_policy(folder, CONFIG, tmp_path / "adapter")


def test_a_hub_model_without_safetensors_is_one_sentence() -> None:
    with pytest.raises(UserError, match="has no safetensors"), explained("owner/model", "main"):
        raise OSError(
            "owner/model does not appear to have a file named model.safetensors and thus cannot "
            "be loaded with `safetensors`. Please do not set `use_safetensors=True`."
        )


@pytest.mark.parametrize(
    "asks",
    [
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
        "{% endif %}{{ date_string }}",
        "{% macro system() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}{{ system() }}",
    ],
)
def test_a_chat_template_that_prints_the_date_prints_the_same_one_on_every_day(
    tmp_path: Path, asks: str
) -> None:
    folder = save_model(tmp_path, chat=True)
    (folder / "chat_template.jinja").write_text(f"{asks} {CHAT}")
    policy = load_policy(folder, CONFIG)
    rendered = policy.tokenizer.apply_chat_template(
        [{"role": "user", "content": "what"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == "26 Jul 2024 <s><turn> user what <end> <turn> model"
    policy.tokenizer.save_pretrained(folder)
    again = load_policy(folder, CONFIG).tokenizer
    assert again.chat_template == policy.tokenizer.chat_template, "set once"


def test_a_chat_template_without_a_date_stays_as_it_is(tmp_path: Path) -> None:
    folder = save_model(tmp_path, chat=True)
    assert load_policy(folder, CONFIG).tokenizer.chat_template == CHAT
