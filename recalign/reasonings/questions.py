"""Several questions about a user instead of one: asked one by one, their answers are one text.

KAR asks an LLM about factors of a preference (arXiv 2306.10933). A template puts
`{{ next_question }}` between its questions; rewards are for the whole text, and each answer is
learned from as the answer to its own question.
"""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from recalign.schemas import COMPLETIONS, check_table
from recalign.writer import Asked

NEXT_QUESTION = "\x1e"  # ASCII's separator of records, which no text has
BETWEEN_ANSWERS = "\n"  # answers lose their own line breaks


def questions_of(prompt: str) -> list[str]:
    """The questions of a prompt in order, most often the one."""
    if NEXT_QUESTION not in prompt:
        return [prompt]
    return [question.strip() for question in prompt.split(NEXT_QUESTION)]


def asked_as(asked: Asked, number: int) -> Asked:
    """How question `number` (from 0) is asked: with random streams of its own."""
    return replace(asked, stream=f"{asked.stream}, question {number + 1}") if number else asked


def one_text(answers: Sequence[str]) -> str:
    """The text that is made of a user's answers, one a line; of one answer, that answer."""
    if len(answers) == 1:
        return answers[0].strip()
    return BETWEEN_ANSWERS.join(" ".join(answer.split()) for answer in answers)


def by_question(completions: pl.DataFrame) -> pl.DataFrame:
    """COMPLETIONS with a row for each question of a prompt, whose completions are its answers."""
    lines = [
        row | {"prompt": question, "completions": list(answers)}
        for row in completions.iter_rows(named=True)
        for question, answers in _asked_and_answered(row["prompt"], row["completions"])
    ]
    return check_table(pl.DataFrame(lines, schema=COMPLETIONS), COMPLETIONS, "completions")


def _asked_and_answered(prompt: str, texts: Sequence[str]) -> Sequence[tuple[str, Sequence[str]]]:
    questions = questions_of(prompt)
    if len(questions) == 1:
        return [(prompt, texts)]
    answers = zip(*(text.split(BETWEEN_ANSWERS) for text in texts), strict=True)
    return list(zip(questions, answers, strict=True))
