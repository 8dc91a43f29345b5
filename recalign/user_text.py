"""Text of users as token ids: a title is data, whatever it says, and never controls the model."""

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # seconds to import
    from transformers import PreTrainedTokenizerBase


class UserText:
    """A tokenizer for titles, histories and answers, which gives no control token.

    Control tokens are the special ones (ends of text, turns of a chat) and those added tokens that
    the chat template itself speaks with, such as <think>. A text that spells one out is read as
    its letters. (transformers reads such letters as the token: huggingface/transformers#29279.)
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        template = str(tokenizer.chat_template or "")
        added = tokenizer.added_tokens_decoder.items()
        control = {
            token: word.content
            for token, word in added
            if word.special or (word.content.strip() and word.content in template)
        }
        control |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        longest_first = sorted(control.values(), key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        ends = {tokenizer.bos_token_id, tokenizer.eos_token_id}
        unknown = {tokenizer.unk_token_id} - ends  # stands for words of any text
        self._control = {token: word for token, word in control.items() if token not in unknown}

    @property
    def obeyed(self) -> list[str]:
        """Control tokens that transformers obeys in a text also with split_special_tokens."""
        return [word for token, word in self._control.items() if token in self._ids(word)]

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, nothing added around it."""
        ids = self._ids(text)
        if self._control.keys().isdisjoint(ids):
            return ids
        # A word that some vocabularies hold, or an added token that is not marked as special: cut
        # behind its first letter. What still looks like one (a single letter) is left out.
        cuts = [0, *(found.start() + 1 for found in self._spelled.finditer(text)), len(text)]
        parts = [text[start:stop] for start, stop in pairwise(cuts)]
        return [id_ for part in parts for id_ in self._ids(part) if id_ not in self._control]

    def broken_up(self, text: str) -> str:
        """`text` with a space behind the first letter of every control token that it spells out."""
        return self._spelled.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _ids(self, text: str) -> list[int]:
        encoded: Any = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(encoded["input_ids"])
