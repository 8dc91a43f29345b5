"""A prompt of several questions: asked one by one, one text to rewards, learned from apart."""

from dataclasses import dataclass, field

import polars as pl
import pytest

from recalign.config import SamplingConfig
from recalign.errors import UserError
from recalign.reasonings.generation import write_shard
from recalign.reasonings.prompts import Renderer
from recalign.reasonings.questions import NEXT_QUESTION, by_question, questions_of
from recalign.schemas import COMPLETIONS, PROMPTS
from recalign.writer import Asked, Written

ITEMS = pl.DataFrame(
    {
        "item_index": [1, 2],
        "title": ["Alien", f"Odd{NEXT_QUESTION}Title"],
        "attributes": [[{"name": "genre", "value": "War"}], []],
    },
    schema_overrides={"item_index": pl.Int32},
)


@dataclass
class Echo:
    """Answers with the question, the stream and the sample; counts what it was asked."""

    read: list[tuple[str, int]] = field(default_factory=list)

    def write(self, prompts, users, asked):
        self.read += list(zip(prompts, users, strict=True))
        for prompt, user in zip(prompts, users, strict=True):
            told = [f"{prompt} is\n answered by {asked.stream} {s}" for s in asked.samples]
            if prompt == "bad":
                told[-1] = "no"
            yield [
                Written(user, s, text, len(text.split()), finished=True)
                for s, text in zip(asked.samples, told, strict=True)
            ]


def prompts(*texts):
    n = len(texts)
    return pl.DataFrame(
        {"user_index": range(n), "cutoff": [1] * n, "first_position": [0] * n,
         "items": [[1]] * n, "prompt": texts},
        schema=PROMPTS,
    )  # fmt: skip


def test_every_question_is_asked_with_a_stream_of_its_own_and_answers_become_one_text():
    writer, told = Echo(), []
    table = write_shard(
        writer,
        prompts(NEXT_QUESTION.join(["one", "two"]), "alone", NEXT_QUESTION.join(["one", "bad"])),
        Asked(SamplingConfig(), n_samples=1, greedy=True, stream="fit"),
        progress=lambda done, total, note="": told.append((done, total)),
    )
    assert writer.read == [("one", 0), ("alone", 1), ("one", 2), ("two", 0), ("bad", 2)]
    assert table["reasoning"].to_list()[:4] == [
        "one is answered by fit -1\ntwo is answered by fit, question 2 -1",
        "one is answered by fit 0\ntwo is answered by fit, question 2 0",
        "alone is\n answered by fit -1", "alone is\n answered by fit 0",
    ]  # fmt: skip
    assert table["n_tokens"].to_list() == [14, 14, 6, 6, 14, 7]
    assert table["malformed"].to_list() == [None] * 5 + ["short"]  # one bad answer spoils a text
    assert told[-1] == (2, 3)  # two of three were asked the second question
    assert told == sorted(told)


def test_each_question_is_learned_from_with_its_own_answers():
    rows = pl.DataFrame(
        {
            "user_index": [3, 4], "position": [None, None],
            "prompt": [f"who?{NEXT_QUESTION}when?", "alone?"],
            "completions": [["Ann\nnow", "Bob\nlater", "Bob\nnow"], ["one\nline", "two"]],
            "samples": [[0, 1, 2], [0, 1]], "rewards": [[0.1, 0.9, 0.5], [0.2, 0.1]],
            "chosen": [1, 0], "rejected": [[0], [1]], "smoothing": [[0.0], [0.0]],
        },
        schema=COMPLETIONS,
    )  # fmt: skip
    parts = by_question(rows)
    assert parts.select("user_index", "prompt", "completions").rows() == [
        (3, "who?", ["Ann", "Bob", "Bob"]),
        (3, "when?", ["now", "later", "now"]),
        (4, "alone?", ["one\nline", "two"]),
    ]
    assert parts["rewards"].to_list() == [[0.1, 0.9, 0.5]] * 2 + [[0.2, 0.1]]
    assert by_question(rows.tail(1)).equals(rows.tail(1))


def test_a_title_holds_no_question_and_an_empty_question_is_refused(tmp_path):
    asked = questions_of(Renderer("movies_by_factor", ITEMS)([1, 2]))
    assert len(asked) == 4
    assert all("- Alien (War)\n- Odd Title\n" in question for question in asked)
    assert "Which directors and actors does" in asked[1]
    own = tmp_path / "own.txt"
    for text in ("{{ next_question }}{{ history[0].title }}", "Who? {{ next_question }}\n"):
        own.write_text(text)
        with pytest.raises(UserError, match="nothing beside a next_question"):
            Renderer(str(own), ITEMS)([1])
