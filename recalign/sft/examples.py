"""What the LLM is fine-tuned on: token ids, and which of them it is trained to predict."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recalign.sequences import Sequences
from recalign.sft.questions import TitleWindow

logger = logging.getLogger(__name__)

MANY = 0.1  # share of the examples: where more are too long, it is said


@dataclass(frozen=True)
class Asking:
    """How items become the tokens of a prompt, and one item those of its answer."""

    text: Callable[[Sequence[int], Sequence[int]], str]
    """Prompt of a history (oldest first) and of candidates, as item indices."""
    titles: list[str]
    """Title of each item_index; place 0 is padding."""
    encode_prompt: Callable[[str], list[int]]
    encode_completion: Callable[[str], list[int]]

    def prompt(self, history: Sequence[int], candidates: Sequence[int] = ()) -> list[int]:
        """Token ids up to where the answer starts."""
        return self.encode_prompt(self.text(history, candidates))

    def answer(self, item: int) -> list[int]:
        """Token ids of the item's title, its end included."""
        return self.encode_completion(self.titles[item])


@dataclass(frozen=True)
class Examples:
    """n token sequences; of sequence b the tokens from place `first[b]` on are trained on."""

    ids: list[list[int]]
    first: list[int]
    left_out: int = 0
    """Examples that are not among the n because they are longer than allowed."""
    not_drawn: int = 0
    """Examples that are not among the n because fewer were asked for."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_trained(self) -> int:
        """Tokens that are trained on."""
        return sum(len(ids) - first for ids, first in zip(self.ids, self.first, strict=True))

    def tell_too_long(self, name: str, max_length: int) -> None:
        """A warning where many of these, `name`, are left out for their length."""
        total = len(self) + self.left_out
        if self.left_out > MANY * total:
            logger.warning(
                "sft.max_length: %d of %d %s examples are left out, as they have more than %d"
                " tokens: raise it, or lower sft.history_items; prompts are not cut in the test",
                self.left_out, total, name, max_length,
            )  # fmt: skip

    def no_longer_than(self, max_length: int) -> "Examples":
        """Without the sequences of more than `max_length` tokens, which are counted, never cut."""
        kept = [i for i, ids in enumerate(self.ids) if len(ids) <= max_length]
        left_out = self.left_out + len(self) - len(kept)
        ids, first = [self.ids[i] for i in kept], [self.first[i] for i in kept]
        return Examples(ids, first, left_out, self.not_drawn)


def history_examples(
    sequences: Sequences, windows: Sequence[TitleWindow], asking: Asking, not_drawn: int = 0
) -> Examples:
    """The windows' titles as tokens, the last of which are trained on; none is cut."""
    ids, first = [], []
    for user, start, trained, stop in windows:
        items = sequences.slice(user, start, stop).tolist()
        ids.append(asking.prompt(items[:-1]) + asking.answer(items[-1]))
        first.append(max(1, len(asking.prompt(items[: trained - start]))))
    return Examples(ids, first, not_drawn=not_drawn)


def next_item_examples(
    sequences: Sequences,
    users: np.ndarray,
    positions: np.ndarray,
    candidates: Sequence[Sequence[int]],
    asking: Asking,
) -> Examples:
    """The item of `users[b]` at `positions[b]` as the one target behind what came before it.

    candidates[b]: items shown with the question; empty in the history format.
    """
    ids, first = [], []
    for user, position, shown in zip(users.tolist(), positions.tolist(), candidates, strict=True):
        prompt = asking.prompt(sequences.slice(user, 0, position).tolist(), shown)
        ids.append(prompt + asking.answer(int(sequences.slice(user, position, position + 1)[0])))
        first.append(len(prompt))
    return Examples(ids, first)
