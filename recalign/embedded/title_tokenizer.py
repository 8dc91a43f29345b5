"""The embedded LLM's tokenizer: one token per title, so that a history is a line of items."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from recalign.embedded.word_tokenizer import SPECIAL, wrapped


def title_tokenizer(titles: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are the titles; line breaks separate them and have no token.

    `titles` is what `distinct_titles` gives: the item at place i has token i + 3. No token is
    added around a text, and there is no chat template.
    """
    special = [f"\n{word}" for word in SPECIAL]  # a title has no line break and may be "<s>"
    vocabulary = {word: token for token, word in enumerate([*special, *titles[1:]])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    return wrapped(tokenizer, special)
