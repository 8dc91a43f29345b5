"""Leaks planted into the real stages: each stops the run, names user and row, commits nothing."""

import re
import shutil

import numpy as np
import polars as pl
import pytest

import tasks.reasonings
from flows.dpo4rec import stages
from recalign.errors import LeakageError
from recalign.sequences import Sequences
from tests.tasks.tiny_run import CONFIG, direct

ROW = 7  # row of the prompts, and here also the user: every user of this world is prompted


def stopped(root, stage):
    """The error that ends a run without artifacts of `stage` and later; proves where it ended."""
    walk = direct(root)
    order = ["interactions", "splits", "oracle", "policy", "reasonings", "recommender"]
    kept = order[: order.index(stage)]
    for folder in root.iterdir():
        if not folder.name.startswith(".") and folder.name not in kept:
            shutil.rmtree(folder)
    with pytest.raises(LeakageError) as caught:
        stages(walk, CONFIG)
    assert [label.split(" ")[0] for label in walk.done] == kept
    assert {path.parent.parent.name for path in root.glob("*/[!.]*/manifest.json")} == set(kept)
    assert [path.parent.name for path in root.glob("*/.draft-*")] == [stage]
    assert not list(root.glob(f"{stage}/.draft-*/*.*"))  # nor any output of the refused draft
    return str(caught.value)


def cutoff_too_late(render, shown, sequences, users, cutoffs, n):
    return render(shown, sequences, users, one_more(cutoffs), n)


def items_too_late(render, shown, sequences, users, cutoffs, n):
    """Claims the right cut-off, but shows an item more."""
    late = render(shown, sequences, users, one_more(cutoffs), n)
    return late.with_columns(cutoff=pl.Series(cutoffs, dtype=pl.Int32))


def items_moved(render, shown, sequences, users, cutoffs, n):
    """Claims the right cut-off and the right positions, but shows the items one place later."""
    right = render(shown, sequences, users, cutoffs, n)
    late = render(shown, sequences, users, one_more(cutoffs), n)
    return right.with_columns(late["items"], late["prompt"])


def text_too_late(render, shown, sequences, users, cutoffs, n):
    """All columns are right, but the text was written from a later history."""
    right = render(shown, sequences, users, cutoffs, n)
    return right.with_columns(render(shown, sequences, users, one_more(cutoffs), n)["prompt"])


def one_more(cutoffs):
    return cutoffs + (np.arange(len(cutoffs)) == ROW)


@pytest.mark.parametrize(
    ("leak", "told"),
    [
        (cutoff_too_late, "its cut-off is position"),
        (items_too_late, "lists 6 items for positions"),
        (items_moved, "shows item"),
        (text_too_late, "its text is not what positions"),
    ],
)
def test_a_prompt_that_ends_one_item_too_late_stops_the_run(copy, monkeypatch, leak, told):
    render = tasks.reasonings.render_prompts
    monkeypatch.setattr(tasks.reasonings, "render_prompts", lambda *a: leak(render, *a))
    message = stopped(copy, "reasonings")
    assert re.match(rf"prompts, row {ROW}, user {ROW}: {told}", message)


def cut_too_late(before, sequences, stops):
    return before(sequences, stops + (np.arange(len(stops)) == ROW))


def last_item_from_the_future(before, sequences, stops):
    """As many items as allowed, but the last of them is the one that follows."""
    right = before(sequences, stops)
    items = right.items.copy()
    items[right.offsets[ROW + 1] - 1] = sequences.slice(ROW, stops[ROW], stops[ROW] + 1)[0]
    return Sequences(right.offsets, items, right.n_items)


@pytest.mark.parametrize("stage", ["oracle", "policy", "recommender"])
@pytest.mark.parametrize(
    ("leak", "told"),
    [(cut_too_late, "was fitted on positions below"), (last_item_from_the_future, "saw item")],
)
def test_a_fit_that_sees_one_item_too_many_stops_the_run(copy, monkeypatch, stage, leak, told):
    before = Sequences.before
    monkeypatch.setattr(Sequences, "before", lambda *a: leak(before, *a))
    message = stopped(copy, stage)
    assert re.match(rf"{stage}, row {ROW}, user {ROW}: {told}", message)
