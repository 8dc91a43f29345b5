"""A sweep's page: which setting is best, by how much, for how much, and how sure that is."""

from collections.abc import Sequence

import polars as pl

from recalign.config import ShownSetting
from recalign.errors import NO_SIGNAL
from recalign.metric_columns import FEWEST_USERS, Metric
from recalign.report.content import Card, Figure, Opening, Page, Section
from recalign.report.leaderboard_tables import (
    LeaderboardRun,
    Line,
    as_told,
    axis_of,
    comparison_grid,
    number_of,
    row_grid,
    run_grid,
    settings_grid,
    verdict_of,
)
from recalign.report.seed_plot import Spot, setting_plot
from recalign.report.wording import (
    RANKED,
    TOO_FEW,
    VERDICTS,
    Tone,
    count,
    interval,
    metric,
    plural,
    signed,
)

N_CARDS = 4
SAID: dict[Tone, str] = {
    "better": "beats", "worse": "is worse than", "same": "is not shown to differ from",
    "": "is not yet compared fairly with",
}  # fmt: skip
INTERVALS = (
    "Intervals hold for other users and other training seeds of the same data, windows and "
    "oracle: users are resampled, the same for all seeds and both sides of a difference; seeds "
    "are a random effect, whose size so few can hardly tell: two seeds make them wide. With one "
    f"seed they are about users alone. Of fewer than {FEWEST_USERS} users none is told, and no "
    "claim is made."
)
SELECTED = (
    "The signal guard ended some runs before any reward: means and intervals are about the "
    "training seeds whose texts passed it, and say nothing of the others"
)


def leaderboard_page(run: LeaderboardRun) -> Page:
    """The leaderboard, its comparisons, plots, every row and every run."""
    run = as_told(run)
    primary = run.metrics[0]
    sections = [
        Section("Settings", "Settings", _about(run), grids=[settings_grid(run)],
                figures=_plots(run)),
        Section("Every comparison, corrected for their number", "Comparisons",
                _corrected(run.comparisons, primary), grids=[comparison_grid(run.comparisons)]),
        Section("Every row", "Rows", ROWS, grids=[row_grid(run.board, primary)]),
        Section("Runs", "Runs", RUNS, grids=[run_grid(run)]),
    ]  # fmt: skip
    return Page(run.title, run.created, opening(run), sections, intervals=INTERVALS)


ROWS = (
    "Means over seeds and users; a row that is the same in several settings stands here once. "
    "These intervals are not corrected for the number of lines: read no claim out of them."
)
RUNS = (
    'CPU time counts every stage behind a row, whichever run computed it; "this run alone" counts '
    "the stages that no other run on this page uses. Tokens are those of the reasonings, pairs "
    "those aligned on."
)


def opening(run: LeaderboardRun) -> Opening:
    """What was run, and what the comparisons on fresh seeds allow to say."""
    primary, lines = run.metrics[0], run.confirmed.to_dicts()
    picture = setting_plot(_spots(run, primary), primary.label, axis_of(run.settings))
    caption = "Mean and 95 % interval; a hollow point is one training seed."
    label = run.chosen[0] if run.chosen else run.settings[0].label
    return Opening(
        _lede(run),
        _verdict(run),
        verdict_of(lines[0]) if lines else "",
        Figure(picture, caption),
        [_card(line) for line in lines[:N_CARDS]],
        f"{label}: {lines[0]['row']}, in {primary.label}:" if lines else "",
        notes=[*_failures(run.cells), *_apart(run), *run.notes],
    )


def _verdict(run: LeaderboardRun) -> str:
    """The first comparison of the setting to trust, in a sentence."""
    if run.confirmed.is_empty():
        if run.chosen is None:
            return ""
        label, seed = run.chosen
        return f"{label} has the best validation on seed {seed}; no other seed confirms it yet."
    line = run.confirmed.row(0, named=True)
    subject = line["row"] if run.chosen is None else f"{line['setting']}: {line['row']}"
    if line["n_users"] < FEWEST_USERS:
        return (
            f"How {subject} differs from {_against(line)} cannot be told on "
            f"{count(line['n_users'])} users: they are too few for an interval."
        )
    said, name = SAID[verdict_of(line)], run.metrics[0].label
    kind = "training" if run.chosen is None else "other training"
    over = f"over {plural(line['n_seeds'], f'{kind} seed')}"
    return f"{subject} {said} {_against(line)} in {name} {over}."


