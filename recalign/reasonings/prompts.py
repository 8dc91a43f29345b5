"""Prompts: a jinja2 template over the last items of a history."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import polars as pl

from recalign import templates
from recalign.errors import BadInputError, UserError
from recalign.reasonings.questions import NEXT_QUESTION, questions_of
from recalign.schemas import PROMPTS, check_table
from recalign.sequences import Sequences
from recalign.words import one_word

_PACKAGED = Path(__file__).parent / "templates"

FACETS = ("genre", "creator", "era", "mood")  # shown by `words`, where a data set has any of them


@dataclass(frozen=True)
class ShownItem:
    """What a template can say about one item."""

    title: str
    attributes: dict[str, list[str]]  # facet -> its values
    words: str | jinja2.Undefined  # one word per facet of the table: the item's first value


class Renderer:
    """A template over one `items` table: `renderer([3, 7])` is the prompt for those items.

    The template is jinja2 text over `history`, a list of ShownItem; `template` is a packaged name
    or a path. Raises UserError where there is neither, and where it cannot be read or parsed.
    """

    def __init__(self, template: str, items: pl.DataFrame) -> None:
        path = template_file(template)
        self.name = path.stem if path.parent == _PACKAGED else str(path)
        self.template = templates.compile_template(self.name, templates.read_template(path))
        self.items = _shown_items(items)

    def __call__(self, item_indices: Sequence[int], **more: object) -> str:
        """The prompt for these items, earliest first; it never ends in white space.

        `more` is what else the template may name. Raises UserError where the template uses
        something that is not there, or renders nothing or an empty question.
        """
        shown = [self.items[int(i)] for i in item_indices]
        text = templates.render_template(
            self.name, self.template, history=shown, next_question=NEXT_QUESTION, **more
        )
        if not all(questions_of(text)):
            raise UserError(f"prompt template {self.name} has nothing beside a next_question")
        return text


def template_file(name: str) -> Path:
    """The file of a packaged template, or of that path; UserError when there is neither."""
    return templates.template_file(name, _PACKAGED)


def facets_of(items: pl.DataFrame) -> list[str]:
    """Those of FACETS that any item has; if none, the table's own in order of first appearance."""
    names = items["attributes"].explode(empty_as_null=False).struct.field("name")
    found = names.drop_nulls().unique(maintain_order=True).to_list()
    return [facet for facet in FACETS if facet in found] or found


def _shown_items(items: pl.DataFrame) -> dict[int, ShownItem]:
    facets = facets_of(items)
    nothing = jinja2.StrictUndefined("it shows item attributes (words), but the items have none")
    shown = {}
    for index, title, attributes in items.select("item_index", "title", "attributes").iter_rows():
        values: dict[str, list[str]] = {}
        for attribute in attributes or []:
            values.setdefault(attribute["name"], []).append(attribute["value"])
        words = " ".join(one_word(values.get(facet, [""])[0]) for facet in facets)
        title = title.replace(NEXT_QUESTION, " ")
        shown[index] = ShownItem(title, values, words if facets else nothing)
    return shown


def render_prompts(
    render: Renderer,
    sequences: Sequences,
    users: np.ndarray,
    cutoffs: np.ndarray,
    history_items: int,
) -> pl.DataFrame:
    """One prompt per user from the last `history_items` positions below its cutoff (`PROMPTS`).

    users, cutoffs: int [U]. Raises BadInputError for a user without an item below the cutoff.
    """
    padded, lengths = sequences.until(users, cutoffs, history_items)
    if len(users) and lengths.min() < 1:
        user = int(users[lengths.argmin()])
        raise BadInputError(f"user {user} has no interaction before the prompt's cutoff")
    shown = [row[:length].tolist() for row, length in zip(padded, lengths, strict=True)]
    stops = np.minimum(cutoffs, sequences.lengths[users])
    table = pl.DataFrame(
        {
            "user_index": users,
            "cutoff": cutoffs,
            "first_position": stops - lengths,
            "items": shown,
            "prompt": [render(one) for one in shown],
        },
        schema=PROMPTS,
    )
    return check_table(table, PROMPTS, "prompts")
