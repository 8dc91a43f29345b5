"""What is wrong with a generated text, and how a table of texts looks as a whole."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import polars as pl

from recalign.config import AnswersConfig

Malformed = Literal["empty", "refusal", "repetition", "unfinished", "short", "ungrammatical"]

# Songs and films are called "I'm Sorry" or "I Can't Help Myself", and a text may list them: a
# refusal begins a text, a sentence or a clause AND goes on as titles do not.
_WHAT = (
    r"(?:this|that|these|those|an?|any|anything|the(?! way\b)|your|their|his|her|such|what|which"
    r"|who|how|whether|if|more|specific|personal|with|without|based|for|from|you (?:with|an?|any))"
)
_CANNOT = r"i (?:cannot|can't|can not|won't|will not)"
_DECLINES = (
    rf"(?:i(?:'m| am) (?:unable|not able) to\b|{_CANNOT} (?:help (?:you )?(?:with|by|in|to)\b"
    r"|(?:assist|comply)(?: (?:with|you|in)\b|[.!])"
    rf"|(?:provide|answer|fulfill?|determine|analy[sz]e|describe|create) {_WHAT}\b))"
)
_EXCUSES = (
    r"(?:i (?:can|could|do|did|have|need|was|am)(?:not|n't|'t)?\b|i'm (?:not|unable|just|only)\b"
    r"|(?:as an|there|it|this|that|the|you (?:did|gave|have)|your|without|no) )"
)
_SORRY = r"i(?:'m| am) (?:so |very |really |truly )?sorry"
_REGRETS = (
    rf"(?:{_SORRY} to (?:say|tell|inform)\b"
    rf"|{_SORRY},? (?:that )?(?:{_DECLINES}|i (?:don't|do not) (?:have|see|understand)\b)"
    rf"|(?:{_SORRY}|i apologi[sz]e),? (?:but|however),? {_EXCUSES}"
    rf"|(?:{_SORRY}|i apologi[sz]e) (?:for|about) (?:the|any|not|my)\b)"
)
REFUSALS = re.compile(
    rf"^\W*(?:{_SORRY}|i apologi[sz]e|{_CANNOT} (?:help(?: you)?|do (?:this|that|so)))[.!]"
    r"|(?:^|[.!?:]\s|\n)[\s\"'“*_-]*"
    r"(?:(?:and|but|so|however|therefore|unfortunately|regrettably|sorry),? )*"
    rf"(?:{_DECLINES}|{_REGRETS})"
    rf"|, (?:and |as |because |but |so )?{_DECLINES}"
    r"|(?<!such )\bas an ai(?:,|(?: assistant| (?:large )?(?:language )?model)\b)"
    r"|\bas a (?:large )?language model\b"
)
_REFUSAL_SPAN = 200  # first characters searched for a refusal: later such words are mostly quoted
_LONGEST_BLOCK = 30  # words; the longest run whose repetition counts as a loop
_SAME_SENTENCE = 3  # a sentence said this often is a loop too, even with others in between
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def check_text(
    text: str, finished: bool, config: AnswersConfig, parse: Callable[[str], bool] | None = None
) -> Malformed | None:
    """Why `text` cannot be used as a reasoning, or None; the first reason that applies.

    finished: False when it was cut at max_new_tokens. parse: says whether the text follows the
    grammar of the demonstrations, for a policy that was trained on them.
    """
    words = text.split()
    if not words:
        return "empty"
    if REFUSALS.search(text[:_REFUSAL_SPAN].lower().replace("’", "'")):
        return "refusal"
    if _loops(text):
        return "repetition"
    if not finished:
        return "unfinished"
    if len(words) < config.min_words:
        return "short"
    if parse is not None and not parse(text):
        return "ungrammatical"
    return None


def _loops(text: str) -> bool:
    """Whether a block of words stands three times in a row (four for one or two words)."""
    text = text.lower()
    parts = [part.strip() for part in re.split(r"[.!?\n。！？；]", text)]
    sentences = Counter(part for part in parts if len(part) > 1)  # "J.R.R.": initials are none
    if sentences and max(sentences.values()) >= _SAME_SENTENCE:
        return True
    words = re.findall(r"[^\s.,;:!?，。！？；：、]+", text)
    n_repeated = len(words) - len(set(words))
    for block in range(1, min(_LONGEST_BLOCK, n_repeated // 2) + 1):
        needed = block * (3 if block <= 2 else 2)  # words that must equal the one a block before
        run = 0
        for here, before in zip(words[block:], words, strict=False):
            run = run + 1 if here == before else 0
            if run == needed:
                return True
    return False


def text_report(reasonings: pl.DataFrame) -> dict[str, Any]:
    """Counts and lengths of a `reasonings` table, as plain JSON values.

    unique_share and duplicates are of sampled texts only, as the greedy one (sample -1) may equal a
    sample; malformed counts all.
    duplicates_within_user counts the samples that repeat an earlier sample of their user.
    """
    sampled = reasonings.filter(pl.col("sample") >= 0)
    n_sampled = sampled.height
    distinct_per_user = sampled.select("user_index", "reasoning").n_unique() if n_sampled else 0
    reasons = reasonings["malformed"].drop_nulls().value_counts().sort("malformed").rows()
    tokens = reasonings["n_tokens"].drop_nulls()
    words = reasonings["reasoning"].str.count_matches(r"\S+")
    return {
        "n": reasonings.height,
        "n_users": reasonings["user_index"].n_unique(),
        "mean_tokens": _mean(tokens),
        "token_quantiles": {f"{q:.2f}": tokens.quantile(q, "linear") or 0.0 for q in QUANTILES},
        "mean_words": _mean(words),
        "unique_share": sampled["reasoning"].n_unique() / n_sampled if n_sampled else 0.0,
        "duplicates_within_user": n_sampled - distinct_per_user,
        "malformed": dict(reasons),
        "malformed_share": 1 - reasonings["malformed"].null_count() / max(1, reasonings.height),
        "refusals": dict(reasons).get("refusal", 0),
    }


def _mean(values: pl.Series) -> float:
    return float(values.sum()) / len(values) if len(values) else 0.0