def _lede(run: LeaderboardRun) -> str:
    done = run.cells.drop_nulls("run")
    text = (
        f"{plural(run.board['setting'].n_unique(), 'setting')} with "
        f"{plural(done['seed'].n_unique(), 'training seed')}, {plural(done.height, 'run')}, "
        f"{count(run.board['n_users'].item(0))} users, the same in all."
    )
    measured = {one.label: None for one in run.validated_by.values()}
    if len(measured) > 1:
        return (
            f"{text} No setting was chosen: their validations are in different metrics "
            f"({', '.join(measured)})."
        )
    if run.chosen is None:
        choice = run.board["setting"].n_unique() > 1 and done["validation"].null_count()
        return f"{text} No setting was chosen: validation was not judged." if choice else text
    label, seed = run.chosen
    text = f"{text} {label} was chosen by its validation on seed {seed}; "
    scored = run.cells.filter(seed=seed).drop_nulls("validation")["setting"]
    if missing := [one.label for one in run.settings if one.label not in scored]:
        text += f"not chosen from, without a validation on that seed: {', '.join(missing)}; "
    if n := run.confirmed.height:
        text += (
            "the verdict and cards are over the other seeds, corrected for their own "
            f"{plural(n, 'comparison')}; "
        )
    return f"{text}the tables are over all seeds."


def _card(line: Line) -> Card:
    """One comparison with all that it leaves open."""
    tone = verdict_of(line)
    seeds = f"By seed {', '.join(signed(one) for one in line['per_seed'])}."
    least = (
        f" One of {metric(line['detectable'])} would be found in 80 % of such sweeps (at 5 %, "
        "before correction)."
    )
    few = line["n_users"] < FEWEST_USERS
    return Card(
        f"against {_against(line)}",
        signed(line["difference"]),
        VERDICTS[tone] or f"{TOO_FEW if few else 'one seed'}: no claim",
        interval(line["low"], line["high"], with_sign=True),
        tone,
        seeds + (least if tone == "same" else ""),
    )


def _against(line: Line) -> str:
    own = line["base_setting"] == line["setting"]
    return str(line["base"] if own else line["base_setting"])


def _failures(cells: pl.DataFrame) -> list[str]:
    failed = cells.drop_nulls("error")
    if failed.is_empty():
        return []
    runs = [f"{line['setting']}, seed {line['seed']}: {line['error']}"
            for line in failed.iter_rows(named=True)]  # fmt: skip
    told = [f"Failed, and missing here: {'; '.join(runs)}"]
    if failed["error"].str.starts_with(NO_SIGNAL).any():
        told.append(SELECTED)
    return told


def _apart(run: LeaderboardRun) -> list[str]:
    """Why no setting is compared with the first, where seeds are the reason."""
    first = run.settings[0].label
    seeds = dict(run.cells.drop_nulls("run").group_by("setting").agg("seed").iter_rows())
    others = [set(own) for label, own in seeds.items() if label != first]
    if not others or any(own & set(seeds[first]) for own in others):
        return []
    return [f"Not compared with {first}: no other setting was run with one of its training seeds"]


def _about(run: LeaderboardRun) -> str:
    first = run.settings[0].label
    text = "A heading sorts the table. Below a figure stands its 95 % interval"
    if len(run.settings) > 1:
        text += f"; the other settings are compared with {first}"
    return f"{text}. Colour only where the comparison stands once corrected (Holm)."


def _corrected(comparisons: pl.DataFrame, primary: Metric) -> str:
    return (
        f"{plural(comparisons.height, 'comparison')} in {primary.label}. p is two-sided; Holm's p "
        "holds for all of them together. Beside a null stands the smallest true difference that "
        "would be found in 80 % of such sweeps (at 5 %, before correction)."
    )


def _plots(run: LeaderboardRun) -> list[Figure]:
    """Further metrics, and the difference of every setting to its own base row."""
    axis = axis_of(run.settings)
    figures = [
        Figure(setting_plot(_spots(run, one), one.label, axis), RANKED[one.lists])
        for one in run.metrics[1:3]
    ]
    compared = [
        Spot(line["setting"], line["difference"], line["low"], line["high"], line["per_seed"],
             _place(run.settings, line["setting"]))
        for line in run.comparisons.iter_rows(named=True)
        if line["base_setting"] == line["setting"]
        and line["question"] == f"Is it better than {line['base']}?"
    ]  # fmt: skip
    if compared:
        title = f"Difference in {run.metrics[0].label} to the own base"
        figures.insert(0, Figure(setting_plot(compared, title, axis, differs=True)))
    return figures


def _spots(run: LeaderboardRun, one: Metric) -> list[Spot]:
    return [
        Spot(line["setting"], line["mean"], line["low"], line["high"], line["per_seed"],
             _place(run.settings, line["setting"]))
        for line in one.lines(run.board).filter(headline=True).iter_rows(named=True)
    ]  # fmt: skip


def _place(settings: Sequence[ShownSetting], label: str) -> float | None:
    if not axis_of(settings):
        return None
    values = next(one.values for one in settings if one.label == label)
    return number_of(values[0].split("=", 1)[1])
