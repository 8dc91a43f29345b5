"""The aligned LLM as an ordinary Hugging Face folder: whole, or an adapter on its base."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recalign.export.base_files import copy_base
from recalign.policy import PLACE, Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BASE = "base"  # folder of the weights under an adapter that no hub has
AskedIn = Literal["chat", "lines", "text"]


@dataclass(frozen=True)
class Base:
    """What an adapter stands on: a folder of this machine, or a hub id at a commit."""

    weights: str | Path
    revision: str = "main"

    @property
    def lies_here(self) -> bool:
        """Whether it is a folder, which is copied beside the adapter as no hub may have it."""
        return Path(self.weights).is_dir()


@dataclass(frozen=True)
class Greedy:
    """How long a text may be, and the tokens that end it."""

    max_new_tokens: int
    ends: list[int]


def asking_of(policy: Policy) -> AskedIn:
    """How prompts reach it: a chat turn, one title a line, or plain text."""
    if policy.lines:
        return "lines"
    return "chat" if policy.chats else "text"


def save_llm(policy: Policy, folder: Path, base: Base, greedy: Greedy, *, merge: bool) -> None:
    """Write weights (safetensors only), tokenizer, chat template and generation settings.

    base: what lies under a policy whose adapter stays apart. `merge` adds the adapter into the
    weights, which may not be quantised; else it is written alone, beside a copy of a base that only
    this machine has.
    """
    from peft import PeftModel

    model: Any = policy.model
    apart = isinstance(model, PeftModel)
    if apart and merge:
        model = model.merge_and_unload()
    elif apart and base.lies_here:
        copy_base(Path(base.weights), folder / BASE)
    _settle_generation(policy, model, folder, greedy)
    if apart and not merge:
        model.save_pretrained(str(folder), save_embedding_layers=False)
        _name_base(folder, base)
    else:
        model._keys_to_ignore_on_save = set(model.all_tied_weights_keys)  # saved once
        model.save_pretrained(folder)
    tokenizer = policy.tokenizer
    if not policy.chats:  # it has learned to answer plain prompts
        tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)


def _name_base(folder: Path, base: Base) -> None:
    """In the adapter's settings: a hub id and its commit, or the folder beside it."""
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["base_model_name_or_path"] = BASE if base.lies_here else str(base.weights)
    settings["revision"] = None if base.lies_here else base.revision
    settings["target_modules"] = sorted(settings["target_modules"])
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _settle_generation(
    policy: Policy, model: "PreTrainedModel", folder: Path, greedy: Greedy
) -> None:
    """Greedy texts that end where the policy's do; kept beside the weights."""
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=greedy.max_new_tokens,
        eos_token_id=greedy.ends,
        pad_token_id=policy.pad_id,
        bos_token_id=policy.tokenizer.bos_token_id,
    )
    model.generation_config = settings
    settings.save_pretrained(folder)


def texts_of_folder(
    folder: Path, asking: AskedIn, prompts: Sequence[str], dtype: str = "float32"
) -> list[str]:
    """What the exported folder writes, read by transformers (and peft) alone; greedy."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = GenerationConfig.from_pretrained(folder)
    adapter = folder / "adapter_config.json"
    source, revision = str(folder), None
    if adapter.is_file():
        named = json.loads(adapter.read_text())
        name, revision = named["base_model_name_or_path"], named["revision"]
        source = str(folder / BASE) if name == BASE else name
    model: Any = AutoModelForCausalLM.from_pretrained(
        source, revision=revision or "main", dtype=getattr(torch, dtype)
    )
    if adapter.is_file():
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder))
    written = []
    for prompt in prompts:
        ids = torch.tensor([prompt_ids(tokenizer, asking, prompt)])
        made = model.eval().generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
        )
        new = made[0, ids.shape[1] :]
        written.append(str(tokenizer.decode(new, skip_special_tokens=True)).strip())
    return written


def prompt_ids(tokenizer: Any, asking: AskedIn, prompt: str) -> list[int]:
    """A prompt's tokens, as the model card tells to make them.

    As recalign does, control tokens that the prompt spells out are read as letters, all but those
    of `UserText.obeyed`, which transformers alone cannot take apart.
    """
    if asking == "text":
        return list(tokenizer(prompt, split_special_tokens=True)["input_ids"])

    def ids(text: str, *, split: bool = True) -> list[int]:
        encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=split)
        return list(encoded["input_ids"])

    if asking == "lines":
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        lines = prompt.removesuffix("\n").split("\n")
        return [*start, *(token for line in lines for token in ids(f"{line}\n"))]
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": PLACE}],
        add_generation_prompt=True, tokenize=False, enable_thinking=False,
    )  # fmt: skip
    before, after = turn.split(PLACE)
    return [*ids(before, split=False), *ids(prompt), *ids(after, split=False)]
