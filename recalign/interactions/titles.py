"""Titles and attributes as people read them: entities resolved, articles in front, one sentence."""

import html
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import isfinite
from typing import Any

Attribute = dict[str, str]

_ARTICLE = re.compile(
    r"([^()]+), (The|An?|Les?|La|L'|Il|Lo|Gli|I|El|Los|Las|Der|Die|Das|Den|Det|Une?|O|Os|De|Het)"
    r"(?= \(|\)|$)"
)
_BARE_ARTICLE = re.compile(r"(.+), (The|An|Les?|La|L'|Il|Gli|El|Los|Las|Der|Die|Das|Une)$")
"""What can only be an article where no year says that this is a film: 'Vitamin, A' is none."""
_YEAR = re.compile(r"\((1[89]\d\d|20\d\d)(?:[-/]\s*\d*)?\)(?:\s*\([A-Z]+\))?\s*$")


def paired(text: str) -> str:
    """Two-part code points (as Python 2 wrote emoji) as one; a part left alone becomes U+FFFD."""
    if text.isascii() or not any("\ud800" <= mark <= "\udfff" for mark in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean(text: str) -> str:
    """HTML entities resolved, runs of white space as one blank, always valid Unicode."""
    if not text.isascii() or "&" in text:
        text = html.unescape(paired(text))
    return " ".join(text.split())


def era(title: str) -> str | None:
    """The decade of the year that ends the title: 'Heat (1995)' is of the '1990s'."""
    year = _YEAR.search(title)
    return f"{year.group(1)[:3]}0s" if year else None


def decade(year: str) -> str | None:
    """'1990s' of a year or a date that starts with it; None for what is not of 1800 to 2099."""
    found = re.match(r"(1[89]\d|20\d)\d\b", year.strip())
    return f"{found.group(1)}0s" if found else None


def spoken(title: str) -> str:
    """'Heat, The (1995)' as 'The Heat (1995)', and 'Jungle Book, The' as 'The Jungle Book'."""
    if ", " not in title:
        return title

    def in_front(match: re.Match[str]) -> str:
        words, article = match.groups()
        blank = "" if article.endswith("'") else " "
        return f"{article}{blank}{words}"

    return (_ARTICLE if _YEAR.search(title) else _BARE_ARTICLE).sub(in_front, title)


def item_text(title: str, names: Iterable[str], values: Iterable[str]) -> str:
    """'Heat (1995): genre Action and Crime; era 1990s', what the text encoder reads.

    `names` and `values` are those of the item's attributes.
    """
    facets = _facets(tuple(names), tuple(values))
    return f"{spoken(title)}: {facets}" if facets else spoken(title)


@lru_cache(maxsize=4096)
def _facets(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """'genre Action and Crime; era 1990s'; many items have the same."""
    grouped: dict[str, list[str]] = {}
    for name, value in zip(names, values, strict=True):
        grouped.setdefault(name, []).append(value)
    return "; ".join(f"{name} {_listed(several)}" for name, several in grouped.items())


def _listed(values: list[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"


def attributes(name: str, value: Any) -> list[Attribute]:
    """One attribute per distinct value in text, a number, or lists of them nested to any depth.

    Text is split at '|' (MovieLens writes 'Action|Crime'); a NaN is none, as a data frame has it
    for a gap in a column of numbers.
    """
    if isinstance(value, str) and "|" not in value:
        single = clean(value)
        return [{"name": name, "value": single}] if single else []
    distinct = dict.fromkeys(clean(part) for text in _flat(value) for part in text.split("|"))
    return [{"name": name, "value": part} for part in distinct if part]


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple | set):
        for part in sorted(value, key=str) if isinstance(value, set) else value:
            yield from _flat(part)
    elif value is not None and (not isinstance(value, float) or isfinite(value)):
        yield str(int(value) if isinstance(value, float) and value.is_integer() else value)
