"""The sentences of the embedded policy, written from facet values and read back."""

import re
from collections.abc import Mapping, Sequence

from recalign.words import one_word

KNOWN_FACETS = ("genre", "era", "mood", "creator")  # in the order of their sentences
MAX_SENTENCES = 4
SENTENCES = {"genre": "Enjoys {}.", "era": "Favours {} works.", "mood": "Mood {}.",
             "creator": "Follows {}."}  # fmt: skip
OTHER_SENTENCE = "Likes {facet} {}."

_WORD = r"[^\s.;=]+"
_VALUES = rf"(?P<values>{_WORD}(?: and {_WORD})?)"
_PATTERNS = {
    facet: re.compile(re.escape(sentence).replace(r"\{\}", _VALUES))
    for facet, sentence in SENTENCES.items()
} | {"": re.compile(rf"Likes (?P<facet>{_WORD}) {_VALUES}\.")}


def facet_order(facets: Sequence[str]) -> list[str]:
    """The facets that get a sentence, in order: the known ones, then others by name; at most 4."""
    known = [facet for facet in KNOWN_FACETS if facet in facets]
    others = sorted(facet for facet in set(facets) if facet not in KNOWN_FACETS)
    return [*known, *others][:MAX_SENTENCES]


def write_reasoning(values: Mapping[str, Sequence[str]]) -> str:
    """One sentence per facet of `values` (one or two words each), in the order given.

    "Enjoys War and Thriller. Favours 1970s works. Mood dark. Follows Marlow."
    """
    return " ".join(
        SENTENCES.get(facet, OTHER_SENTENCE).format(" and ".join(words), facet=one_word(facet))
        for facet, words in values.items()
    )


def parse_reasoning(text: str) -> dict[str, list[str]] | None:
    """The values each facet is given in `text`; None where it does not follow the grammar.

    Facets may come in any order, but each only once and with one or two different values.
    """
    found: dict[str, list[str]] = {}
    rest = text.strip()
    while rest:
        matches = ((facet, pattern.match(rest)) for facet, pattern in _PATTERNS.items())
        facet, match = next(((f, m) for f, m in matches if m), ("", None))
        if match is None:
            return None
        facet = facet or match["facet"]
        values = match["values"].split(" and ")
        if facet in found or len(set(values)) < len(values):
            return None
        found[facet] = values
        rest = rest[match.end() :]
        if rest and not rest.startswith(" "):
            return None
        rest = rest[1:]
    return found or None
