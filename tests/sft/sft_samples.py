"""Users who walk round a circle of items, so that the next one is known, and how they are asked."""

from pathlib import Path

import numpy as np
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from recalign.config import SftConfig, TitleModelConfig, TitlePromptConfig
from recalign.embedded.first_title_model import first_model
from recalign.embedded.title_tokenizer import title_tokenizer
from recalign.policy import Lines, Policy, in_lines
from recalign.progress import Progress, silent
from recalign.sequences import Sequences
from recalign.sft.examples import Asking, Examples, history_examples, next_item_examples
from recalign.sft.questions import title_windows
from recalign.titles.prompts import TitlePrompts
from recalign.training.run import TrainingRun

N_ITEMS, N_USERS, LENGTH, STOP = 12, 60, 11, 9
TITLES = ["", *(f"Title {i}" for i in range(1, N_ITEMS + 1))]
CONFIG = SftConfig(
    bootstrap=TitleModelConfig(hidden=16, layers=1, heads=2), history_items=4, batch_size=16,
    micro_batch_size=8, epochs=4, evaluations=4, learning_rate=3e-2,
)  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    return title_tokenizer(TITLES)


def asking(history_items: int = 4) -> Asking:
    prompts = TitlePrompts(TitlePromptConfig(history_items=history_items), TITLES)
    lines = Lines(tokenizer())
    return Asking(prompts.text, TITLES, lines.encode_prompt, lines.encode_completion)


def circle() -> Sequences:
    """Every user takes LENGTH items in turn from a start of their own: i, i + 1, ..., 12, 1, ..."""
    starts = np.random.default_rng(0).integers(N_ITEMS, size=N_USERS)
    items = (starts[:, None] + np.arange(LENGTH)) % N_ITEMS + 1
    return Sequences(np.arange(N_USERS + 1) * LENGTH, items.ravel(), N_ITEMS)


def examples() -> tuple[Examples, Examples]:
    """Trained on positions below STOP, validated on the item at STOP."""
    sequences = circle()
    seen = sequences.before(np.full(N_USERS, STOP))
    train = history_examples(seen, title_windows(seen.lengths, 4), asking())
    users = np.arange(N_USERS)
    positions = np.full(N_USERS, STOP)
    return train, next_item_examples(sequences, users, positions, [()] * N_USERS, asking())


def model() -> LlamaForCausalLM:
    return first_model(CONFIG.bootstrap, tokenizer(), 4, seed=0)


def policy() -> Policy:
    return in_lines(Policy(model(), tokenizer(), "never", eos_ids=[2], pad_id=0))


def run(place: Path, progress: Progress = silent) -> TrainingRun:
    return TrainingRun("sft", place / "work", place / "model", progress)
