"""Runnable examples of model cards: each is tested as it stands, inside the exported folder."""

from recalign.export.llm import BASE, AskedIn, Base

WHOLE = """
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

folder = "."  # this one
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
"""
ADAPTER = """
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

folder = "."  # this one
tokenizer = AutoTokenizer.from_pretrained(folder)
base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, folder)
"""
ENCODED: dict[AskedIn, str] = {
    "text": 'inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)',
    "lines": 'text = (tokenizer.bos_token or "") + prompt + "\\n"  # a title a line, oldest first\n'
    'inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False,\n'
    "                   return_token_type_ids=False)",
    "chat": 'inputs = tokenizer.apply_chat_template([{"role": "user", "content": prompt}],\n'
    "    add_generation_prompt=True, enable_thinking=False, return_dict=True,\n"
    '    return_tensors="pt")',
}
WRITTEN = """
written = model.generate(**inputs, generation_config=GenerationConfig.from_pretrained(folder))
new = written[0, inputs["input_ids"].shape[1]:]
print(tokenizer.decode(new, skip_special_tokens=True).strip())
"""


def llm_example(asking: AskedIn, prompt: str, base: Base | None) -> str:
    """How to load an exported LLM with transformers alone, and have it answer `prompt`.

    base: what an adapter stands on; None for a whole LLM.
    """
    loading = ADAPTER.format(base=_source(base)) if base else WHOLE
    if asking == "lines":
        prompt = prompt.removesuffix("\n")  # the code closes the last title itself
    return f"{loading}prompt = {prompt!r}\n{ENCODED[asking]}{WRITTEN}"


def _source(base: Base) -> str:
    """What `from_pretrained` is given for it inside the exported folder."""
    if base.lies_here:
        return f'folder + "/{BASE}"'
    return f"{str(base.weights)!r}, revision={base.revision!r}"


RECOMMENDER = """
from pathlib import Path

import numpy as np
import polars as pl
import torch
from recalign.oracle.inference import states_of
from recalign.oracle.storage import load_oracle
from recalign.recommender.encoder import SentenceEncoder
from recalign.recommender.storage import load_recommender
from recalign.sequences import Sequences

folder = Path(".")  # this one
items = pl.read_parquet(folder / "items.parquet")
history, text = [3, 1, 2], {text!r}  # item_index, oldest first; what the LLM wrote
sequences = Sequences(np.array([0, len(history)]), np.array(history), items.height)
oracle, recommender = load_oracle(folder)[0], load_recommender(folder)[0]
state = states_of(oracle, sequences, np.array([0]), np.array([len(history)]))
vector = torch.from_numpy(SentenceEncoder({encoder!r}).encode([text]))
scores = recommender.scores(state, vector[:, None])[0, 0]
scores[[0, *history]] = -torch.inf  # padding, and what is taken already
print(items[scores.topk(5).indices.numpy() - 1]["title"].to_list())
"""
ORACLE = """
from pathlib import Path

import numpy as np
import polars as pl
import torch
from recalign.oracle.inference import states_of
from recalign.oracle.storage import load_oracle
from recalign.sequences import Sequences

folder = Path(".")  # this one
items = pl.read_parquet(folder / "items.parquet")
history = [3, 1, 2]  # item_index, oldest first
sequences = Sequences(np.array([0, len(history)]), np.array(history), items.height)
oracle, _ = load_oracle(folder)
state = states_of(oracle, sequences, np.array([0]), np.array([len(history)]))
scores = (state @ oracle.item_matrix().T + oracle.bias)[0]
scores[[0, *history]] = -torch.inf  # padding, and what is taken already
print(items[scores.topk(5).indices.numpy() - 1]["title"].to_list())
"""
