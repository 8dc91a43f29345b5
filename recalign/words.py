"""A value as one word: in prompts, and in the sentences of the embedded policy that read them."""

import re

MISSING = "none"  # stands for a value that is not there


def one_word(value: str) -> str:
    """`value` with hyphens for blanks and for the signs that prompts and sentences use."""
    return re.sub(r"[\s.;=]+", "-", value).strip("-") or MISSING
