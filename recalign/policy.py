"""A causal LM that is loaded, and how it is asked: prompts and answers as its token ids."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from recalign.errors import UserError
from recalign.user_text import UserText

if TYPE_CHECKING:  # seconds to import
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PLACE = "recalign-user-text"  # stands in the chat template where the user's text will be
DATE = "26 Jul 2024"  # of every day, for chat templates that print one; Llama's own default

WIDE_ENDS = "。！？"  # of sentences in languages without blanks, whatever comes next
WIDE_CLOSING = "”’」』）"  # what may follow such an end and still belongs to the sentence


class Lines:
    """Texts of one title a line as token ids; no token crosses the end of a line.

    So the ids of a history and of a title behind it are those of the longer history.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self.user_text = UserText(tokenizer)
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
            self.known[line] = self.user_text.encode(f"{line}\n")
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
        """Token ids up to where the answer starts; none of `text` becomes a control token.

        As one user turn of the chat template, which opens the model's turn (with "thinking"
        switched off where the template knows it), else as plain text behind whatever the tokenizer
        puts in front of one (a BOS or nothing). Raises UserError for a chat template that does not
        show the user's text once.
        """
        if self.lines:
            return self.lines.encode_prompt(text)
        before, after = self._turn if self.chats else (self._start, [])
        return [*before, *self._user_text.encode(text), *after]

    def encode_completion(self, text: str) -> list[int]:
        """Token ids of a text as the policy would have written it, its end included.

        After a plain prompt a text starts with a space; inside a chat turn it does not. None of
        `text` becomes a control token.
        """
        if self.lines:
            return self.lines.encode_completion(text)
        return [*self._user_text.encode(text if self.chats else f" {text}"), self._end]

    def harmless(self, text: str) -> str:
        """`text` for a server, which would obey control tokens: each is broken up by a space."""
        return self._user_text.broken_up(text)

    @cached_property
    def _user_text(self) -> UserText:
        return UserText(self.tokenizer)

    @cached_property
    def _turn(self) -> tuple[list[int], list[int]]:
        """The chat template's own tokens before and after the user's text."""
        parts = self._rendered([{"role": "user", "content": PLACE}], answers=True).split(PLACE)
        if len(parts) != 2:
            raise UserError(
                f"the tokenizer's chat template shows the user's text {len(parts) - 1} times, not "
                "once: set chat_template = never"
            )
        before, after = (self.tokenizer(part, add_special_tokens=False) for part in parts)
        return list(before["input_ids"]), list(after["input_ids"])

    @cached_property
    def _end(self) -> int:
        """What ends a text: in a chat the end of the model's turn, which some LLMs keep apart."""
        if self.chats:
            turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": PLACE}]
            _, found, behind = self._rendered(turns, answers=False).rpartition(PLACE)
            ids = self.tokenizer(behind, add_special_tokens=False)["input_ids"] if found else []
            for token in ids:
                if token in self.eos_ids:
                    return int(token)
        end = self.tokenizer.eos_token_id
        return self.eos_ids[0] if end is None else int(end)

    def _rendered(self, turns: list[dict[str, str]], *, answers: bool) -> str:
        """The chat template's text, with the model's turn opened where it `answers`."""
        text: Any = self.tokenizer.apply_chat_template(
            turns, add_generation_prompt=answers, tokenize=False, enable_thinking=False
        )
        return str(text)

    @cached_property
    def _start(self) -> list[int]:
        """What the tokenizer puts in front of a plain text."""
        probe: Any = self.tokenizer("a", return_special_tokens_mask=True)
        pairs = zip(probe["input_ids"], probe["special_tokens_mask"], strict=True)
        return [token for token, special in takewhile(lambda pair: pair[1], pairs)]

    def sentence_ends(self) -> list[int]:
        """The tokens that end a sentence or a line."""
        texts = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
        return [token for token, text in enumerate(texts) if _ends_a_sentence(text)]

    def decode(self, ids: list[int]) -> str:
        """The text of generated tokens, without special tokens."""
        text = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)


def _ends_a_sentence(text: str) -> bool:
    closed = " \"')"
    return (
        "\n" in text
        or text.rstrip(closed).endswith((".", "!", "?"))
        or text.rstrip(closed + WIDE_CLOSING).endswith(tuple(WIDE_ENDS))
    )


def in_lines(policy: Policy) -> Policy:
    """The same policy, asked in plain lines: an answer is closed by its line break.

    The embedded LLM's titles are one token each, which is a whole line.
    """
    lines = Lines(policy.tokenizer)
    return replace(
        policy, lines=lines, eos_ids=list(dict.fromkeys([*policy.eos_ids, *lines.ends()]))
    )
