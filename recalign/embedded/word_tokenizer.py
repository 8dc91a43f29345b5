"""The embedded policy's own tokenizer: one token per word, rare values become 'other'."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from recalign.embedded.grammar import SENTENCES, parse_reasoning

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
OTHER = "other"  # stands for every word without a token
FREE_TEXT_WORDS = 10  # times max_values words get tokens where a text lists no attributes
ITEM_SEPARATOR = " ; "
PROMPT_END = "="
_GRAMMAR_WORDS = [*re.findall(r"[A-Za-z]+|\.", " ".join(SENTENCES.values())), "Likes", "and"]
_SPLITTER = pre_tokenizers.Sequence(
    [
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Split(Regex(r"\.$"), "isolated"),
        pre_tokenizers.Split(Regex(r"^="), "isolated"),  # "= Enjoys" and "=Enjoys" are equal
    ]
)


def build_tokenizer(
    prompts: list[str], reasonings: list[str], max_values: int
) -> PreTrainedTokenizerFast:
    """A word-level tokenizer; of each attribute the `max_values` most frequent values get tokens.

    An attribute is a column of a prompt of the form "a b c ; a b c =", or a facet of a reasoning
    that follows the grammar; other texts count as one attribute with ten times as many values.
    Words split at blanks, and a full stop at the end of a word is a token of its own that
    decoding glues back. No token is added around a text, and there is no chat template.
    """
    words = [*SPECIAL, OTHER, "none", ITEM_SEPARATOR.strip(), PROMPT_END, *_GRAMMAR_WORDS]
    for name, counts in sorted(_attribute_values(prompts, reasonings).items()):
        most = max_values * (FREE_TEXT_WORDS if name == "" else 1)
        words += sorted(counts, key=lambda word: (-counts[word], word))[:most]
    vocabulary = {word: token for token, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=OTHER))
    tokenizer.pre_tokenizer = _SPLITTER
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # glues " ." to "."
    return wrapped(tokenizer)


def wrapped(tokenizer: Tokenizer, special: Sequence[str] = SPECIAL) -> PreTrainedTokenizerFast:
    """`tokenizer`, whose first tokens are `special`, for transformers."""
    pad, bos, eos, unk = special
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        clean_up_tokenization_spaces=False,
    )


def _attribute_values(prompts: list[str], reasonings: list[str]) -> dict[str, Counter[str]]:
    """How often each word occurs, by prompt column ("0", "1", ...), facet, or "" for free text."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for prompt in prompts:
        rows = [row.split() for row in prompt.removesuffix(PROMPT_END).split(ITEM_SEPARATOR)]
        if len({len(row) for row in rows}) == 1 and prompt.endswith(" " + PROMPT_END):
            for column, values in enumerate(zip(*rows, strict=True)):
                counts[str(column)].update(values)
        else:
            counts[""].update(_words(prompt))
    for reasoning in reasonings:
        found = parse_reasoning(reasoning)
        for facet, words in (found or {"": _words(reasoning)}).items():
            counts[facet].update(words)
            if found and facet not in SENTENCES:  # written as "Likes category X."
                counts["facet"][facet] += 1
    return dict(counts)


def _words(text: str) -> list[str]:
    return [word for word, _ in _SPLITTER.pre_tokenize_str(text)]
