"""A causal LM that is loaded, and how it is asked: prompts and answers as its token ids."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # seconds to import
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Lines:
    """Texts of one title a line as token ids; no token crosses the end of a line.

    So the ids of a history and of a title behind it are those of the longer history.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        start = tokenizer.bos_token_id
        self.start = [] if start is None else [int(start)]
        self.known: dict[str, list[int]] = {}

    def encode_prompt(self, text: str) -> list[int]:
        """The start token, if the tokenizer has one, and the ids of every line of `text`."""
        lines = text.removesuffix("\n").split("\n") if text else []
        return [*self.start, *(token for line in lines for token in self._line(line))]

    def encode_completion(self, text: str) -> list[int]:
        """The ids of the line that holds this one title."""
        return list(self._line(text))

    def _line(self, line: str) -> list[int]:
        if line not in self.known:
            encoded: Any = self.tokenizer(f"{line}\n", add_special_tokens=False)
            self.known[line] = encoded["input_ids"]
        return self.known[line]

    def ends(self) -> list[int]:
        """The tokens that end a line: all that hold a line break, or all tokens if none does."""
        every = range(len(self.tokenizer))
        if not self.tokenizer("\n", add_special_tokens=False)["input_ids"]:
            return list(every)
        texts = self.tokenizer.batch_decode([[token] for token in every])
        return [token for token, text in enumerate(texts) if "\n" in text]


@dataclass(frozen=True)
class Policy:
    """A model in evaluation mode and its tokenizer, which is sure to have a padding token."""

    model: "PreTrainedModel"  # or peft's PeftModel around one, where the adapter stays apart
    tokenizer: "PreTrainedTokenizerBase"
    chat_template: Literal["auto", "never"]
    eos_ids: list[int]  # every token that ends a text; there may be several
    pad_id: int
    lines: Lines | None = None  # where it is asked in plain lines instead of questions

    @property
    def chats(self) -> bool:
        """Whether prompts are wrapped in the tokenizer's chat template."""
        return self.chat_template == "auto" and bool(self.tokenizer.chat_template)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids up to where the answer starts.

        As one user turn of the chat template, which opens the model's turn (with "thinking"
        switched off where the template knows it), else as plain text with whatever the tokenizer
        puts in front of a text (a BOS or nothing); an EOS it may append is taken off.
        """
        if self.lines:
            return self.lines.encode_prompt(text)
        if self.chats:
            encoded: Any = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                enable_thinking=False,
            )
            return list(encoded["input_ids"])
        ids = list(self.tokenizer(text)["input_ids"])
        while len(ids) > 1 and ids[-1] in self.eos_ids:
            ids.pop()
        return ids

    def encode_completion(self, text: str) -> list[int]:
        """Token ids of a text as the policy would have written it, its end included.

        After a plain prompt a text starts with a space; inside a chat turn it does not.
        """
        if self.lines:
            return self.lines.encode_completion(text)
        written = text if self.chats else f" {text}"
        ids = list(self.tokenizer(written, add_special_tokens=False)["input_ids"])
        end = self.tokenizer.eos_token_id
        return [*ids, self.eos_ids[0] if end is None else int(end)]

    def decode(self, ids: list[int]) -> str:
        """The text of generated tokens, without special tokens."""
        text = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)


def in_lines(policy: Policy) -> Policy:
    """The same policy, asked in plain lines: an answer is closed by its line break.

    The embedded LLM's titles are one token each, which is a whole line.
    """
    lines = Lines(policy.tokenizer)
    return replace(
        policy, lines=lines, eos_ids=list(dict.fromkeys([*policy.eos_ids, *lines.ends()]))
    )
