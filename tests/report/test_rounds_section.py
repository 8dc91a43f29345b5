"""What the page says beside the rounds: why there are no more, and what later guards stand on."""

from dataclasses import replace

import polars as pl

from recalign.report.dpo4rec import dpo4rec_page
from tests.report.sample_pages import dpo4rec_run

LATER = "may be flattered, validation and test are not."


def note_of(run):
    (section,) = [one for one in dpo4rec_page(run).sections if one.short == "Rounds"]
    return section.note


def test_a_refused_round_is_told_with_its_reason_and_no_round_without_one():
    told = "There is no further round: too few users."
    assert note_of(replace(dpo4rec_run(), refused="too few users")).endswith(told)
    assert "no further round" not in note_of(dpo4rec_run())


def test_later_guards_are_said_to_see_users_of_the_alignment_but_where_users_are_kept_apart():
    run = dpo4rec_run()
    assert LATER in note_of(run)
    once = run.results.unique(["row", "measure"], maintain_order=True)
    lists = {"lists": pl.lit("reranked"), "k": pl.lit(5)}
    apart = once.with_columns(value.cast(once.schema[name]).alias(name)
                              for name, value in lists.items())  # fmt: skip
    assert LATER not in note_of(replace(run, results=apart))
