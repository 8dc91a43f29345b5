"""The embedded LLM's tokenizer: one token per title, so that a history is a line of items."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def title_tokenizer(titles: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are the titles; line breaks separate them and have no token.

    `titles` is what `distinct_titles` gives: the item at place i has token i + 3. No token is
    added around a text, and there is no chat template.
    """
    vocabulary = {word: token for token, word in enumerate([*SPECIAL, *titles[1:]])}
    pad, bos, eos, unk = SPECIAL
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        clean_up_tokenization_spaces=False,
    )
