"""An LLM that answers with titles: token ids of prompts and answers in either format."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # seconds to import
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LoadedPolicy(Protocol):
    """A causal LM as it was loaded, with the way it is asked a question."""

    @property
    def model(self) -> "PreTrainedModel": ...
    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase": ...
    @property
    def eos_ids(self) -> list[int]: ...
    @property
    def pad_id(self) -> int: ...
    def encode_prompt(self, text: str) -> list[int]: ...
    def encode_completion(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class TitlePolicy:
    """A model in evaluation mode, and how prompts and titles become its tokens."""

    model: "PreTrainedModel"  # or peft's PeftModel around one, where the adapter stays apart
    tokenizer: "PreTrainedTokenizerBase"
    pad_id: int
    stop_ids: list[int]  # tokens with which a generated title is over
    encode_prompt: Callable[[str], list[int]]
    encode_completion: Callable[[str], list[int]]

    def decode(self, ids: list[int]) -> str:
        """The title of generated tokens, without special tokens and outer blanks."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


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


def title_policy(loaded: LoadedPolicy, format: Literal["history", "candidates"]) -> TitlePolicy:
    """`loaded`, asked in this format.

    candidates: as any question, in the chat template if there is one, the answer closed by EOS.
    history: plain lines, the answer closed by its line break (the embedded LLM's titles are one
    token each, which is a whole line).
    """
    encode_prompt, encode_completion = loaded.encode_prompt, loaded.encode_completion
    stop_ids = list(loaded.eos_ids)
    if format == "history":
        lines = Lines(loaded.tokenizer)
        encode_prompt, encode_completion = lines.encode_prompt, lines.encode_completion
        stop_ids = list(dict.fromkeys([*stop_ids, *lines.ends()]))
    return TitlePolicy(
        loaded.model, loaded.tokenizer, loaded.pad_id, stop_ids, encode_prompt, encode_completion
    )
