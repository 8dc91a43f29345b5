"""Open a causal LM (hub id or local folder, quantised or not, with or without a LoRA adapter)."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from recalign.config import LoadedModelConfig
from recalign.errors import UserError, install
from recalign.llm.hub_errors import explained
from recalign.llm.published import is_gguf, source_of
from recalign.model_files import refuse_pickles
from recalign.policy import DATE, Policy

TODAY = "strftime_now"  # with which a chat template asks what day it is
UNDATED = f"{{%- macro {TODAY}(format) -%}}{DATE}{{%- endmacro -%}}"


def load_policy(
    folder_or_id: str | Path,
    config: LoadedModelConfig,
    adapter: Path | None = None,
    device: str = "cpu",
    *,
    trainable: bool = False,
) -> Policy:
    """Load model and tokenizer; `config.revision` counts for hub ids only.

    Of the model's own generation_config only its special tokens are kept: how texts are sampled
    is ours to say. A chat template that prints today's date is given a fixed one.

    In float32 the adapter is merged into the weights. It stays apart (a PeftModel) at lower
    precision, where merging would round its small changes away, and when it is `trainable`; only
    then is the adapter held in float32.
    Raises UserError, with what to do, for a gated, missing or unreachable model, a folder without
    a complete causal LM, a tokenizer that cannot end a text, and quantisation without
    bitsandbytes or a GPU.
    """
    source = source_of(folder_or_id)
    _refuse_bad_folder(source)
    quantisation = _quantisation(config, device)
    revision = None if Path(source).is_dir() else config.revision
    dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    disable_progress_bar()  # reading files takes no time; downloads still show theirs
    with explained(source, revision):
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision or "main", trust_remote_code=False
        )
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision or "main",
            dtype=dtype,
            quantization_config=quantisation,
            device_map={"": device} if quantisation or device == "meta" else None,
            attn_implementation="sdpa",
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    _freeze_date(tokenizer)
    model, report = loaded
    model.generation_config = _plain_generation(model)
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{source}: {len(missing)} weights are missing ({missing[0]}, ...), so parts of the "
            "model would be random; is it a complete causal LM?"
        )
    if adapter is not None:
        merge = quantisation is None and dtype == torch.float32 and not trainable
        model = _with_adapter(model, adapter, merge, trainable)
    if quantisation is None:
        model = model.to(device)
    eos_ids = _eos_ids(model, tokenizer, source)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(eos_ids[0])
    pad_id = tokenizer.pad_token_id
    return Policy(model.eval(), tokenizer, config.chat_template, eos_ids, int(pad_id))


def _refuse_bad_folder(source: str) -> None:
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{source}: no model here (config.json is missing)")
        refuse_pickles(folder)
    elif folder.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        kind = "a GGUF file is converted first" if is_gguf(source) else "no such folder"
        raise UserError(f"{source}: {kind}; give a model folder or a hub id (name/model)")


def _freeze_date(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a chat template that prints today's date print the same one on every day.

    Else a training that is taken up tomorrow has other prompts, and so have two stages.
    """
    template = tokenizer.chat_template
    if isinstance(template, str) and TODAY in template and not template.startswith(UNDATED):
        tokenizer.chat_template = UNDATED + template


def _quantisation(config: LoadedModelConfig, device: str) -> BitsAndBytesConfig | None:
    if config.quantisation == "none":
        return None
    wanted = f"quantisation = {config.quantisation}"
    if not (torch.cuda.is_available() and device.startswith("cuda")):
        raise UserError(f"{wanted} needs a GPU; set it to none to run on {device}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{wanted} needs bitsandbytes: {install('quant')}")
    if config.quantisation == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _with_adapter(
    model: PreTrainedModel, adapter: Path, merge: bool, trainable: bool
) -> PreTrainedModel:
    if not (adapter / "adapter_config.json").is_file():
        raise UserError(f"{adapter}: no adapter here (adapter_config.json is missing)")
    refuse_pickles(adapter)
    from peft import PeftModel  # late: most policies have no adapter

    try:
        # In float32, as PEFT would keep it, an adapter on bfloat16 weights reads half as fast.
        adapted = PeftModel.from_pretrained(
            model,
            str(adapter),
            is_trainable=trainable,
            autocast_adapter_dtype=trainable,
            torch_device=str(model.device),  # PEFT would read it onto any GPU that it finds
        )
    except (OSError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"{adapter}: the adapter does not fit the model: {first_line}") from None
    loaded: Any = adapted.merge_and_unload() if merge else adapted
    return loaded


def _plain_generation(model: PreTrainedModel) -> GenerationConfig:
    """Its special tokens, and none of the habits (temperature, penalties) that the model has."""
    own, plain = model.generation_config, GenerationConfig.from_model_config(model.config)
    if own is not None:
        plain.bos_token_id, plain.pad_token_id = own.bos_token_id, own.pad_token_id
        plain.eos_token_id = own.eos_token_id
    return plain


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str) -> list[int]:
    """The model's ends of text (one or a list in generation_config), then the tokenizer's."""
    listed = model.generation_config.eos_token_id if model.generation_config else None
    found = listed if isinstance(listed, list) else [listed]
    ids = [int(i) for i in dict.fromkeys([*found, tokenizer.eos_token_id]) if i is not None]
    if not ids:
        raise UserError(f"{source}: neither model nor tokenizer names an end-of-text token")
    return ids


def resolve_revision(config: LoadedModelConfig) -> str:
    """The commit that `config.revision` names on the hub now; as given for what is local."""
    if Path(source_of(config.model)).exists():
        return config.revision
    with explained(config.model, config.revision):
        settings = AutoConfig.from_pretrained(
            config.model, revision=config.revision, trust_remote_code=False
        )
    return getattr(settings, "_commit_hash", None) or config.revision
