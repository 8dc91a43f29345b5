"""Runnable examples of model cards: each is tested as it stands, inside the exported folder."""

from recalign.export.llm import BASE, AskedIn, Base
from recalign.policy import PLACE

WHOLE = """
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

folder = "."  # this one
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
"""
ADAPTER = """
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

folder = "."  # this one
tokenizer = AutoTokenizer.from_pretrained(folder)
base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, folder)
"""
ENCODED: dict[AskedIn, str] = {
    "text": """
# split_special_tokens: what a title spells out stays a title, and is no control token
ids = tokenizer(prompt, split_special_tokens=True)["input_ids"]
""",
    "lines": """
# split_special_tokens: what a title spells out stays a title, and is no control token
ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
for title in prompt.split("\\n"):  # a title a line, oldest first
    ids += tokenizer(
        title + "\\n", add_special_tokens=False, split_special_tokens=True
    )["input_ids"]
""",
    "chat": f"""
turn = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "{PLACE}"}}],
    add_generation_prompt=True, tokenize=False, enable_thinking=False,
)
before, after = (
    tokenizer(part, add_special_tokens=False)["input_ids"]
    for part in turn.split("{PLACE}")
)
# split_special_tokens: what a title spells out stays a title, and is no control token
text = tokenizer(prompt, add_special_tokens=False, split_special_tokens=True)["input_ids"]
ids = before + text + after
""",
}
WRITTEN = """
asked = torch.tensor([ids])
settings = GenerationConfig.from_pretrained(folder)
written = model.generate(asked, attention_mask=torch.ones_like(asked), generation_config=settings)
print(tokenizer.decode(written[0, len(ids):], skip_special_tokens=True).strip())
"""


def llm_example(asking: AskedIn, prompt: str, base: Base | None) -> str:
    """How to load an exported LLM with transformers alone, and have it answer `prompt`.

    base: what an adapter stands on; None for a whole LLM.
    """
    loading = ADAPTER.format(base=_source(base)) if base else WHOLE
    if asking == "lines":
        prompt = prompt.removesuffix("\n")  # the code closes the last title itself
    return f"{loading}prompt = {prompt!r}\n{ENCODED[asking].strip()}{WRITTEN}"


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
