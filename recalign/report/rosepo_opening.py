"""How RosePO's page opens: its claims, each with what its interval shows."""

from collections.abc import Mapping, Sequence

import polars as pl

from recalign.metric_columns import CATALOGUE, Metric, cells
from recalign.report.content import Cell, DataSet, Figure, Grid, Opening
from recalign.report.forest import forest
from recalign.report.result_lines import Line, bounds, metric_cards
from recalign.report.sections import HOLLOW, with_data
from recalign.report.wording import VERDICTS, Tone, plural, signed, tone_of

HELPFUL = Metric("uniform", "HR", 1)
LIFT = Metric(CATALOGUE, "popularity lift")
SHOWN = (HELPFUL, Metric("popularity", "HR", 1), Metric(CATALOGUE, "NDCG", 10), LIFT)
"""Metrics of the claims: RosePO's own protocol, its harder lists, the full catalogue, and harm."""
N_DRAWN = 12  # claims in the opening's picture; of more, only the answers to the first question
EPS = "eps is the oracle's estimate of how likely a rejected item is really preferred"
TERMS = (
    "Candidate lists hold the item that was taken next among drawn others, and HR@1 is how often "
    f"it comes first; {EPS}; SFT continued is the SFT model fine-tuned further for as many steps, "
    "on the chosen items of the pairs alone or on as many fresh ones; popularity lift is how much "
    "more popular what is recommended is than what was taken (mean log, 0: equally)."
)
ANSWERS: dict[Tone, str] = {
    "better": "Yes, a gain is shown", "worse": "No, a loss is shown",
    "same": "No difference is shown", "": "Too few users to tell",
}  # fmt: skip


def opening(contrasts: pl.DataFrame, data: DataSet, n_pairs: Mapping[str, int]) -> Opening:
    """The answer to the first question, the picture of the claims, and all claims in a table.

    contrasts: RESULTS with `question`, as `told_intervals` are; n_pairs: chosen items with
    something rejected for each, by strategy.
    """
    told = HELPFUL.lines(contrasts)
    lines = told.to_dicts()
    first = [line for line in lines if line["question"] == lines[0]["question"]]
    tones = {tone_of(line) for line in first}
    drawn = told if len(lines) <= N_DRAWN else told.head(len(first))
    picture = forest(drawn, HELPFUL)
    by_metric = cells(contrasts.filter(question=lines[0]["question"], row=lines[0]["row"]))
    shown = [one for one in SHOWN if (lines[0]["row"], one) in by_metric]
    sets = ", ".join(f"{strategy}: {plural(n, 'pair')}" for strategy, n in n_pairs.items())
    lede = (
        f"{with_data(data)} a language model that names the next item (SFT) was aligned on pairs "
        f"of the item taken and items rejected for it ({sets}, held-out ones included); {EPS}."
    )
    caption = f"How far each row lies from its control, and the 95 % interval. {HOLLOW}"
    return Opening(
        lede,
        verdict(first),
        tones.pop() if len(tones) == 1 else "",
        Figure(picture, caption) if picture else None,
        metric_cards([by_metric[lines[0]["row"], one] for one in shown]),
        f"{lines[0]['row']}, against {lines[0]['base']}:",
        _claim_grid(lines),
        [TERMS],
    )


def verdict(answers: Sequence[Line]) -> str:
    """A question of the method, and what the lines that answer it show."""
    where = "in HR@1 of the candidate lists"
    if len(answers) == 1:
        return f"{answers[0]['question']} {ANSWERS[tone_of(answers[0])]} {where}."
    tones = [tone_of(line) for line in answers]
    too_few = f", of {n} there are too few users to tell" if (n := tones.count("")) else ""
    return (
        f"{answers[0]['question']} Of {len(answers)} comparisons {where} "
        f"{tones.count('better')} show a gain, {tones.count('worse')} a loss, and "
        f"{tones.count('same')} no difference{too_few}."
    )


def _claim_grid(lines: Sequence[Line]) -> Grid:
    """Claim, difference, interval and verdict, in the headline metric."""
    rows = []
    for line in lines:
        tone = tone_of(line)
        claim = Cell(line["question"], f"{line['row']}, against {line['base']}")
        said = Cell(VERDICTS[tone], tone=tone)
        rows.append([claim, Cell(signed(line["difference"]), tone=tone), Cell(bounds(line)), said])
    header = ["Claim", "Difference in HR@1", "95 % interval", "Verdict"]
    note = (
        "HR@1 of the candidate lists, paired by user. The intervals are not widened for the "
        "number of claims: of twenty that hold nothing, one may still seem to."
    )
    return Grid(header, rows, "Every claim", note, stacks=True)
